#!/usr/bin/env python3
"""Corrects an SBOM of cargo-cyclonedx: `sbom.py IN.json OUT.json COMPONENT... -- CARGO-TREE-OPTIONS`.

The tool lists optional crates that no feature enables, and the paths of this machine. The result
has the crates of `cargo tree`. A COMPONENT (`name=version`) is something else in the artifact, such
as the C library.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

CRATE = re.compile(r"(\S+) v(\S+)")


def linked(options):
    """The crates of the program and of its build scripts, as (name, version)."""
    command = ["cargo", "tree", "--locked", "--edges=normal,build", "--prefix=none", *options]
    tree = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {CRATE.match(line).groups() for line in tree.splitlines() if line}


def key(component):
    return component["name"], component["version"]


def main():
    separator = sys.argv.index("--")
    source, out, *extra = sys.argv[1:separator]
    bom = json.loads(Path(source).read_text().replace(f"path+file://{os.getcwd()}", "path+file:///dispatcher"))
    crates = linked(sys.argv[separator + 1 :])
    components = [component for component in bom["components"] if key(component) in crates]
    missing = crates - {key(component) for component in [*components, bom["metadata"]["component"]]}
    if missing:
        sys.exit(f"sbom: {source} lacks crates of the program: {sorted(missing)}")
    kept = {component["bom-ref"] for component in [*components, bom["metadata"]["component"]]}
    bom["dependencies"] = [
        {**node, "dependsOn": [ref for ref in node.get("dependsOn", []) if ref in kept]}
        for node in bom["dependencies"]
        if node["ref"] in kept
    ]
    for name, version in (item.split("=", 1) for item in extra):
        components.append({"type": "library", "bom-ref": f"{name}@{version}", "name": name, "version": version})
    bom["components"] = components
    Path(out).write_text(json.dumps(bom, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
