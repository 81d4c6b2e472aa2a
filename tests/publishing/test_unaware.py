"""Projects that know nothing of run paths and requirements: built with CUDA_BUILD_ACTIVATE_RPATH, they are loaded."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import MACHINE, PROJECT, Argument, VEnv, loaded, run
from toolkits import NEWEST, minor_version

RPATH = "CUDA_BUILD_ACTIVATE_RPATH"
UNAWARE = PROJECT / "tests" / "packages" / "unaware"


@dataclass(frozen=True)
class Unaware:
    """A project that knows nothing of run paths and requirements.

    libraries: what it installs. requirements: what a person lists for these. variables: what the build is given.
    """

    directory: str
    libraries: tuple[str, ...]
    requirements: tuple[str, ...] = ("nvidia-cuda-runtime", "nvidia-cublas", "nvidia-curand", "nvidia-nccl-cu13")
    variables: tuple[tuple[str, str], ...] = ()
    said: str = ""


PAIR = ("demo/inner/libkernel.so", "demo/inner/libhost.so")
PROJECTS = {
    "CMake and Ninja": Unaware("cmake", PAIR, said="generator Ninja"),
    "CMake and make": Unaware(
        "cmake", PAIR, variables=(("CMAKE_GENERATOR", "Unix Makefiles"),), said="generator Unix M"
    ),
    "Meson": Unaware("meson", PAIR),
    "setuptools, nvcc, gcc": Unaware(
        "setuptools", ("demo/inner/host.*.so", "demo/inner/libgcc.so", "demo/inner/libkernel.so")
    ),
    "the shape of llama-cpp-python": Unaware(
        "llama-cpp", ("demo/lib/libllama.so", "demo/lib/libggml-cuda.so"), ("nvidia-cuda-runtime", "nvidia-cublas")
    ),
}


@pytest.mark.parametrize("name", PROJECTS)
def test_a_project_that_knows_nothing_of_run_paths(
    name: str, offline: dict[str, str], hostile: dict[str, str], driver: dict[str, str], tmp_path: Path
) -> None:
    unaware = PROJECTS[name]
    project = shutil.copytree(UNAWARE / unaware.directory, tmp_path / "project")
    for source in UNAWARE.glob("*.c*"):
        shutil.copy(source, project)
    environ = {**hostile, **offline, "CUDAARCHS": "86", RPATH: "relative", **dict(unaware.variables)}
    if "make" in name:
        make = shutil.which("make", path=MACHINE["PATH"])
        if not make:
            pytest.skip("there is no make here")
        environ["CMAKE_ARGS"] = f"-DCMAKE_MAKE_PROGRAM={make}"
    command: list[Argument] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-v",
        "--no-deps",
        "--no-cache-dir",
        "-w",
        tmp_path / "out",
        project,
    ]
    log = run(command, env=environ, cwd=tmp_path)
    assert "the decoy was called" not in log
    assert unaware.said in log
    (wheel,) = (tmp_path / "out").glob("demo-*.whl")
    for front_end in ("pip", "uv"):
        installed = VEnv(tmp_path / front_end)
        if front_end == "uv":
            installed.install(wheel, *unaware.requirements, index=offline)
        else:
            pip: list[Argument] = [sys.executable, "-m", "pip", "--python", installed.python, "install", "--quiet"]
            run([*pip, wheel, *unaware.requirements], env={**os.environ, **offline})
        for pattern in unaware.libraries:
            (library,) = installed.site.glob(pattern)
            major, minor = minor_version(NEWEST).split(".")
            code = f"import ctypes; print(ctypes.CDLL({str(library)!r}).probe())"
            code = code.replace(".probe()", ".backend()") if "ggml" in pattern else code
            printed, libraries = loaded(installed, code, driver)
            assert printed == f"{major}0{minor}0\n"
            assert len(libraries) >= len(unaware.requirements)
            paths = re.findall(r"RUNPATH.*\[(.*)\]", run(["readelf", "-d", library]))[0].split(":")
            assert [path for path in paths if not path.startswith("$ORIGIN")] == []
