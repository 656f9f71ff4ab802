#!/usr/bin/env python3
"""Prints the licenses and copyright notices of everything that is linked into the program, as their licenses ask.

What is linked is what cargo resolves for the build's own platform without the dependencies of tests and builds; the texts
are those in the packages' own directories. SQLite, which libsqlite3-sys has the source of, is in the public domain.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

NOTICE = re.compile(r"^(licen[cs]e|copying|notice|copyright|unlicense)", re.IGNORECASE)


def said(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def linked(metadata):
    """The packages that the program is made of, itself not among them."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    seen, wanted = {root}, [root]
    while wanted:
        for dependency in nodes[wanted.pop()]["deps"]:
            ordinary = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            if ordinary and dependency["pkg"] not in seen:
                seen.add(dependency["pkg"])
                wanted.append(dependency["pkg"])
    seen.remove(root)
    found = [package for package in metadata["packages"] if package["id"] in seen]
    return sorted(found, key=lambda package: (package["name"], package["version"]))


def main():
    host = re.search(r"^host: (.*)$", said("rustc", "-vV"), re.M).group(1)
    cargo = os.environ.get("CARGO", "cargo")
    metadata = json.loads(said(cargo, "metadata", "--format-version=1", "--locked", "--filter-platform", host))
    texts = {}
    print("taskd contains these packages, each under the license that is named; the texts follow.\n")
    for package in linked(metadata):
        name = f"{package['name']} {package['version']}"
        if not package["license"]:
            sys.exit(f"{name} names no license")
        people = ", ".join(re.sub(r" *<.*?>", "", person) for person in package["authors"])
        print(f"{name}: {package['license']}" + (f" ({people})" if people else ""))
        directory = Path(package["manifest_path"]).parent
        for file in sorted(directory.iterdir()):
            if file.is_file() and NOTICE.match(file.name):
                text = "\n".join(line.rstrip() for line in file.read_text(errors="replace").strip().splitlines())
                texts.setdefault(text, []).append(name)
    print("\nSQLite, in libsqlite3-sys, is in the public domain. The Rust standard library: MIT OR Apache-2.0.")
    for text, names in sorted(texts.items(), key=lambda item: item[1]):
        print(f"\n{'=' * 100}\n{', '.join(dict.fromkeys(names))}\n{'-' * 100}\n{text}")


main()
