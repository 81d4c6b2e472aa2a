"""Where a root is on Windows. It is a directory of hard links, since a link to a directory needs a privilege there.

It cannot be replaced in one step, nor at all while a file in it is open, as that of a running program. If the old root
can be moved away, the new one takes its place; if not, the new one gets a number: `cu13.1`, ... The stamp in each says
which is current.
"""

import os
import time

from cuda_build_activate import STAMP

_NAMES = 10
_PATIENCE_S = 1.0  # for a virus scanner that opens new files


def current(root: str, entry: str) -> str:
    """*root* or the first of its alternatives that matches what it was made from in *entry*; empty if none does."""
    for path in _names(root):
        try:
            with open(os.path.join(path, STAMP), "rb") as file:
                records = [record.split(" ", 2) for record in os.fsdecode(file.read()).split("\0")[1:]]
            if all(_time(os.path.join(entry, directory)) in times for *times, directory in records):
                return path
        except (OSError, ValueError):
            pass
    return ""


def put(tree: str, root: str, aside: str) -> str:
    """Rename *tree* to *root*, or to its first available alternative, and return that path. Raises OSError.

    What was there is renamed to *aside*. Nothing uses it, or it could not have been renamed.
    """
    for path in _names(root):
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            pass
        except OSError:  # in use
            continue
        try:
            _rename(tree, path)
        except FileExistsError:  # another process was first
            pass
        except OSError:
            if os.path.isdir(aside):
                os.rename(aside, path)
            raise
        return path
    raise OSError(f"{root} and all alternatives to it are in use")


def _names(root: str) -> "list[str]":
    """*root* and its alternatives."""
    return [root, *(f"{root}.{number}" for number in range(1, _NAMES))]


def _time(directory: str) -> str:
    """*directory*'s time, as a stamp records it."""
    return str(os.path.exists(directory) and os.stat(directory).st_mtime_ns)


def _rename(tree: str, path: str) -> None:
    """Rename *tree*; retry for a moment if something has opened a file in it."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return os.rename(tree, path)
        except PermissionError:
            if time.monotonic() > until:
                raise
        time.sleep(0.05)
