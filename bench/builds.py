"""This package's share of a whole build: of the example, with and without isolation, phase by phase."""

from __future__ import annotations

import functools
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from environments import Argument, Environment, put_root_away
from measure import SYSTEM_PATH, Start, medians, tool
from startup import BARE, FIRST, MARKER, ROOT

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "skbuild"
TOOLKIT = "cuda-toolkit[cccl,cublas,cudart,nvcc]>=13.2.1,==13.*"  # the example's
SYSTEM = Path("/usr/local/cuda")
ROUNDS = 3
# Each begins with this line of scikit-build-core's output. Before the first, the front end installs.
PHASES = {"configure": "*** Configuring CMake", "compile": "*** Building project", "pack": "*** Installing project"}


class Build(NamedTuple):
    """The median seconds of each phase of a build, and how many of its processes ran our startup file."""

    name: str
    seconds: dict[str, float]
    starts: int


class Builds(NamedTuple):
    """The builds, and the milliseconds of a start by state, with the example's toolkit and without byte code.

    installed: which toolkit the build without isolation uses, in words.
    """

    installed: str
    builds: list[Build]
    milliseconds: dict[str, float]

    def ours(self, build: Build) -> float:
        """An upper bound for our seconds in *build*: the very first start, and the others as if none were a child's."""
        first, other = (self.milliseconds[name] - self.milliseconds[BARE] for name in (FIRST, ROOT))
        return (first + (build.starts - 1) * max(other, 0)) / 1000 if build.starts else 0


def measure(interpreter: Path, directory: Path, wheel: Path) -> Builds:
    """Build the example in isolation, with pip and with uv, and without isolation, with an installed toolkit."""
    bare, toolkit, tools = (Environment(directory / "environments", interpreter) for _ in range(3))
    toolkit.install(wheel, TOOLKIT)
    tools.install("pip", "scikit-build-core>=0.11")
    root = Path(Start(toolkit.python).environ()[MARKER])
    starts = {
        BARE: Start(bare.python),
        ROOT: Start(toolkit.python),
        FIRST: Start(toolkit.python, before=functools.partial(put_root_away, toolkit.site)),
    }
    milliseconds = medians(starts)

    # The example needs cuBLAS, which the system's toolkit may lack.
    system = (SYSTEM / "lib64" / "libcublas.so").exists()
    installed = SYSTEM if system else root
    variables = {"CUDA_HOME": str(installed), "CUDACXX": f"{installed}/bin/nvcc"}
    environ = {**without_cuda(f"{installed}/bin{os.pathsep}{SYSTEM_PATH}"), **variables}
    example, out = directory / "example", directory / "out"
    shutil.copytree(EXAMPLE, example)
    pip = ("-m", "pip", "--disable-pip-version-check", "wheel", "-v", "--no-deps", "--wheel-dir", out, example)
    uv = ("-m", "uv", "build", "--wheel", "--python", interpreter, "--out-dir", out, example)
    ours = ("--find-links", wheel.parent)
    isolated = without_cuda(SYSTEM_PATH)
    return Builds(
        str(SYSTEM) if system else "the same wheels', in an environment of their own",
        [
            _build("pip wheel", [sys.executable, *pip, *ours], isolated),
            _build("uv build", [sys.executable, *uv, *ours], isolated),
            _build("pip wheel --no-build-isolation", [tools.python, *pip, "--no-build-isolation"], environ),
        ],
        milliseconds,
    )


def _build(name: str, command: Sequence[Argument], environ: Mapping[str, str]) -> Build:
    """Build once, to fetch the requirements and count the starts; then again, for the times."""
    with tempfile.NamedTemporaryFile("r", errors="replace") as log:
        strace = (tool("strace"), "-f", "-qq", "--seccomp-bpf", "-e", "trace=open,openat", "-o", log.name)
        _phases([*strace, *command], environ)
        reads = re.findall(r'^(\d+) .*/hatch_autorun_cuda_build_activate\.(?:pth|start)", O_RDONLY', log.read(), re.M)
    rounds = [_phases(command, environ) for _ in range(ROUNDS)]
    return Build(
        name, {phase: statistics.median(each[phase] for each in rounds) for phase in rounds[0]}, len(set(reads))
    )


def _phases(command: Sequence[Argument], environ: Mapping[str, str]) -> dict[str, float]:
    began = {"install": time.monotonic()}
    lines = []
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            for phase, mark in PHASES.items():
                if mark in line:
                    began[phase] = time.monotonic()
    ends = [*list(began.values())[1:], time.monotonic()]
    if process.returncode or list(began) != ["install", *PHASES]:
        sys.exit(f"{''.join(lines)}\nfailed with status {process.returncode}: {command}")
    return {phase: end - start for (phase, start), end in zip(began.items(), ends)}


def without_cuda(path: str) -> dict[str, str]:
    """This process's environment variables without any of CUDA's or of a build's, and with *path* as PATH."""
    foreign = ("CMAKE_", "CUDA", "LIBRARY_PATH", "NVCC", "PYTHON", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "PATH": path, "PYTHONUNBUFFERED": "1"}
