"""Small wheels to look into: real libraries that gcc links, which need what a test wants them to."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from conftest import run

TAG = f"py3-none-linux_{os.uname().machine}"
TIME = (2026, 1, 2, 3, 4, 6)


def library(
    path: Path, *needed: str, run_path: str = "", options: Sequence[str] = (), source: str = "int answer = 42;"
) -> Path:
    """A shared library that needs the libraries named, which are made beside it, and gives the loader *run_path*."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.parent / ".needed"
    made.mkdir(exist_ok=True)
    for name in needed:
        run(["gcc", "-shared", "-x", "c", "/dev/null", f"-Wl,-soname,{name}", "-o", made / name])
    code = made / f"{path.name}.c"
    code.write_text(source)
    command: list[str | Path] = [
        "gcc",
        "-shared",
        "-fPIC",
        code,
        "-o",
        path,
        "-Wl,--no-as-needed",
        *(made / name for name in needed),
    ]
    paths = [f"-Wl,-rpath,{run_path}"] if run_path else []
    run([*command, *paths, *(options or ["-Wl,--enable-new-dtags"])])
    return path


def wheel(
    directory: Path,
    files: Mapping[str, Path | bytes],
    *requires: str,
    name: str = "demo",
    version: str = "1.0",
    headers: str = "",
    tag: str = TAG,
) -> Path:
    """A wheel with *files* by name, which requires *requires*."""
    directory.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{headers}"
    metadata += "".join(f"Requires-Dist: {line}\n" for line in requires) + "\nWhat it is for.\nRequires-Dist: nothing\n"
    contents = {
        place: content if isinstance(content, bytes) else content.read_bytes() for place, content in files.items()
    }
    contents[f"{info}/METADATA"] = metadata.encode()
    contents[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: false\nTag: {tag}\n".encode()
    contents[f"{info}/RECORD"] = record(contents, f"{info}/RECORD")
    path = directory / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for place, content in contents.items():
            member = zipfile.ZipInfo(place, TIME)
            member.external_attr = (0o100755 if content.startswith(b"\x7fELF") else 0o100644) << 16
            member.compress_type = zipfile.ZIP_DEFLATED if len(content) > 100 else zipfile.ZIP_STORED
            archive.writestr(member, content)
    return path


def record(contents: Mapping[str, bytes], own: str) -> bytes:
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    for place, content in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        writer.writerow([place, f"sha256={digest}", len(content)])
    writer.writerow([own, "", ""])
    return written.getvalue().encode()


def checked(path: Path) -> dict[str, bytes]:
    """What is in the wheel *path*, whose RECORD is right."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        contents = {name: archive.read(name) for name in archive.namelist()}
    (own,) = [name for name in contents if name.endswith(".dist-info/RECORD")]
    rows = {row[0]: row for row in csv.reader(io.StringIO(contents[own].decode()))}
    expected = record({name: content for name, content in contents.items() if name != own}, own)
    assert rows == {row[0]: row for row in csv.reader(io.StringIO(expected.decode()))}
    return contents
