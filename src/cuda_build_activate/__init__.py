"""Activate the CUDA toolkit that pip or uv installed into this environment.

Nothing needs to be imported: the wheel's startup file activates at interpreter start. Call `activate()` where startup
files are not processed: a zip application, ``python -S``, a build system with a directory per wheel.

This module is all that an ordinary interpreter start runs. So it is short, also because without byte code it is
compiled each time, and it imports nothing that the interpreter has not imported already; annotations are quoted because
``from __future__ import annotations`` would be an import as well. `_activate` has the rest.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cuda_build_activate._activate import Activation as Activation
    from cuda_build_activate._activate import activate as activate

__version__ = "0.1.0"

DIRECTORY = "cuda-build-activate"  # not an identifier: never importable by accident
STAMP, OF_SITE = ".stamp", "/.site"
SWITCH, VERBOSE = "CUDA_BUILD_ACTIVATE", "CUDA_BUILD_ACTIVATE_VERBOSE"
RPATH, STABLE = "CUDA_BUILD_ACTIVATE_RPATH", "CUDA_BUILD_ACTIVATE_STABLE_PATH"
MARKER, SITE = "CUDA_BUILD_ACTIVATE_ROOT", "CUDA_BUILD_ACTIVATE_SITE"
ROOT_VARIABLES = ("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CUDAToolkit_ROOT", "CUDA_TOOLKIT_ROOT_DIR")
# What nvcc, which runs its tools by a shell, CMake or a list of directories cannot take in the name of a directory.
UNUSABLE = ';:"$`<[]\\\r\n'
# Linux starts no process with a variable of more than 128 KiB, and a character may take four bytes; Windows has 32,767.
LONGEST = 32_000

# Where the startup hook has looked for a toolkit, if it has run. (An annotation would cost something at each start.)
searched = ()  # type: tuple[object, ...]


def __getattr__(name: str) -> object:
    if name in ("Activation", "activate"):
        from cuda_build_activate import _activate

        return getattr(_activate, name)
    raise AttributeError(name)


def startup(sitedir: "str | None" = None) -> None:
    """Activate at interpreter start: the startup files call this. Never raises; prints only where asked to.

    sitedir: the site directory whose `.pth` file is being processed; a `.start` file (PEP 829) has none to give.
    """
    global searched
    try:
        paths = (*sys.path, sitedir or "")
        if paths == searched:  # before Python 3.15, a venv's .pth files are processed twice
            return
        searched = paths
        try:
            done = shortcut(paths, sitedir)
        except Exception:  # it takes more
            done = False
        if not done:
            from cuda_build_activate import _activate

            _activate.startup(sitedir)
    except Exception:
        pass


def shortcut(paths: "tuple[str, ...]", sitedir: "str | None") -> bool:
    """Do what `_activate.startup()` would do, if that takes no decision; return whether it did.

    That is so where nothing is set that could be a choice, and there is no toolkit, or one whose root is current. Where
    it is not, it may raise any exception.
    """
    get, access = os.environ.get, os.access
    switch, verbose = get(SWITCH), get(VERBOSE)
    if switch == "0" and not verbose:
        return True
    entries = [path for path in paths if path and (access(path + "/nvidia", 0) or access(path + "/cutensor", 0))]
    if not entries and not verbose:
        return True
    if switch or verbose or get("CUDACXX") or get(MARKER):
        # A child keeps what its parent set. A .pth file's line finds that out, but not where an environment was moved,
        # or in Fedora's lib64, a link to lib of which both are processed. Two up from a root is its site directory.
        return os.path.samefile(sitedir or entries[0], get(SITE, "")[: -len(OF_SITE)] + "/../..")
    (entry,) = {*entries}
    (name,) = [name for name in os.listdir(entry + "/nvidia") if name[:2] == "cu" and name[2:].isdecimal()]
    own = f"{entry}/{DIRECTORY}/{name}"
    root = current(own, entry)
    path, prefixes, libraries = get("PATH", ""), get("CMAKE_PREFIX_PATH", ""), get("LIBRARY_PATH", "")
    others = path + prefixes + libraries
    # The name of a stable path has no such characters.
    odd = any(character in root for character in UNUSABLE) if root == own else get(STABLE)
    if odd or root[:1] != "/" or root in others or len(others) > LONGEST // 2 or get(RPATH):
        return False
    if not os.path.isfile(root + "/bin/nvcc"):
        return False
    os.environ.update(
        dict.fromkeys((MARKER, *ROOT_VARIABLES), root),
        CUDACXX=root + "/bin/nvcc",
        PATH=f"{root}/bin:{path or os.defpath}",
        CMAKE_PREFIX_PATH=root + (prefixes and ":" + prefixes),
        LIBRARY_PATH=root + "/lib64/stubs" + (libraries and ":" + libraries),
        CUDA_BUILD_ACTIVATE_SITE=root + OF_SITE,
    )
    return True


def current(root: str, entry: str) -> str:
    """The path to activate *root* by: itself, or its stable path. Empty if a directory in *entry* that it was made from
    has changed, or if that path is no longer its own. Raises OSError or ValueError.
    """
    with open(f"{root}/{STAMP}", "rb") as file:
        stable, *records = os.fsdecode(file.read()).split("\0")
    for record in records:
        *times, directory = record.split(" ", 2)
        path = directory if directory[0] == "/" else f"{entry}/{directory}"
        if str(os.access(path, 0) if "False" in times else os.stat(path).st_mtime_ns) not in times:
            return ""
    if stable and (os.readlink(stable) != root or os.lstat(stable).st_uid != os.geteuid()):
        return ""
    return "" if os.stat(root + "/bin").st_mode & 0o002 else stable or root  # others could put programs into PATH
