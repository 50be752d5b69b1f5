#!/usr/bin/env python3
"""Prints the licenses of the crates in a program: `licenses.py TARGET PACKAGE...`.

Most licenses require that their text accompanies a program. Crates without a license file are
listed with their SPDX expression.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

FILE = re.compile(r"(licen[sc]e|copying|notice|copyright|unlicense)", re.IGNORECASE)
LINE = "=" * 80


def crates(target, packages):
    """The external crates that the packages link, for a platform."""
    command = ["cargo", "metadata", "--format-version=1", "--locked", f"--filter-platform={target}"]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    by_id = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    members = set(metadata["workspace_members"])
    open_ids = [id for id in members if by_id[id]["name"] in packages]
    linked = set()
    while open_ids:
        id = open_ids.pop()
        if id not in linked:
            linked.add(id)
            # A kind of None is a normal dependency; "dev" and "build" are not in the program.
            normal = [d for d in nodes[id]["deps"] if any(kind["kind"] is None for kind in d["dep_kinds"])]
            open_ids += [dependency["pkg"] for dependency in normal]
    return sorted((by_id[id] for id in linked - members), key=lambda crate: (crate["name"], crate["version"]))


def main():
    target, *packages = sys.argv[1:]
    texts = {}
    for crate in crates(target, packages):
        name = f"{crate['name']} {crate['version']} ({crate['license'] or 'see below'})"
        folder = Path(crate["manifest_path"]).parent
        files = sorted(path for path in folder.iterdir() if path.is_file() and FILE.match(path.name))
        for text in [path.read_text(errors="replace").strip() for path in files] or [""]:
            texts.setdefault(text, []).append(name)
    print("The programs contain these crates. Each list of crates precedes their license.")
    for text, names in sorted(texts.items(), key=lambda item: item[1]):
        print(LINE, *names, LINE, text or "No license file; see the expression in parentheses.", "", sep="\n")


if __name__ == "__main__":
    main()
