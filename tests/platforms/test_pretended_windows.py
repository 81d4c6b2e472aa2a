"""What is different on Windows, pretended on Linux; tests/platforms/test_windows.py runs it there."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from conftest import make_toolkit, script
from dlls import Export, make_dll

from cuda_build_activate import __main__, _assemble, _doctor, _toolkit, _windows, activate
from cuda_build_activate._import_libraries import import_library

DLL = make_dll([Export("function")])
# What the wheels have there, besides what they have on Linux, too.
FILES = (
    *("bin/nvcc.exe", "bin/x86_64/cudart64_13.dll", "bin/x86_64/cublas64_13.dll", "bin/x86_64/cupti64_2026.3.1.dll"),
    *("bin/x86_64/nvrtc64_130_0.dll", "bin/x86_64/nvrtc64_130_0.alt.dll", "bin/x86_64/nvJitLink_130_0.dll"),
    *("bin/x86_64/nvvm64_40_0.dll", "bin/x64/cusparseLt_13.dll", "lib/x64/cusparseLt.lib"),
    *("lib/x64/cudart.lib", "lib/x64/cudart_static.lib", "lib/x64/cudadevrt.lib", "lib/x64/nvJitLink.lib"),
    *("lib/cudss.lib", "bin/cudss64_1.dll", "bin/CuRand64_10.dll", "lib/x64/curand.lib", "nvvm/bin/cicc.exe"),
)


@pytest.fixture(autouse=True)
def _windows_(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock: all that the package asks of where it runs."""
    monkeypatch.setattr(_toolkit, "WINDOWS", True)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site-packages"
    make(site)
    return site


def make(site: Path) -> Path:
    """A toolkit for Windows in *site*."""
    wheels = make_toolkit(site, nvcc=False)
    for path in [*wheels.glob("lib/*.*"), wheels / "nvvm/bin/cicc"]:
        path.unlink()
    for name in FILES:
        (wheels / name).parent.mkdir(parents=True, exist_ok=True)
        (wheels / name).write_bytes(DLL if name.endswith(".dll") else b"")
        (wheels / name).chmod(0o755)
    for path in [site, *site.rglob("*")]:
        os.utime(path, ns=(10**18, 10**18))
    return wheels


def root_of(site: Path) -> Path:
    return Path(activate([site], {}).root or "nothing was activated")


def change(site: Path, name: str, time: int = 1) -> None:
    """Add a file to the toolkit, a while ago."""
    path = site / "nvidia/cu13" / name
    path.touch()
    os.utime(path.parent, ns=(10**18, 10**18 + time))


def own(site: Path, name: str = "cu13") -> Path:
    return site / "cuda-build-activate" / name


def trees(site: Path) -> list[str]:
    """What is beside the roots."""
    return [name for name in os.listdir(own(site).parent) if name[0] == "."]


def test_the_layout(site: Path) -> None:
    (site / "nvidia/cudnn/bin").mkdir(parents=True)
    (site / "nvidia/cudnn/bin/cudnn_ops64_9.dll").write_bytes(DLL)
    (site / "nvidia/cu13/bin/x86_64/damaged64_1.dll").touch()
    root = root_of(site)
    assert root == own(site)
    assert {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} == {
        ".stamp",
        *("bin/nvcc.exe", "bin/nvcc.profile", "bin/crt/link.stub", "bin/cudss64_1.dll", "bin/cudnn_ops64_9.dll"),
        *("bin/CuRand64_10.dll", "lib/x64/curand.lib"),  # Windows has no case
        *(f"bin/x64/{name}.dll" for name in ("cudart64_13", "cublas64_13", "cupti64_2026.3.1", "damaged64_1")),
        *(f"bin/x64/{name}.dll" for name in ("nvrtc64_130_0", "nvrtc64_130_0.alt", "nvJitLink_130_0", "nvvm64_40_0")),
        "bin/x64/cusparseLt_13.dll",
        *("include/crt/host_config.h", "include/crt/host_defines.h", "include/cuda_runtime.h"),
        *("include/cuda_runtime_api.h", "include/cccl/thrust/version.h", "include/nvvm.h"),
        "lib/cmake/cccl/cccl-config.cmake",
        "lib/cudss.lib",
        *(
            f"lib/x64/{name}.lib"
            for name in ("cudart", "cudart_static", "cudadevrt", "nvJitLink", "cusparseLt", "cudss")
        ),
        *(f"lib/x64/{name}.lib" for name in ("cublas", "cupti", "nvrtc", "nvvm", "cudnn_ops")),
        *("nvvm/bin/cicc.exe", "nvvm/bin/nvvm64_40_0.dll", "nvvm/include/nvvm.h", "nvvm/libdevice/libdevice.10.bc"),
        *("version.txt", "version.json"),
    }
    assert not [path for path in root.rglob("*") if path.is_symlink()]
    wheels = site / "nvidia/cu13"
    assert (root / "bin/x64/nvvm64_40_0.dll").samefile(wheels / "bin/x86_64/nvvm64_40_0.dll")
    assert (root / "lib/x64/cublas.lib").read_bytes() == import_library(str(wheels / "bin/x86_64/cublas64_13.dll"))
    assert (root / "version.txt").read_text() == "CUDA Version 13.4.0\n"
    assert json.loads((root / "version.json").read_text())["cuda"]["version"] == "13.4.0"


def test_the_layout_for_arm64(site: Path) -> None:
    wheels = site / "nvidia/cu13"
    (wheels / "bin/x86_64").rename(wheels / "bin/arm64")
    (wheels / "lib/x64").rename(wheels / "lib/arm64")
    (wheels / "cccl/include/nv").mkdir(parents=True)
    (wheels / "cccl/include/nv/target").touch()
    environ = {"PATH": "before"}
    root = Path(activate([site], environ).root or "")
    for name in ("bin/arm64/cublas64_13.dll", "lib/arm64/cublas.lib", "lib/arm64/cudss.lib", "include/nv/target"):
        assert (root / name).exists(), name
    assert (root / "nvvm/bin/nvvm64_40_0.dll").exists()
    assert environ["PATH"].split(":") == [f"{root}/bin", f"{root}/bin/x64", f"{root}/bin/arm64", "before"]


def test_rows_name_the_wheel_that_they_were_seen_in() -> None:
    for row in _assemble.WINDOWS_LAYOUT:
        assert re.fullmatch(r"nvidia(-\w+)+ \d+(\.\d+)+", row.seen), row.seen


def test_the_variables(site: Path) -> None:
    environ = {"PATH": "before"}
    done = activate([site], environ)
    root = str(own(site))
    assert done.reason == f"activated CUDA 13.4.0 with nvcc: {root}"
    assert environ == {
        **dict.fromkeys(("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CUDATOOLKIT_ROOT", "CUDA_TOOLKIT_ROOT_DIR"), root),
        "CUDA_BUILD_ACTIVATE_ROOT": root,
        "CUDA_BUILD_ACTIVATE_SITE": f"{root}/.site",
        "CUDACXX": f"{root}/bin/nvcc.exe",
        "CMAKE_PREFIX_PATH": root,
        "PATH": f"{root}/bin:{root}/bin/x64:before",
    }
    assert activate([site], environ).variables == environ


def test_what_a_path_cannot_have(tmp_path: Path) -> None:
    make(tmp_path / "a;b")
    assert "no toolkit works in a path with ';'" in activate([tmp_path / "a;b"], {}).reason
    site = tmp_path / "a%20b%NAME%c$[d]"
    make(site)
    assert activate([site], {"20b": ""}).root == str(own(site))
    assert "no toolkit works in a path with '%NAME%'" in activate([site], {"NAME": "x"}).reason
    assert activate([site], {"20b": "x"}).code == "unusable-path"


def test_a_root_that_is_current_is_not_made_again(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = root_of(site)
    monkeypatch.setattr(_assemble, "assemble", None)
    assert root_of(site) == root
    assert trees(site) == []
    compared = (root / ".stamp").read_text()
    assert "nvidia/cu13/include/cccl" in compared
    assert "nvidia/cu13/include/cccl/" not in compared  # there are 170 directories in all


@pytest.mark.parametrize(
    "added", ["bin/new.exe", "bin/x86_64/new.dll", "include/new.h", "include/cccl/new", "lib/x64/a"]
)
def test_made_again_when_the_components_change(site: Path, added: str) -> None:
    root = root_of(site)
    before = (root / "bin/nvcc.exe").stat().st_ino
    change(site, added)
    assert root_of(site) == root
    assert (root / added.replace("x86_64", "x64")).exists()
    assert (root / "bin/nvcc.exe").stat().st_ino == before
    assert trees(site) == []  # hard links take no space, until what they lead to is uninstalled


def in_use(monkeypatch: pytest.MonkeyPatch, *roots: Path) -> None:
    """Let nobody move *roots*, as on Windows while a file in one is open."""
    rename = os.rename

    def refuse(source: str, target: str) -> None:
        if Path(source) in roots:
            raise PermissionError(13, "The process cannot access the file", source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)


def test_a_root_in_use_is_left_alone(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = root_of(site)
    change(site, "include/new.h")
    with monkeypatch.context() as mock:
        in_use(mock, root)
        assert root_of(site) == own(site, "cu13.1")
        assert root_of(site) == own(site, "cu13.1")
    assert not (root / "include/new.h").exists()
    assert (own(site, "cu13.1") / "include/new.h").exists()
    assert trees(site) == []
    change(site, "include/newer.h", 2)
    assert root_of(site) == root
    assert (root / "include/newer.h").exists()


def test_all_roots_in_use(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_windows, "_NAMES", 2)
    root = root_of(site)
    own(site, "cu13.1").mkdir()
    change(site, "include/new.h")
    in_use(monkeypatch, root, own(site, "cu13.1"))
    done = activate([site], {})
    assert done.root == str(site / "nvidia/cu13")
    assert f"{root} and all alternatives to it are in use" in done.reason
    assert trees(site) == []


def test_a_virus_scanner(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens what was written, for a moment."""
    rename, tries = os.rename, []

    def refuse(source: str, target: str) -> None:
        if Path(target) == own(site) and not source.endswith(".copy"):
            tries.append(source)
            if len(tries) < 3 or _windows._PATIENCE_S == 0:
                raise PermissionError(13, "The process cannot access the file", source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    assert root_of(site) == own(site)
    assert len(tries) == 3
    change(site, "include/new.h")
    monkeypatch.setattr(_windows, "_PATIENCE_S", 0)
    assert root_of(site) == site / "nvidia/cu13"
    assert not (own(site) / "include/new.h").exists()
    assert (own(site) / "bin/nvcc.exe").exists()
    shutil.rmtree(own(site))
    assert root_of(site) == site / "nvidia/cu13"
    assert not own(site).exists()
    assert trees(site) == []


@pytest.mark.parametrize("late", [False, True])
def test_another_process_was_faster(site: Path, late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has put in place stays, also if it did so after this one had looked."""
    done = (_windows if late else _assemble, "put" if late else "plan")
    original = getattr(*done)
    faster: list[int] = []

    def other(*arguments: object) -> object:
        if not faster:
            faster.append(0)
            assert root_of(site) == own(site)
            faster.append((own(site) / "bin").stat().st_ino)
            if late:  # as if there had been nothing to move
                monkeypatch.setattr(os, "rename", refuse)
        return original(*arguments)

    def refuse(source: str, target: str) -> None:
        raise FileNotFoundError(source) if source == str(own(site)) else FileExistsError(target)

    monkeypatch.setattr(*done, other)
    assert root_of(site) == own(site)
    assert (own(site) / "bin").stat().st_ino == faster[1]
    assert trees(site) == []


def test_no_hard_links(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(1, "Incorrect function", source)

    monkeypatch.setattr(os, "link", refuse)
    environ = {"PATH": "before"}
    done = activate([site], environ)
    wheels = site / "nvidia/cu13"
    assert done.root == str(wheels)
    assert "(the wheels' own directory: no toolkit root could be made: [Errno 1] Incorrect function" in done.reason
    assert environ["PATH"] == f"{wheels}/bin:{wheels}/bin/x64:{wheels}/bin/x86_64:before"
    assert os.listdir(site / "cuda-build-activate") == []
    (finding,) = _doctor.findings({"PATH": compiler(site.parent)}, [str(site)])
    assert (finding.code, finding.severity) == ("root-not-writable", "warning")
    assert finding.remedy == _doctor.NO_HARD_LINKS


def test_the_users_cache_is_not_used(site: Path) -> None:
    (site / "cuda-build-activate").touch()
    assert activate([site], {"XDG_CACHE_HOME": str(site.parent / "cache")}).root == str(site / "nvidia/cu13")
    assert not (site.parent / "cache").exists()


def compiler(directory: Path) -> str:
    """A PATH with a cl.exe."""
    return str(script(directory / "vc" / "cl.exe", "").parent)


def codes(site: Path, environ: dict[str, str]) -> list[str]:
    return [finding.code for finding in _doctor.findings(environ, [str(site)])]


def test_the_doctor(site: Path, tmp_path: Path) -> None:
    environ = {"PATH": compiler(tmp_path)}
    assert codes(site, environ) == []
    assert codes(site, {"PATH": "nowhere"}) == ["no-host-compiler"]
    assert codes(site, {"PATH": "nowhere", "NVCC_CCBIN": environ["PATH"]}) == []
    other = tmp_path / "other"
    (other / "lib/x64").mkdir(parents=True)
    (other / "lib/x64/cudart.lib").touch()
    assert codes(site, {**environ, "LIB": str(other)}) == ["other-toolkit"]
    assert codes(site, {**environ, "LIBRARY_PATH": str(other)}) == []
    (own(site) / "bin/nvcc.profile").unlink()
    assert codes(site, environ) == ["root-damaged"]
    for name in ("nvvm/bin/cicc.exe", "lib/x64/cudart_static.lib"):
        (site / "nvidia/cu13" / name).unlink()
    (finding,) = _doctor.findings(environ, [str(site)])
    assert finding.seen == "nvcc is installed, but not what it needs from nvidia-nvvm, nvidia-cuda-runtime"


def test_the_doctor_compiles(site: Path) -> None:
    nvcc = script(
        site / "nvidia/cu13/bin/nvcc.exe", "echo .nv_fatb nvcudart_hybrid64.dll cublas64_13.dll > program.exe"
    )
    assert nvcc.exists()
    passed = [*_doctor.prove(activate([site], {}), dict(os.environ))]
    assert [line for line in passed if isinstance(line, str)] == passed
    assert passed[2:] == ["linked cuBLAS"]


def test_what_components_give(site: Path) -> None:
    info = site / "nvidia_cuda_nvcc-13.4.92.dist-info"
    info.mkdir()
    names = ("bin/nvcc.exe", "bin/nvcc.profile", "bin/x86_64/nvvm64_40_0.dll", "lib/x64/cudart.lib", "include/cuda.h")
    (info / "RECORD").write_text("".join(f"nvidia/cu13/{name},,\n" for name in names))
    (found,) = __main__._components([str(site)])
    assert (found["programs"], found["libraries"], found["headers"]) == (["nvcc"], ["cudart.lib", "nvvm64_40_0.dll"], 1)
