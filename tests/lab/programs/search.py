"""Looks for what PATTERN matches in all that this user can read of its container: search.py PATTERN ADMIN-PORT [PLACE…].

Environments and memory of all processes, every file on every mount (or below the places), and what the proxy's local endpoint
tells. Prints where.
PATTERN is of bytes, and does not match itself.
"""

import os
import re
import sys
import urllib.request
from pathlib import Path

pattern, port = re.compile(sys.argv[1].encode()), sys.argv[2]
MOST = 64 << 20
looked: list[str] = []
found: list[str] = []


def look(name: str, data: bytes) -> None:
    looked.append(name)
    if pattern.search(data):
        found.append(name)


def look_into(path: Path) -> None:
    try:
        if path.is_file():
            with path.open("rb") as file:
                look(str(path), file.read(MOST))
    except OSError:
        return


def memory(process: Path) -> None:
    try:
        with (process / "maps").open() as maps, (process / "mem").open("rb", 0) as file:
            for line in maps:
                span, rights, *_ = line.split()
                start, end = (int(part, 16) for part in span.split("-"))
                if rights[0] == "r" and end - start <= MOST:
                    file.seek(start)
                    look(f"{process}/mem", file.read(end - start))
    except (OSError, ValueError, OverflowError):
        return


def below(top: Path) -> None:
    for place, directories, names in os.walk(top):
        if str(top) == place == "/":
            directories[:] = [one for one in directories if one not in ("proc", "sys")]
        for name in names:
            look_into(Path(place, name))


for process in Path("/proc").glob("[0-9]*"):
    for name in ("environ", "cmdline", "mountinfo"):
        look_into(process / name)
    if int(process.name) != os.getpid():
        memory(process)
    below(process / "root/run")
for place in sys.argv[3:] or ["/"]:
    below(Path(place))
for page in ("metrics", "config", "trust"):
    try:
        look(page, urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=5).read())
    except OSError as error:
        print(page, error)
print("looked", len(looked))
print("found", *found)
