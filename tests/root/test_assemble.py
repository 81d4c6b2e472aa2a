"""The toolkit root, on small made-up trees."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import make_toolkit, run
from faults import contents

from cuda_build_activate import _assemble, _root, _toolkit, activate
from cuda_build_activate._toolkit import Toolkit, find


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site-packages"
    make_toolkit(site)
    return site


def root_of(*sites: Path, environ: dict[str, str] | None = None) -> Path:
    return Path(activate(sites, {} if environ is None else environ).root or "nothing was activated")


def test_the_layout_of_an_installed_toolkit(site: Path) -> None:
    root = root_of(site)
    target = _assemble.TARGETS[os.uname().machine]
    cudart = site / "nvidia" / "cu13" / "lib" / "libcudart.so.13"
    for name in ("lib64/libcudart.so", "lib/libcudart.so", f"targets/{target}/lib/libcudart.so"):
        assert (root / name).resolve() == cudart
    for name in (
        "bin/crt/link.stub",
        "bin/nvcc",
        "bin/nvcc.profile",
        "include/cccl/thrust/version.h",
        "include/cuda_runtime_api.h",
        "lib64/cmake/cccl/cccl-config.cmake",
        "lib64/libcudart_static.a",
        "nvvm/bin/cicc",
        "nvvm/include/nvvm.h",
        "nvvm/lib64/libnvvm.so",
        "nvvm/libdevice/libdevice.10.bc",
        f"targets/{target}/include/cuda_runtime_api.h",
    ):
        assert (root / name).exists(), name
    # What finds the rest of the toolkit from its own directory must not be led back to the wheel's.
    for name in ("bin", "include", "lib64", "lib64/cmake/cccl", "nvvm/bin"):
        assert (root / name).is_dir(), name
        assert not (root / name).is_symlink(), name
    assert run([root / "bin" / "nvcc"]).strip() == str(root / "bin" / "nvcc")


def test_without_cccl(site: Path) -> None:
    """nvcc still names the directory of its headers, and CMake links with no target if that does not exist."""
    shutil.rmtree(site / "nvidia" / "cu13" / "include" / "cccl")
    assert os.listdir(root_of(site) / "include" / "cccl") == []
    (site / "nvidia" / "cu13" / "bin" / "nvcc").unlink()
    assert not (root_of(site) / "include" / "cccl").exists()


def test_rows_name_the_wheel_that_they_were_seen_in() -> None:
    for row in (*_assemble.LAYOUT, *_toolkit.COMPONENTS, *_toolkit.PRODUCTS):
        assert re.fullmatch(r"(nvidia|cutensor)(-\w+)+ \d+(\.\d+)+", row.seen), row.seen


def test_a_site_directory_within_another(site: Path) -> None:
    """The root is for both, and has the path of one."""
    make_toolkit(site)
    inner = site / "inner"
    (inner / "nvidia" / "cublas" / "lib").mkdir(parents=True)
    done = activate([f"{site}/", inner], {})
    assert done.root
    found = [path for path in Path(done.root, ".site").rglob("*") if path.is_file()]
    assert found == [Path(f"{done.root}/.site{site}")]


def test_links_only(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site)  # where there is no bin
    root = root_of(site)
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and not path.is_symlink()}
    through_links = {str(path.relative_to(root)) for path in root.glob("include/cccl/**/*") if path.is_file()}
    assert files - through_links == {f".site{site}", ".stamp", "rpath.rsp", "version.json", "version.txt"}


def test_nothing_of_another_package_is_changed(site: Path) -> None:
    def listing() -> list[tuple[str, int, int]]:
        return [(str(p), p.lstat().st_mtime_ns, p.lstat().st_mode) for p in sorted(site.joinpath("nvidia").rglob("*"))]

    before = listing()
    root_of(site)
    assert listing() == before


def test_versions(site: Path) -> None:
    for name in ("nvidia_cuda_nvcc-13.4.92", "nvidia_cublas-13.8.0.4", "cutensor_cu13-2.8.1", "requests-2.0"):
        (site / f"{name}.dist-info").mkdir()
    root = root_of(site)
    assert (root / "version.txt").read_text() == "CUDA Version 13.4.92\n"
    assert {name: found["version"] for name, found in json.loads((root / "version.json").read_text()).items()} == {
        "cuda": "13.4.92",
        "cutensor_cu13": "2.8.1",
        "nvidia_cublas": "13.8.0.4",
        "nvidia_cuda_nvcc": "13.4.92",
    }


def test_which_names_are_distributions(site: Path, tmp_path: Path) -> None:
    for name in (
        "nvidia_cuda_nvcc-13.4.92+local.1.dist-info",
        "nvidia_nvvm-13.4-92.dist-info",
        "nvidia-cublas-13.8.dist-info",
        'nvidia_"cufft-1.0.dist-info',
        "nvidia_cufile-1.0.egg-info",
        "other_nvidia-1.0.dist-info",
    ):
        (site / name).mkdir()
    assert _toolkit.versions([str(tmp_path / "missing"), str(site)]) == {"nvidia_cuda_nvcc": "13.4.92+local.1"}
    assert _toolkit.minor_version("13.4.92") == "13.4"


def test_the_version_of_a_toolkit_without_nvcc(site: Path) -> None:
    for name in ("nvidia_cuda_nvcc-12.9.86", "nvidia_cuda_runtime-13.4.77"):
        (site / f"{name}.dist-info").mkdir()
    assert (root_of(site) / "version.txt").read_text() == "CUDA Version 13.4.77\n"


@pytest.mark.parametrize(("number", "version"), [(13110, "13.11.0"), (13000, "13.0.0")])
def test_the_version_in_the_header(site: Path, number: int, version: str) -> None:
    header = site / "nvidia" / "cu13" / "include" / "cuda_runtime_api.h"
    header.write_text(f"/* CUDART_VERSION */\n#define CUDART_VERSION  {number} \n#define CUDART_VERSION 1 2\n")
    assert (root_of(site) / "version.txt").read_text() == f"CUDA Version {version}\n"


def test_directories_that_are_always_there(site: Path) -> None:
    shutil.rmtree(site / "nvidia" / "cu13")
    (site / "nvidia" / "cu13" / "bin").mkdir(parents=True)
    (site / "nvidia" / "cu13" / "bin" / "nvcc").touch()
    root = root_of(site)
    for name in ("bin", "include", "lib64/stubs"):
        assert (root / name).is_dir(), name
    shutil.rmtree(site / "nvidia" / "cu13" / "bin")
    (site / "nvidia" / "cu13" / "include").mkdir()
    (site / "nvidia" / "cu13" / "include" / "cuda_runtime_api.h").touch()
    assert (root_of(site) / "bin").is_dir()


def test_a_directory_of_one_source_is_one_link(site: Path) -> None:
    """Links by file are for what has to be: there may be thousands of headers."""
    for name in ("cccl/lib/cmake/cccl/nested", "include/cccl/cub"):
        (site / "nvidia" / "cu13" / name).mkdir(parents=True)
        (site / "nvidia" / "cu13" / name / "file").touch()
    (site / "nvidia" / "cudnn" / "include" / "cccl").mkdir(parents=True)
    (site / "nvidia" / "cudnn" / "include" / "cccl" / "more").touch()
    root = root_of(site)
    assert (root / "include" / "crt").is_symlink()
    assert (root / "include" / "cccl" / "cub").is_symlink()
    assert not (root / "include" / "cccl").is_symlink()
    assert not (root / "lib64" / "cmake" / "cccl" / "nested").is_symlink()
    assert (root / "lib64" / "cmake" / "cccl" / "nested" / "file").exists()
    assert not (root / "lib64" / "stubs" / "libcuda.so").exists()


def test_a_file_stays_where_another_wheel_has_a_directory(site: Path) -> None:
    (site / "nvidia" / "cudnn" / "include" / "nvvm.h").mkdir(parents=True)
    assert (root_of(site) / "include" / "nvvm.h").is_file()


def test_python_files_are_no_headers(site: Path) -> None:
    for name in ("__init__.py", "__pycache__/__init__.pyc"):
        path = site / "nvidia" / "cu13" / "include" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    root = root_of(site)
    assert not {"__init__.py", "__pycache__"} & set(os.listdir(root / "include"))


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "riscv64"])
def test_another_machine(site: Path, machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (site / "nvidia" / "cu13" / "include" / "cuda.h").write_text("CUresult CUDAAPI cuInit(unsigned int Flags);\n")
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    root = root_of(site)
    targets = {"x86_64": ["x86_64-linux"], "aarch64": ["sbsa-linux"], "riscv64": []}[machine]
    assert [path.name for path in root.glob("targets/*")] == targets
    stub = root / "lib64" / "stubs" / "libcuda.so"
    assert (stub.exists() and b"cuInit" in stub.read_bytes()) == bool(targets)


def test_what_cannot_be_swept_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _root._sweep(str(tmp_path / "missing"), ".cu13.", ())

    def fail(*_: object, **__: object) -> None:
        raise PermissionError  # a mock: there are users whom permissions do not stop

    (tmp_path / "tree").mkdir()
    monkeypatch.setattr(os, "rmdir", fail)
    _root._discard(str(tmp_path / "tree"))


def test_a_root_that_cannot_be_put_in_place_leaves_nothing_behind(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("not here")  # a mock: of all that may fail it is the last

    monkeypatch.setattr(os, "replace", fail)
    assert root_of(site) == site / "nvidia" / "cu13"
    assert os.listdir(site / "cuda-build-activate") == []


def test_no_version_is_made_up(site: Path) -> None:
    (site / "nvidia" / "cu13" / "include" / "cuda_runtime_api.h").unlink()
    root = root_of(site)
    assert not (root / "version.txt").exists()
    assert activate([site], {}).version is None


def test_products(site: Path) -> None:
    for directory, library in (("nvidia/cudnn", "libcudnn.so.9"), ("cutensor", "libcutensor.so.2")):
        for name in (f"lib/{library}", f"include/{library}.h", f"include/detail/{library}.h"):
            (site / directory / name).parent.mkdir(parents=True, exist_ok=True)
            (site / directory / name).touch()
    root = root_of(site)
    assert {path.name for path in root.glob("include/detail/*")} == {"libcudnn.so.9.h", "libcutensor.so.2.h"}
    assert {path.name for path in root.glob("lib64/*.so")} >= {"libcudnn.so", "libcutensor.so"}


def test_the_newest_of_several_versions_gets_the_linker_name(site: Path) -> None:
    library = site / "nvidia" / "cu13" / "lib"
    for name in (
        "libnvrtc.so.13.9",
        "libnvrtc.so.13.10",
        "libnvrtc.so.9",
        "libnvrtc.so.13.10.sig",
        "libown.so.2",
        "libown.so",
    ):
        (library / name).touch()
    root = root_of(site)
    assert (root / "lib64" / "libnvrtc.so").resolve().name == "libnvrtc.so.13.10"
    assert (root / "lib64" / "libown.so").resolve().name == "libown.so"


def test_the_first_entry_wins(tmp_path: Path) -> None:
    for name in ("first", "second"):
        make_toolkit(tmp_path / name)
        (tmp_path / name / "nvidia" / "cu13" / "include" / "cccl" / f"{name}.h").touch()
    root = root_of(tmp_path / "first", tmp_path / "second")
    assert (root / "bin" / "nvcc").resolve() == tmp_path / "first" / "nvidia" / "cu13" / "bin" / "nvcc"
    assert (root / "include" / "cccl" / "thrust").resolve().is_relative_to(tmp_path / "first")
    assert (root / "include" / "cccl" / "second.h").exists()


def test_cmake_packages_among_the_libraries(site: Path) -> None:
    """As CCCL's wheels had them before 13.2.75: the directory is shown once, and the libraries after it, too."""
    libraries = make_toolkit(site) / "lib"
    (libraries.parent / "cccl" / "lib" / "cmake").rename(libraries / "cmake")
    root = Path(str(activate([site], {}).root))
    assert os.readlink(root / "lib64" / "cmake" / "cccl" / "cccl-config.cmake").endswith("cmake/cccl/cccl-config.cmake")
    assert (root / "lib64" / "libcudart.so.13").exists()


def test_an_unchanged_environment_keeps_its_root(site: Path) -> None:
    root = root_of(site)
    made = os.readlink(root)
    (site / "unrelated.py").touch()
    root_of(site)
    assert os.readlink(root) == made


def touch_library(site: Path) -> None:
    (site / "nvidia" / "cu13" / "lib" / "libcublas.so.13").touch()


def add_product(site: Path) -> None:
    (site / "cutensor" / "lib").mkdir(parents=True)
    (site / "cutensor" / "lib" / "libcutensor.so.2").touch()


def remove_library(site: Path) -> None:
    (site / "nvidia" / "cu13" / "lib" / "libcudart.so.13").unlink()


def add_cmake_package(site: Path) -> None:
    (site / "nvidia" / "cu13" / "cccl" / "lib" / "cmake" / "cub").mkdir()
    (site / "nvidia" / "cu13" / "cccl" / "lib" / "cmake" / "cub" / "cub-config.cmake").touch()


def remove_cccl(site: Path) -> None:
    shutil.rmtree(site / "nvidia" / "cu13" / "cccl")


def cut_off_the_copy(site: Path) -> None:
    root = site / "cuda-build-activate" / "cu13"
    copied = shutil.copytree(root, site / "copied")
    shutil.rmtree(root.resolve())
    root.unlink()
    shutil.move(copied, root)
    touch_library(site)


@pytest.mark.parametrize(
    "change", [touch_library, add_product, remove_library, add_cmake_package, remove_cccl, cut_off_the_copy]
)
def test_made_again_when_the_components_change(site: Path, change: Callable[[Path], None]) -> None:
    root = root_of(site)
    made = os.readlink(root)
    change(site)
    root_of(site)
    toolkit = find([str(site)])
    assert toolkit
    expected = _assemble.plan(toolkit)
    assert contents(str(root)) == set(expected)
    # What was replaced may still be in use; what was in the way is not.
    assert {entry for entry in os.listdir(root.parent) if entry != "cu13"} - {made} == {os.readlink(root)}


@pytest.mark.parametrize("damage", ["file", "dangling link", "link loop", "empty directory", "no stamp"])
def test_a_damaged_root_is_repaired(site: Path, damage: str) -> None:
    root = root_of(site)
    if damage == "no stamp":
        (root / ".stamp").unlink()
    else:
        root.unlink()
        if damage == "file":
            root.write_text("not a root")
        elif damage == "empty directory":
            root.mkdir()
        else:
            root.symlink_to("nowhere" if damage == "dangling link" else "cu13")
    assert root_of(site) == root
    assert (root / "bin" / "nvcc").exists()


def test_what_was_replaced_is_removed_by_the_next(site: Path) -> None:
    root = root_of(site)
    trees = []
    for _ in range(3):
        trees.append(root.resolve())
        os.utime(root, (0, 0))  # long ago
        os.utime(site / "nvidia" / "cu13" / "lib", ns=(10**18, 10**18 + len(trees)))
        assert root_of(site).resolve() not in trees
    assert [tree.exists() for tree in trees] == [False, False, True]


def test_another_process_was_faster(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has put in place stays: builds may use it already."""
    faster = []

    def plan(toolkit: Toolkit) -> _assemble.Content:
        monkeypatch.undo()
        faster.append(root_of(site).resolve())
        return _assemble.plan(toolkit)

    monkeypatch.setattr(_assemble, "plan", plan)
    assert [root_of(site).resolve()] == faster
    assert set(os.listdir(site / "cuda-build-activate")) == {"cu13", faster[0].name}


@pytest.mark.parametrize("umask", [0, 0o077])
def test_modes(site: Path, umask: int) -> None:
    """Whatever the umask: others never write."""
    before = os.umask(umask)
    try:
        root = root_of(site)
    finally:
        os.umask(before)
    assert root == site / "cuda-build-activate" / "cu13"
    made = [path for path in [root.parent, root.resolve(), *root.rglob("*")] if not path.is_symlink()]
    modes = {(path.is_dir(), path.stat().st_mode & 0o777) for path in made}
    assert modes == {(True, 0o755 & ~umask), (False, 0o644 & ~umask)}


def test_a_file_system_without_modes(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = os.mkdir

    def make(path: str, mode: int) -> None:
        mkdir(path)
        os.chmod(path, 0o777 if path.endswith("/bin") else mode)

    monkeypatch.setattr(os, "mkdir", make)
    activation = activate([site], {"PATH": ""})
    assert activation.root == str(site / "nvidia" / "cu13")
    assert f"any user could write to {site}/cuda-build-activate/.cu13." in activation.reason
    assert os.listdir(site / "cuda-build-activate") == []


def test_what_was_abandoned_is_removed_and_what_is_in_the_making_is_not(site: Path) -> None:
    base = site / "cuda-build-activate"
    for name in (".cu13.1.a", ".cu13.2.b"):
        (base / name / "bin").mkdir(parents=True)
    (base / ".cu13.1.a.link").symlink_to("nowhere")
    for name in (".cu13.1.a", ".cu13.1.a.link"):
        os.utime(base / name, (0, 0), follow_symlinks=False)
    root_of(site)
    assert not [name for name in os.listdir(base) if name.startswith(".cu13.1.")]
    assert (base / ".cu13.2.b").exists()


def test_a_moved_environment(site: Path, tmp_path: Path) -> None:
    made = os.readlink(root_of(site))
    moved = site.rename(tmp_path / "moved")
    root = root_of(moved)
    assert os.readlink(root) == made
    assert (root / "lib64" / "libcudart.so").resolve() == moved / "nvidia" / "cu13" / "lib" / "libcudart.so.13"


def test_times_cut_to_seconds_as_in_a_container_layer(site: Path) -> None:
    odd = 10**18 + 123_456_789
    for path in [site, *site.rglob("*")]:
        os.utime(path, ns=(odd, odd))
    made = os.readlink(root_of(site))
    for path in [site, *site.joinpath("nvidia").rglob("*")]:
        os.utime(path, ns=(odd, odd - 123_456_789))
    assert os.readlink(root_of(site)) == made


def test_a_component_that_changed_just_now_is_read_again(site: Path) -> None:
    touch_library(site)  # may still be changing, within the tick of the clock that its directory's time shows
    changed = (site / "nvidia" / "cu13" / "lib").stat().st_mtime_ns
    made = os.readlink(root_of(site))
    os.utime(site / "nvidia" / "cu13" / "lib", ns=(changed, changed))
    assert os.readlink(root_of(site)) != made


@pytest.fixture
def closed(site: Path) -> Path:
    """An environment in which no directory of ours can be made."""
    (site / "cuda-build-activate").write_text("in the way, also of a user whom file modes do not apply to")
    return site


def test_where_the_environment_is_not_writable_a_private_directory_is_used(closed: Path, tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    root = root_of(closed, environ=environ)
    private = tmp_path / "cache" / "cuda-build-activate"
    assert root.parent.parent == private
    assert private.stat().st_mode & 0o777 == 0o700
    assert (root / "lib64" / "libcudart.so").resolve() == closed / "nvidia" / "cu13" / "lib" / "libcudart.so.13"
    made = os.readlink(root)
    assert root_of(closed, environ={"HOME": str(tmp_path / "home")}) != root
    assert root_of(closed, environ={"XDG_CACHE_HOME": str(tmp_path / "cache")}) == root
    assert os.readlink(root) == made


@pytest.mark.parametrize("fault", ["open to others", "link", "file"])
def test_a_private_directory_that_is_not_private_is_refused(closed: Path, tmp_path: Path, fault: str) -> None:
    cache = tmp_path / "cache"
    root_of(closed, environ={"XDG_CACHE_HOME": str(cache)})  # a complete and current root is there
    private = cache / "cuda-build-activate"
    if fault == "open to others":
        private.chmod(0o755)
    else:
        private.rename(tmp_path / "planted")
        private.symlink_to(tmp_path / "planted") if fault == "link" else private.touch()
    assert root_of(closed, environ={"XDG_CACHE_HOME": str(cache)}) == closed / "nvidia" / "cu13"


@pytest.mark.parametrize("cache", [{}, {"HOME": ""}, {"HOME": "relative"}, {"XDG_CACHE_HOME": "relative"}])
def test_where_nothing_is_writable_the_wheels_are_used_as_they_are(closed: Path, cache: dict[str, str]) -> None:
    done = activate([closed], cache)
    assert done.root == str(closed / "nvidia" / "cu13") == cache["CUDA_HOME"]
    assert "no toolkit root could be made" in done.reason


def test_a_link_in_place_of_our_directory_is_not_followed(site: Path, tmp_path: Path) -> None:
    (tmp_path / "planted").mkdir()
    (site / "cuda-build-activate").symlink_to(tmp_path / "planted")
    assert root_of(site) == site / "nvidia" / "cu13"
    assert os.listdir(tmp_path / "planted") == []


def test_failure_leaves_nothing_behind(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no links here")  # a mock: no file system without links can be mounted in an ordinary test run

    monkeypatch.setattr(os, "symlink", fail)
    environ: dict[str, str] = {}
    done = activate([site], environ)
    assert done.root == str(site / "nvidia" / "cu13") == environ["CUDA_HOME"]
    assert "the wheels' own directory" in done.reason
    assert os.listdir(site / "cuda-build-activate") == []


def test_run_paths_lead_to_libraries_only(site: Path) -> None:
    make_toolkit(site)
    (site / "nvidia" / "nccl" / "include").mkdir(parents=True)
    (site / "cutensor" / "lib").mkdir(parents=True)
    option = (root_of(site) / "rpath.rsp").read_text()
    assert "$ORIGIN/nvidia/cu13/lib:$ORIGIN/cutensor/lib:$ORIGIN/../nvidia/cu13/lib" in option
    assert "nccl" not in option
