"""Run paths: what the linker is told, so that what is built finds the toolkit's libraries when it is loaded."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RESPONSE_FILE = "rpath.rsp"  # in the root
# Directories between site-packages and a library, as of tensorflow 2.21.0's
# tensorflow/compiler/mlir/quantization/tensorflow/python/pywrap_quantize_model.so.
DEEPEST = 6


def response(directories: "Iterable[str]") -> bytes:
    """The linker option for *directories*, relative to site-packages, as seen from every depth, nearest first."""
    paths = [f"$ORIGIN/{'../' * depth}{directory}" for depth in range(DEEPEST + 1) for directory in directories]
    return f"-rpath={':'.join(paths)}\n".encode()


def variables(environ: "Mapping[str, str]", mode: str, root: str, active: str) -> "dict[str, str]":
    """LDFLAGS and LD_RUN_PATH, each where it is to be set: for *mode* in *root*, and of *active* and *root* no more.

    mode: ``relative``, ``absolute``, or empty, which removes what the others have set. What was there besides stays.
    """
    flag, paths = _told(root, mode) if mode else ("", [])
    flags, run_path = environ.get("LDFLAGS", ""), environ.get("LD_RUN_PATH", "")
    entries = run_path.split(":") if run_path else []
    for other in {root, active}:
        for old_flag, old_paths in (_told(other, "relative"), _told(other, "absolute")):
            if old_flag != flag:
                flags = flags.replace(f"{old_flag} ", "").replace(old_flag, "")
            entries = [entry for entry in entries if entry in paths or entry not in old_paths]
    if flag not in flags:
        flags = f"{flag} {flags}" if flags else flag
    if not {*paths} <= {*entries}:
        entries = [*paths, *(entry for entry in entries if entry not in paths)]
    wanted = {"LDFLAGS": flags, "LD_RUN_PATH": ":".join(entries)}
    return {name: value for name, value in wanted.items() if mode or value != environ.get(name, "")}


def _told(root: str, mode: str) -> "tuple[str, list[str]]":
    """What *mode* adds to LDFLAGS, and to LD_RUN_PATH."""
    import shlex  # seldom needed, and it imports re

    if mode == "absolute":
        # CMake and Meson remove at installation each run path that they have set for the build, by its spelling.
        path = os.path.join(root, "lib64", ".")
        return f"-Xlinker {shlex.quote(f'-rpath={path}')}", [path]
    # gcc and nvcc both know -Xlinker; a file, because make takes $ORIGIN for a variable of its own, as do shells.
    file = os.path.join(root, RESPONSE_FILE)
    try:
        with open(file, encoding="ascii") as opened:
            paths = opened.read().strip().removeprefix("-rpath=").split(":")
    except OSError:  # of another version of this package, or gone
        paths = []
    return f"-Xlinker {shlex.quote(f'@{file}')}", paths
