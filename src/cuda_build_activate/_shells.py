"""An activation in a shell's syntax: assignments to evaluate, and what undoes them."""

import json
import os
import shlex
from collections.abc import Iterable, Mapping
from typing import Callable, Union

from cuda_build_activate import _run_path

# Each variable's new value, or None to unset it.
Changes = Mapping[str, Union[str, None]]


def undone(variables: Iterable[str], root: str, environ: Mapping[str, str]) -> dict[str, Union[str, None]]:
    """The changes to *environ* that undo the activation of *root*, which set *variables*; lists lose its entries."""
    changes: dict[str, Union[str, None]] = {}
    run_paths = _run_path.variables(environ, "", root, root)
    for name in variables:
        if name in ("LDFLAGS", "LD_RUN_PATH"):
            changes[name] = run_paths.get(name, environ.get(name)) or None
        elif name in ("PATH", "CMAKE_PREFIX_PATH", "LIBRARY_PATH"):
            entries = environ.get(name, "").split(os.pathsep)
            kept = [entry for entry in entries if entry != root and not entry.startswith(root + os.sep)]
            changes[name] = os.pathsep.join(kept) or None
        else:
            changes[name] = None
    return changes


def _sh(changes: Changes) -> str:
    return "".join(
        f"unset {name};\n" if value is None else f"export {name}={shlex.quote(value)};\n"
        for name, value in changes.items()
    )


def _fish(changes: Changes) -> str:
    lines = []
    for name, value in changes.items():
        if value is None:
            lines.append(f"set -e {name};\n")
        else:
            # Within single quotes, fish has only these two escapes. --path splits the value at each colon.
            quoted = value.replace("\\", "\\\\").replace("'", "\\'")
            lines.append(f"set -gx {'--path ' if name == 'PATH' else ''}{name} '{quoted}';\n")
    return "".join(lines)


def _powershell(changes: Changes) -> str:
    lines = []
    for name, value in changes.items():
        if value is None:
            lines.append(f"Remove-Item -ErrorAction Ignore Env:{name}\n")
        else:
            # PowerShell treats typographic quotes as quotes, too.
            quoted = "".join(
                2 * character if character in "'\u2018\u2019\u201a\u201b" else character for character in value
            )
            lines.append(f"$Env:{name} = '{quoted}'\n")
    return "".join(lines)


def _cmd(changes: Changes) -> str:
    lines = []
    for name, value in changes.items():
        if value is not None and any(character in value for character in '"\r\n'):
            raise ValueError(f"cmd cannot hold {value!r} in a variable")
        # For a batch file to call, in which percent signs are doubled.
        lines.append(f'set "{name}={(value or "").replace("%", "%%")}"\n')
    return "".join(lines)


def _github(changes: Changes) -> str:
    lines = []
    for name, value in changes.items():
        text = value or ""
        delimiter = "EOF"
        while delimiter in text:
            delimiter += "_"
        lines.append(f"{name}<<{delimiter}\n{text}\n{delimiter}\n")
    return "".join(lines)


def _json(changes: Changes) -> str:
    return json.dumps(changes, indent=2) + "\n"


SHELLS: dict[str, Callable[[Changes], str]] = {
    "sh": _sh,
    "fish": _fish,
    "powershell": _powershell,
    "cmd": _cmd,
    "github": _github,
    "json": _json,
}
