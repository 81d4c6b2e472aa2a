"""The wheels of every toolkit release on every platform have the layout that the package expects.

The survey reads only the lists of files of the wheels, and makes trees of empty files of them.
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import layout
import pytest
from conftest import run
from toolkits import MORE_PRODUCTS, NEWEST, PRODUCTS, RELEASES, number, release_lock

from cuda_build_activate import _assemble, _import_libraries, _libraries, _toolkit, activate

pytestmark = pytest.mark.everything

# Where a build looks in the root for what a wheel has below its directory (nvidia/cu13, nvidia/cublas, cutensor, ...):
# in every place of the rows that match.
PLACES = (
    (r"bin/(.+)", r"bin/\1"),
    (r"bin/(cicc)", r"nvvm/bin/\1"),  # 13.0.0 has it in bin, and its nvcc.profile says CICC_PATH = $(TOP)/nvvm/bin
    (r"include/(.+)", r"include/\1"),
    (r"include/(nvvm\.h)", r"nvvm/include/\1"),
    (r"lib/([^/]+)", r"lib64/\1"),
    (r"lib/([^/]+\.so)\.[\d.]+", r"lib64/\1"),
    (r"lib/(libnvvm\.so)\.\d+", r"nvvm/lib64/\1"),
    (r"(?:(?:cuda_)?cccl/)?lib/cmake/(.+)", r"lib64/cmake/\1"),
    (r"nvvm/(.+)", r"nvvm/\1"),
    (r"compute-sanitizer/(.+)", r"compute-sanitizer/\1"),
)
# What no build needs.
NOT_NEEDED = (
    r"((cuda_)?cccl/)?\.metadata/.+",  # how the wheel was made: nvidia-cuda-cccl 13.0 to 13.3
    r"(cccl/)?LICENSE",  # nvidia-cuda-cccl 13.3, cutensor-cu13
    r"share/skills/.+",  # instructions for coding agents: nvidia-nvshmem-cu13 3.8
    r"(\w+/)?__init__\.py",  # the components of CUDA 11 and 12 are Python packages
    r"res/nvJitLink_linux\.def",  # nvidia-nvjitlink-cu12 12.0 and 12.1
)
# Of a toolkit with nvcc, besides.
NEEDED = (
    "bin/crt/link.stub",
    "bin/cudafe++",
    "bin/fatbinary",
    "bin/nvcc",
    "bin/nvcc.profile",
    "bin/nvlink",
    "bin/ptxas",
    "include/cccl/cub/cub.cuh",
    "include/cccl/cuda/std/array",
    "include/cccl/thrust/version.h",
    "include/crt/host_config.h",
    "include/cuda.h",
    "include/cuda_fp16.h",
    "include/cuda_runtime.h",
    "lib/libcudart.so",
    "lib64/cmake/cccl/cccl-config.cmake",
    "lib64/cmake/cub/cub-config.cmake",
    "lib64/cmake/libcudacxx/libcudacxx-config.cmake",
    "lib64/cmake/thrust/thrust-config.cmake",
    "lib64/libcudadevrt.a",
    "lib64/libcudart.so",
    "lib64/libcudart_static.a",
    "nvvm/bin/cicc",
    "nvvm/lib64/libnvvm.so",
    "nvvm/libdevice/libdevice.10.bc",
    "targets/{target}/include/cuda_runtime.h",
    "targets/{target}/lib/libcudart.so",
    "version.txt",
)
# What is found from its own place finds the root from these, and so they must not be links to the wheels' directories.
OWN = ("bin", "include", "lib64", "lib64/cmake/cccl", "lib64/cmake/libcudacxx", "nvvm/bin", "targets/{target}")
# NVIDIA's wheels of 13.0.0 have it nowhere: nvcc 13.0.48 compiles and does not link, on every platform.
NOT_IN_13_0_0 = {"bin/crt/link.stub"}
# By the name of the directory below targets/.
TARGETS = {"x86_64": "x86_64-linux", "aarch64": "sbsa-linux"}

# As above, on Windows; {library} and {dll} are the directories of the machine in the wheels, {dlls} that in the root.
WINDOWS_PLACES = (
    (r"bin/([^/]+\.(?:exe|profile|dll))", r"bin/\1"),
    (r"bin/(crt/(?:pre)?link\.stub)", r"bin/\1"),
    (r"bin/{dll}/([^/]+\.dll)", r"bin/{dlls}/\1"),
    (r"bin/{dll}/(nvvm64_[^/]+\.dll)", r"nvvm/bin/\1"),
    (r"include/(.+)", r"include/\1"),
    (r"include/(nvvm\.h)", r"nvvm/include/\1"),
    (r"lib/{library}/([^/]+\.lib)", r"lib/{library}/\1"),
    (r"(?:(?:cuda_)?cccl/)?lib/cmake/(.+)", r"lib/cmake/\1"),
    (r"nvvm/((?:bin|libdevice)/.+)", r"nvvm/\1"),
)
NEEDED_ON_WINDOWS = (
    "bin/crt/link.stub",
    "bin/cudafe++.exe",
    "bin/fatbinary.exe",
    "bin/nvcc.exe",
    "bin/nvcc.profile",
    "bin/ptxas.exe",
    "bin/{dlls}/cudart64_13.dll",
    "include/cccl/cub/cub.cuh",
    "include/cccl/cuda/std/array",
    "include/crt/host_config.h",
    "include/cuda_runtime.h",
    "lib/cmake/cccl/cccl-config.cmake",
    "lib/{library}/cudadevrt.lib",
    "lib/{library}/cudart.lib",
    "lib/{library}/cudart_static.lib",
    "nvvm/bin/cicc.exe",
    "nvvm/libdevice/libdevice.10.bc",
    "version.txt",
)
WINDOWS_DIRECTORIES = {
    "win_amd64": {"dll": "x86_64", "dlls": "x64", "library": "x64"},
    "win_arm64": {"dll": "arm64", "dlls": "arm64", "library": "arm64"},
}
# On one platform only.
ONLY_ON = {
    "win_amd64": (
        (r"lib/(Win32/OpenCL\.lib)", r"lib/\1"),  # nothing else of CUDA is for 32 bits
        (r"bin/(cicc\.exe)", r"nvvm/bin/\1"),  # 13.0.0
        (r"bin/(x64/cusparseLt_13\.dll)", r"bin/\1"),
        (r"lib/([^/]+\.lib)", r"lib/\1"),  # cuDSS and cuTENSOR; nvcc looks in the other place
        (r"lib/([^/]+\.lib)", r"lib/x64/\1"),
    ),
    # nvidia-cuda-cccl 13.3.4.2.1, that of 13.4.1.0, has its headers there and not in include, unlike all others.
    "win_arm64": ((r"cccl/include/(.+)", r"include/\1"),),
}
NOT_NEEDED_ON = {
    "win_amd64": (),
    "win_arm64": (r"cuda_entrypoints/\w+\.py",),  # console scripts of nvidia-cuda-nvcc 13.5.37: nvcc, ptxas, ...
}
# NCCL and NVSHMEM have no wheels for Windows.
WINDOWS_PRODUCTS = {
    "win_amd64": ("nvidia-cudnn-cu13", "cutensor-cu13", *MORE_PRODUCTS),
    "win_arm64": ("nvidia-cudnn-cu13",),
}
# What gets an import library in the newest release with these, and has none in its wheel.
WITHOUT_IMPORT_LIBRARY = """
InterceptorInjectionTarget TreeLauncherTargetInjection checkpoint cublas cublasLt cudnn cudnn_adv cudnn_cnn
cudnn_engines_precompiled cudnn_engines_runtime_compiled cudnn_engines_tensor_ir cudnn_ext cudnn_graph cudnn_heuristic
cudnn_ops cufft cufftw cupti curand cusolver cusolverMg cusparse nppc nppial nppicc nppidei nppif nppig nppim nppist
nppisu nppitc npps nvblas nvjpeg nvperf_host nvperf_target nvrtc nvrtc-builtins nvvm pcsamplingutil
sanitizer-collection sanitizer-public
"""
# The machine types in the headers of ELF (e_machine, which readelf translates) and PE files.
PE_MACHINES = {"win_amd64": 0x8664, "win_arm64": 0xAA64}

SMALL = ("nvcc", "nvvm", "crt", "cudart", "cccl")

Survey = Mapping[str, Mapping[str, str]]


@pytest.fixture(scope="session")
def cache(pytestconfig: pytest.Config) -> Path:
    """A directory for what never changes: the list of the files of a wheel, and the wheel."""
    return Path(pytestconfig.cache.mkdir("wheel-layouts"))


@pytest.fixture(scope="session")
def releases(pytestconfig: pytest.Config) -> tuple[Sequence[str], bool]:
    """What is surveyed, and whether in the versions of the locks: `news.py` asks for what has none yet."""
    unlocked = pytestconfig.getoption("--unlocked")
    return (unlocked, False) if unlocked else (RELEASES, True)


@pytest.fixture(scope="session")
def linux(cache: Path, releases: tuple[Sequence[str], bool]) -> Mapping[str, Survey]:
    """For each machine and each release, the newest with products, the files with the wheel that each is in."""
    surveyed, locked = releases
    products = (*PRODUCTS, *MORE_PRODUCTS)
    return {machine: layout.survey(f"linux_{machine}", cache, surveyed, products, locked=locked) for machine in TARGETS}


@pytest.fixture(scope="session")
def windows(cache: Path, releases: tuple[Sequence[str], bool]) -> Mapping[str, Survey]:
    surveyed, locked = releases
    return {
        platform: layout.survey(platform, cache, surveyed, products, locked=locked)
        for platform, products in WINDOWS_PRODUCTS.items()
    }


def make_empty(site: Path, files: Mapping[str, str]) -> Path:
    """Make *site* as installing the wheels does, of empty files."""
    for directory in {os.path.dirname(path) for path in files}:
        os.makedirs(site / directory, exist_ok=True)
    for path in files:
        os.close(os.open(site / path, os.O_CREAT))
    return site


def pretend_machine(monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    """A mock, as the other machine is not to be had here."""
    name = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*name[:4], machine)))


def pretend_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock, as Windows is not to be had here: all that the package asks about it."""
    monkeypatch.setattr("cuda_build_activate._toolkit.WINDOWS", True)


def split(path: str) -> tuple[str, str]:
    """The directory in site-packages of the toolkit, component or product that a file belongs to, and the rest."""
    depth = 2 if path.startswith("nvidia/") else 1
    parts = path.split("/")
    return "/".join(parts[:depth]), "/".join(parts[depth:])


def is_needed(path: str, platform: str = "") -> bool:
    directory, rest = split(path)
    if directory.endswith((".dist-info", ".data")) or path == "nvidia/__init__.py":
        return False
    return not any(re.fullmatch(pattern, rest) for pattern in (*NOT_NEEDED, *NOT_NEEDED_ON.get(platform, ())))


def described(moved: Mapping[tuple[str, str], str]) -> list[str]:
    """What has no place, by wheel and directory, with one example each."""
    return [
        f"{wheel} has files in {where} for which no place is known, such as {name}"
        for (wheel, where), name in moved.items()
    ]


def places(path: str, rows: Sequence[tuple[str, str]] = PLACES) -> list[str]:
    """Where in the root a build looks for a file of a wheel."""
    found = ((re.fullmatch(pattern, split(path)[1]), place) for pattern, place in rows)
    return [match.expand(place) for match, place in found if match]


def leads_to(link: str, site: Path, path: str, files: Mapping[str, str]) -> bool:
    """Whether *link* leads to *path*, or to the same file of another component, as CUDA 11 and 12 have some twice."""
    if not os.path.exists(link):
        return False
    if os.path.samefile(link, site / path):
        return True
    other = os.path.relpath(os.path.realpath(link), os.path.realpath(site))
    return other in files and set(places(path)) & set(places(other)) != set() and split(path)[0] != split(other)[0]


def check_linux(site: Path, files: Mapping[str, str]) -> list[str]:
    """Activate *site* and name those of its *files* that a build would not find."""
    activation = activate([site], {"PATH": "/nowhere"})
    assert activation.root, activation.reason
    problems: list[str] = []
    moved: dict[tuple[str, str], str] = {}
    for path, wheel in files.items():
        if is_needed(path):
            found = places(path)
            if not found:
                moved[wheel, os.path.dirname(path)] = os.path.basename(path)
            problems += [
                f"{path} of {wheel} is not {place} of the root"
                for place in found
                if not leads_to(os.path.join(activation.root, place), site, path, files)
            ]
    return problems + described(moved)


@pytest.mark.parametrize("machine", TARGETS)
def test_every_file_has_its_place_in_the_root(
    linux: Mapping[str, Survey], machine: str, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_machine(monkeypatch, machine)
    problems: list[str] = []
    for release, files in linux[machine].items():
        site = make_empty(memory / release, files)
        problems += [f"{release}: {problem}" for problem in check_linux(site, files)]
        if number(release) >= (13,):
            root = site / "cuda-build-activate" / "cu13"
            needed = {name.format(target=TARGETS[machine]) for name in NEEDED}
            if release == "13.0.0":
                needed -= NOT_IN_13_0_0
            problems += [f"{release}: no {name} in the root" for name in sorted(needed) if not (root / name).exists()]
            own = [name.format(target=TARGETS[machine]) for name in OWN]
            problems += [
                f"{release}: {name} leads out" for name in own if (root / name).resolve() != root.resolve() / name
            ]
        shutil.rmtree(site)
    assert not problems, "\n".join(problems)


def test_every_row_is_for_something(linux: Mapping[str, Survey], windows: Mapping[str, Survey]) -> None:
    found = {
        (*split(path), seen(wheel))
        for survey in linux.values()
        for files in survey.values()
        for path, wheel in files.items()
    }
    found_on_windows = {
        (split(path)[1], seen(wheel))
        for survey in windows.values()
        for files in survey.values()
        for path, wheel in files.items()
    }
    there = {(name, wheel) for _, name, wheel in found}
    for rows, names in ((_assemble.LAYOUT, there), (_assemble.WINDOWS_LAYOUT, found_on_windows)):
        for row in rows:
            of_the_wheel = [name for name, wheel in names if wheel == row.seen]
            assert any(name.startswith(f"{row.source}/{row.start}") for name in of_the_wheel), (row.source, row.seen)
    for pattern in (*(pattern for pattern, _ in PLACES), *NOT_NEEDED):
        assert any(re.fullmatch(pattern, name) for _, name, _ in found), pattern
    for component in _toolkit.COMPONENTS:
        assert any((directory, wheel) == (component.path, component.seen) for directory, _, wheel in found), (
            component.path
        )
    for product in _toolkit.PRODUCTS:  # of whose versions the survey has one
        project = product.seen.split()[0]
        assert any((directory, wheel.split()[0]) == (product.path, project) for directory, _, wheel in found), (
            product.path
        )
    for platform in windows:
        rests = {split(path)[1] for files in windows[platform].values() for path in files}
        for pattern in (*(pattern for pattern, _ in windows_places(platform)), *NOT_NEEDED_ON[platform]):
            assert any(re.fullmatch(pattern, rest) for rest in rests), (platform, pattern)


def seen(wheel: str) -> str:
    """The name and version of a wheel's file, as the rows have them."""
    name, version = wheel.split("-")[:2]
    return f"{name.replace('_', '-')} {version}"


def windows_places(platform: str) -> list[tuple[str, str]]:
    """As PLACES."""
    directories = WINDOWS_DIRECTORIES[platform]
    rows = [(pattern.format(**directories), place.format(**directories)) for pattern, place in WINDOWS_PLACES]
    return [*rows, *ONLY_ON[platform]]


def check_windows(site: Path, platform: str, files: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Activate *site* as on Windows and name what is wrong, as those of its *files* that a build would not find."""
    pretend_windows(monkeypatch)
    activation = activate([site], {"PATH": "before"})
    root = site / "cuda-build-activate" / "cu13"
    assert activation.root == str(root), activation.reason
    *activated, before = activation.variables["PATH"].split(os.pathsep)
    assert before == "before"
    problems = []
    if activated != [str(root / "bin"), str(root / "bin" / WINDOWS_DIRECTORIES[platform]["dlls"])]:
        problems.append(f"PATH is {activated}")
    # CUDA_BUILD_ACTIVATE_SITE is for the .pth file's line, which finds nothing by it on Windows.
    others = (name for name in activation.variables if name not in ("PATH", "CUDA_BUILD_ACTIVATE_SITE"))
    values = [*activated, *(activation.variables[name] for name in others)]
    problems += [f"{value} does not exist" for value in values if not os.path.exists(value)]
    if activation.variables.get("CUDACXX") != str(root / "bin" / "nvcc.exe"):
        problems.append("CUDACXX is not nvcc")
    for path in files:
        problems += [
            f"{path} is not {place} of the root"
            for place in places(path, windows_places(platform))
            if not ((root / place).exists() and (root / place).samefile(site / path))
        ]
    needed = {name.format(**WINDOWS_DIRECTORIES[platform]) for name in NEEDED_ON_WINDOWS}
    return problems + [f"no {name}" for name in sorted(needed) if not (root / name).exists()]


@pytest.mark.parametrize("platform", WINDOWS_DIRECTORIES)
def test_windows(windows: Mapping[str, Survey], platform: str, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems: list[str] = []
    monkeypatch.setattr(_import_libraries, "import_library", os.fsencode)  # the DLLs are empty here
    for release, files in windows[platform].items():
        site = make_empty(memory / release, files)
        needed = [path for path in files if is_needed(path, platform)]
        wrong = check_windows(site, platform, needed, monkeypatch)
        if release == "13.0.0":
            wrong.remove("no bin/crt/link.stub")
        problems += [f"{release}: {problem}" for problem in wrong]
        moved = {
            (files[path], os.path.dirname(path)): os.path.basename(path)
            for path in needed
            if not places(path, windows_places(platform))
        }
        problems += [f"{release}: {problem}" for problem in described(moved)]
        if release == NEWEST:
            libraries = site / "cuda-build-activate" / "cu13" / "lib" / WINDOWS_DIRECTORIES[platform]["library"]
            made = {path.stem for path in libraries.iterdir() if path.stat().st_size}
            assert made == {*WITHOUT_IMPORT_LIBRARY.split()}
        shutil.rmtree(site)
    assert not problems, "\n".join(problems)


@pytest.fixture(scope="module", params=["linux_aarch64", "win_amd64", "win_arm64"])
def unpacked(
    request: pytest.FixtureRequest, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """A platform and its wheels of the newest release, unpacked."""
    platform = request.param
    site = tmp_path_factory.mktemp(platform)
    for url in layout.resolve([f"cuda-toolkit[{','.join(SMALL)}]=={NEWEST}"], platform, release_lock(NEWEST)):
        with zipfile.ZipFile(layout.fetch(url, cache)) as wheel:
            wheel.extractall(site)
    yield platform, site
    shutil.rmtree(site)


def pe_machine(file: Path) -> int:
    content = file.read_bytes()
    header = int.from_bytes(content[0x3C:0x40], "little")
    assert content[header : header + 4] == b"PE\0\0"
    return int.from_bytes(content[header + 4 : header + 6], "little")


def test_a_toolkit_of_another_platform(unpacked: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    platform, site = unpacked
    if platform in PE_MACHINES:
        assert check_windows(site, platform, [], monkeypatch) == []
        directory = WINDOWS_DIRECTORIES[platform]["dlls"]
        for name in ("bin/nvcc.exe", "bin/ptxas.exe", f"bin/{directory}/cudart64_13.dll"):
            assert pe_machine(site / "cuda-build-activate" / "cu13" / name) == PE_MACHINES[platform], name
        return
    pretend_machine(monkeypatch, "aarch64")
    root = Path(activate([site], {}).root or "nothing was activated")
    target = root / "targets" / "sbsa-linux"
    assert list((root / "targets").iterdir()) == [target]
    for place in ("include", "lib"):
        of_the_wheels = {path.name for path in (site / "nvidia" / "cu13" / place).iterdir()}
        assert of_the_wheels <= {path.name for path in (target / place).iterdir()}
    for needed in NEEDED:
        assert (root / needed.format(target=target.name)).exists(), needed
    for name in ("bin/nvcc", "bin/ptxas", "nvvm/bin/cicc", "nvvm/lib64/libnvvm.so"):
        assert "AArch64" in run(["readelf", "-h", root / name]), name
    for name in ("lib/libcudart.so", "lib/stubs/libcuda.so"):
        assert "AArch64" in run(["readelf", "-h", target / name]), name


def test_every_library_has_an_owner(linux: Mapping[str, Survey]) -> None:
    """The table of `audit`: by the name of each file that a loader can be asked for, whose soname it is."""
    problems = []
    used = set()
    for machine, survey in linux.items():
        for release, files in survey.items():
            for path, wheel in files.items():
                directory, name = os.path.split(path)
                if not re.search(r"\.so(\.\d+)*$", name) or re.search(r"/x86$|^nvidia/cu13/bin$", directory):
                    continue  # compute-sanitizer loads those itself
                distribution, version = wheel.replace("_", "-").split("-py3-")[0].rsplit("-", 1)
                rows = [
                    row
                    for row in _libraries.owners(name)
                    if (row.distribution, row.directory) == (distribution, directory)
                ]
                if not [row for row in rows if str(row.version) == version.partition(".")[0]]:
                    problems.append(f"{machine}, {release}: {path} of {wheel}: {rows}")
                used |= set(rows)
    assert not problems, "\n".join(problems)
    surveyed = {row for row in _libraries.LIBRARIES if row.extra}
    assert surveyed <= used


def test_the_products_in_the_table_of_libraries(cache: Path) -> None:
    """Each lies where its row says, in the wheel that it was seen in."""
    for row in _libraries.LIBRARIES:
        if not row.extra:
            name, version = row.seen.split()
            assert name == row.distribution
            assert version.startswith(f"{row.version}.")
            files = layout.files(
                layout.resolve([f"{name}=={version}"], "linux_x86_64", without_requirements=True), cache
            )
            names = [os.path.basename(path) for path in files if os.path.dirname(path) == row.directory]
            libraries = [library for library in names if re.search(r"\.so(\.\d+)*$", library)]
            assert any(re.fullmatch(row.sonames, library) for library in libraries), row
