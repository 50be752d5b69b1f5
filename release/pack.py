#!/usr/bin/env python3
"""Writes archives and container images whose bytes depend only on their contents.

pack.py archive FOLDER FILE.tar.gz      the folder with everything in it
pack.py image DOCKERFILE CONTEXT FILE.tar --tag NAME:TAG [--architecture ARCH] [--label NAME=VALUE]
                                        an image that `docker load`, `ctr images import` and skopeo read
pack.py index FILE.tar IMAGE.tar...     one image for several architectures, which skopeo reads
pack.py files IMAGE.tar                 the paths and sizes of the files in an image

A Dockerfile starts with `FROM scratch`; COPY, USER, EXPOSE, ENTRYPOINT and CMD may follow. All
times are SOURCE_DATE_EPOCH (seconds since 1970); the default is 0.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import platform
import sys
import tarfile
import time
from pathlib import Path, PurePosixPath

EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
OCI = "application/vnd.oci.image"
REF = "org.opencontainers.image.ref.name"


def tar(files):
    """An archive of `{path: (mode, bytes)}`: sorted, with its folders, and with fixed owners and times."""
    folders = {str(folder) for path in files for folder in PurePosixPath(path).parents if folder.name}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(folders | set(files)):
            entry = tarfile.TarInfo(path)
            entry.mtime = EPOCH
            if path in folders:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            else:
                entry.mode, content = files[path]
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def compress(content):
    out = io.BytesIO()
    # Without a file name and the current time in the header.
    with gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=EPOCH) as file:
        file.write(content)
    return out.getvalue()


def read(path):
    """The mode and the content of a file. The umask of the machine does not count."""
    return 0o755 if os.access(path, os.X_OK) else 0o644, path.read_bytes()


def archive(folder, out):
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    names = {str(PurePosixPath(folder.name, *path.relative_to(folder).parts)): read(path) for path in files}
    out.write_bytes(compress(tar(names)))


def parse(dockerfile):
    """The configuration of an image, and the source and destination of each COPY."""
    config, copies, lines = {}, [], []
    for number, line in enumerate(dockerfile.read_text().splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            lines.append((number, *line.split(maxsplit=1)))
    if not lines or [part.lower() for part in lines[0][1:]] != ["from", "scratch"]:
        raise ValueError(f"{dockerfile}: expected FROM scratch in the first line")
    for number, instruction, *rest in lines[1:]:
        value = rest[0] if rest else ""
        try:
            match instruction.upper():
                case "COPY":
                    source, destination = value.split()
                    if not destination.startswith("/"):
                        raise ValueError("the destination is no absolute path")
                    folder = destination.endswith("/")
                    copies.append((source, destination + Path(source).name if folder else destination))
                case "USER":
                    config["User"] = value
                case "EXPOSE":
                    config.setdefault("ExposedPorts", {})[f"{int(value)}/tcp"] = {}
                case "ENTRYPOINT" | "CMD":
                    words = json.loads(value)
                    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                        raise ValueError("expected a JSON array of strings")
                    config[instruction.capitalize()] = words
                case _:
                    raise ValueError("expected COPY, USER, EXPOSE, ENTRYPOINT or CMD")
        except ValueError as error:
            raise ValueError(f"{dockerfile}:{number}: {instruction} {value}: {error}") from None
    return config, copies


def descriptor(kind, content, blobs, **more):
    """Stores a blob, and describes it."""
    digest = hashlib.sha256(content).hexdigest()
    blobs[f"blobs/sha256/{digest}"] = content
    return {"mediaType": f"{OCI}.{kind}", "digest": f"sha256:{digest}", "size": len(content), **more}


def dump(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def layout(blobs, manifest, more):
    """The archive of an OCI image layout."""
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": [manifest]}
    files = {**blobs, "index.json": dump(index), "oci-layout": dump({"imageLayoutVersion": "1.0.0"}), **more}
    return tar({path: (0o644, content) for path, content in files.items()})


def qualified(tag):
    """The name that container engines give an image without a registry."""
    first, slash, _ = tag.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        return tag
    return f"docker.io/{tag}" if slash else f"docker.io/library/{tag}"


def image(dockerfile, context, out, tag, architecture, labels):
    config, copies = parse(dockerfile)
    if labels:
        config["Labels"] = labels
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(EPOCH))
    blobs, layers, diffs, history = {}, [], [], []
    for source, destination in copies:
        layer = tar({destination.lstrip("/"): read(context / source)})
        diffs.append(f"sha256:{hashlib.sha256(layer).hexdigest()}")
        layers.append(descriptor("layer.v1.tar+gzip", compress(layer), blobs))
        history.append({"created": created, "created_by": f"COPY {source} {destination}"})
    system = {"architecture": architecture, "os": "linux"}
    rootfs = {"type": "layers", "diff_ids": diffs}
    settings = {**system, "created": created, "config": config, "rootfs": rootfs, "history": history}
    settings = descriptor("config.v1+json", dump(settings), blobs)
    manifest = {"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "config": settings, "layers": layers}
    names = {REF: tag.rpartition(":")[2], "io.containerd.image.name": qualified(tag)}
    manifest = descriptor("manifest.v1+json", dump(manifest), blobs, platform=system, annotations=names)
    # For engines that read no OCI layout.
    path = lambda blob: "blobs/" + blob["digest"].replace(":", "/")
    docker = [{"Config": path(settings), "RepoTags": [tag], "Layers": [path(layer) for layer in layers]}]
    out.write_bytes(layout(blobs, manifest, {"manifest.json": dump(docker)}))


def contents(path):
    """The files of an image's archive, and the only entry of its index."""
    with tarfile.open(path) as archive:
        files = {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isfile()}
    (manifest,) = json.loads(files["index.json"])["manifests"]
    return files, manifest


def index(out, images):
    blobs, manifests, annotations = {}, [], {}
    for files, manifest in map(contents, images):
        blobs.update({name: blob for name, blob in files.items() if name.startswith("blobs/")})
        annotations = manifest.pop("annotations")
        manifests.append(manifest)
    manifests.sort(key=lambda manifest: manifest["platform"]["architecture"])
    nested = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": manifests}
    nested = descriptor("index.v1+json", dump(nested), blobs, annotations=annotations)
    out.write_bytes(layout(blobs, nested, {}))


def list_files(path):
    files, manifest = contents(path)
    manifest = json.loads(files["blobs/" + manifest["digest"].replace(":", "/")])
    for layer in manifest["layers"]:
        content = gzip.decompress(files["blobs/" + layer["digest"].replace(":", "/")])
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for entry in filter(tarfile.TarInfo.isfile, archive):
                print(f"/{entry.name} {entry.size}")


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("archive")
    command.add_argument("folder", type=lambda path: Path(path).resolve())
    command.add_argument("out", type=Path)
    command = commands.add_parser("image")
    command.add_argument("dockerfile", type=Path)
    command.add_argument("context", type=Path)
    command.add_argument("out", type=Path)
    command.add_argument("--tag", required=True)
    command.add_argument("--architecture", default=ARCHITECTURES.get(platform.machine(), platform.machine()))
    command.add_argument("--label", dest="labels", action="append", default=[])
    command = commands.add_parser("index")
    command.add_argument("out", type=Path)
    command.add_argument("images", type=Path, nargs="+")
    commands.add_parser("files").add_argument("path", type=Path)
    arguments = vars(parser.parse_args())
    run = {"archive": archive, "image": image, "index": index, "files": list_files}[arguments.pop("command")]
    if "labels" in arguments:
        arguments["labels"] = dict(label.split("=", 1) for label in arguments["labels"])
    try:
        run(**arguments)
    except (OSError, ValueError) as error:
        sys.exit(f"pack: {error}")


if __name__ == "__main__":
    main()
