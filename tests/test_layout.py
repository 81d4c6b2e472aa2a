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

from cuda_build_activate import _assemble, _libraries, _toolkit, activate

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

# As above, on Windows, where the wheels' own directory is the root; {library} and {dll} are the machine's directories.
WINDOWS_PLACES = (
    r"bin/[^/]+\.(exe|profile)",
    r"bin/crt/(pre)?link\.stub",
    r"bin/{dll}/[^/]+\.dll",
    r"include/.+",
    r"lib/{library}/[^/]+\.lib",
    r"((cuda_)?cccl/)?lib/cmake/.+",
    r"nvvm/(bin|libdevice)/.+",
)
NEEDED_ON_WINDOWS = (
    "bin/cudafe++.exe",
    "bin/fatbinary.exe",
    "bin/nvcc.exe",
    "bin/nvcc.profile",
    "bin/ptxas.exe",
    "bin/{dll}/cudart64_13.dll",
    "include/crt/host_config.h",
    "include/cuda_runtime.h",
    "lib/{library}/cudadevrt.lib",
    "lib/{library}/cudart.lib",
    "lib/{library}/cudart_static.lib",
    "nvvm/libdevice/libdevice.10.bc",
)
WINDOWS_DIRECTORIES = {
    "win_amd64": {"dll": "x86_64", "library": "x64"},
    "win_arm64": {"dll": "arm64", "library": "arm64"},
}
# What no build needs, or can be given, on one platform.
ONLY_ON = {
    "win_amd64": [r"lib/Win32/OpenCL\.lib"],  # nothing else of CUDA is for 32 bits
    # nvidia-cuda-cccl 13.3.4.2.1, that of 13.4.1.0, has its headers here and not in include, unlike all others.
    # nvidia-cuda-nvcc 13.5.37 has console scripts there: nvcc, ptxas, ...
    "win_arm64": [r"cccl/include/.+", r"cuda_entrypoints/\w+\.py"],
}
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
    return {platform: layout.survey(platform, cache, surveyed, locked=locked) for platform in WINDOWS_DIRECTORIES}


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


def is_needed(path: str) -> bool:
    directory, rest = split(path)
    if directory.endswith(".dist-info") or path == "nvidia/__init__.py":
        return False
    return not any(re.fullmatch(pattern, rest) for pattern in NOT_NEEDED)


def described(moved: Mapping[tuple[str, str], str]) -> list[str]:
    """What has no place, by wheel and directory, with one example each."""
    return [
        f"{wheel} has files in {where} for which no place is known, such as {name}"
        for (wheel, where), name in moved.items()
    ]


def places(path: str) -> list[str]:
    """Where in the root a build looks for a file of a wheel."""
    found = ((re.fullmatch(pattern, split(path)[1]), place) for pattern, place in PLACES)
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
    linux: Mapping[str, Survey], machine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_machine(monkeypatch, machine)
    problems: list[str] = []
    for release, files in linux[machine].items():
        site = make_empty(tmp_path / release, files)
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
    for row in _assemble.LAYOUT:
        names = [name for _, name, wheel in found if wheel == row.seen]
        assert any(name.startswith(f"{row.source}/{row.start}") for name in names), f"{row.source} of {row.seen}"
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
        for pattern in windows_places(platform):
            assert any(re.fullmatch(pattern, rest) for rest in rests), (platform, pattern)


def seen(wheel: str) -> str:
    """The name and version of a wheel's file, as the rows have them."""
    name, version = wheel.split("-")[:2]
    return f"{name.replace('_', '-')} {version}"


def windows_places(platform: str) -> list[str]:
    return [*(pattern.format(**WINDOWS_DIRECTORIES[platform]) for pattern in WINDOWS_PLACES), *ONLY_ON[platform]]


def check_windows(site: Path, platform: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Activate *site* as on Windows and name what is wrong."""
    pretend_windows(monkeypatch)
    activation = activate([site], {"PATH": "before"})
    toolkit = site / "nvidia" / "cu13"
    assert activation.root == str(toolkit), activation.reason
    *activated, before = activation.variables["PATH"].split(os.pathsep)
    assert before == "before"
    directories = WINDOWS_DIRECTORIES[platform]
    problems = []
    if activated != [str(toolkit / "bin"), str(toolkit / "bin" / directories["dll"])]:
        problems.append(f"PATH is {activated}")
    values = [*activated, *(value for name, value in activation.variables.items() if name != "PATH")]
    problems += [f"{value} does not exist" for value in values if not os.path.exists(value)]
    if activation.variables.get("CUDACXX") != str(toolkit / "bin" / "nvcc.exe"):
        problems.append("CUDACXX is not nvcc")
    needed = (name.format(**directories) for name in NEEDED_ON_WINDOWS)
    return problems + [f"no {name}" for name in needed if not (toolkit / name).exists()]


@pytest.mark.parametrize("platform", WINDOWS_DIRECTORIES)
def test_windows(windows: Mapping[str, Survey], platform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems: list[str] = []
    known = windows_places(platform)
    for release, files in windows[platform].items():
        site = make_empty(tmp_path / release, files)
        problems += [f"{release}: {problem}" for problem in check_windows(site, platform, monkeypatch)]
        moved: dict[tuple[str, str], str] = {}
        for path, wheel in files.items():
            if is_needed(path):
                directory, rest = split(path)
                if directory != "nvidia/cu13" or not any(re.fullmatch(pattern, rest) for pattern in known):
                    moved[wheel, os.path.dirname(path)] = os.path.basename(path)
        problems += [f"{release}: {problem}" for problem in described(moved)]
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
        assert check_windows(site, platform, monkeypatch) == []
        directory = WINDOWS_DIRECTORIES[platform]["dll"]
        for name in ("bin/nvcc.exe", "bin/ptxas.exe", f"bin/{directory}/cudart64_13.dll"):
            assert pe_machine(site / "nvidia" / "cu13" / name) == PE_MACHINES[platform], name
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
