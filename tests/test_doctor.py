"""Findings, in environments that have the fault."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import INCOMPLETE, MIXED, NEWEST, WITHOUT_NVCC, VEnv, make_toolkit

from cuda_build_activate._doctor import findings


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A toolkit with all that is looked for."""
    toolkit = make_toolkit(tmp_path / "site-packages")
    for name in (
        "include/crt/host_config.h",
        "include/crt/host_defines.h",
        "include/cuda_runtime.h",
        "lib/libcudadevrt.a",
    ):
        (toolkit / name).parent.mkdir(exist_ok=True)
        (toolkit / name).touch()
    return tmp_path / "site-packages"


def install(site: Path, **versions: str) -> None:
    for name, version in versions.items():
        (site / f"{name}-{version}.dist-info").mkdir()


def test_nothing_is_wrong(site: Path) -> None:
    install(site, nvidia_cuda_nvcc="13.4.92", nvidia_nvvm="13.4.92", nvidia_nvjitlink="13.5.37")
    assert findings({}, [str(site)]) == []


def test_no_toolkit(tmp_path: Path) -> None:
    (finding,) = findings({}, [str(tmp_path)])
    assert finding.severity == "error"
    assert "cuda-toolkit[nvcc,cudart,cccl]==13.*" in finding.remedy


def test_switched_off(site: Path) -> None:
    (finding,) = findings({"CUDA_BUILD_ACTIVATE": "0"}, [str(site)])
    assert (finding.severity, "switched off" in finding.seen) == ("warning", True)


@pytest.mark.parametrize(
    ("missing", "wheel"),
    [
        ("nvvm/bin/cicc", "nvidia-nvvm"),
        ("include/crt/host_config.h", "nvidia-cuda-crt"),
        ("lib/libcudadevrt.a", "nvidia-cuda-runtime"),
        ("bin/crt/link.stub", "13.0.3"),
        ("include/cccl/thrust/version.h", "cuda-toolkit[cccl]==13.4.*"),
    ],
)
def test_a_missing_component(site: Path, missing: str, wheel: str) -> None:
    install(site, nvidia_cuda_nvcc="13.4.92")
    path = site / "nvidia" / "cu13" / missing
    path.unlink()
    if "cccl" in missing:
        path.parent.rmdir()
        path.parent.parent.rmdir()
    (finding,) = findings({}, [str(site)])
    assert wheel in finding.remedy


def test_mixed_versions(site: Path) -> None:
    install(site, nvidia_cuda_nvcc="13.0.88", nvidia_nvvm="13.5.37", nvidia_cuda_crt="13.0.88")
    (finding,) = findings({}, [str(site)])
    assert "nvidia-cuda-nvcc 13.0.88, nvidia-nvvm 13.5.37" in finding.seen
    assert '"nvidia-nvvm==13.0.*"' in finding.remedy
    assert "nvidia-cuda-crt" not in finding.remedy


def test_no_compiler(site: Path) -> None:
    (site / "nvidia" / "cu13" / "bin" / "nvcc").unlink()
    (finding,) = findings({}, [str(site)])
    assert "has no nvcc" in finding.seen
    assert '"cuda-toolkit[nvcc]==13.*"' in finding.remedy
    (site / "nvidia" / "cu13" / "include" / "crt" / "host_defines.h").unlink()
    (finding, _) = findings({}, [str(site)])
    assert finding.severity == "error"
    assert '"cuda-toolkit[crt]==13.*"' in finding.remedy


@pytest.mark.parametrize(
    ("version", "status", "said"),
    [
        (MIXED, 1, "error: components of different CUDA versions: nvidia-cuda-nvcc 13.0.88"),
        (INCOMPLETE, 1, "error: nvcc is there, and what it needs of nvidia-nvvm, nvidia-cuda-crt is not"),
        (NEWEST, 0, ""),
    ],
)
def test_real_toolkits(
    version: str, status: int, said: str, offline: dict[str, str], clean: dict[str, str], tmp_path: Path
) -> None:
    venv = VEnv(tmp_path / "venv")
    venv.install("cuda-build-activate", f"cuda-toolkit[nvcc,cudart,cccl]=={version}", index=offline)
    code = "import runpy; runpy.run_module('cuda_build_activate', run_name='__main__')"
    done = venv.start(code, env=clean)
    printed = done.stdout.splitlines()
    assert (done.returncode, done.stderr, printed[0]) == (status, "", f"activated CUDA 13 with nvcc: {venv.root}")
    assert said in printed[1] if said else printed[1:] == []


def test_cuda_12_says_that_it_has_no_compiler(offline: dict[str, str], clean: dict[str, str], tmp_path: Path) -> None:
    venv = VEnv(tmp_path / "venv")
    venv.install("cuda-build-activate", WITHOUT_NVCC[1], index=offline)
    seen = venv.start("from cuda_build_activate._doctor import findings; print(findings())", env=clean).stdout
    assert "the wheels of CUDA 12 contain headers and libraries, and no compiler" in seen
