"""What `audit` finds in a wheel: in small ones, of real libraries that gcc links."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import elftools
import pytest
from conftest import PROJECT, VEnv, run
from test_device_code import PTX, SM, SPECIFIC, entry, fat_binary
from wheels import TAG, library, wheel

from cuda_build_activate import _audit, _repair, _wheel
from cuda_build_activate.__main__ import main

CU13 = "$ORIGIN/../nvidia/cu13/lib"


def silent(name: str, done: int, total: int) -> None:
    assert 0 <= done <= total


def audit(path: Path) -> _audit.Report:
    return _audit.audit(_wheel.read_wheel(str(path), silent))


def codes(report: _audit.Report) -> list[str]:
    return [finding.code for finding in report.findings]


def severities(report: _audit.Report) -> dict[str, str]:
    return {finding.code: finding.severity for finding in report.findings}


class Case:
    """A wheel with one library, demo/_demo.so, and what is found."""

    def __init__(
        self,
        *found: str,
        needs: Sequence[str] = (),
        run_path: str = "",
        requires: Sequence[str] = (),
        python: str = "",
        options: Sequence[str] = (),
        name: str = "demo",
        version: str = "1.0",
    ) -> None:
        self.found = found
        self.needs = needs
        self.run_path = run_path
        self.requires = requires
        self.python = python
        self.options = options
        self.name = name
        self.version = version

    def wheel(self, directory: Path) -> Path:
        made = library(directory / "demo" / "_demo.so", *self.needs, run_path=self.run_path, options=self.options)
        files: dict[str, Path | bytes] = {"demo/__init__.py": self.python.encode(), "demo/_demo.so": made}
        return wheel(directory / "dist", files, *self.requires, name=self.name, version=self.version)


TORCH = ("libtorch.so", "libc10.so")
CASES = {
    "no CUDA": Case(needs=["libm.so.6"]),
    "all is well": Case(needs=["libcublas.so.13"], run_path=CU13, requires=["nvidia-cublas==13.*"]),
    "by the metapackage": Case(needs=["libcublas.so.13"], run_path=CU13, requires=["cuda-toolkit[cublas]==13.*"]),
    "by all of it": Case(needs=["libcublas.so.13"], run_path=CU13, requires=["cuda-toolkit[all]>=13,<14"]),
    "by another component": Case(needs=["libcublas.so.13"], run_path=CU13, requires=["cuda-toolkit[cusolver]==13.*"]),
    "another major version of it": Case(
        "error not-required", needs=["libcublas.so.13"], run_path=CU13, requires=["cuda-toolkit[cublas]==12.*"]
    ),
    "another component": Case(
        "error not-required", needs=["libcurand.so.10"], run_path=CU13, requires=["cuda-toolkit[cublas]==13.*"]
    ),
    "CUDA 12": Case(
        needs=["libcublas.so.12", "libcusparse.so.12", "libnccl.so.2"],
        run_path="$ORIGIN/../nvidia/cublas/lib:${ORIGIN}/../nvidia/cusparse/lib:$ORIGIN/../nvidia/nccl/lib",
        requires=["nvidia-cublas-cu12", "nvidia-cusparse-cu12>=12.1", "nvidia-nccl-cu12~=2.20"],
    ),
    "the directory of another major version": Case(
        "error run-path-misses",
        needs=["libcublas.so.13"],
        run_path="$ORIGIN/../nvidia/cublas/lib",
        requires=["nvidia-cublas==13.*"],
    ),
    "a version that has it not": Case(
        "error wrong-requirement", needs=["libcufft.so.12"], run_path=CU13, requires=["nvidia-cufft==11.*"]
    ),
    "a later one": Case(
        "error wrong-requirement", needs=["libcublas.so.13"], run_path=CU13, requires=["nvidia-cublas>=14"]
    ),
    "an earlier one": Case(
        "error wrong-requirement", needs=["libcublas.so.13"], run_path=CU13, requires=["nvidia-cublas<13"]
    ),
    "with an extra": Case(
        "warning only-with-extra",
        needs=["libcublas.so.13"],
        run_path=CU13,
        requires=['cuda-toolkit[cublas]==13.*; extra == "ctk"', 'numpy; sys_platform == "win32"'],
    ),
    "on another platform": Case(
        "error not-required",
        needs=["libcublas.so.13"],
        run_path=CU13,
        requires=['nvidia-cublas==13.*; platform_machine == "riscv64"', 'pytest; extra == "test"', "not a requirement"],
    ),
    "perhaps by another distribution": Case(
        "note maybe-required", needs=["libcublas.so.13"], run_path=CU13, requires=["someone-cu13==1.*", "numpy"]
    ),
    "what is known to bring none": Case(
        "error not-required", needs=["libcublas.so.13"], run_path=CU13, requires=["cuda-bindings==13.*"]
    ),
    "but may with an extra": Case(
        "note maybe-required", needs=["libcublas.so.13"], run_path=CU13, requires=["cuda-bindings[all]==13.*"]
    ),
    "RPATH": Case(
        needs=["libcublas.so.13"],
        run_path=CU13,
        requires=["nvidia-cublas==13.*"],
        options=["-Wl,--disable-new-dtags"],
    ),
    "the driver": Case("note needs-driver", needs=["libcuda.so.1", "libnvidia-ml.so.1"]),
    "an absolute path": Case(
        "warning run-path-elsewhere",
        needs=["libcublas.so.13"],
        run_path=f"/build-env/lib:{CU13}",
        requires=["nvidia-cublas==13.*"],
    ),
    "an empty one": Case("warning run-path-elsewhere", run_path=":$ORIGIN"),
    "torch loads it": Case(needs=[*TORCH, "libcublas.so.13", "libnccl.so.2"], requires=["torch>=2.14"]),
    "torch does not load it": Case(
        "error run-path-misses", needs=[*TORCH, "libnvJitLink.so.13", "libcusolver.so.12"], requires=["torch"]
    ),
    "torch does not require it": Case(
        "error not-required", "error run-path-misses", needs=[*TORCH, "libnvjpeg.so.13"], requires=["torch"]
    ),
    "not each torch loads it": Case(
        "error run-path-misses", needs=[*TORCH, "libnvrtc.so.13"], requires=["torch>=2.10"]
    ),
    "the torch that is required does": Case(needs=[*TORCH, "libnvrtc.so.13"], requires=["torch==2.14.0"]),
    "torch is not required": Case("error not-required", needs=[*TORCH, "libcublas.so.13"]),
    "torch must have been imported": Case(
        "note loaded-first", needs=["libcublas.so.13"], requires=["torch"], run_path="$ORIGIN"
    ),
    "it is loaded by cuda.pathfinder": Case(
        "note loaded-first",
        needs=["libcublas.so.13"],
        requires=["nvidia-cublas==13.*"],
        python="from cuda.pathfinder import load_nvidia_dynamic_lib\nload_nvidia_dynamic_lib('cublas')",
    ),
    "it is loaded by its name": Case(
        "note loaded-first",
        needs=["libcublas.so.13"],
        requires=["nvidia-cublas==13.*"],
        python="import ctypes\nctypes.CDLL(directory + '/libcublas.so.13')",
    ),
    "another is loaded": Case(
        "error run-path-misses",
        needs=["libcublas.so.13"],
        requires=["nvidia-cublas==13.*"],
        python="import ctypes\nctypes.CDLL('libm.so.6')",
    ),
    "it is looked for, and optional": Case(
        "warning not-required",
        "note loaded-first",
        needs=["libnccl.so.2"],
        python="import ctypes\nctypes.CDLL('libnccl.so.2')",
        name="demo-cu13",
    ),
    "with what loads its own libraries": Case(
        "note loaded-first",
        needs=["libraft.so", "libcublas.so.13"],
        requires=["libraft-cu13==26.*", "nvidia-cublas==13.*"],
        run_path="$ORIGIN",
    ),
    "CUDA's own wheel": Case(
        needs=["libcublasLt.so.13"], run_path="$ORIGIN/../nvidia/cu13/lib", requires=["nvidia-cublas"]
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_wheel(case: Case, tmp_path: Path) -> None:
    report = audit(case.wheel(tmp_path))
    assert [f"{finding.severity} {finding.code}" for finding in report.findings] == list(case.found), report.findings
    assert report.healthy == (not any(found.startswith("error") for found in case.found))
    for finding in report.findings:
        assert all(finding)


def test_every_code_is_provoked_and_documented() -> None:
    source = Path(_audit.__file__).read_text()
    provoked = {found.split()[1] for case in CASES.values() for found in case.found} | {"bundled"}
    assert set(re.findall(r'(?:Finding|Judgement)\(\s*"([\w-]+)"', source)) == provoked
    page = (PROJECT / "docs" / "reference" / "command-line.md").read_text()
    page = page.partition("## cuda-build-activate audit --json")[2]
    assert set(re.findall(r"^\| `([\w-]+)` \| (?:error|warning|note)", page, re.MULTILINE)) == provoked


# What was published, or nearly so, as far as it matters here. "Found" is what must be said of it.
FIELD = {
    # nvidia-isaac/cuVSLAM#70: it links three libraries that it neither bundles nor declares; cudart it does bundle.
    "cuVSLAM#70": (
        Case(
            "error not-required",
            "error run-path-misses",
            needs=["libcudart-0952a1b3.so.12", "libcublas.so.12", "libcusolver.so.11", "libcusparse.so.12"],
            run_path="$ORIGIN/../demo.libs",
            requires=["numpy"],
        ),
        ["nvidia-cublas-cu12==12.*", "nvidia-cusolver-cu12==11.*", "nvidia-cusparse-cu12==12.*"],
        "demo/_demo.so",
    ),
    # openvdb/fvdb-core#648: torch loads the rest, and this one not in each version that it may be installed with.
    "fvdb-core#648": (
        Case(
            "error run-path-misses",
            needs=[*TORCH, "libc10_cuda.so", "libtorch_cuda.so", "libcudart.so.13", "libnvrtc.so.13"],
            run_path="$ORIGIN",
            requires=["torch>=2.9", "numpy"],
            python="import torch\nfrom demo import _demo",
        ),
        [],
        "libnvrtc.so.13",
    ),
    # NVIDIA/cuml#7304: CUDA 13's wheels share a directory, and NCCL's is another.
    "cuml#7304": (
        Case(
            "error run-path-misses",
            needs=["libcublas.so.13", "libnccl.so.2", "libcuvs.so"],
            run_path=CU13,
            requires=["cuda-toolkit[cublas]==13.*", "nvidia-nccl-cu13>=2.19", "libcuvs-cu13==25.10.*"],
            python="import ctypes\nimport libcuvs\nlibcuvs.load_library()\n# libnccl.so.2",
        ),
        [],
        "nvidia/nccl/lib",
    ),
    # NVIDIA/cuvs#615: the requirement was forgotten when the library got a wheel of its own.
    "cuvs#615": (
        Case(
            "error not-required",
            needs=["libcuvs_c.so"],
            requires=["numpy", "cuda-python"],
            python="import libcuvs\nlibcuvs.load_library()",
            name="demo-cu12",
        ),
        ["libcuvs-cu12"],
        "libcuvs_c.so from libcuvs-cu12",
    ),
}


@pytest.mark.parametrize("fault", FIELD)
def test_a_fault_from_the_field_is_found_and_repaired(fault: str, tmp_path: Path) -> None:
    case, required, seen = FIELD[fault]
    path = case.wheel(tmp_path)
    report = audit(path)
    assert [f"{finding.severity} {finding.code}" for finding in report.findings if finding.severity != "note"] == list(
        case.found
    )
    assert any(seen in finding.seen for finding in report.findings)
    for line in required:
        assert any(f'"{line}"' in finding.remedy for finding in report.findings)
    target, changes = _repair.repair(str(path), str(tmp_path / "wheelhouse"), silent)
    assert [change for change in changes if change.startswith("Requires-Dist")] == [
        f"Requires-Dist: {line}" for line in required
    ]
    assert audit(Path(target)).healthy


@pytest.mark.parametrize("case", [case for case in CASES.values() if any("error" in found for found in case.found)])
def test_each_error_has_a_remedy_that_removes_it(case: Case, tmp_path: Path) -> None:
    """Either by `repair`, or by the requirement that it names."""
    path = case.wheel(tmp_path)
    report = audit(path)
    lines = [line for finding in report.findings for line in re.findall(r'"([^"]+)"', finding.remedy)]
    paths = {path for finding in report.findings for path in re.findall(r"\$ORIGIN/[\w/.-]+", finding.remedy)}
    kept = [line for line in case.requires if "wrong-requirement" not in " ".join(case.found)]
    mended = Case(
        needs=case.needs,
        run_path=":".join([case.run_path, *sorted(paths)] if case.run_path else sorted(paths)),
        requires=[*kept, *lines],
        python=case.python,
    )
    assert codes(audit(mended.wheel(tmp_path / "mended"))) == []


def test_what_is_bundled(tmp_path: Path) -> None:
    copy = library(tmp_path / "libcudart-0952a1b3.so.13.0.96", options=["-Wl,-soname,libcudart.so.13"])
    user = library(tmp_path / "_demo.so", "libcudart-0952a1b3.so.13.0.96", run_path="$ORIGIN/../demo.libs")
    files = {"demo/_demo.so": user, "demo.libs/libcudart-0952a1b3.so.13.0.96": copy, "demo.libs/libz-0952a1b3.so": copy}
    report = audit(wheel(tmp_path / "dist", files))
    assert severities(report) == {"bundled": "note"}
    assert "libcudart-0952a1b3.so.13.0.96" in report.findings[0].seen
    assert "libz" not in report.findings[0].seen
    own = wheel(tmp_path / "own", {"nvidia/cu13/lib/libcudart.so.13": copy}, name="nvidia_cuda_runtime")
    assert codes(audit(own)) == []


def test_what_another_file_of_the_wheel_has_loaded(tmp_path: Path) -> None:
    """As auditwheel leaves it: a library of the wheel needs what only the module has a run path for."""
    inner = library(tmp_path / "libinner.so", "libcublas.so.13")
    outer = library(tmp_path / "_outer.so", "libinner.so", "libcublas.so.13", run_path=f"{CU13}:$ORIGIN/../demo.libs")
    files = {"demo/_outer.so": outer, "demo.libs/libinner.so": inner}
    assert codes(audit(wheel(tmp_path / "dist", files, "nvidia-cublas==13.*"))) == []
    other = library(tmp_path / "_other.so", "libinner.so")  # which loads it without having loaded that
    both = wheel(tmp_path / "both", {**files, "demo/_other.so": other}, "nvidia-cublas==13.*")
    assert codes(audit(both)) == ["run-path-misses"]
    # By RPATH it need not even need it, by RUNPATH it must.
    for option, found in (("disable", []), ("enable", ["run-path-misses"])):
        outer = library(
            tmp_path / "_outer.so",
            "libinner.so",
            run_path=f"{CU13}:$ORIGIN/../demo.libs",
            options=[f"-Wl,--{option}-new-dtags"],
        )
        assert (
            codes(audit(wheel(tmp_path / option, {**files, "demo/_outer.so": outer}, "nvidia-cublas==13.*"))) == found
        )


@pytest.mark.parametrize(
    ("place", "run_path"),
    [
        ("_demo.so", "$ORIGIN/nvidia/cu13/lib"),
        ("a/b/c/_demo.so", "$ORIGIN/../../../nvidia/cu13/lib"),
        ("demo-1.0.data/platlib/a/_demo.so", "$ORIGIN/../nvidia/cu13/lib"),
        ("nvidia/cu13/lib/libdemo.so", "$ORIGIN"),
    ],
)
def test_a_place_in_site_packages(place: str, run_path: str, tmp_path: Path) -> None:
    right = library(tmp_path / "right.so", "libcublas.so.13", run_path=run_path)
    wrong = library(tmp_path / "wrong.so", "libcublas.so.13", run_path="$ORIGIN/../elsewhere")
    assert codes(audit(wheel(tmp_path / "right", {place: right}, "nvidia-cublas==13.*"))) == []
    (finding,) = audit(wheel(tmp_path / "wrong", {place: wrong}, "nvidia-cublas==13.*")).findings
    assert finding.code == "run-path-misses"
    assert f"-rpath {run_path}, or" in finding.remedy


def test_the_version_of_cuda(tmp_path: Path) -> None:
    """Where the sonames do not tell, other things do; where nothing does, each owner is good."""

    def owner(
        name: str = "demo", version: str = "1.0", *requires: str, needs: Sequence[str] = ("libnccl.so.2",)
    ) -> str:
        made = library(tmp_path / "_demo.so", *needs)
        report = audit(wheel(tmp_path / "dist", {"demo/_demo.so": made}, *requires, name=name, version=version))
        return report.needs["demo/_demo.so"][0].distribution

    assert owner() == "nvidia-nccl-cu11 or nvidia-nccl-cu12 or nvidia-nccl-cu13"
    assert owner("demo_cu13") == owner("demo_cuda13x") == "nvidia-nccl-cu13"
    assert owner("demo", "1.0+cu128") == "nvidia-nccl-cu12"
    assert owner("demo", "1.0", "nvidia-cublas==13.*") == "nvidia-nccl-cu13"
    assert owner("demo", "1.0", "someone-cu12") == "nvidia-nccl-cu12"
    assert owner(needs=["libnccl.so.2", "libcublas.so.13"]) == "nvidia-nccl-cu13"
    assert owner("demo", "1.0", "nvidia-nccl-cu12") == "nvidia-nccl-cu12"
    assert owner(needs=["libcublas.so.12", "libcublas.so.13"]) == "nvidia-cublas-cu12"


def test_another_machine(tmp_path: Path) -> None:
    made = library(tmp_path / "_demo.so", "libcublas.so.13", run_path=CU13)
    content = bytearray(made.read_bytes())
    content[18:20] = (183).to_bytes(2, "little")  # by hand: there is no compiler for it here
    requires = 'nvidia-cublas==13.*; platform_machine == "aarch64"'
    report = audit(wheel(tmp_path, {"demo/_demo.so": bytes(content)}, requires, tag="py3-none-linux_aarch64"))
    assert [file.elf.machine for file in report.distribution.files] == ["AARCH64"]
    assert codes(report) == []


# On the command line.


def command(*arguments: object, status: int, capfdbinary: pytest.CaptureFixture[bytes]) -> tuple[str, str]:
    assert main([str(argument) for argument in arguments]) == status
    captured = capfdbinary.readouterr()
    return captured.out.decode(), captured.err.decode()


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    return CASES["torch does not require it"].wheel(tmp_path)


def test_what_is_printed(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    case = Case(
        needs=["libcublas.so.13", "libcublasLt.so.13", "libcudart.so.13", "libnccl.so.2", "libcuda.so.1"],
        run_path=f"/build-env/lib:{CU13}",
        requires=["cuda-toolkit[cublas]==13.*"],
    )
    said, _ = command("audit", case.wheel(tmp_path), status=1, capfdbinary=capfdbinary)
    assert said.splitlines() == [
        f"demo-1.0-{TAG}.whl: CUDA 13",
        "  demo/_demo.so",
        "    libcublas.so.13 from nvidia-cublas: required by cuda-toolkit[cublas]==13.*; the run path leads there",
        "    libcublasLt.so.13 from nvidia-cublas: required by cuda-toolkit[cublas]==13.*; the run path leads there",
        "    libcudart.so.13 from nvidia-cuda-runtime: not required; the run path leads there",
        "    libnccl.so.2 from nvidia-nccl-cu13: not required; the run path does not lead there",
        "error: libcudart.so.13 from nvidia-cuda-runtime; libnccl.so.2 from nvidia-nccl-cu13: needed by demo/_demo.so",
        "  why: nothing that the wheel requires installs it",
        '  do:  require "nvidia-cuda-runtime==13.*", "nvidia-nccl-cu13==2.*", or run cuda-build-activate repair',
        "error: libnccl.so.2 from nvidia-nccl-cu13, in nvidia/nccl/lib: "
        "the run path of demo/_demo.so does not lead there",
        "  why: the loader finds it only where CUDA is installed",
        "  do:  link with -rpath $ORIGIN/../nvidia/nccl/lib, or run cuda-build-activate repair",
        "warning: the run path of demo/_demo.so leads to /build-env/lib",
        "  why: another machine has other libraries there, or none",
        "  do:  link without it, or run cuda-build-activate repair",
        "note: libcuda.so.1: needed by demo/_demo.so",
        "  why: only NVIDIA's driver has it, never a wheel: without the driver, this does not load",
        "  do:  nothing, if the wheel is for machines with a GPU",
    ]
    said, _ = command("audit", CASES["no CUDA"].wheel(tmp_path / "b"), status=0, capfdbinary=capfdbinary)
    assert said == f"demo-1.0-{TAG}.whl\nnothing is wrong\n"


def test_device_code(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    content = ", ".join(str(byte) for byte in fat_binary(entry(SM, 90, SPECIFIC), entry(PTX, 90), entry(SM, 80)))
    source = f'__attribute__((section(".nv_fatbin"), aligned(8))) const unsigned char code[] = {{{content}}};'
    path = wheel(tmp_path, {"demo/_demo.so": library(tmp_path / "_demo.so", source=source)})
    said, _ = command("audit", path, status=0, capfdbinary=capfdbinary)
    assert said.splitlines()[1:] == [
        "  demo/_demo.so",
        "    device code: compute_90 sm_80 sm_90a",
        "nothing is wrong",
    ]


def test_json(broken: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    well = CASES["all is well"].wheel(tmp_path / "well")
    said, _ = command("audit", "--json", broken, well, status=1, capfdbinary=capfdbinary)
    report: dict[str, Any] = json.loads(said)
    assert (report["schema"], report["healthy"]) == (1, False)
    assert [found["healthy"] for found in report["wheels"]] == [False, True]
    assert report["wheels"][1] == {
        "name": well.name,
        "distribution": "demo",
        "version": "1.0",
        "healthy": True,
        "cuda": 13,
        "files": [
            {
                "path": "demo/_demo.so",
                "machine": os.uname().machine.upper(),
                "soname": None,
                "run_path": [CU13],
                "needs": [
                    {
                        "soname": "libcublas.so.13",
                        "distributions": ["nvidia-cublas"],
                        "required_by": "nvidia-cublas==13.*",
                        "found": "the run path leads there",
                    }
                ],
                "driver": [],
                "device_code": [],
            }
        ],
        "findings": [],
    }
    found = report["wheels"][0]["findings"]
    assert [list(finding) for finding in found] == [["code", "severity", "seen", "why", "remedy"]] * 2
    assert list(report["wheels"][0]) == list(report["wheels"][1])


def test_requirements(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """All that the wheels need, but for what torch brings."""
    first = Case(needs=["libcublas.so.13", "libcublasLt.so.13", "libcufile.so.0", "libcudart.so.13"]).wheel(tmp_path)
    second = Case(needs=[*TORCH, "libcudart.so.13", "libnvjpeg.so.13"], requires=["torch"]).wheel(tmp_path / "b")
    printed, _ = command("audit", "--requirements", first, second, status=0, capfdbinary=capfdbinary)
    assert printed.splitlines() == [
        "nvidia-cublas==13.*",
        "nvidia-cuda-runtime==13.*",
        "nvidia-cufile==1.*",
        "nvidia-nvjpeg==13.*",
    ]
    ambiguous = Case(needs=["libnccl.so.2"]).wheel(tmp_path / "c")
    printed, said = command("audit", "--requirements", ambiguous, status=2, capfdbinary=capfdbinary)
    assert "libnccl.so.2 is in nvidia-nccl-cu11 or nvidia-nccl-cu12 or nvidia-nccl-cu13" in said
    assert printed == ""


def install(site: Path, name: str, version: str, *requires: str) -> None:
    """The metadata of what might be installed."""
    (site / f"{name}-{version}.dist-info").mkdir(parents=True)
    lines = "".join(f"Requires-Dist: {line}\n" for line in requires)
    (site / f"{name}-{version}.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n{lines}")


def test_what_is_installed_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells the bounds, what other requirements bring, and which CUDA it is."""
    site = tmp_path / "site"
    install(site, "nvidia_cublas", "13.4.0.1")
    install(site, "nvidia_cudnn_cu13", "9.28.0.42", "nvidia-cublas")
    install(site, "nvidia_cufft", "11.0.0")  # of another CUDA
    install(site, "torch", "2.15.0", "nvidia-cusparselt-cu13==0.8.1", 'nvidia-nvjpeg; extra == "images"')
    install(site, "someone_cu13", "1.0", "another-cu13")
    install(site, "another_cu13", "1.0", "nvidia-cublas", "someone-cu13")
    install(site, "libcuvs_cu13", "26.10.0")
    monkeypatch.syspath_prepend(site)
    needs = ["libcublas.so.13", "libcufft.so.12", "libcuvs.so", "libtorch.so"]
    lines = _audit.requirements(audit(Case(needs=needs).wheel(tmp_path)))
    assert lines == ["libcuvs-cu13==26.10.*", "nvidia-cublas>=13.4,<14", "nvidia-cufft==12.*", "torch==2.15.*"]
    install(site, "torchvision", "0.30.0", "nvidia-nvjpeg==13.2.*")
    lines = _audit.requirements(
        audit(Case(needs=["libnvjpeg.so.13"], requires=["torchvision"]).wheel(tmp_path / "vision"))
    )
    assert lines == ["nvidia-nvjpeg==13.*"]
    brought = Case(needs=["libcublas.so.13"], run_path=CU13, requires=["someone-cu13"]).wheel(tmp_path / "b")
    assert codes(audit(brought)) == []
    nccl = audit(Case(needs=["libcusparse.so.12"]).wheel(tmp_path / "c"))
    assert nccl.cuda == 13
    for extra, found in (("", ["not-required"]), ("[images]", [])):
        images = Case(needs=["libnvjpeg.so.13"], run_path=CU13, requires=[f"torch{extra}"]).wheel(
            tmp_path / f"d{extra}"
        )
        assert codes(audit(images)) == found


def add_libraries(venv: VEnv) -> None:
    """What the extra installs, from the tests' own environment."""
    (venv.site / "libraries.pth").write_text(os.path.dirname(os.path.dirname(elftools.__file__)))


def test_an_installed_distribution(venv: VEnv, clean: dict[str, str], tmp_path: Path) -> None:
    venv.install(CASES["torch does not require it"].wheel(tmp_path))
    (venv.path / "bin" / "program").write_bytes(b"\x7fELF")  # what RECORD names may be outside, and need not exist
    with next(venv.site.glob("demo-*.dist-info/RECORD")).open("a") as record:
        record.write("../../../bin/nowhere,,\n")
    add_libraries(venv)
    done = venv.python_("-m", "cuda_build_activate", "audit", "--installed", "demo", "--json", env=clean)
    (report,) = json.loads(done.stdout)["wheels"]
    assert (done.returncode, report["name"], report["distribution"]) == (1, "demo 1.0", "demo")
    assert [finding["code"] for finding in report["findings"]] == ["not-required", "run-path-misses"]
    for name in ("nonesuch", ""):
        done = venv.python_("-m", "cuda_build_activate", "audit", "--installed", name, env=clean)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{name} is not installed in {venv.path}" in done.stderr
    (venv.site / "demo" / "_demo.so").write_bytes(b"\x7fELF")
    done = venv.python_("-m", "cuda_build_activate", "audit", "--installed", "demo", env=clean)
    assert (done.returncode, done.stdout) == (2, "")
    assert "_demo.so is a damaged ELF file" in done.stderr


def test_without_the_extra(venv: VEnv, clean: dict[str, str]) -> None:
    for name in ("audit", "repair"):
        done = venv.python_("-m", "cuda_build_activate", name, "some.whl", env=clean)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            f'cuda-build-activate: {name} needs packaging: pip install "cuda-build-activate[wheel]"\n'
        )


def test_the_startup_path_does_not_import_it(venv: VEnv, clean: dict[str, str]) -> None:
    code = "import cuda_build_activate, sys; cuda_build_activate.activate(); print(*sys.modules)"
    loaded = venv.start(code, env=clean).stdout.split()
    assert "cuda_build_activate._activate" in loaded
    assert not {name for name in loaded if re.search(r"_(audit|elf|device_code|libraries|repair|wheel)", name)}


def auditwheel(directory: Path, *options: str, path: Path, libraries: Path) -> set[str]:
    """The names in the wheel that the real auditwheel makes of *path*."""
    environ = {
        **os.environ,
        "LD_LIBRARY_PATH": str(libraries),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    run([sys.executable, "-m", "auditwheel", "repair", *options, "-w", directory, path], env=environ)
    (made,) = directory.glob("*.whl")
    with zipfile.ZipFile(made) as archive:
        return set(archive.namelist())


def test_auditwheel_leaves_out_what_is_to_be_excluded(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    libraries = tmp_path / "libraries"
    # libcusparse's own needs are CUDA's, too; libother is none of ours.
    for name, needs in {
        "libnvJitLink.so.13": [],
        "libcusparse.so.12": ["libnvJitLink.so.13"],
        "libcudart.so.13": [],
        "libcuda.so.1": [],
        "libother.so.1": [],
    }.items():
        library(libraries / name, *needs, options=[f"-Wl,-soname,{name}"])
    needs = ["libcusparse.so.12", "libcudart.so.13", "libcuda.so.1", "libother.so.1"]
    path = Case(needs=needs, run_path=CU13).wheel(tmp_path)
    printed, _ = command("audit", "--exclude", path, status=0, capfdbinary=capfdbinary)
    assert printed == "--exclude libcuda.so.1 --exclude libcudart.so.13 --exclude libcusparse.so.12\n"

    def bundled(names: set[str]) -> set[str]:
        return {re.sub("-[0-9a-f]{8}", "", Path(name).name) for name in names if ".libs/lib" in name}

    without = auditwheel(tmp_path / "without", path=path, libraries=libraries)
    assert bundled(without) == {*needs, "libnvJitLink.so.13"}
    with_options = auditwheel(tmp_path / "with", *printed.split(), path=path, libraries=libraries)
    assert bundled(with_options) == {"libother.so.1"}


def test_progress_on_a_terminal(venv: VEnv, broken: Path, clean: dict[str, str]) -> None:
    add_libraries(venv)
    command = [str(venv.python), "-m", "cuda_build_activate", "audit", str(broken)]
    parent, child = pty.openpty()
    subprocess.run(command, env=clean, stdout=subprocess.DEVNULL, stderr=child, check=False)
    os.close(child)
    said = os.read(parent, 65536).decode()
    assert re.search(r"\r\033\[K +\d+ % demo/_demo.so", said)
    assert said.endswith("\r\033[K")
    assert subprocess.run(command, env=clean, capture_output=True, check=False).stderr == b""


# What is no wheel, or a damaged one. Each makes another file of a good wheel.


def rewritten(path: Path, change: dict[str, bytes], *, without: str = "") -> Path:
    """*path* with the content of some members changed, or more of them, or without some."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist() if not (without and without in name)}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**contents, **change}.items():
            archive.writestr(name, content)
    return path


def appended(path: Path, name: str) -> Path:
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(name, b"twice")
    return path


def flipped(path: Path) -> Path:
    """A byte in the middle of the largest member is another one."""
    with zipfile.ZipFile(path) as archive:
        member = max(archive.infolist(), key=lambda member: member.compress_size)
    content = bytearray(path.read_bytes())
    content[member.header_offset + 30 + len(member.filename) + member.compress_size // 2] ^= 0xFF
    path.write_bytes(content)
    return path


def cut(path: Path, part: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    return path


def elf(path: Path, part: float) -> bytes:
    with zipfile.ZipFile(path) as archive:
        content = archive.read("demo/_demo.so")
    return content[: int(len(content) * part)]


def _short(part: float) -> tuple[Callable[[Path], Path], str]:
    return lambda path: rewritten(path, {"demo/_demo.so": elf(path, part)}), "demo/_demo.so is a damaged ELF file"


def leading_out(content: bytes) -> bytes:
    """The dynamic section lies behind the file's end, by its program header."""
    place = content.index(struct.pack("<II", 2, 6)) + 8  # PT_DYNAMIC, readable and writable
    return content[:place] + struct.pack("<Q", 1 << 40) + content[place + 8 :]


INFO = "demo-1.0.dist-info"
DAMAGED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "does not exist": (lambda path: path.with_name("none-1.0-py3-none-any.whl"), "No such file"),
    "is a directory": (lambda path: path.parent, "Is a directory"),
    "is no zip": (lambda path: Path(shutil.copy(__file__, path)), "not a zip file"),
    "is empty": (lambda path: cut(path, 0), "not a zip file"),
    "is cut short": (lambda path: cut(path, 0.7), "not a zip file"),
    "is damaged": (flipped, "demo|Error|invalid|CRC"),
    "has another name": (lambda path: path.rename(path.with_name("demo.zip")), "wheel"),
    "has no metadata": (lambda path: rewritten(path, {}, without="METADATA"), "it is not a wheel"),
    "has no RECORD": (lambda path: rewritten(path, {}, without="RECORD"), "RECORD"),
    "has two of them": (lambda path: rewritten(path, {"b-1.dist-info/METADATA": b""}), "it is not a wheel"),
    "has a member above it": (lambda path: rewritten(path, {"../above.py": b""}), "'../above.py' leads out"),
    "has one below that": (lambda path: rewritten(path, {"demo/../../b.py": b""}), "leads out"),
    "has an absolute member": (lambda path: rewritten(path, {"/etc/passwd": b""}), "'/etc/passwd' leads out"),
    "has a member twice": (lambda path: appended(path, "demo/__init__.py"), "two members with the same name"),
    "has a RECORD that leads out": (
        lambda path: rewritten(path, {f"{INFO}/RECORD": b"demo/_demo.so,,\n../../x,sha256=,0\n"}),
        "its RECORD has an invalid line: '../../x,sha256=,0'",
    ),
    "has an absolute path there": (lambda path: rewritten(path, {f"{INFO}/RECORD": b"/x,,\n"}), "its RECORD"),
    "has half a row there": (lambda path: rewritten(path, {f"{INFO}/RECORD": b"demo/_demo.so\n"}), "its RECORD"),
    "has a RECORD that is no text": (lambda path: rewritten(path, {f"{INFO}/RECORD": b"\xff\xfe,,\n"}), "utf-8"),
    **{f"has an ELF file of {part:.2%}": _short(part) for part in (0.0005, 0.003, 0.1, 0.5, 0.9, 0.99)},
    "has a program header that leads out": (
        lambda path: rewritten(path, {"demo/_demo.so": leading_out(elf(path, 1))}),
        "demo/_demo.so is a damaged ELF file: the file is cut short",
    ),
}


@pytest.mark.parametrize("name", ["audit", "repair"])
@pytest.mark.parametrize("fault", DAMAGED)
def test_what_cannot_be_read(fault: str, name: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    made = CASES["torch does not require it"].wheel(tmp_path / "in")
    damage, message = DAMAGED[fault]
    path = damage(made)
    options = ["-w", tmp_path / "out"] if name == "repair" else []
    printed, said = command(name, *options, path, status=2, capfdbinary=capfdbinary)
    assert printed == ""
    (line,) = said.splitlines()
    assert line.startswith(f"cuda-build-activate: {path}: ")
    assert re.search(message, line)
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_one_that_cannot_be_read_does_not_keep_from_others(
    broken: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    printed, said = command("audit", "--json", tmp_path / "none.whl", broken, status=2, capfdbinary=capfdbinary)
    report = json.loads(printed)
    assert ([found["name"] for found in report["wheels"]], report["healthy"]) == ([broken.name], False)
    assert "none.whl" in said


def test_entries_for_directories_are_no_files(tmp_path: Path) -> None:
    made = rewritten(wheel(tmp_path, {"demo/__init__.py": b""}), {"demo/": b"", "demo/empty/": b""})
    assert [file.place for file in audit(made).distribution.files] == []
    assert audit(made).findings == []
