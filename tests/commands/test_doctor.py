"""Findings, in environments that have the fault."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import PROJECT, VEnv, make_toolkit, run, script
from toolkits import INCOMPLETE, MIXED, NEWEST, WITHOUT_NVCC, minor_version

from cuda_build_activate import _doctor

FLAGS = "-m", "cuda_build_activate"


def torch(version: str, cuda: str | None) -> str:
    """A command that makes as much of a PyTorch as tells its version, as its own build writes it."""
    lines = [
        "from typing import Optional",
        "__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip', 'xpu']",
        f"__version__ = '{version}'",
        "debug = False",
        f"cuda: Optional[str] = {cuda!r}",
        "git_version = '1'",
        "hip: Optional[str] = None",
    ]
    return f'mkdir torch; printf "%s\\n" {" ".join(json.dumps(line) for line in lines)} > torch/version.py'


CUDA_12 = (
    "rm -r nvidia/cu13/bin; mkdir nvidia/cuda_runtime; mv nvidia/cu13/include nvidia/cu13/lib nvidia/cuda_runtime; "
    "rm -r nvidia/cu13; mv nvidia/cuda_runtime/lib/libcudart.so.13 nvidia/cuda_runtime/lib/libcudart.so.12"
)

# Each fault: what makes it, in the site directory of an environment whose toolkit has none; variables that are set
# ({site} is that directory, {decoy} another toolkit); the interpreter's options; and the findings.
Fault = tuple[str, dict[str, str], list[str], list[str]]
FAULTS: dict[str, Fault] = {
    "nothing": ("", {}, [], []),
    "no toolkit": ("rm -r nvidia", {}, [], ["no-toolkit"]),
    "another major version is asked for": ("", {"CUDA_BUILD_ACTIVATE": "12"}, [], ["no-toolkit"]),
    "no nvcc": ("rm nvidia/cu13/bin/nvcc", {}, [], ["no-compiler"]),
    "no nvcc, and another toolkit": (
        "rm nvidia/cu13/bin/nvcc",
        {"CUDA_HOME": "{decoy}"},
        [],
        ["not-displaced", "no-compiler"],
    ),
    "no nvcc, and no crt": (
        "rm nvidia/cu13/bin/nvcc nvidia/cu13/include/crt/host_defines.h",
        {},
        [],
        ["missing-components", "no-compiler"],
    ),
    "CUDA 12": (CUDA_12, {}, [], ["no-compiler"]),
    "no nvvm": ("rm -r nvidia/cu13/nvvm", {}, [], ["missing-components"]),
    "no crt": ("rm nvidia/cu13/include/crt/host_config.h", {}, [], ["missing-components"]),
    "no runtime": ("rm nvidia/cu13/lib/libcudadevrt.a", {}, [], ["missing-components"]),
    "13.0.0": ("rm nvidia/cu13/bin/crt/link.stub", {}, [], ["missing-link-stub"]),
    "no CCCL": ("rm -r nvidia/cu13/include/cccl", {}, [], ["missing-cccl"]),
    "mixed versions": (
        "mkdir nvidia_cuda_nvcc-13.0.88.dist-info nvidia_nvvm-13.5.37.dist-info",
        {},
        [],
        ["mixed-versions"],
    ),
    "a runtime of another version": (
        "mkdir nvidia_cuda_nvcc-13.5.37.dist-info nvidia_cuda_runtime-13.0.96.dist-info",
        {},
        [],
        ["mixed-versions"],
    ),
    "PyTorch of another major version": (torch("2.10.0", "12.8"), {}, [], ["torch-of-another-cuda"]),
    "PyTorch of another minor version": (torch("2.11.0", "13.0"), {}, [], ["torch-of-another-cuda"]),
    "PyTorch of another minor version of CUDA 12": (
        f"{CUDA_12}; mkdir nvidia_cuda_runtime_cu12-12.9.79.dist-info; {torch('2.10.0', '12.8')}",
        {},
        [],
        ["no-compiler", "torch-of-another-cuda"],
    ),
    "PyTorch of the same minor version": (torch("2.20.0", "13.4"), {}, [], []),
    "PyTorch without CUDA": (torch("2.10.0+cpu", None), {}, [], ["torch-without-cuda"]),
    "PyTorch without a version": ("mkdir -p torch/version.py", {}, [], []),
    "wheels of CUDA 12": (
        "for name in cublas_cu12 cuda_runtime_cu12 cudnn_cu12 nccl_cu12 nccl_cu13; "
        "do mkdir nvidia_$name-12.8.90.dist-info; done",
        {},
        [],
        ["other-wheels"],
    ),
    "wheels of CUDA 12 that come with those of 13": (
        "mkdir nvidia_cutlass_dsl_libs_cu12-4.8.1.dist-info nvidia_cutlass_dsl_libs_cu13-4.8.1.dist-info",
        {},
        [],
        [],
    ),
    "a later patch version": ("mkdir nvidia_cuda_nvcc-13.0.88.dist-info nvidia_nvvm-13.0.90.dist-info", {}, [], []),
    "switched off": ("", {"CUDA_BUILD_ACTIVATE": "off"}, [], ["switched-off"]),
    "no switch": ("", {"CUDA_BUILD_ACTIVATE": "maybe"}, [], ["bad-switch"]),
    "CUDACXX": ("", {"CUDACXX": "{decoy}/bin/nvcc"}, [], ["compiler-chosen"]),
    "CUDA_HOME": ("", {"CUDA_HOME": "{decoy}", "CUDA_PATH": "{decoy}"}, [], []),  # overridden
    "another nvcc on PATH": ("", {"PATH": "{decoy}/bin:/usr/bin:/bin"}, [], []),  # overridden
    "CMAKE_PREFIX_PATH": ("", {"CMAKE_PREFIX_PATH": "/opt:{decoy}"}, [], ["other-toolkit"]),
    "a path that begins like the root's": (
        "mkdir cuda-build-activate; cp -r {decoy} cuda-build-activate/cu13-other",
        {"CMAKE_PREFIX_PATH": "{site}/cuda-build-activate/cu13-other"},
        [],
        ["other-toolkit"],
    ),
    "CPATH": ("", {"CPATH": "{decoy}/include"}, [], ["other-toolkit"]),
    "NVCC_APPEND_FLAGS": ("", {"NVCC_APPEND_FLAGS": "-I/opt"}, [], ["nvcc-flags"]),
    "run paths of no kind": ("", {"CUDA_BUILD_ACTIVATE_RPATH": "both"}, [], ["no-run-paths"]),
    "a stable path that is no path": (
        "",
        {"CUDA_BUILD_ACTIVATE_STABLE_PATH": "here"},
        [],
        ["no-stable-path"],
    ),
    "run paths": ("", {"CUDA_BUILD_ACTIVATE_RPATH": "relative", "LDFLAGS": "-g"}, [], []),
    "INCLUDES": ("", {"INCLUDES": "-I/opt", "LIBRARIES": "-L/opt"}, [], ["nvcc-flags", "nvcc-flags"]),
    "not writable": ("touch cuda-build-activate", {"XDG_CACHE_HOME": "/dev/null"}, [], ["root-not-writable"]),
    "only the user's cache is writable": ("touch cuda-build-activate", {"XDG_CACHE_HOME": "{decoy}/cache"}, [], []),
    "not writable, and no nvcc": (
        "touch cuda-build-activate; rm nvidia/cu13/bin/nvcc",
        {"XDG_CACHE_HOME": "/dev/null"},
        [],
        ["root-not-writable", "no-compiler"],
    ),
    "not writable, but for others": (
        "touch cuda-build-activate; chmod o+w nvidia/cu13/bin",
        {"XDG_CACHE_HOME": "/dev/null"},
        [],
        ["open-to-others"],
    ),
    "unreadable since": (
        "{python} -c pass; cd nvidia/cu13/lib; touch -r . {decoy}; rm libcudart.so.13; "
        "ln -s libcudart.so.13 libcudart.so.13; touch -r {decoy} .",
        {},
        [],
        ["root-damaged"],
    ),
    "PATH at its limit": ("", {"PATH": f"/usr/bin:/{'x' * 32_000}"}, [], ["too-long"]),
    "a damaged root": ("{python} -c pass; rm cuda-build-activate/cu13/lib64/libcudart.so", {}, [], ["root-damaged"]),
    "a removed root": ("{python} -c pass; rm -r cuda-build-activate", {}, [], []),
    "a dangling library": ("ln -sf nowhere nvidia/cu13/lib/libcudart.so.13", {}, [], ["root-damaged"]),
    "no host compiler": ("", {"PATH": "/nowhere"}, [], ["no-host-compiler"]),
    "NVCC_CCBIN": ("", {"NVCC_CCBIN": "nonesuch"}, [], ["no-host-compiler"]),
    "NVCC_CCBIN, a directory": ("", {"NVCC_CCBIN": "/usr/bin"}, [], []),
    "a host compiler too new": (
        "echo '#if __GNUC__ > 1' > nvidia/cu13/include/crt/host_config.h",
        {},
        [],
        ["host-compiler-too-new"],
    ),
    "-S": ("", {"PYTHONPATH": "{site}"}, ["-S"], ["hook-not-processed"]),
    "no .pth file": ("rm hatch_autorun_cuda_build_activate.pth", {}, [], ["hook-not-processed"]),
    "no site directory": (
        "mkdir {decoy}/plain; mv nvidia cuda_build_activate hatch_autorun_cuda_build_activate.pth {decoy}/plain",
        {"PYTHONPATH": "{decoy}/plain"},
        [],
        ["hook-not-processed"],
    ),
    "two copies": ("cp -r cuda_build_activate {decoy}", {"PYTHONPATH": "{decoy}"}, [], ["shadowed"]),
    "-I": ("", {"PYTHONPATH": "{decoy}"}, ["-I"], ["pythonpath-ignored"]),
}
ACTIVATED = {  # with what the parent, a build in the same environment, has changed
    "nothing": ({}, []),
    "another nvcc first on PATH": ({"PATH": "{decoy}/bin:{PATH}"}, ["other-nvcc"]),
    "no nvcc on PATH": ({"PATH": "{decoy}/include"}, ["other-nvcc", "no-host-compiler"]),
    "another CUDA_HOME": ({"CUDA_HOME": "{decoy}"}, ["other-root"]),
}


@pytest.fixture
def healthy(venv: VEnv, clean: dict[str, str]) -> VEnv:
    make_toolkit(venv.site)
    return venv


@pytest.fixture
def decoy(hostile: dict[str, str]) -> str:
    return hostile["CUDA_HOME"]


def diagnose(venv: VEnv, environ: dict[str, str], *options: str) -> dict[str, Any]:
    done = venv.python_(*options, *FLAGS, "doctor", "--json", env=environ)
    assert done.stderr == ""
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["healthy"] == (not [found for found in report["findings"] if found["severity"] == "error"])
    assert done.returncode == (0 if report["healthy"] else 1)
    for found in report["findings"]:
        assert list(found) == ["code", "severity", "seen", "why", "remedy"]
        assert all(found.values())
        assert found["severity"] in ("error", "warning")
    return report


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault(healthy: VEnv, clean: dict[str, str], decoy: str, fault: str) -> None:
    commands, variables, options, codes = FAULTS[fault]
    names = {"site": str(healthy.site), "decoy": decoy, "python": str(healthy.python)}
    run(["sh", "-ec", commands.format(**names)], env=clean, cwd=healthy.site)
    environ = {**clean, **{name: value.format(**names) for name, value in variables.items()}}
    report = diagnose(healthy, environ, *options)
    assert [found["code"] for found in report["findings"]] == codes
    # The hook did what the doctor says that it did.
    seen = healthy.environ(*options, env=environ)
    if "hook-not-processed" in codes:
        assert seen.get("CUDA_BUILD_ACTIVATE_ROOT") is None
    else:
        root = seen.get("CUDA_BUILD_ACTIVATE_ROOT")
        without = "out" if "no-compiler" in codes else ""
        activated = rf"activated CUDA 1[23][0-9.]* with{without} nvcc: {root}"
        assert re.match(activated if root else "nothing activated: ", report["reason"])


@pytest.mark.parametrize("fault", ACTIVATED)
def test_a_fault_in_an_activated_build(healthy: VEnv, clean: dict[str, str], decoy: str, fault: str) -> None:
    variables, codes = ACTIVATED[fault]
    environ = healthy.environ(env=clean)
    environ |= {name: value.format(decoy=decoy, PATH=environ["PATH"]) for name, value in variables.items()}
    assert [found["code"] for found in diagnose(healthy, environ)["findings"]] == codes


def test_a_path_that_no_toolkit_can_have(tmp_path: Path, wheel: Path, clean: dict[str, str]) -> None:
    venv = VEnv(tmp_path / "a;b")
    venv.install(wheel)
    make_toolkit(venv.site)
    assert [found["code"] for found in diagnose(venv, clean)["findings"]] == ["unusable-path"]


@pytest.mark.parametrize(("field", "flag"), [("st_flags", stat.UF_HIDDEN), ("st_file_attributes", 2)])
def test_a_hidden_pth_file(field: str, flag: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock: only macOS and Windows have such files."""
    assert not _doctor._is_hidden(str(tmp_path))
    with monkeypatch.context() as mock:
        mock.setattr("os.lstat", lambda _: SimpleNamespace(**{field: flag}))
        assert _doctor._is_hidden(str(tmp_path))


def test_every_finding_is_provoked() -> None:
    source = Path(_doctor.__file__).read_text()
    codes = {*re.findall(r'Finding\(\s*"([\w-]+)"', source), *_doctor.NOT_ACTIVATED}
    provoked = {code for *_, found in FAULTS.values() for code in found} | {
        code for _, found in ACTIVATED.values() for code in found
    }
    assert codes - provoked == {"unusable-path", "compile-failed", "not-compiled"}
    page = (PROJECT / "docs" / "reference" / "command-line.md").read_text()
    table = page.partition("| code |")[2].partition("\n## ")[0]
    assert codes == set(re.findall(r"`([\w-]+)`", re.sub(r"(?m)^(\|.*\|).*\|$", r"\1", table)))


def test_remedies(healthy: VEnv, clean: dict[str, str]) -> None:
    """What to add where is exact."""
    run(
        ["sh", "-ec", "mkdir nvidia_cuda_nvcc-13.4.92.dist-info; rm -r nvidia/cu13/nvvm nvidia/cu13/include/cccl"],
        cwd=healthy.site,
    )
    said = healthy.python_(*FLAGS, "doctor", env=clean).stdout.splitlines()
    assert said == [
        f"activated CUDA 13.4.92 with nvcc: {healthy.root}",
        "error: nvcc is installed, but not what it needs from nvidia-nvvm",
        "  why: nvcc fails during compilation",
        '  do:  add "nvidia-nvvm==13.4.*"',
        "warning: CCCL's headers are missing",
        "  why: cuda_fp16.h, cublas_v2.h and others include them",
        '  do:  add "cuda-toolkit[cccl]==13.4.*"',
    ]


def test_findings_of_other_paths(tmp_path: Path) -> None:
    make_toolkit(tmp_path)
    assert _doctor.findings({"PATH": "/usr/bin:/bin"}, [str(tmp_path)]) == []
    assert [found.code for found in _doctor.findings({}, [])] == ["no-toolkit"]


def test_compile_shows_what_the_compiler_said(healthy: VEnv, clean: dict[str, str]) -> None:
    nvcc = script(healthy.site / "nvidia/cu13/bin/nvcc", "echo 'this nvcc: out of order'; exit 3")
    assert nvcc.exists()
    done = healthy.python_(*FLAGS, "doctor", "--compile", env=clean)
    assert done.returncode == 1
    assert "exited with 3:\nthis nvcc: out of order\n" in done.stdout
    script(nvcc, "echo nothing > program")
    assert "made has no .nv_fatbin" in healthy.python_(*FLAGS, "doctor", "--compile", env=clean).stdout
    (healthy.site / "nvidia/cu13/lib/libcublas.so.13").touch()
    script(nvcc, "echo .nv_fatbin, libcudart.so.13, libcublas.so.13 > program")
    done = healthy.python_(*FLAGS, "doctor", "--compile", env=clean)
    assert done.stdout.splitlines()[1:] == [
        "passed: compiled and linked a kernel; its device code is in the program",
        "passed: linked the shared runtime",
        "passed: linked cuBLAS",
    ]
    nvcc.unlink()
    done = healthy.python_(*FLAGS, "doctor", "--compile", env=clean)
    assert "error: there is no nvcc to try" in done.stdout


@pytest.mark.parametrize(
    ("version", "status", "said"),
    [
        (MIXED, 1, "error: components of different CUDA versions: nvidia-cuda-nvcc 13.0.88"),
        (INCOMPLETE, 1, "error: nvcc is installed, but not what it needs from nvidia-nvvm, nvidia-cuda-crt"),
        (NEWEST, 0, "nothing is wrong"),
    ],
)
def test_real_toolkits(
    version: str, status: int, said: str, offline: dict[str, str], clean: dict[str, str], tmp_path: Path
) -> None:
    venv = VEnv(tmp_path / "venv")
    venv.install("cuda-build-activate", f"cuda-toolkit[nvcc,cudart,cccl]=={version}", index=offline)
    done = venv.python_(*FLAGS, "doctor", env=clean)
    printed = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (status, "")
    assert re.fullmatch(rf"activated CUDA {minor_version(version)}\.\d+ with nvcc: {venv.root}", printed[0])
    assert printed[1].startswith(said)


def test_cuda_12_says_that_it_has_no_compiler(offline: dict[str, str], clean: dict[str, str], tmp_path: Path) -> None:
    venv = VEnv(tmp_path / "venv")
    venv.install("cuda-build-activate", WITHOUT_NVCC[1], index=offline)
    said = venv.python_(*FLAGS, "doctor", env=clean).stdout
    assert "warning: the wheels of CUDA 12 contain headers and libraries, but no compiler" in said


def test_compile_with_a_real_toolkit(full: VEnv, hostile: dict[str, str]) -> None:
    done = full.python_(*FLAGS, "doctor", "--compile", "--json", env={**hostile, "CMAKE_PREFIX_PATH": ""})
    report = json.loads(done.stdout)
    assert (report["findings"], len(report["passed"])) == ([], 3)
