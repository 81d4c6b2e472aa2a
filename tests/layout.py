"""What CUDA's wheels hold, on every platform, read from an index without fetching them whole."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import ssl
import struct
import sys
import tempfile
import time
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import pefile  # type: ignore[import-untyped]
from conftest import MACHINE, run
from toolkits import number, release_lock

# Each platform with uv's name for it. What `pip --platform` selects will not do: pip evaluates the markers of the
# requirements for the platform that it runs on.
PLATFORMS = {
    "linux_x86_64": "x86_64-manylinux_2_28",
    "linux_aarch64": "aarch64-manylinux_2_28",
    "win_amd64": "x86_64-pc-windows-msvc",
    "win_arm64": "aarch64-pc-windows-msvc",
}
FIRST = {
    "linux_x86_64": (11, 8),
    # Until 12.4.0 most ask for a wheel (cuBLAS, nvcc, nvJPEG) that does not exist for it.
    "linux_aarch64": (12, 4, 1),
    # nvcc: of CUDA 11 and 12 there is nothing to activate on Windows.
    "win_amd64": (13, 0),
    # The first release with wheels for it; from 13.2.1 to 13.3.1 the markers of the extras leave nothing over.
    "win_arm64": (13, 4),
}
# The metapackage asks for these without a wheel for the platform: nvidia-cudla is for ARM only, nvidia-cuda-opencl for
# all but that; the markers say so from 13.2.1 on.
WITHOUT_WHEEL = {
    "linux_x86_64": ["nvidia-cudla"],
    "linux_aarch64": ["nvidia-cuda-opencl", "nvidia-cuda-opencl-cu12"],
}
MARKERS_SAY_SO = (13, 2, 1)

_TAIL = 1 << 16
_LARGEST_LIBRARY = 1 << 20  # of what is an import library; the others hold code
_TLS = ssl.create_default_context()  # to make one takes longer than to fetch with it
T = TypeVar("T")


def resolve(
    requirements: Sequence[str],
    platform: str,
    constraints: Path | None = None,
    without: Sequence[str] = (),
    *,
    without_requirements: bool = False,
) -> list[str]:
    """The URLs of the wheels that *requirements* resolve to on *platform*, leaving out the projects in *without*.

    constraints: the versions to take, by default the newest on the index. without_requirements: nor what they require.
    """
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "requirements.in").write_text("\n".join(requirements))
        (Path(directory) / "overrides.txt").write_text("\n".join(f"{name}; python_version < '3'" for name in without))
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--only-binary", ":all:"]
        options = ["--python-platform", PLATFORMS[platform], "--override", "overrides.txt", "--format", "pylock.toml"]
        options += ["--constraints", str(constraints)] if constraints else []
        options += ["--no-deps"] if without_requirements else []
        printed = run([*command, *options, "requirements.in"], env=MACHINE, cwd=Path(directory))
        urls = re.findall(r'\burl = "([^"]+\.whl)"', printed)
        paths = re.findall(r'\bpath = "([^"]+\.whl)"', printed)  # of an index that is a directory
        return urls + [(Path(directory) / path).resolve().as_uri() for path in paths]


def file_name(url: str) -> str:
    return url.rpartition("/")[2]


def files(urls: Sequence[str], cache: Path) -> dict[str, str]:
    """The wheel that each file is in, by the file's path in site-packages."""
    with ThreadPoolExecutor(16) as executor:
        lists = list(executor.map(lambda url: _file_list(url, cache), urls))
    return {path: file_name(url) for url, paths in zip(urls, lists) for path in paths if not path.endswith("/")}


def survey(
    platform: str, cache: Path, releases: Sequence[str], products: Sequence[str] = (), *, locked: bool = True
) -> Mapping[str, dict[str, str]]:
    """The files of each of *releases* of the toolkit on *platform*; the last one's with those of *products*.

    Not *locked*: of the newest components on the index, where a release leaves their versions open.
    """

    def one(version: str) -> list[str]:
        without = WITHOUT_WHEEL.get(platform, []) if number(version) < MARKERS_SAY_SO else []
        beside = products if version == releases[-1] else ()
        constraints = release_lock(version) if locked else None
        return resolve([f"cuda-toolkit[all]=={version}", *beside], platform, constraints, without)

    there = [version for version in releases if number(version) >= FIRST[platform]]
    with ThreadPoolExecutor(4) as executor:
        resolved = dict(zip(there, executor.map(one, there)))
    files(sorted({url for urls in resolved.values() for url in urls}), cache)  # all at once, most are in several
    return {version: files(urls, cache) for version, urls in resolved.items()}


def fetch(url: str, cache: Path) -> Path:
    """The wheel itself."""
    wheel = cache / file_name(url)
    if not wheel.exists():
        part = wheel.with_suffix(f".{os.getpid()}")
        with urllib.request.urlopen(url, timeout=60) as response, part.open("wb") as file:  # noqa: S310 an index's URL
            while block := response.read(1 << 20):
                file.write(block)
        part.replace(wheel)
    return wheel


def _file_list(url: str, cache: Path) -> list[str]:
    """The paths in a wheel: of the end of the archive as much as its central directory takes."""
    kept = cache / f"{file_name(url)}.json"
    if not kept.exists():
        names = [member.filename for member in _members(url)]
        part = kept.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(names))
        part.replace(kept)
    paths: list[str] = json.loads(kept.read_text())
    return paths


def exports(url: str, cache: Path) -> list[Path]:
    """The DLLs in a wheel, each with nothing but its headers and its table of exports, and its import libraries.

    No more is fetched than what is packed before that in the DLL: a seventh of CUDA's wheels.
    """
    directory = cache / f"{file_name(url)}.exports"
    if not directory.exists():
        part = directory.with_suffix(f".{os.getpid()}")
        part.mkdir()
        for member in _members(url):
            target = part / os.path.basename(member.filename)
            if target.suffix == ".dll" or (target.suffix == ".lib" and member.file_size < _LARGEST_LIBRARY):
                _patiently(partial(_extract, url, member, target))
        part.rename(directory)
    return sorted(directory.iterdir())


def _extract(url: str, member: zipfile.ZipInfo, target: Path) -> None:
    """Write a member of a wheel to *target*: of a DLL its beginning, and from there on the table of exports alone."""
    is_dll = target.suffix == ".dll"
    with _open(url, member.header_offset) as response, target.open("wb") as file:
        response.read(sum(struct.unpack("<26xHH", response.read(30))))
        inflated = zlib.decompressobj(-zlib.MAX_WBITS)
        content = b""
        while len(content) < (4096 if is_dll else member.file_size):
            content += inflated.decompress(response.read(1 << 16))
        file.write(content)
        place, (start, stop) = len(content), _table(content) if is_dll else (0, 0)
        while place < stop:
            content = inflated.decompress(response.read(1 << 16))
            if place + len(content) > start:
                file.seek(place)
                file.write(content)
            place += len(content)


def _table(header: bytes) -> tuple[int, int]:
    """Where the table of exports begins and ends in a DLL that begins with *header*."""
    with pefile.PE(data=header, fast_load=True) as dll:
        table = dll.OPTIONAL_HEADER.DATA_DIRECTORY[0]
        start: int = dll.get_offset_from_rva(table.VirtualAddress)
        return start, start + table.Size


def _members(url: str) -> list[zipfile.ZipInfo]:
    """What a wheel's central directory has; each `header_offset` is negative, from the end of the wheel."""
    size = _TAIL
    while True:
        end = _patiently(lambda: _open(url, -size).read())  # noqa: B023
        try:
            with zipfile.ZipFile(io.BytesIO(end)) as archive:
                members = archive.infolist()
            break
        except (zipfile.BadZipFile, ValueError):  # the central directory begins before that
            if len(end) < size:
                raise
            size *= 8
    for member in members:
        member.header_offset -= len(end)
    return members


def _open(url: str, offset: int) -> http.client.HTTPResponse:
    """The wheel from its last *-offset* bytes on."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}"})  # noqa: S310 an index's URL
    response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=60, context=_TLS)  # noqa: S310
    return response


def _patiently(fetch: Callable[[], T]) -> T:
    for attempt in range(4):
        try:
            return fetch()
        except OSError:
            if attempt == 3:
                raise
            time.sleep(2**attempt)
    raise AssertionError
