"""Activate the CUDA toolkit that pip or uv installed into this environment.

You need not import it: the wheel's startup file activates the toolkit when the interpreter starts. Call `activate()`
where startup files are not processed: in a zip application, under ``python -S``, in a build system with a directory per
wheel.

An ordinary start runs only this module. It is short, because without byte code it is compiled each time, and imports
only what the interpreter has imported already. Annotations are quoted: ``from __future__`` would be another import.
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
# Characters in a path that break nvcc (which runs its tools in a shell), CMake, or a list of directories.
UNUSABLE = ';:"$`<[]\\\r\n'
# Linux allows 128 KiB per variable, and a character may take four bytes; Windows allows 32,767 characters.
LONGEST = 32_000

# Where the startup hook looked for a toolkit, if it ran. (An annotation would cost time at each start.)
searched = ()  # type: tuple[object, ...]


def __getattr__(name: str) -> object:
    if name in ("Activation", "activate"):
        from cuda_build_activate import _activate

        return getattr(_activate, name)
    raise AttributeError(name)


def startup(sitedir: "str | None" = None) -> None:
    """Activate at interpreter start: the startup files call this. Never raises; prints only if asked to.

    sitedir: the site directory whose `.pth` file is being processed; None for a `.start` file (PEP 829).
    """
    global searched
    try:
        paths = (*sys.path, sitedir or "")
        if paths == searched:  # before Python 3.15, a venv's .pth files are processed twice
            return
        searched = paths
        try:
            done = shortcut(paths, sitedir)
        except Exception:  # not a simple case
            done = False
        if not done:
            from cuda_build_activate import _activate

            _activate.startup(sitedir)
    except Exception:
        pass


def shortcut(paths: "tuple[str, ...]", sitedir: "str | None") -> bool:
    """Do what `_activate.startup()` would do, if the case is simple; return whether it did, or raise anything.

    It is simple if no variable expresses a choice, and there is no toolkit, or one whose root is current.
    """
    get, access = os.environ.get, os.access
    switch, verbose = get(SWITCH), get(VERBOSE)
    if switch == "0" and not verbose:
        return True
    entries = [path for path in paths if path and (access(path + "/nvidia", 0) or access(path + "/cutensor", 0))]
    if not entries and not verbose:
        return True
    if switch or verbose or get("CUDACXX") or get(MARKER):
        # A child keeps what its parent set. The .pth line recognizes a child, but not in a moved environment, nor in
        # Fedora's lib64 (a link to lib; both are processed). A root's site directory is two levels up.
        return os.path.samefile(sitedir or entries[0], get(SITE, "")[: -len(OF_SITE)] + "/../..")
    (entry,) = {*entries}
    (name,) = [name for name in os.listdir(entry + "/nvidia") if name[:2] == "cu" and name[2:].isdecimal()]
    own = f"{entry}/{DIRECTORY}/{name}"
    root = current(own, entry)
    path, prefixes, libraries = get("PATH", ""), get("CMAKE_PREFIX_PATH", ""), get("LIBRARY_PATH", "")
    others = path + prefixes + libraries
    # A stable path has no such characters.
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
    """The path to activate *root* by: itself or its stable path. Empty if a directory in *entry* that it was made from
    has changed, or if that path is no longer its own. Raises OSError, ValueError or LookupError.
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
    return "" if os.stat(root + "/bin").st_mode & 0o002 else stable or root  # others could add programs to PATH
