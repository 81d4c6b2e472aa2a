"""Where a root is on Windows, where a link to a directory takes a privilege: the root is a directory of hard links.

It cannot be replaced in one step, nor at all while a file in it is open, a program that runs included. So the new one
takes the place of the old one if that can be moved away, and a name with a number if not: `cu13`, or `cu13.1`, ... The
stamp in each says which is current.
"""

import os
import time

from cuda_build_activate import STAMP

_NAMES = 10
_PATIENCE_S = 1.0  # for a virus scanner that looks at what was written


def current(root: str, entry: str) -> str:
    """The directory by the name of *root* that is as what it was made from, in *entry*; empty if there is none."""
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
    """Rename *tree* to *root*, or to the first name like it that can be had, and return that. Raises OSError.

    What was there is called *aside* then. Nobody uses it any more, or it could not have been renamed.
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
        except FileExistsError:  # another process was faster
            pass
        except OSError:
            if os.path.isdir(aside):
                os.rename(aside, path)
            raise
        return path
    raise OSError(f"{root}, and all that could be in its place, are in use")


def _names(root: str) -> "list[str]":
    return [root, *(f"{root}.{number}" for number in range(1, _NAMES))]


def _time(directory: str) -> str:
    """The time of *directory* as a stamp has it."""
    return str(os.path.exists(directory) and os.stat(directory).st_mtime_ns)


def _rename(tree: str, path: str) -> None:
    """Rename *tree*; wait a little if something has just opened a file in it."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return os.rename(tree, path)
        except PermissionError:
            if time.monotonic() > until:
                raise
        time.sleep(0.05)
