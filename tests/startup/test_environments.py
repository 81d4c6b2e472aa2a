"""Environments of other shapes: a directory per wheel, zip applications, builds within builds, editable installs."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import zipfile
from pathlib import Path

import pytest
from conftest import STABLE, Argument, VEnv, by_default, run
from faults import ACTIVATED, CHARACTERS, UNUSABLE, fault, places, probe
from toolkits import NEWEST, minor_version

KERNEL = (
    "#include <cuda_fp16.h>\n__global__ void kernel(__half *p) { *p = 1; }\nint main() { kernel<<<1, 1>>>(nullptr); }\n"
)
COMPONENTS = (
    "nvidia-cuda-nvcc",
    "nvidia-nvvm",
    "nvidia-cuda-crt",
    "nvidia-cuda-runtime",
    "nvidia-cuda-cccl",
    "nvidia-cublas",
    "nvidia-cuda-nvrtc",
    "nvidia-curand",
    "nvidia-nvtx",
    "nvidia-cuda-cuobjdump",
)


@pytest.fixture
def directories(wheel: Path, wheelhouse: Path, full: VEnv, tmp_path: Path) -> list[Path]:
    """A directory per wheel, and in it links to files that lie elsewhere, as Bazel's rules_python has them."""
    versions = {path.name.split("-")[0]: path.name.split("-")[1] for path in full.site.glob("*.dist-info")}
    made = []
    for name in COMPONENTS:
        stem = name.replace("-", "_")
        (source,) = wheelhouse.glob(f"{stem}-{versions[stem].removesuffix('.dist')}*-*.whl")
        made.append(tmp_path / "external" / stem / "site-packages")
        with zipfile.ZipFile(source) as archive:
            for entry in archive.namelist():
                link = made[-1] / entry
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(full.site / entry)
    ours = tmp_path / "external" / "cuda_build_activate" / "site-packages"
    zipfile.ZipFile(wheel).extractall(ours)
    return [*made, ours]


def test_a_directory_per_wheel(directories: list[Path], venv: VEnv, hostile: dict[str, str], tmp_path: Path) -> None:
    """Components spread over ten `sys.path` entries, none of them a site directory."""
    (tmp_path / "kernel.cu").write_text(KERNEL)
    (tmp_path / "cublas.cu").write_text("#include <cublas_v2.h>\nint main() { return cublasGetCudartVersion(); }\n")
    environ = {**hostile, "PYTHONPATH": os.pathsep.join(map(str, directories))}
    isolated = VEnv(tmp_path / "python")
    report = json.loads(isolated.python_("-S", "-m", "cuda_build_activate", "--json", env=environ).stdout)
    root = Path(report["root"])
    assert root.parent == directories[0] / "cuda-build-activate"
    assert {component["name"] for component in report["components"]} == set(COMPONENTS)
    runs = ["-S", "-m", "cuda_build_activate", "run", "--"]
    for source, options in (("kernel.cu", ["-arch=sm_90", "-rdc=true", "-dlto"]), ("cublas.cu", ["-lcublas"])):
        command = [*runs, "nvcc", str(tmp_path / source), "-o", str(tmp_path / "program"), *options]
        done = isolated.python_(*command, env=environ)
        assert (done.returncode, done.stderr) == (0, "")
    assert "libcublas.so.13" in run(["readelf", "-d", tmp_path / "program"])
    code = "import cuda_build_activate, os; print(cuda_build_activate.activate().root == os.environ['CUDA_HOME'])"
    assert isolated.python_("-S", "-c", code, env=environ).stdout == "True\n"


def test_a_zip_application(wheel: Path, full: VEnv, hostile: dict[str, str], tmp_path: Path) -> None:
    source = tmp_path / "source"
    zipfile.ZipFile(wheel).extractall(source)
    code = (
        f"import cuda_build_activate, sys\nprint(cuda_build_activate.activate([{str(full.site)!r}]).root, sys.argv)\n"
    )
    (source / "__main__.py").write_text(code)
    run([sys.executable, "-m", "zipapp", source, "-o", tmp_path / "application.pyz"])
    python = VEnv(tmp_path / "python")
    assert python.python_("-I", str(tmp_path / "application.pyz"), env=hostile).stdout.startswith(f"{full.root} ")


INNER = """
[build-system]
requires = ["scikit-build-core", "cuda-build-activate", "cuda-toolkit[cccl,cudart,nvcc]=={version}"]
build-backend = "scikit_build_core.build"
[project]
name = "{name}"
version = "1"
"""
CMAKE = """
cmake_minimum_required(VERSION 3.25)
project(probe LANGUAGES CXX CUDA)
message(STATUS "nested ${{CMAKE_CUDA_COMPILER_VERSION}} ${{CMAKE_CUDA_COMPILER}}")
file(WRITE ${{CMAKE_BINARY_DIR}}/{name}.py "built_with = '${{CMAKE_CUDA_COMPILER_VERSION}}'")
install(FILES ${{CMAKE_BINARY_DIR}}/{name}.py DESTINATION .)
"""


def make_project(directory: Path, name: str, version: str, requirement: str = "") -> Path:
    directory.mkdir()
    pyproject = INNER.format(name=name, version=version)
    (directory / "pyproject.toml").write_text(pyproject.replace("requires = [", f"requires = [{requirement}"))
    (directory / "CMakeLists.txt").write_text(CMAKE.format(name=name))
    return directory


@pytest.mark.parametrize("front_end", ["pip", "build"])
def test_a_requirement_that_is_built_with_another_cuda(
    front_end: str, offline: dict[str, str], hostile: dict[str, str], tmp_path: Path
) -> None:
    """The inner build takes place in the environment of the outer one, and neither sees the other's toolkit."""
    environ = {**hostile, **offline, "CUDAARCHS": "86"}
    index = tmp_path / "index"
    inner = make_project(tmp_path / "inner", "innerdemo", "13.2.2")
    run([sys.executable, "-m", "uv", "build", "--sdist", "--out-dir", index, inner], env=environ)
    environ["PIP_FIND_LINKS"] += f" {index}"
    outer = make_project(tmp_path / "outer", "outerdemo", NEWEST, '"innerdemo", ')
    (outer / "CMakeLists.txt").write_text(
        CMAKE.format(name="outerdemo")
        + "find_package(Python REQUIRED COMPONENTS Interpreter)\n"
        + 'execute_process(COMMAND ${Python_EXECUTABLE} -c "import innerdemo; print(innerdemo.built_with)"\n'
        + "  OUTPUT_VARIABLE inner COMMAND_ERROR_IS_FATAL ANY)\n"
        + 'message(STATUS "requirement ${inner}")\n'
    )
    command = {
        "pip": [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-v",
            "--no-deps",
            "--no-cache-dir",
            "-w",
            str(tmp_path),
            str(outer),
        ],
        "build": [sys.executable, "-m", "build", "-w", "-v", "-o", str(tmp_path), str(outer)],
    }[front_end]
    log = run(command, env=environ, cwd=tmp_path)
    built = re.findall(r"-- nested (\S+) (\S+)", log)
    assert f"-- requirement {minor_version('13.2.2')}." in log
    version, compiler = built[-1]
    assert version.startswith(f"{minor_version(NEWEST)}.")
    assert re.fullmatch(r".*/site-packages/cuda-build-activate/cu13/bin/nvcc", compiler)


EDITABLE = """
cmake_minimum_required(VERSION 3.25)
project(probe LANGUAGES CXX CUDA)
add_library(probe SHARED probe.cu)
install(TARGETS probe DESTINATION editdemo)
"""


def test_an_editable_install_that_is_rebuilt_on_import(
    offline: dict[str, str], hostile: dict[str, str], tmp_path: Path
) -> None:
    venv = VEnv(tmp_path / "venv")
    toolkit = f"cuda-toolkit[cccl,cudart,nvcc]=={NEWEST}"
    venv.install("cuda-build-activate", toolkit, "scikit-build-core", "cmake", "ninja", "pip", index=offline)
    project = make_project(tmp_path / "project", "editdemo", NEWEST)
    (project / "CMakeLists.txt").write_text(EDITABLE)
    (project / "probe.cu").write_text('extern "C" int before() { return cudaSuccess; }')
    (project / "src" / "editdemo").mkdir(parents=True)
    (project / "src" / "editdemo" / "__init__.py").touch()
    environ = {**hostile, **offline, "CUDAARCHS": "86", "PATH": f"{venv.path}/bin{os.pathsep}{hostile['PATH']}"}
    settings = ["-C", "editable.rebuild=true", "-C", f"build-dir={tmp_path}/build"]
    install: list[Argument] = [
        venv.python,
        "-m",
        "pip",
        "install",
        "--no-build-isolation",
        "--no-deps",
        *settings,
        "-e",
        project,
    ]
    run(install, env=environ)
    (library,) = tmp_path.glob("build/**/editdemo/libprobe.so")
    assert "before" in run(["nm", "-D", library])
    time.sleep(1.1)  # to `cmake --install`, files whose times differ by less than a second are the same
    (project / "probe.cu").write_text('extern "C" int after() { return cudaSuccess; }')
    # Looking for a file that the build makes is what rebuilds it; this one is a library and no module to import.
    done = venv.start("import importlib.util; importlib.util.find_spec('editdemo.libprobe')", env=environ)
    assert done.returncode == 0, done.stderr
    assert "Building CUDA object" in done.stderr
    assert "after" in run(["nm", "-D", library])
    assert f"CMAKE_CUDA_COMPILER:FILEPATH={venv.root}/bin/nvcc" in (tmp_path / "build" / "CMakeCache.txt").read_text()


@pytest.mark.parametrize("front_end", ["pip", "uv"])
@fault("a stale root", "real toolkits upgraded, downgraded and removed, by pip and by uv", ACTIVATED)
def test_upgrades(front_end: str, offline: dict[str, str], environ: dict[str, str], tmp_path: Path) -> None:
    venv = VEnv(tmp_path / "venv")
    select = ["pip", "--python", str(venv.python)] if front_end == "pip" else ["uv", "pip"]
    where = [] if front_end == "pip" else ["--python", str(venv.python)]

    def call(command: str, *arguments: Argument) -> None:
        run([sys.executable, "-m", *select, command, *where, *arguments], env={**os.environ, **offline})

    call("install", "cuda-build-activate")
    untouched = probe(venv, environ)[0]
    for version in ("13.2.2", NEWEST, "13.3.1"):
        call("install", f"cuda-toolkit[nvcc,cudart,cccl]=={version}")
        seen, held = probe(venv, environ)
        assert (seen["CUDA_HOME"], held) == (str(venv.root), places(venv.site))
        assert f"release {minor_version(version)}" in run([venv.root / "bin" / "nvcc", "--version"])
        assert minor_version(version) in (venv.root / "version.txt").read_text()
    yes = ["--yes"] * (front_end == "pip")
    call("uninstall", *yes, "nvidia-cuda-cccl")
    assert probe(venv, environ)[1] == places(venv.site)
    assert not (venv.root / "include" / "cccl" / "cub" / "cub.cuh").exists()
    call("uninstall", *yes, *(f"nvidia-{name}" for name in ("cuda-nvcc", "cuda-crt", "nvvm", "cuda-runtime")))
    assert probe(venv, environ)[0] == untouched


@pytest.mark.parametrize("characters", [CHARACTERS, UNUSABLE], ids=["usable", "unusable"])
def test_an_odd_path(
    characters: dict[str, str], offline: dict[str, str], hostile: dict[str, str], tmp_path: Path
) -> None:
    """nvcc and CMake work with all the characters at once that they can take; with others, by a stable path.

    But for some: gcc takes the comma in an rpath for its own, uv wants UTF-8, no venv can have a colon, and a carriage
    return is a line break to what reads text.
    """
    odd = "".join(character for character in characters.values() if character not in (",", "\udcff", ":", "\r"))
    venv = VEnv(tmp_path / odd / "venv")
    venv.install("cuda-build-activate", f"cuda-toolkit[nvcc,cudart,cccl]=={NEWEST}", index=offline)
    project = tmp_path / "project"
    project.mkdir()
    (project / "kernel.cu").write_text(KERNEL)
    (project / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(odd LANGUAGES CXX CUDA)\nfind_package(CUDAToolkit REQUIRED)\n"
        "add_executable(odd kernel.cu)\ntarget_link_libraries(odd CUDA::cudart CUDA::cuda_driver)\n"
        'message("root=${CUDAToolkit_INCLUDE_DIRS}")\n'
    )
    environ = venv.environ(env=by_default(hostile))
    root = environ["CUDA_HOME"]
    assert re.fullmatch(STABLE, root)
    assert os.readlink(root) == str(venv.root)
    if characters is CHARACTERS:  # seen by its own path, as in a venv that stays
        environ, root = venv.environ(env=hostile), str(venv.root)
        assert environ["CUDA_HOME"] == root
    environ["PATH"] += os.pathsep + str(Path(sys.executable).parent)
    cmake = [sys.executable, "-m", "cmake"]
    configured = run([*cmake, "-G", "Ninja", "-DCMAKE_CUDA_ARCHITECTURES=80", "-B", "build"], env=environ, cwd=project)
    assert f"root={root}/include" in configured
    run([*cmake, "--build", "build"], env=environ, cwd=project)
    assert "libcudart.so.13" in run(["readelf", "-d", project / "build" / "odd"])
