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
    """The external crates that the packages link on a platform."""
    options = [f"--package={package}" for package in packages]
    tree = ["cargo", "tree", "--locked", "--edges=normal", "--prefix=none", f"--target={target}", *options]
    linked = {tuple(line.split()[:2]) for line in output(tree).splitlines() if line}
    metadata = json.loads(output(["cargo", "metadata", "--format-version=1", "--locked"]))
    found = [crate for crate in metadata["packages"] if (crate["name"], f"v{crate['version']}") in linked]
    external = [crate for crate in found if crate["id"] not in metadata["workspace_members"]]
    return sorted(external, key=lambda crate: (crate["name"], crate["version"]))


def output(command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


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
