"""Extensions of PyTorch with CUDA code, and what compiles CUDA code when it runs: compiled, and loaded.

Nothing of it sees a CUDA of the machine's. PyTorch is the newest that the tests know, with its own toolkit.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from conftest import (
    MACHINE,
    PROJECT,
    STABLE,
    Argument,
    VEnv,
    fetch,
    index_of,
    loaded,
    needs_headers,
    run,
    without_cuda,
)
from test_sdists import built_in_isolation
from toolkits import TORCH, lock, minor_version

pytestmark = [
    pytest.mark.everything,
    pytest.mark.skipif(sys.version_info < (3, 11), reason="PyTorch wants Python 3.11"),
]

NEWEST_TORCH = [*TORCH][-1]
CUDA = minor_version(TORCH[NEWEST_TORCH])
ARCHITECTURE = {"TORCH_CUDA_ARCH_LIST": "9.0", "MAX_JOBS": "1"}
UV = [sys.executable, "-m", "uv"]


@pytest.fixture(scope="session")
def with_torch(wheelhouse: Path, wheel: Path, pytestconfig: pytest.Config) -> dict[str, str]:
    """The variables by which pip and uv install PyTorch, the compilers at run time, and what the tests have fetched."""
    fetch("torch", pytestconfig)
    # Of several versions of the toolkit there, PyTorch takes its own; of all else, what is locked.
    locked = dict.fromkeys(("PIP_CONSTRAINT", "UV_CONSTRAINT", "UV_BUILD_CONSTRAINT"), str(lock("torch")))
    # pip would compile all of PyTorch's modules in each build environment.
    return {**index_of(wheelhouse, wheel, pytestconfig), **locked, "PIP_NO_COMPILE": "1"}


@pytest.fixture(scope="session")
def torch(with_torch: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[VEnv]:
    """An environment with PyTorch, without nvcc and without this package."""
    made = VEnv(tmp_path_factory.mktemp("torch") / "venv")
    made.install("torch", index=with_torch)
    yield made
    shutil.rmtree(made.path)


@pytest.fixture(scope="session")
def compilers(with_torch: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[VEnv]:
    """An ordinary virtual environment with all that compiles CUDA code when it runs, nvcc and this package."""
    made = VEnv(tmp_path_factory.mktemp("compilers") / "venv")
    requirements = ["torch", "ninja", "setuptools", "flashinfer-python", "cupy-cuda13x", "numba-cuda[cu13]"]
    made.install("cuda-build-activate", "cuda-toolkit[nvcc,cccl]", *requirements, index=with_torch)
    yield made
    shutil.rmtree(made.path)


def build(front_end: str, environ: Mapping[str, str], torch: VEnv, directory: Path) -> tuple[str, Path]:
    """Build the extension; return what was printed, and the wheel."""
    project = shutil.copytree(PROJECT / "tests" / "packages" / "torch", directory / "project")
    out = directory / "out"
    command: list[Argument]
    if front_end == "uv":
        command = [*UV, "build", "--wheel", "--verbose", "--link-mode", "hardlink", "--out-dir", out, project]
    else:
        pip = [sys.executable, "-m", "pip"]
        options = ["--no-deps", "--verbose", "--no-cache-dir"]
        if front_end == "pip, not isolated":
            made = VEnv(directory / "venv")
            made.install("pip", "setuptools", "torch", "cuda-build-activate", "cuda-toolkit[nvcc,cccl]", index=environ)
            pip = [str(made.python), "-m", "pip"]
            options.append("--no-build-isolation")
        command = [*pip, "wheel", *options, "--wheel-dir", out, project]
    log = run([*without_cuda(), *command], env=environ, cwd=directory)
    (wheel,) = out.glob("demo-*.whl")
    return log, wheel


@needs_headers
@pytest.mark.parametrize("front_end", ["uv", "pip", "pip, not isolated"])
def test_an_extension(
    front_end: str,
    with_torch: dict[str, str],
    torch: VEnv,
    temporary: dict[str, str],
    hostile: dict[str, str],
    cuobjdump: Path,
    tmp_path: Path,
) -> None:
    log, wheel = build(front_end, {**temporary, **with_torch, **ARCHITECTURE}, torch, tmp_path)
    assert "the decoy was called" not in log
    (root,) = set(re.findall(r"toolkit = (.*)", log))
    assert re.fullmatch(STABLE, root)
    assert front_end == "pip, not isolated" or not Path(root).exists(), "the root outlived its build environment"
    torch.install(wheel)
    (binary,) = torch.site.glob("demo.*.so")
    assert set(re.findall(r"\.(sm_\d+)\.cubin", run([cuobjdump, "--list-elf", binary]))) == {"sm_90"}
    assert f"Cuda compilation tools, release {CUDA}" in run([cuobjdump, "--dump-elf", binary])
    # Where there is no GPU, its own check of the arguments answers.
    code = "import torch, demo\ntry: demo.twice(torch.ones(3))\nexcept RuntimeError as error: print(str(error))"
    printed, libraries = loaded(torch, code, hostile)
    assert "twice() wants a CUDA tensor\n" in printed
    assert "nvidia/cu13/lib/libcudart.so.13" in libraries
    torch.uninstall("demo")
    assert not list(torch.site.glob("nvidia/cu13/bin/nvcc"))


@needs_headers
def test_an_sdist_by_uv_sync(
    wheel: Path, hostile: dict[str, str], cuobjdump: Path, pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    """With the recipe of docs/how-to/torch.md: PyTorch of the build is that of the environment."""
    page = (PROJECT / "docs" / "how-to" / "torch.md").read_text()
    (documented,) = re.findall(r"^```toml\n(\[project\]\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    constraints = json.dumps(lock("torch-2.13").read_text().splitlines())
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        documented.replace('"cuda-build-activate"', json.dumps(f"cuda-build-activate @ {wheel.as_uri()}"))
        + f"""
[tool.uv]
constraint-dependencies = {constraints}
build-constraint-dependencies = {constraints}
environments = ["sys_platform == 'linux' and platform_machine == 'x86_64'"]
"""
    )
    installed = VEnv(tmp_path / "installed")
    fetching = {name: value for name, value in MACHINE.items() if "CUDA" not in name.upper()}
    environ = {**fetching, **hostile, **ARCHITECTURE, "CUDA_BUILD_ACTIVATE_VERBOSE": "1"}
    environ |= {"UV_CACHE_DIR": str(pytestconfig.cache.mkdir("uv")), "UV_PROJECT_ENVIRONMENT": str(installed.path)}
    del environ["UV_NO_CONFIG"]
    python = ["--python", f"{installed.python}"]
    log = run([*without_cuda(), *UV, "sync", "--verbose", *python], env=environ, cwd=project)
    assert "the decoy was called" not in log
    built_in_isolation(log, environ["UV_CACHE_DIR"])
    (binary,) = installed.site.glob("spatial_correlation_sampler*.so")
    assert set(re.findall(r"\.(sm_\d+)\.cubin", run([cuobjdump, "--list-elf", binary]))) == {"sm_90"}
    assert "Cuda compilation tools, release 13.0" in run([cuobjdump, "--dump-elf", binary])
    printed, libraries = loaded(
        installed, "import torch, spatial_correlation_sampler; print(torch.version.cuda)", hostile
    )
    assert printed == "13.0\n"
    assert "nvidia/cu13/lib/libcudart.so.13" in libraries
    assert not (installed.site / "nvidia/cu13/bin/nvcc").exists()


# By the compiler: a program that compiles, loads what came of it and calls that; and what is said without the toolkit.
PROGRAMS = {
    "torch": (
        """
from torch.utils.cpp_extension import load_inline
cpp = "#include <torch/extension.h>\\nint next(int);"
cuda = "__global__ void kernel() {} int next(int x) { return x + 1; }"
options = {"functions": ["next"], "no_implicit_headers": True}  # of PyTorch's, which take a minute
print(load_inline("probe", cpp_sources=cpp, cuda_sources=cuda, **options).next(41))
""",
        "CUDA_HOME environment variable is not set",
    ),
    "FlashInfer": (
        """
from flashinfer.jit.activation import gen_act_and_mul_module
gen_act_and_mul_module("silu").build_and_load()
print(42)
""",
        "Could not find nvcc",
    ),
}
TVM_FFI = """
import tvm_ffi.cpp
cuda = "__global__ void kernel() {} int next(int x) { kernel<<<1, 1>>>(); return x + 1; }"
print(tvm_ffi.cpp.load_inline("probe", cuda_sources=cuda, functions=["next"]).next(41))
"""
# These bring a compiler of their own: what they make, with and without a toolkit that is activated.
INDEPENDENT = {
    "Triton": """
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

@triton.jit
def kernel(x, y, n: tl.constexpr):
    i = tl.arange(0, n)
    tl.store(y + i, tl.load(x + i) + 1)

source = ASTSource(fn=kernel, signature={"x": "*fp32", "y": "*fp32", "n": "constexpr"}, constexprs={(2,): 64})
made = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]
""",
    "CuPy": """
import cupy._environment
from cupy_backends.cuda.libs import nvrtc
source = '#include <cuda_fp16.h>\\nextern "C" __global__ void kernel(__half *p) { *p = 1; }'
program = nvrtc.createProgram(source, "kernel.cu", (), ())
nvrtc.compileProgram(program, ("-arch=sm_90", f"-I{cupy._environment.get_cuda_path()}/include"))
made = nvrtc.getCUBIN(program)
""",
    "Numba": """
from numba import cuda, types

def kernel(p):
    p[0] = 1

made = cuda.compile(kernel, (types.float32[:],), cc=(9, 0), abi="numba")[0].encode()
""",
}
PRINT = "import hashlib; print(len(made) > 500, hashlib.sha256(made).hexdigest())"


def compile_and_run(
    venv: VEnv, program: str, environ: Mapping[str, str], directory: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run *program*, a file, with a home of its own, on a machine without CUDA."""
    (directory / "home").mkdir(parents=True)
    (directory / "program.py").write_text(program)
    environ = {
        **environ,
        "HOME": str(directory / "home"),
        "PATH": f"{venv.path / 'bin'}{os.pathsep}{environ['PATH']}",
        "FLASHINFER_CUDA_ARCH_LIST": "9.0a",
        "TVM_FFI_CUDA_ARCH_LIST": "9.0",
        **ARCHITECTURE,
        **variables,
    }
    command = [*without_cuda(), str(venv.python), str(directory / "program.py")]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


@needs_headers
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_compiler_at_run_time(name: str, compilers: VEnv, clean: dict[str, str], tmp_path: Path) -> None:
    program, message = PROGRAMS[name]
    done = compile_and_run(compilers, program, clean, tmp_path / "with")
    assert done.stdout.splitlines()[-1:] == ["42"], done.stderr
    done = compile_and_run(compilers, program, clean, tmp_path / "without", CUDA_BUILD_ACTIVATE="0")
    assert done.returncode != 0
    assert message in done.stderr


@needs_headers
def test_load_inline_with_the_wheels_own_directory(compilers: VEnv, clean: dict[str, str], tmp_path: Path) -> None:
    """As a plain activator has it, and as pytorch/pytorch#197483 would: docs/understand/comparison.md."""
    activator = (PROJECT / "bench" / "plain" / "plain_activator.py").read_text()
    done = compile_and_run(
        compilers, activator + PROGRAMS["torch"][0], clean, tmp_path / "place", CUDA_BUILD_ACTIVATE="0"
    )
    assert done.returncode != 0
    assert "cannot find -lcudart" in done.stderr + done.stdout


def test_tvm_ffi(with_torch: dict[str, str], clean: dict[str, str], tmp_path: Path) -> None:
    """Without PyTorch, which would load the runtime: what is linked has to find it by itself."""
    venv = VEnv(tmp_path / "venv")
    venv.install(
        "apache-tvm-ffi", "ninja", "cuda-build-activate", f"cuda-toolkit[nvcc,cudart,cccl]=={CUDA}.*", index=with_torch
    )
    absolute = {"CUDA_BUILD_ACTIVATE_RPATH": "absolute"}
    done = compile_and_run(venv, TVM_FFI, clean, tmp_path / "with", **absolute)
    assert done.stdout == "42\n", done.stderr
    done = compile_and_run(venv, TVM_FFI, clean, tmp_path / "no-run-path")
    assert "libcudart.so.13: cannot open shared object file" in done.stderr
    done = compile_and_run(venv, TVM_FFI, clean, tmp_path / "without", CUDA_BUILD_ACTIVATE="0", **absolute)
    assert "Could not find CUDA installation" in done.stderr


@pytest.mark.parametrize("name", INDEPENDENT)
def test_what_has_a_compiler_of_its_own(name: str, compilers: VEnv, clean: dict[str, str], tmp_path: Path) -> None:
    """It makes the same with a toolkit that is activated and without."""
    outputs = set()
    for switch in ("1", "0"):
        done = compile_and_run(
            compilers, INDEPENDENT[name] + PRINT, clean, tmp_path / "place", CUDA_BUILD_ACTIVATE=switch
        )
        shutil.rmtree(tmp_path / "place")  # what Triton makes has the path of the source in it
        assert done.stdout.startswith("True "), done.stderr
        outputs.add(done.stdout)
    assert len(outputs) == 1


def test_the_doctor_of_such_an_environment(compilers: VEnv, clean: dict[str, str]) -> None:
    done = compilers.python_("-m", "cuda_build_activate", "doctor", "--json", env=clean)
    assert json.loads(done.stdout)["findings"] == []
