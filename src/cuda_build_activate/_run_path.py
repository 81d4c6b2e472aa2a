"""Run paths: linker options that let what is built find the toolkit's libraries when it is loaded."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RESPONSE_FILE = "rpath.rsp"  # in the root
# Directories between site-packages and a library, as of tensorflow 2.21.0's
# tensorflow/compiler/mlir/quantization/tensorflow/python/pywrap_quantize_model.so.
DEEPEST = 6


def response(directories: "Iterable[str]") -> bytes:
    """The response file's content: run paths to *directories* in site-packages, from every depth, nearest first."""
    paths = [f"$ORIGIN/{'../' * depth}{directory}" for depth in range(DEEPEST + 1) for directory in directories]
    return f"-rpath={':'.join(paths)}\n".encode()


def variables(environ: "Mapping[str, str]", mode: str, root: str, active: str) -> "dict[str, str]":
    """What to set LDFLAGS and LD_RUN_PATH to: *mode*'s run paths to *root*, and no others to *root* or *active*.

    mode: ``relative``, ``absolute``, or empty, which only removes. Everything else in the two variables stays.
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
    """What *mode* adds to LDFLAGS and to LD_RUN_PATH."""
    import shlex  # seldom needed, and it imports re

    if mode == "absolute":
        # The final "." keeps it: CMake and Meson, when they install, remove a run path that they set, by its spelling.
        path = os.path.join(root, "lib64", ".")
        return f"-Xlinker {shlex.quote(f'-rpath={path}')}", [path]
    # gcc and nvcc both accept -Xlinker. It names a file, because make and shells would expand $ORIGIN.
    file = os.path.join(root, RESPONSE_FILE)
    try:
        with open(file, encoding="ascii") as opened:
            paths = opened.read().strip().removeprefix("-rpath=").split(":")
    except OSError:  # it was made by another version of this package, or is gone
        paths = []
    return f"-Xlinker {shlex.quote(f'@{file}')}", paths
