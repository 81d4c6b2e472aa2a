"""Source distributions of other projects, which do not list this package, built by the recipes for users of them."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import MACHINE, VEnv, block, loaded, needs_headers, run
from toolkits import NEWEST, lock, minor_version, release_lock

pytestmark = [pytest.mark.everything, needs_headers]

UV = [sys.executable, "-m", "uv"]
LOCKS_OF_SDISTS = (lock("sdists"), release_lock(NEWEST))


@dataclass(frozen=True)
class Sdist:
    """One that compiles in a few minutes, and what its build gets from the outside."""

    name: str
    version: str
    components: str
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def pinned(self) -> str:
        return f"{self.name}=={self.version}"

    @property
    def toolkit(self) -> str:
        return f"cuda-toolkit[{self.components}]=={NEWEST}"


PYCUDA = Sdist("pycuda", "2026.1", "nvcc,cudart,cccl,curand,profiler")
RELATIVE = {"CUDA_BUILD_ACTIVATE_RPATH": "relative"}
# Without the variable it would build its OpenCL half too, which needs libOpenCL.
PYVKFFT = Sdist("pyvkfft", "2025.1.1", "nvcc,cudart,cccl,nvrtc", {"VKFFT_BACKEND": "cuda", **RELATIVE})
# Its own default is the architecture of this machine's GPU, and a build for the CPU where CUDA is not found.
CUVEC = Sdist(
    "cuvec",
    "6.0.1",
    "nvcc,cudart,cccl",
    {"CMAKE_ARGS": "-DCMAKE_CUDA_ARCHITECTURES=86 -DCUVEC_CUDA_OPTIONAL=OFF"},
)
SCS = Sdist("scs", "3.3.1", "nvcc,cudart,cccl,cublas,cusparse")


@pytest.fixture
def online(hostile: dict[str, str], offline: dict[str, str]) -> dict[str, str]:
    """A hostile environment in which front ends also install from the index, but only what the locks name."""
    # Which index, and by which certificates, is the machine's to say.
    environ = {name: value for name, value in MACHINE.items() if "CUDA" not in name.upper()}
    found = {name: offline[name] for name in ("PIP_FIND_LINKS", "UV_FIND_LINKS", "UV_CACHE_DIR")}
    environ |= {**hostile, "HOME": MACHINE.get("HOME", hostile["HOME"]), **found}
    for name in ("PIP_CONFIG_FILE", "UV_NO_CONFIG"):
        environ.pop(name)
    versions = " ".join(str(path) for path in LOCKS_OF_SDISTS)
    constraints = dict.fromkeys(
        ("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT", "UV_CONSTRAINT", "UV_BUILD_CONSTRAINT"), versions
    )
    # setuptools puts them behind its own -O2: PyCUDA brings much of Boost, and none of it runs here for long.
    quickly = dict.fromkeys(("CFLAGS", "CXXFLAGS"), "-O0")
    return {**environ, **constraints, **quickly, "CUDA_BUILD_ACTIVATE_VERBOSE": "1"}


@pytest.fixture
def installed(tmp_path: Path) -> VEnv:
    """The environment that the sdist is installed into, which has neither this package nor a toolkit."""
    return VEnv(tmp_path / "installed")


def tables(sdist: Sdist, wheel: Path, tmp_path: Path, prefix: str = "") -> str:
    """What a user of uv configures."""
    # The wheel itself, lest the index has a newer one; a value that is new, lest uv has what it built in its cache.
    requires = [f"cuda-build-activate @ {wheel.as_uri()}", sdist.toolkit]
    variables = ", ".join(f"{name} = {json.dumps(value)}" for name, value in sdist.variables.items())
    return f"""
[{prefix}extra-build-dependencies]
{sdist.name} = {json.dumps(requires)}

[{prefix}extra-build-variables]
{sdist.name} = {{ {variables}{", " if variables else ""}BUILT_FOR = "{tmp_path}" }}
"""


def uv_pip_install(sdist: Sdist, installed: VEnv, *options: str) -> list[str]:
    command = [*UV, "pip", "install", "--verbose", "--python", f"{installed.python}"]
    return [*command, "--no-binary", sdist.name, *options, sdist.pinned]


def pip_install(sdist: Sdist, installed: VEnv, *options: str) -> list[str]:
    command = [f"{installed.python}", "-m", "pip", "install", "--verbose", "--no-cache-dir", "--no-deps"]
    return [*command, "--no-binary", sdist.name, *options, sdist.pinned]


def activated(log: str) -> set[str]:
    assert "the decoy was called" not in log
    return set(re.findall(r"activated CUDA 13[.\d]* with nvcc: (\S+)", log))


def built_in_isolation(log: str, cache: str) -> None:
    roots = activated(log)
    assert roots
    for root in roots:
        assert root.startswith(f"{cache}{os.sep}builds-v"), "not the toolkit of an isolated build"
        assert not Path(root).exists(), "the root outlived its build environment"


def module(installed: VEnv, pattern: str) -> Path:
    (found,) = installed.site.glob(pattern)
    return found


def needed(library: Path) -> set[str]:
    return set(re.findall(r"NEEDED.*\[(.*)\]", run(["readelf", "-d", library])))


def assert_device_code(library: Path, cuobjdump: Path, *architectures: str) -> None:
    assert set(re.findall(r"\.(sm_\d+)\.cubin", run([cuobjdump, "--list-elf", library]))) == set(architectures)
    assert f"Cuda compilation tools, release {minor_version(NEWEST)}" in run([cuobjdump, "--dump-elf", library])


def version_number(version: str) -> int:
    major, minor = minor_version(version).split(".")
    return int(major) * 1000 + int(minor) * 10


def check_pyvkfft(installed: VEnv, cuobjdump: Path, driver: dict[str, str]) -> None:
    library = module(installed, "pyvkfft/_vkfft_cuda.*.so")
    assert {"libcuda.so.1", "libnvrtc.so.13"} <= needed(library)
    assert_device_code(library, cuobjdump, "sm_75")
    code = f"import ctypes; print(ctypes.CDLL({str(library)!r}).cuda_compile_version())"
    printed, libraries = loaded(installed, code, driver)
    assert (printed, libraries) == (f"{version_number(NEWEST)}\n", {"nvidia/cu13/lib/libnvrtc.so.13"})


def test_uv_pip_install_of_pycuda(
    wheel: Path,
    online: dict[str, str],
    offline: dict[str, str],
    installed: VEnv,
    driver: dict[str, str],
    tmp_path: Path,
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    # The wheel itself, lest the index has a newer one.
    documented = block("[tool.uv.extra-build-dependencies]")
    (project / "pyproject.toml").write_text(
        documented.replace('"cuda-build-activate"', f'"cuda-build-activate @ {wheel.as_uri()}"')
    )
    assert PYCUDA.toolkit in documented
    command = block("uv pip install --no-binary pycuda pycuda").strip()
    installing = command.replace("pycuda pycuda", f"pycuda --verbose --refresh {PYCUDA.pinned}")
    installing = f"{Path(sys.executable).parent}/{installing}"
    log = run(["sh", "-ec", installing], env={**online, "VIRTUAL_ENV": f"{installed.path}"}, cwd=project)
    built_in_isolation(log, online["UV_CACHE_DIR"])
    assert {"libcuda.so.1", "libcurand.so.10"} <= needed(module(installed, "pycuda/_driver.*.so"))
    code = "import pycuda.driver, pycuda.curandom; print(*pycuda.driver.get_version())"
    printed, libraries = loaded(installed, code, driver)
    assert printed.split()[:2] == minor_version(NEWEST).split(".")
    assert libraries == {"nvidia/cu13/lib/libcudart.so.13", "nvidia/cu13/lib/libcurand.so.10"}
    # Its compiler, when it runs: docs/how-to/run-time.md.
    installed.install(wheel, f"cuda-toolkit[nvcc,cccl]=={NEWEST}", index=offline)
    code = (
        "import pycuda.compiler\n"
        "kernel = '__global__ void twice(float *values) { values[threadIdx.x] *= 2; }'\n"
        "try: binary = pycuda.compiler.compile(kernel, arch='sm_90', cache_dir=False)\n"
        "except Exception as error: print(error)\n"
        "else: print(binary[:4], b'twice' in binary)"
    )
    printed, _ = loaded(installed, code, driver)
    assert printed == "b'\\x7fELF' True\n"
    printed, _ = loaded(installed, code, {**driver, "CUDA_BUILD_ACTIVATE": "0"})
    assert "No such file or directory: 'nvcc'" in printed


def test_uv_pip_install_of_pyvkfft_with_a_configuration_file(
    wheel: Path, online: dict[str, str], installed: VEnv, cuobjdump: Path, driver: dict[str, str], tmp_path: Path
) -> None:
    configuration = tmp_path / "configuration.toml"
    configuration.write_text(tables(PYVKFFT, wheel, tmp_path))
    command = uv_pip_install(PYVKFFT, installed, "--no-deps", "--config-file", f"{configuration}")
    log = run(command, env=online, cwd=tmp_path)
    installed.install("nvidia-cuda-nvrtc", index=online)
    built_in_isolation(log, online["UV_CACHE_DIR"])
    check_pyvkfft(installed, cuobjdump, driver)


def test_uv_sync_of_cuvec(
    wheel: Path, online: dict[str, str], cuobjdump: Path, installed: VEnv, clean: dict[str, str], tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    # uv sync reads no variable for these.
    constraints = json.dumps([line for path in LOCKS_OF_SDISTS for line in path.read_text().splitlines()])
    (project / "pyproject.toml").write_text(
        f"""
[project]
name = "demo"
version = "1"
requires-python = "=={sys.version_info[0]}.{sys.version_info[1]}.*"
dependencies = ["{CUVEC.pinned}"]

[tool.uv]
constraint-dependencies = {constraints}
build-constraint-dependencies = {constraints}
no-binary-package = ["{CUVEC.name}"]
environments = ["sys_platform == 'linux' and platform_machine == 'x86_64'"]
{tables(CUVEC, wheel, tmp_path, "tool.uv.")}
"""
    )
    environ = {**online, "UV_PROJECT_ENVIRONMENT": f"{installed.path}"}
    log = run([*UV, "sync", "--verbose", "--python", f"{installed.python}"], env=environ, cwd=project)
    built_in_isolation(log, online["UV_CACHE_DIR"])
    for name in ("cuvec_cpython", "cuvec_pybind11", "example_cpython"):
        assert_device_code(module(installed, f"cuvec/{name}.*.so"), cuobjdump, "sm_86")
    # It links CUDA's static runtime, and needs nothing more.
    code = "import cuvec.cuvec_cpython, cuvec.cuvec_pybind11, cuvec.cuvec_swig"
    assert loaded(installed, code, clean) == ("", set())


# An isolated build inherits the variables of a pip that was started where the toolkit is.
@pytest.mark.parametrize("options", [(), ("--no-build-isolation",)], ids=["isolated", "not isolated"])
def test_pip_install_of_pyvkfft(
    options: tuple[str, ...],
    wheel: Path,
    online: dict[str, str],
    installed: VEnv,
    cuobjdump: Path,
    driver: dict[str, str],
    tmp_path: Path,
) -> None:
    installed.install("pip", "setuptools", index=online)
    if options:
        del online["PIP_BUILD_CONSTRAINT"]  # pip refuses it without isolation
        installed.install(wheel, PYVKFFT.toolkit, index=online)
        log = run(pip_install(PYVKFFT, installed, *options), env={**online, **PYVKFFT.variables}, cwd=tmp_path)
    else:
        commands = block('pip install cuda-build-activate "cuda-toolkit[nvcc,cudart,cccl,nvrtc]').replace(
            "cuda-build-activate", f"{wheel}", 1
        )
        assert PYVKFFT.toolkit in commands
        commands = re.sub(
            r"pyvkfft$", f"--verbose --no-cache-dir --no-deps {PYVKFFT.pinned}", commands, flags=re.MULTILINE
        )
        path = f"{installed.path / 'bin'}{os.pathsep}{online['PATH']}"
        log = run(["sh", "-ec", commands], env={**online, "PATH": path}, cwd=tmp_path)
    assert activated(log) == {f"{installed.root}"}
    check_pyvkfft(installed, cuobjdump, driver)


def test_pip_install_of_scs_without_isolation(
    wheel: Path, online: dict[str, str], installed: VEnv, driver: dict[str, str], tmp_path: Path
) -> None:
    del online["PIP_BUILD_CONSTRAINT"]  # pip refuses it without isolation
    installed.install(wheel, SCS.toolkit, "pip", "meson-python", "ninja", "numpy", index=online)
    # It requires a BLAS to be found, and without LAPACK calls nothing of it.
    blas = tmp_path / "blas"
    blas.mkdir()
    run(["gcc", "-shared", "-x", "c", os.devnull, "-o", blas / "libopenblas.so"])
    # Meson's find_library asks the C compiler where libraries are, and a toolkit's directory is none of its own.
    root = run(
        [installed.path / "bin" / "cuda-build-activate", "root"], env={**online, "CUDA_BUILD_ACTIVATE_VERBOSE": ""}
    ).strip()
    environ = {
        **online,
        "PATH": f"{installed.path / 'bin'}{os.pathsep}{online['PATH']}",
        "LIBRARY_PATH": f"{root}/lib64{os.pathsep}{blas}",
        "CUDA_BUILD_ACTIVATE_RPATH": "relative",
    }
    options = [f"-Csetup-args=-D{option}" for option in ("use_gpu=true", "int32=true", "use_lapack=false")]
    log = run(pip_install(SCS, installed, "--no-build-isolation", *options), env=environ, cwd=tmp_path)
    assert activated(log) == {f"{installed.root}"}
    assert f"Run-time dependency CUDA (modules: cudart_static) for c found: YES {minor_version(NEWEST)}" in log
    library = module(installed, "scs/_scs_gpu.*.so")
    assert {"libcublas.so.13", "libcusparse.so.12"} <= needed(library)
    # Not by way of the package, which imports SciPy.
    code = f"import sys; sys.path.insert(0, {str(library.parent)!r}); import _scs_gpu; print(_scs_gpu.version())"
    printed, libraries = loaded(installed, code, driver)
    assert printed.split() == [SCS.version]
    assert {"nvidia/cu13/lib/libcublas.so.13", "nvidia/cu13/lib/libcusparse.so.12"} <= libraries
