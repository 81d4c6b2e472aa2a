"""Read a distribution, from a wheel or as installed: its metadata and its ELF files."""

import base64
import csv
import hashlib
import importlib.metadata
import io
import os
import posixpath
import re
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from email.message import Message
from email.parser import BytesHeaderParser
from typing import IO, Callable, NamedTuple, cast

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from cuda_build_activate import _elf

BLOCK = 1 << 20
# Where a wheel's files go that are not for site-packages, relative to that (lib/python3.13/site-packages).
SCHEMES = {"purelib": "", "platlib": "", "scripts": "../../../bin", "data": "../../..", "headers": "../../../include"}
DAMAGED = (OSError, EOFError, ValueError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)

Progress = Callable[[str, int, int], None]


class UnreadableError(Exception):
    """The input is not a wheel, or a damaged one; str() says why."""


class File(NamedTuple):
    """An ELF file. name: in the wheel. place: where it gets installed, relative to site-packages. size: in bytes."""

    name: str
    place: str
    size: int
    elf: _elf.Elf


class Distribution(NamedTuple):
    """A distribution, from a wheel or as installed.

    label: the file's name, or the distribution's name and version. name, version: from the metadata; the name is
    normalized. required: what it requires on its platform. optional: what it requires only with an extra. files: its
    ELF files. loaders: the text, by name, of its Python files that load libraries themselves.
    """

    label: str
    name: str
    version: str
    required: list[Requirement]
    optional: list[Requirement]
    files: list[File]
    loaders: dict[str, str]


_LOADER = re.compile(r"CDLL\s*\(|LoadLibrary\s*\(|load_library\s*\(|dlopen\s*\(|load_nvidia_dynamic_lib\s*\(")


def read_wheel(path: str, progress: Progress) -> Distribution:
    """Read the wheel *path*. Calls *progress* with each name, the bytes read, and all bytes. Raises UnreadableError."""
    try:
        with zipfile.ZipFile(path) as archive:
            parse_wheel_filename(os.path.basename(path))
            members = checked_members(archive)
            info = dist_info(archive)
            metadata = BytesHeaderParser().parsebytes(archive.read(f"{info}/METADATA"))
            checked_record(archive.read(f"{info}/RECORD"))
            files, loaders = _contents(members, archive.open, progress)
    except InvalidWheelFilename as error:
        raise UnreadableError(f"{path}: {error}") from error
    except DAMAGED as error:
        raise UnreadableError(f"{path}: {_said(error)}") from error
    return _distribution(os.path.basename(path), metadata, files, loaders)


def read_installed(name: str, progress: Progress) -> Distribution:
    """Read the installed distribution *name*; *progress* as above. Raises UnreadableError."""
    try:
        found = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError) as error:
        raise UnreadableError(f"{name} is not installed in {sys.prefix}") from error
    site = str(found.locate_file(""))
    members = []
    for file in found.files or ():
        path = os.path.join(site, file)
        if os.path.isfile(path):
            members.append((path, posixpath.normpath(file.as_posix()), os.path.getsize(path)))
    try:
        files, loaders = _contents(members, lambda path: open(path, "rb"), progress)  # noqa: SIM115 closed there
    except DAMAGED as error:
        raise UnreadableError(f"{name}: {_said(error)}") from error
    return _distribution(f"{found.metadata['Name']} {found.version}", cast("Message", found.metadata), files, loaders)


def checked_members(archive: zipfile.ZipFile) -> list[tuple[str, str, int]]:
    """The files in *archive*: name, place and size. Raises ValueError for a name that no wheel may have."""
    members = []
    for member in archive.infolist():
        name = member.filename
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise ValueError(f"its member {name!r} leads out of the wheel")
        if not member.is_dir():
            members.append((name, _place(name), member.file_size))
    if len(members) > len({name for name, _, _ in members}):
        raise ValueError("it has two members with the same name")
    return members


def dist_info(archive: zipfile.ZipFile) -> str:
    """The name of the wheel's .dist-info directory. Raises ValueError if it has none, or several."""
    names = {name.partition("/")[0] for name in archive.namelist() if name.endswith(".dist-info/METADATA")}
    if len(names) != 1:
        raise ValueError("it is not a wheel: it must have one .dist-info/METADATA")
    return names.pop()


def checked_record(record: bytes) -> list[list[str]]:
    """The rows of RECORD. Raises ValueError for a malformed row, or a path that leads out of the wheel."""
    rows = [row for row in csv.reader(io.StringIO(record.decode(), newline="")) if row]
    for row in rows:
        if len(row) != 3 or row[0].startswith("/") or ".." in row[0].split("/"):
            raise ValueError(f"its RECORD has an invalid line: {','.join(row)!r}")
    return rows


def record_hash(file: IO[bytes]) -> str:
    """*file*'s hash, as RECORD has it."""
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(BLOCK), b""):
        digest.update(block)
    return "sha256=" + base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()


def _place(name: str) -> str:
    top, _, rest = name.partition("/")
    scheme, _, inner = rest.partition("/")
    if top.endswith(".data") and scheme in SCHEMES:
        return posixpath.join(SCHEMES[scheme], inner)
    return name


def _contents(
    members: list[tuple[str, str, int]], opened: Callable[[str], IO[bytes]], progress: Progress
) -> tuple[list[File], dict[str, str]]:
    files, loaders = [], {}
    done, total = 0, sum(size for _, _, size in members)
    for name, place, size in members:
        progress(name, done, total)
        done += size
        with opened(name) as file:
            if name.endswith(".py"):
                text = file.read().decode(errors="replace")
                if _LOADER.search(text):
                    loaders[place] = text
            elif (start := file.read(4)) == _elf.MAGIC:
                # An ELF file's section table is at its end, where decompression cannot start. So decompress it all, to
                # a file, since a library may have gigabytes.
                with tempfile.TemporaryFile() as whole:
                    whole.write(start)
                    for block in iter(lambda: file.read(BLOCK), b""):
                        whole.write(block)
                    try:
                        files.append(File(name, place, size, _elf.read(whole)))
                    except ValueError as error:
                        raise ValueError(f"{name} is a damaged ELF file: {error}") from error
    progress("", total, total)
    return files, loaders


def _distribution(label: str, metadata: Message, files: list[File], loaders: dict[str, str]) -> Distribution:
    machines = {file.elf.machine.lower() for file in files}
    lines = metadata.get_all("Requires-Dist") or []
    required, optional = requirements(lines, machine=machines.pop() if len(machines) == 1 else "")
    name = canonicalize_name(metadata["Name"] or "")
    return Distribution(label, name, metadata["Version"] or "", required, optional, files, loaders)


def requirements(
    lines: Iterable[str], extras: Iterable[str] = (), machine: str = ""
) -> tuple[list[Requirement], list[Requirement]]:
    """The requirements among *lines* that apply on Linux with *extras*, and those that apply with other extras."""
    required, optional = [], []
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:  # pip refuses such a wheel
            continue
        if _applies(requirement, machine, ["", *extras]):
            required.append(requirement)
        elif _applies(requirement, machine, re.findall(r"""extra == "([\w.-]+)\"""", str(requirement.marker))):
            optional.append(requirement)
    return required, optional


def _applies(requirement: Requirement, machine: str, extras: Iterable[str]) -> bool:
    environment = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    if machine:
        environment["platform_machine"] = machine
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**environment, "extra": extra}) for extra in extras)


def _said(error: BaseException) -> str:
    return str(error.args[0] if isinstance(error, KeyError) else error) or type(error).__name__
