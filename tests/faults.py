"""Hostile conditions: the faults that the tests provoke, and what must hold of each."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from conftest import VARIABLES, VEnv

from cuda_build_activate import _assemble
from cuda_build_activate._toolkit import find

# What comes of a fault.
ACTIVATED = "activated"
CACHED = "activated, with the root in the user's cache"
WHEELS = "activated, with the wheels' own directory as the root"
HOST_ONLY = "activated, without `CUDACXX`"
UNTOUCHED = "untouched"
UNSEEN = "untouched: Python does not process startup files"

Function = TypeVar("Function", bound=Callable[..., Any])


class Fault(NamedTuple):
    """How a fault is provoked in an environment that has a toolkit, and what comes of it.

    commands: shell commands, run once in the site directory. variables: environment variables, None for one that is
    unset; in these and in the commands $SITE, $BASE (all of the test's) and $PYTHON have their values. around: shell
    commands before each interpreter start, in a mount namespace of its own. options: the interpreter's. says: a part of
    what CUDA_BUILD_ACTIVATE_VERBOSE=1 says. path: the directory that the environment lies in. length: the length of the
    site directory's path.
    """

    outcome: str
    commands: str = ""
    variables: Mapping[str, str | None] = {}
    around: str = ""
    options: tuple[str, ...] = ()
    says: str = ""
    path: str = ""
    length: int = 0


FULL = "mount -t tmpfs -o {} none $SITE/cuda-build-activate"
NO_CACHE = {"XDG_CACHE_HOME": "/dev/null"}
SYS_PATH = "cat > a.pth <<EOF\nimport sys; {}\nEOF\n"

CHARACTERS = {
    "a space": " ",
    "two spaces": "  ",
    "a tab": "\t",
    "`'`": "'",
    "`%`": "%",
    "`%PATH%`": "%PATH%",
    "`(`": "(",
    "`&`": "&",
    "`*`": "*",
    "`?`": "?",
    "`!`": "!",
    "`~`": "~",
    "`#`": "#",
    "`@`": "@",
    "`=`": "=",
    "`,`": ",",
    "`{`": "{",
    "non-ASCII": "é中\U0001f600",
    "not UTF-8": "\udcff",
}
# Measured with nvcc 13.4 and CMake 4.4: with these in its path no toolkit works, however it was installed.
UNUSABLE = {
    "`:`": ":",
    "`;`": ";",
    '`"`': '"',
    "`$`": "$",
    "a back quote": "`",
    "`\\`": "\\",
    "`<`": "<",
    "`[`": "[",
    "`]`": "]",
    "a line break": "\n",
    "a carriage return": "\r",
}

FAULTS: dict[str, dict[str, Fault]] = {
    "broken components": {
        "`nvidia` is a file": Fault(UNTOUCHED, "rm -r nvidia; touch nvidia"),
        "`nvidia` is a dangling link": Fault(UNTOUCHED, "rm -r nvidia; ln -s nowhere nvidia"),
        "`nvidia` is a link loop": Fault(UNTOUCHED, "rm -r nvidia; ln -s nvidia nvidia"),
        "`nvidia` is empty": Fault(UNTOUCHED, "rm -r nvidia; mkdir nvidia"),
        "`nvidia` is unreadable": Fault(UNTOUCHED, "chmod 0 nvidia"),
        "`cu13` is a file": Fault(UNTOUCHED, "rm -r nvidia/cu13; touch nvidia/cu13"),
        "`cu13` is a dangling link": Fault(UNTOUCHED, "rm -r nvidia/cu13; ln -s nowhere nvidia/cu13"),
        "`cu13` is unreadable": Fault(UNTOUCHED, "chmod 0 nvidia/cu13"),
        "`cu13` can be listed, but not searched": Fault(UNTOUCHED, "chmod a-x nvidia/cu13"),
        "empty directories left behind by pip": Fault(UNTOUCHED, "find nvidia -type f -delete", says="no CUDA toolkit"),
        "`bin` is unreadable": Fault(UNTOUCHED, "chmod 0 nvidia/cu13/bin", says="Permission denied"),
        "`lib` is unreadable": Fault(WHEELS, "chmod 0 nvidia/cu13/lib", says="Permission denied"),
        "`lib` is missing": Fault(ACTIVATED, "rm -r nvidia/cu13/lib"),
        "`lib` is a file": Fault(ACTIVATED, "rm -r nvidia/cu13/lib; touch nvidia/cu13/lib"),
        "`lib` is a link loop": Fault(
            WHEELS, "rm -r nvidia/cu13/lib; ln -s lib nvidia/cu13/lib", says="symbolic links"
        ),
        "`include` is a dangling link": Fault(
            ACTIVATED, "rm -r nvidia/cu13/include; ln -s nowhere nvidia/cu13/include"
        ),
        "nvcc is missing": Fault(HOST_ONLY, "rm nvidia/cu13/bin/nvcc"),
        "nvcc is a dangling link": Fault(HOST_ONLY, "ln -sf nowhere nvidia/cu13/bin/nvcc"),
        "nvcc is a directory": Fault(HOST_ONLY, "rm nvidia/cu13/bin/nvcc; mkdir nvidia/cu13/bin/nvcc"),
        "a library is a dangling link": Fault(ACTIVATED, "ln -sf nowhere nvidia/cu13/lib/libcudart.so.13"),
        "a library is a link loop": Fault(
            WHEELS, "ln -sf libcudart.so.13 nvidia/cu13/lib/libcudart.so.13", says="symbolic links"
        ),
        "a header is a directory": Fault(
            ACTIVATED, "cd nvidia/cu13/include; rm cuda_runtime_api.h; mkdir cuda_runtime_api.h"
        ),
        "a header is not text": Fault(ACTIVATED, r"printf '\377\0' > nvidia/cu13/include/cuda_runtime_api.h"),
        "a file name that is not UTF-8": Fault(ACTIVATED, r"touch nvidia/cu13/lib/$(printf '\377').so.1"),
        "a file name with a line break": Fault(ACTIVATED, "touch 'nvidia/cu13/lib/a\nb'"),
        "times in the future": Fault(ACTIVATED, "find nvidia -exec touch -d '2050-01-01' {} +"),
        "times before 1970": Fault(ACTIVATED, "find nvidia -exec touch -d '1901-12-14' {} +"),
    },
    "broken installation of this package": {
        "a module is missing": Fault(UNTOUCHED, "rm cuda_build_activate/_assemble.py", says="ImportError"),
        "a module is truncated": Fault(
            UNTOUCHED, "echo 'def (' > cuda_build_activate/_assemble.py", says="SyntaxError"
        ),
        "its startup file is missing": Fault(UNSEEN, "rm hatch_autorun_cuda_build_activate.pth"),
    },
    "the toolkit root, before the start": {
        "is a file": Fault(ACTIVATED, "mkdir cuda-build-activate; touch cuda-build-activate/cu13"),
        "is a dangling link": Fault(ACTIVATED, "mkdir cuda-build-activate; ln -s nowhere cuda-build-activate/cu13"),
        "is a link loop": Fault(ACTIVATED, "mkdir cuda-build-activate; ln -s cu13 cuda-build-activate/cu13"),
        "is an empty directory": Fault(ACTIVATED, "mkdir -p cuda-build-activate/cu13"),
        "has no stamp": Fault(ACTIVATED, "$PYTHON -c pass; rm cuda-build-activate/cu13/.stamp"),
        "has an empty stamp": Fault(ACTIVATED, "$PYTHON -c pass; : > cuda-build-activate/cu13/.stamp"),
        "has a stamp of another format": Fault(
            ACTIVATED, "$PYTHON -c pass; echo '{\"a\": 1}' > cuda-build-activate/cu13/.stamp"
        ),
        "has an unreadable stamp": Fault(ACTIVATED, "$PYTHON -c pass; chmod 0 cuda-build-activate/cu13/.stamp"),
        "is half a tree, left by a killed process": Fault(
            ACTIVATED, "mkdir -p cuda-build-activate/.cu13.1.a/bin; touch -d 2000-01-01 cuda-build-activate/.cu13.1.a"
        ),
        "is open to all users": Fault(
            ACTIVATED, "$PYTHON -c pass; chmod -R o+w cuda-build-activate/ cuda-build-activate/cu13/"
        ),
        "its directory is a file": Fault(CACHED, "touch cuda-build-activate"),
        "its directory is a dangling link": Fault(CACHED, "ln -s nowhere cuda-build-activate"),
        "its directory is a link loop": Fault(CACHED, "ln -s cuda-build-activate cuda-build-activate"),
        "its directory is a link to another": Fault(CACHED, "mkdir $BASE/other; ln -s $BASE/other cuda-build-activate"),
        "its directory is unreadable": Fault(CACHED, "mkdir -m 0 cuda-build-activate"),
        "its directory is read-only": Fault(CACHED, "mkdir -m 555 cuda-build-activate"),
    },
    "a stale root": {
        "a component was added": Fault(ACTIVATED, "$PYTHON -c pass; touch nvidia/cu13/lib/libcublas.so.13"),
        "a component was upgraded": Fault(
            ACTIVATED, "$PYTHON -c pass; cd nvidia/cu13/lib; rm libcudart.so.13; touch libcudart.so.13.1"
        ),
        "a component was removed": Fault(ACTIVATED, "$PYTHON -c pass; rm -r nvidia/cu13/cccl nvidia/cu13/include/cccl"),
        "the compiler was removed": Fault(HOST_ONLY, "$PYTHON -c pass; rm -r nvidia/cu13/bin/nvcc"),
        "all components were removed": Fault(UNTOUCHED, "$PYTHON -c pass; rm -r nvidia", says="no CUDA toolkit"),
        "a product was added": Fault(
            ACTIVATED, "$PYTHON -c pass; mkdir -p nvidia/nccl/lib; touch nvidia/nccl/lib/a.so.1"
        ),
        "the root was deleted": Fault(ACTIVATED, "$PYTHON -c pass; rm -r cuda-build-activate"),
        "the root's tree was deleted": Fault(ACTIVATED, "$PYTHON -c pass; rm -r cuda-build-activate/.cu13.*"),
        "a copy that follows links, and an upgrade": Fault(
            ACTIVATED,
            "$PYTHON -c pass; cp -rL cuda-build-activate/cu13 copy; rm -r cuda-build-activate/.cu13* "
            "cuda-build-activate/cu13; mv copy cuda-build-activate/cu13; touch nvidia/cu13/lib/libcublas.so.13",
        ),
    },
    "file systems": {
        "read-only": Fault(CACHED, around="mount --bind $SITE $SITE; mount -o remount,ro,bind $SITE"),
        "read-only, and so is the cache": Fault(
            WHEELS,
            "mkdir $BASE/cache",
            around="for d in $SITE $BASE/cache; do mount --bind $d $d; mount -o remount,ro,bind $d; done",
            says="Read-only file system",
        ),
        "read-only, with the root made before": Fault(
            ACTIVATED, "$PYTHON -c pass", around="mount --bind $SITE $SITE; mount -o remount,ro,bind $SITE"
        ),
        "read-only, with a stale root": Fault(
            CACHED,
            "$PYTHON -c pass; touch nvidia/cu13/lib/libcublas.so.13",
            around="mount --bind $SITE $SITE; mount -o remount,ro,bind $SITE",
        ),
        **{
            f"full after {count} files": Fault(
                CACHED, "mkdir cuda-build-activate", around=FULL.format(f"nr_inodes={count + 1}")
            )
            for count in (0, 2, 10, 30, 40)
        },
        "a path of 3,900 characters": Fault(ACTIVATED, length=3900),
        "a path of 4,000 characters": Fault(ACTIVATED, length=4000),
        "a path of 4,030 characters": Fault(CACHED, length=4030),
        "full after 4 KiB": Fault(CACHED, "mkdir cuda-build-activate", around=FULL.format("size=4k")),
        "full, and so is the cache": Fault(
            WHEELS,
            "mkdir cuda-build-activate $BASE/cache",
            around=f"{FULL.format('nr_inodes=9')}; mount -t tmpfs -o nr_inodes=9 none $BASE/cache",
            says="No space left on device",
        ),
        "no file may be longer than 0 bytes": Fault(WHEELS, around="ulimit -f 0", says="File too large"),
        "only two file descriptors are left": Fault(ACTIVATED, around="ulimit -n 5"),
    },
    "characters in the environment's path": {
        **{name: Fault(ACTIVATED, path=f"a{character}b") for name, character in CHARACTERS.items()},
        **{
            name: Fault(UNTOUCHED, path=f"a{character}b", says="no toolkit works in a path with")
            for name, character in UNUSABLE.items()
        },
    },
    "environment variables": {
        "`PATH` is unset": Fault(ACTIVATED, variables={"PATH": None}),
        "`PATH` is empty": Fault(ACTIVATED, variables={"PATH": ""}),
        "`PATH` has empty and relative entries": Fault(ACTIVATED, variables={"PATH": ":/usr/bin::bin:/bin:"}),
        "`PATH` is not UTF-8": Fault(ACTIVATED, variables={"PATH": "/usr/bin:/bin:/\udcff"}),
        "`PATH` is 30,000 characters long": Fault(ACTIVATED, variables={"PATH": "/usr/bin:/bin:/" + "x" * 29_000}),
        "`PATH` is 100,000 characters long": Fault(
            UNTOUCHED, variables={"PATH": "/usr/bin:/bin:/" + "x" * 100_000}, says="PATH would be too long"
        ),
        "1.5 MB of other variables": Fault(ACTIVATED, variables={f"V{i}": "x" * 100_000 for i in range(15)}),
        "all of our variables are empty": Fault(ACTIVATED, variables=dict.fromkeys(sorted(VARIABLES - {"PATH"}), "")),
        "`CUDA_HOME` and its like are relative": Fault(
            ACTIVATED, variables=dict.fromkeys(("CUDA_HOME", "CUDA_PATH", "CMAKE_PREFIX_PATH", "LIBRARY_PATH"), "cuda")
        ),
        "`CUDA_BUILD_ACTIVATE_ROOT` is nonsense": Fault(
            ACTIVATED, variables={"CUDA_BUILD_ACTIVATE_ROOT": "nonsense:/\udcff"}
        ),
        "`CUDA_BUILD_ACTIVATE_ROOT` is `/`": Fault(ACTIVATED, variables={"CUDA_BUILD_ACTIVATE_ROOT": "/"}),
        "`CUDA_BUILD_ACTIVATE` is nonsense": Fault(
            UNTOUCHED, variables={"CUDA_BUILD_ACTIVATE": "\udcff\n²"}, says="neither on nor off"
        ),
        "`CUDA_BUILD_ACTIVATE` is a huge number": Fault(UNTOUCHED, variables={"CUDA_BUILD_ACTIVATE": "9" * 5000}),
        "`CUDA_BUILD_ACTIVATE` is `0`": Fault(UNTOUCHED, variables={"CUDA_BUILD_ACTIVATE": "0"}, says="switched off"),
        "`CUDA_BUILD_ACTIVATE_RPATH` is nonsense": Fault(
            ACTIVATED, variables={"CUDA_BUILD_ACTIVATE_RPATH": "\udcff\n²"}, says="is neither relative nor absolute"
        ),
        "`LDFLAGS` is 100,000 characters long, and run paths are asked for": Fault(
            UNTOUCHED,
            variables={"CUDA_BUILD_ACTIVATE_RPATH": "relative", "LDFLAGS": "x" * 100_000},
            says="LDFLAGS would be too long",
        ),
        "`CUDACXX` has line breaks": Fault(UNTOUCHED, variables={"CUDACXX": "/a\nb"}, says=r"CUDACXX is set to /a\nb"),
        "`HOME` is unset": Fault(ACTIVATED, variables={"HOME": None, "XDG_CACHE_HOME": None}),
        "`HOME` is unset, and the environment is not writable": Fault(
            WHEELS, "touch cuda-build-activate", {"HOME": None, "XDG_CACHE_HOME": None}, says="Not a directory"
        ),
        "`HOME` does not exist, and the environment is not writable": Fault(
            WHEELS, "touch cuda-build-activate", {"HOME": "$BASE/a/b", "XDG_CACHE_HOME": None}, says="No such file"
        ),
        "`HOME` is relative, and the environment is not writable": Fault(
            WHEELS, "touch cuda-build-activate", {"HOME": "a", "XDG_CACHE_HOME": None}
        ),
        "`LC_ALL=C`": Fault(ACTIVATED, variables={"LC_ALL": "C"}),
        "`LC_ALL=C`, and no UTF-8 mode": Fault(
            ACTIVATED, variables={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        ),
        "`PYTHONWARNINGS=error`": Fault(ACTIVATED, variables={"PYTHONWARNINGS": "error"}),
        "`PYTHONOPTIMIZE=2`": Fault(ACTIVATED, variables={"PYTHONOPTIMIZE": "2"}),
        "`PYTHONDONTWRITEBYTECODE`": Fault(ACTIVATED, variables={"PYTHONDONTWRITEBYTECODE": "1"}),
        "`PYTHONSAFEPATH`": Fault(ACTIVATED, variables={"PYTHONSAFEPATH": "1"}),
        "`PYTHONDEVMODE`": Fault(ACTIVATED, variables={"PYTHONDEVMODE": "1"}),
        "`PYTHONPYCACHEPREFIX` is not writable": Fault(ACTIVATED, variables={"PYTHONPYCACHEPREFIX": "/dev/null"}),
        "`PYTHONHASHSEED=0`": Fault(ACTIVATED, variables={"PYTHONHASHSEED": "0"}),
        "`PYTHONMALLOC=debug`": Fault(ACTIVATED, variables={"PYTHONMALLOC": "debug"}),
        "`PYTHONPATH` contains something that is not a directory": Fault(
            ACTIVATED, variables={"PYTHONPATH": "/dev/null:/nonexistent:relative::/etc/passwd"}
        ),
    },
    "interpreter options": {
        **{
            f"`{' '.join(options)}`": Fault(ACTIVATED, options=options)
            for options in (
                ("-I",),
                ("-E",),
                ("-s",),
                ("-B",),
                ("-O",),
                ("-OO",),
                ("-u",),
                ("-bb",),
                ("-W", "error"),
                ("-X", "dev"),
                ("-X", "frozen_modules=on"),
                ("-X", "utf8=0"),
                ("-X", "tracemalloc"),
                ("-X", "faulthandler"),
                ("-X", "frozen_modules=off"),
                ("-P",),  # from Python 3.11 on
            )
        },
        "`-S`": Fault(UNSEEN, options=("-S",)),
        "`-I -S`": Fault(UNSEEN, options=("-I", "-S")),
        "standard error is closed": Fault(ACTIVATED, around="exec 2>&-"),
    },
    "`sys.path`": {
        "contains something that is not a string": Fault(
            ACTIVATED, SYS_PATH.format('import pathlib; sys.path[:0] = [b"x", None, 7, pathlib.Path("/usr"), object()]')
        ),
        "contains odd strings": Fault(ACTIVATED, SYS_PATH.format(r'sys.path[:0] = ["", ".", "relative", "/\udcff"]')),
        "has zip files": Fault(
            ACTIVATED,
            "$PYTHON -m zipfile -c $BASE/a.zip hatch*; "
            + SYS_PATH.format("sys.path[:0] = ['$BASE/a.zip', '$BASE/a.zip/a']"),
        ),
        "has unreadable directories": Fault(
            ACTIVATED, "mkdir -m 0 $BASE/closed; " + SYS_PATH.format("sys.path.insert(0, '$BASE/closed')")
        ),
        "has the same directory in three spellings": Fault(
            ACTIVATED, SYS_PATH.format("sys.path += ['$SITE/', '$SITE/../site-packages']")
        ),
        "has 5,000 entries": Fault(
            ACTIVATED, SYS_PATH.format('sys.path += ["/nonexistent/%d" % i for i in range(5000)]')
        ),
        "is a tuple": Fault(ACTIVATED, SYS_PATH.format("sys.path = tuple(sys.path)"), options=("-I",)),
    },
    "several copies": {
        "the startup file is processed three times": Fault(
            ACTIVATED, "for copy in y z; do cp hatch_autorun_cuda_build_activate.pth $copy.pth; done"
        ),
        "another version comes first on `PYTHONPATH`": Fault(
            ACTIVATED,
            "mkdir $BASE/other; cp -r cuda_build_activate $BASE/other; "
            r"""sed -i 's/b"\\0"/b"\\n"/' $BASE/other/cuda_build_activate/*.py""",
            {"PYTHONPATH": "$BASE/other"},
        ),
        "another version made the root": Fault(
            ACTIVATED, "$PYTHON -c pass; printf '%s\n' 1 2 > cuda-build-activate/cu13/.stamp"
        ),
    },
    "security": {
        "umask 0": Fault(ACTIVATED, around="umask 0"),
        "umask 0, and the root in the cache": Fault(CACHED, "touch cuda-build-activate", around="umask 0"),
        "umask 777": Fault(WHEELS, around="umask 777", says="Permission denied"),
        "a cache that is open to others": Fault(
            WHEELS,
            "touch cuda-build-activate; mkdir -p $BASE/cache/cuda-build-activate; "
            "chmod 755 $BASE/cache/cuda-build-activate",
            says="is not closed to other users",
        ),
        "a cache that is a planted link": Fault(
            WHEELS,
            "touch cuda-build-activate; mkdir -p $BASE/cache; mkdir -m 700 $BASE/planted; "
            "ln -s $BASE/planted $BASE/cache/cuda-build-activate",
            says="is not closed to other users",
        ),
        "a cache of another user": Fault(
            WHEELS,
            "touch cuda-build-activate; mkdir -p $BASE/cache; mkdir -m 700 $BASE/cache/cuda-build-activate; "
            "chown 12345 $BASE/cache/cuda-build-activate",
            says="is not closed to other users",
        ),
        "all users can write to the wheels' `bin`": Fault(ACTIVATED, "chmod o+w nvidia/cu13/bin"),
        "all users can write to the wheels' `bin`, and no root can be made": Fault(
            UNTOUCHED, "touch cuda-build-activate; chmod o+w nvidia/cu13/bin", NO_CACHE, says="any user can write"
        ),
    },
}

# Prints what the process sees of the environment, and what the root holds, but for the path of its site directory.
PROBE = """
import json, os
root = os.environ.get("CUDA_BUILD_ACTIVATE_ROOT")
walk = os.walk(root) if root else []
held = [os.path.join(top, name)[len(root) + 1:] for top, *inner in walk for name in sum(inner, [])]
print(json.dumps([dict(os.environ), [path for path in held if not path.startswith(".site")]]))
"""

OTHERS: dict[str, dict[str, str]] = {}


def fault(group: str, name: str, outcome: str) -> Callable[[Function], Function]:
    """Mark a test that provokes a fault in a manner of its own."""

    def mark(function: Function) -> Function:
        OTHERS.setdefault(group, {})[name] = outcome
        marked: Function = pytest.mark.fault(f"{group}: {name}")(function)
        return marked

    return mark


def outcomes() -> dict[str, dict[str, str]]:
    """What comes of each fault, by group and name."""
    for module in ("entry_points", "environments", "faults", "frontends", "races", "stable", "startup"):
        importlib.import_module(f"test_{module}")  # where there are others
    return {
        group: {name: fault.outcome for name, fault in FAULTS.get(group, {}).items()}
        | dict(sorted(OTHERS.get(group, {}).items()))
        for group in (*FAULTS, *sorted(OTHERS.keys() - FAULTS.keys()))
    }


def summary() -> str:
    """A table: how many faults there are, and what comes of them."""
    lines = [
        "| what | faults | activated | with the root in the user's cache | with the wheels' own directory | untouched |"
    ]
    lines.append("|---|---|---|---|---|---|")
    groups = {group: list(found.values()) for group, found in outcomes().items()}
    groups["**all**"] = [outcome for found in groups.values() for outcome in found]
    for group, found in groups.items():
        counts = [
            sum(found.count(outcome) for outcome in same)
            for same in ((ACTIVATED, HOST_ONLY), (CACHED,), (WHEELS,), (UNTOUCHED, UNSEEN))
        ]
        lines.append(f"| {group} | {len(found)} | {' | '.join(str(count or '') for count in counts)} |")
    return "\n".join(lines) + "\n"


def details() -> str:
    """The list of all faults, by what comes of them."""
    lines = []
    for group, found in outcomes().items():
        lines.append(f"\n## {group[0].upper()}{group[1:]}\n")
        for outcome in dict.fromkeys(found.values()):
            names = "; ".join(name for name in found if found[name] == outcome)
            lines.append(f"- **{outcome}**: {names}")
    return "\n".join(lines) + "\n"


def namespaces() -> bool:
    """Whether this user can have a mount namespace of its own."""
    return subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode == 0


def contents(directory: str) -> set[str]:
    """All that is in the root *directory*, relative to it, but for the path of its site directory."""
    found = {
        os.path.relpath(os.path.join(top, name), directory)
        for top, directories, names in os.walk(directory)
        for name in (*directories, *names)
    }
    return {path for path in found if not path.startswith(".site")}


def listing(directory: Path) -> dict[str, tuple[int, ...]]:
    """All that is below *directory* but for what this package, and Python, may write there."""
    found: dict[str, tuple[int, ...]] = {}
    for top, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if name not in ("cuda-build-activate", "__pycache__")]
        for name in (*directories, *names):
            path = os.path.join(top, name)
            try:
                status = os.lstat(path)
            except PermissionError:  # a directory that can be listed and no more
                found[path] = ()
                continue
            changes = () if name in directories else (status.st_size, status.st_mtime_ns)
            found[path] = (status.st_mode, status.st_uid, *changes)
    return found


def places(site: Path) -> set[str]:
    """What the root of the toolkit in *site* holds."""
    toolkit = find([str(site)])
    assert toolkit
    return set(_assemble.plan(toolkit))


def probe(env: VEnv, environ: Mapping[str, str], *options: str) -> tuple[dict[str, str], set[str]]:
    done = env.start(PROBE, *options, env=environ)
    assert (done.returncode, done.stderr) == (0, "")
    seen, held = json.loads(done.stdout)
    return seen, set(held)


def expect(outcome: str, env: VEnv, environ: Mapping[str, str], *options: str, says: str = "") -> None:
    """Start interpreters, and check all that must hold of each."""
    before = listing(env.path)
    untouched = probe(env, environ, "-S")[0]
    for _ in ("first", "second"):
        done = env.start("pass", *options, env=environ)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        seen, held = probe(env, environ, *options)
        root = seen.get("CUDA_BUILD_ACTIVATE_ROOT", "")
        if outcome in (UNTOUCHED, UNSEEN):
            assert seen == untouched
            continue
        if outcome in (ACTIVATED, HOST_ONLY):
            assert root == str(env.root)
        elif outcome == CACHED:
            assert Path(root).parent.parent == Path(environ["XDG_CACHE_HOME"]) / "cuda-build-activate"
        else:
            assert root == str(env.site / "nvidia" / "cu13")
        assert seen == {**untouched, **activation(root, env.site, untouched, nvcc=outcome != HOST_ONLY)}
        if outcome != WHEELS:
            assert held == places(env.site)
    assert listing(env.path) == before, "something of another package was changed"

    told = env.start("pass", *options, env={**environ, "CUDA_BUILD_ACTIVATE_VERBOSE": "1"})
    assert (told.returncode, told.stdout) == (0, "")
    if outcome == UNSEEN or "2>&-" in " ".join(env.prefix):
        assert told.stderr == ""
    else:
        (line,) = told.stderr.splitlines()
        assert line.isprintable()
        without = "out" if outcome == HOST_ONLY else ""
        activated = rf"activated CUDA 13(\.4\.0)? with{without} nvcc: "
        assert re.match(f"cuda-build-activate: {'nothing activated: ' if outcome == UNTOUCHED else activated}", line)
        assert says in line
        assert outcome in (UNTOUCHED, WHEELS) or says or line.endswith("/cu13")


def activation(root: str, site: Path, before: Mapping[str, str], *, nvcc: bool = True) -> dict[str, str]:
    """The variables of the activation of *root*, as documented, in an environment that was *before*."""
    path = before.get("PATH") or os.defpath
    variables = {name: root for name in VARIABLES if name.startswith("CUDA")}
    variables["CUDA_BUILD_ACTIVATE_SITE"] = f"{root}/.site"
    variables["CUDACXX"] = f"{root}/bin/nvcc"
    variables["PATH"] = f"{root}/bin{os.pathsep}{path}"
    for name, directory in (("CMAKE_PREFIX_PATH", root), ("LIBRARY_PATH", f"{root}/lib64/stubs")):
        variables[name] = os.pathsep.join([directory, before[name]] if before.get(name) else [directory])
    if not nvcc:
        del variables["CUDACXX"]
    assert os.path.isabs(root)
    return variables
