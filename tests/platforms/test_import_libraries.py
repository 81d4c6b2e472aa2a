"""Import libraries: LLVM makes the same, and linkers take them; what is damaged is refused, and soon."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import struct
import tracemalloc
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import layout
import pefile  # type: ignore[import-untyped]
import pytest
from conftest import Argument, fetch, run
from dlls import ARM64, CODE, DATA, TABLE, TABLE_IN_FILE, X64, Export, make_dll
from filelock import FileLock
from toolkits import NEWEST, release_lock

from cuda_build_activate._import_libraries import import_library

EXPORTS = (
    Export("second", CODE + 16),
    Export(None),
    Export("data", CODE + 0x200),
    Export("first"),
    Export("DllMain"),
    Export("forwarded", 0, "other.function"),
    Export("?uninitialized@@3HA", DATA + 0xFFF),
    Export("last_byte_of_code", CODE + 0x1FF),
)
# What of it has a name, but for DllMain: the hint, which is the place in the table, and whether it is data.
NAMES = {
    "?uninitialized@@3HA": (0, True),
    "data": (2, True),
    "first": (3, False),
    "forwarded": (4, False),
    "last_byte_of_code": (5, False),
    "second": (6, False),
}
# The SHA-256 of what LLVM 22 makes of these, by the machine and the name of the DLL: an archive has a place for short
# names and one for long names, which takes an even number of bytes.
LLVM = {
    (X64, "cufft64_12.dll"): "2f725da1b2f9c3115182d74919593f00",
    (ARM64, "cufft64_12.dll"): "9c46e48afb754bcb3d86e9f7bc88cc0e",
    (X64, "cudart64_13.dll"): "de01ef9c27999b66bb93cde65910f0ed",
    (ARM64, "cudart64_13.dll"): "417c3fb00e69a515dd52273e741fa7d2",
    (X64, "cublas64_130.dll"): "845f83aaec65b3bd5306844299f1b12a",
    (ARM64, "cublas64_130.dll"): "5f2305e7b1d08f4aae18bdf582bd4656",
    (X64, "nvrtc64_130_0.dll"): "f778f29ad5f4aea10007308979c2b891",
    (ARM64, "nvrtc64_130_0.dll"): "8a61f347420cf44f7e9af6b93bbed6c2",
}


def dll(path: Path, content: bytes | bytearray) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return str(path)


def members(library: bytes) -> list[tuple[bytes, bytes]]:
    """The name and the content of each member of an archive."""
    assert library.startswith(b"!<arch>\n")
    found, place = [], 8
    while place < len(library):
        fields = library[place : place + 60]
        size = int(fields[48:58])
        assert fields.endswith(b"`\n")
        found.append((fields[:16].rstrip(), library[place + 60 : place + 60 + size]))
        place += 60 + size + size % 2
    return found


@pytest.mark.parametrize(("machine", "name"), LLVM)
def test_llvm_makes_the_same(machine: int, name: str, tmp_path: Path) -> None:
    library = import_library(dll(tmp_path / name, make_dll(EXPORTS, machine)))
    assert hashlib.sha256(library).hexdigest()[:32] == LLVM[machine, name]


def test_every_export_with_a_name_is_a_member(tmp_path: Path) -> None:
    first, second, *others = members(import_library(dll(tmp_path / "a.dll", make_dll(EXPORTS))))
    assert (first[0], second[0], {name for name, _ in others}) == (b"/", b"/", {b"a.dll/"})
    found = {}
    for _, content in others[3:]:
        *header, hint, kind = struct.unpack("<HHHHIIHH", content[:20])
        name, *rest = content[20:].split(b"\0")
        assert (header, rest) == ([0, 0xFFFF, 0, X64, 0, len(content) - 20], [b"a.dll", b""])
        assert kind in (4, 5)
        found[name.decode()] = (hint, kind == 5)
    assert list(found.items()) == list(NAMES.items())


def test_the_indexes_lead_to_the_members(tmp_path: Path) -> None:
    library = import_library(dll(tmp_path / "a.dll", make_dll(EXPORTS)))
    (_, by_member), (_, by_symbol), *_ = members(library)
    count = int.from_bytes(by_member[:4], "big")
    places = struct.unpack_from(f">{count}I", by_member, 4)
    names = by_member[4 + 4 * count :].rstrip(b"\0").split(b"\0")
    of_symbols = dict(zip(names, places))
    for name, (_, is_data) in NAMES.items():
        place = of_symbols[b"__imp_" + name.encode()]
        assert of_symbols.get(name.encode()) == (None if is_data else place)
        assert library[place:].startswith(b"a.dll/")
        assert library[place + 80 :].startswith(name.encode() + b"\0")
    (count_of_members,) = struct.unpack_from("<I", by_symbol)
    all_places = struct.unpack_from(f"<{count_of_members}I", by_symbol, 4)
    (count_of_symbols,) = struct.unpack_from("<I", by_symbol, 4 + 4 * count_of_members)
    numbers = struct.unpack_from(f"<{count_of_symbols}H", by_symbol, 8 + 4 * count_of_members)
    in_order = by_symbol[8 + 4 * count_of_members + 2 * count_of_symbols :].rstrip(b"\0").split(b"\0")
    assert in_order == sorted(names)
    assert [all_places[number - 1] for number in numbers] == [of_symbols[name] for name in in_order]


def test_the_name_is_that_of_the_file(tmp_path: Path) -> None:
    """Windows looks for a file; the name that the DLL had when it was linked stands in its table alone."""
    assert b"first.dll" in make_dll(EXPORTS)
    library = import_library(dll(tmp_path / "renamed.dll", make_dll(EXPORTS)))
    assert b"renamed.dll\0" in library
    assert b"first.dll" not in library


def test_no_more_is_read_than_the_exports(tmp_path: Path) -> None:
    far = 1 << 31
    path = tmp_path / "a.dll"
    with path.open("wb") as file:  # sparse
        file.write(field(GOOD, RDATA + 20, far)[:TABLE_IN_FILE])
        file.seek(far)
        file.write(GOOD[TABLE_IN_FILE:])
        file.truncate(far << 1)
    assert not refused_within(1 << 20, str(path))
    assert import_library(str(path)) == import_library(dll(tmp_path / "near" / "a.dll", GOOD))


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        import_library(str(tmp_path / "none.dll"))
    with pytest.raises(IsADirectoryError):
        import_library(str(tmp_path))


def test_many_exports(tmp_path: Path) -> None:
    exports = [Export(f"{number:04}") for number in range(5000)]
    found = members(import_library(dll(tmp_path / "a.dll", make_dll(exports))))[5:]
    assert [struct.unpack_from("<H", content, 16)[0] for _, content in found] == list(range(5000))


def field(content: bytes, place: int, value: int, kind: str = "I") -> bytes:
    changed = bytearray(content)
    struct.pack_into(f"<{kind}", changed, place, value)
    return bytes(changed)


GOOD = make_dll(EXPORTS)
PE = GOOD.index(b"PE\0\0")
RDATA = GOOD.index(b".rdata\0")
(LENGTH,) = struct.unpack_from("<I", GOOD, PE + 140)
FIRST_ADDRESS = TABLE_IN_FILE + 40
FIRST_NAME = FIRST_ADDRESS + 4 * len(EXPORTS)
FIRST_NUMBER = FIRST_NAME + 4 * (len(NAMES) + 1)
NO_DLL, NO_TABLE, DAMAGED, NAMELESS = (
    "the file is not a DLL for x64 or ARM64",
    "the file has no export table",
    "the export table is damaged",
    "the DLL exports nothing by name",
)
BROKEN = {
    "empty": (b"", "the file is cut short"),
    "a script": (b"#!/bin/sh\n" * 20, "the file is cut short"),
    "no PE file": (GOOD.replace(b"PE\0\0", b"NE\0\0"), NO_DLL),
    "for 32 bits": (make_dll(EXPORTS, 0x14C), NO_DLL),
    "no directories": (field(GOOD, PE + 20, 119, "H"), NO_DLL),
    "too many sections": (field(GOOD, PE + 6, 97, "H"), NO_DLL),
    "no table": (field(GOOD, PE + 136, 0), NO_TABLE),
    "a table in no section": (field(GOOD, PE + 136, 0x80000000), NO_TABLE),
    "a small table": (field(GOOD, PE + 140, 39), NO_TABLE),
    "a huge table": (field(GOOD, PE + 140, (1 << 24) + 1), NO_TABLE),
    "a table behind the end": (field(GOOD, RDATA + 20, 0xFFFFFFFF), "the file is cut short"),
    "a table over the end": (field(GOOD, PE + 140, 1 << 24), "the file is cut short"),
    "too many functions": (make_dll([Export(None)] * (0xFFFF - 2)), DAMAGED),
    "very many functions": (make_dll([Export(None)] * (0xFFFF - 3)), NAMELESS),
    "more functions than fit": (field(GOOD, TABLE_IN_FILE + 20, 0xFFFF - 3), DAMAGED),
    "more names than fit": (field(GOOD, TABLE_IN_FILE + 24, 0xFFFF - 3), DAMAGED),
    "addresses before the table": (field(GOOD, TABLE_IN_FILE + 28, TABLE - 1), DAMAGED),
    "addresses after the table": (field(GOOD, TABLE_IN_FILE + 28, TABLE + LENGTH + 1 - 4 * len(EXPORTS)), DAMAGED),
    "names before the table": (field(GOOD, TABLE_IN_FILE + 32, TABLE - 1), DAMAGED),
    "numbers after the table": (field(GOOD, TABLE_IN_FILE + 36, 0xFFFFFFFF), DAMAGED),
    "a name before the table": (field(GOOD, FIRST_NAME, TABLE - 1), DAMAGED),
    "a name after the table": (field(GOOD, FIRST_NAME, TABLE + 0x200), DAMAGED),
    "a name without an end": (field(field(GOOD, PE + 140, LENGTH - 1), FIRST_NAME, TABLE + LENGTH - 10), DAMAGED),
    "a number too high": (field(GOOD, FIRST_NUMBER, len(EXPORTS), "H"), DAMAGED),
    "nothing": (make_dll([]), NAMELESS),
    "only numbers": (make_dll([Export(None), Export(None)]), NAMELESS),
    "no name at all": (make_dll([Export("")]), DAMAGED),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
def test_what_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        import_library(dll(tmp_path / "a.dll", content))


def test_what_is_cut_short_is_refused_wherever_that_is(tmp_path: Path) -> None:
    path = dll(tmp_path / "a.dll", GOOD[: TABLE_IN_FILE + LENGTH])
    assert import_library(path)
    for end in reversed(range(TABLE_IN_FILE + LENGTH)):
        os.truncate(path, end)
        with pytest.raises(ValueError, match=r"^the file is cut short$"):
            import_library(path)


def test_names_that_overlap_take_no_memory(tmp_path: Path) -> None:
    count, size = 1000, 100_000
    content = make_dll([Export(f"{number:04}") for number in range(count)] + [Export("a" * size)])
    place = content.index(b"a" * size) - TABLE_IN_FILE + TABLE
    names = TABLE_IN_FILE + 40 + 4 * (count + 1)
    path = dll(tmp_path / "a.dll", content[:names] + struct.pack("<I", place) * count + content[names + 4 * count :])
    assert refused_within(1 << 20, path)


def test_garbage_is_read_or_refused(tmp_path: Path) -> None:
    """Within the headers and the table, wherever it is: with no other error, in no time, and without much memory."""
    dice = random.Random(829)
    places = [*range(0x3C, 0x400), *range(TABLE_IN_FILE, TABLE_IN_FILE + LENGTH)]
    refused = 0
    for number in range(300):
        content = bytearray(GOOD)
        for _ in range(dice.randint(1, 4)):
            content[dice.choice(places)] = dice.choice((0, 1, 0x7F, 0xFF, dice.randrange(256)))
        refused += refused_within(1 << 25, dll(tmp_path / f"{number}.dll", content))
    assert 50 < refused < 250


def refused_within(memory: int, path: str) -> bool:
    """Whether the DLL is refused; either way it takes no more *memory*."""
    tracemalloc.start()
    try:
        import_library(path)
        return False
    except ValueError:
        return True
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < memory


# The products with DLLs, besides those of the toolkit.
WINDOWS = {
    "win_amd64": ("nvidia-cudnn-cu13", "cutensor-cu13", "nvidia-cudss-cu13", "nvidia-cusparselt-cu13"),
    "win_arm64": ("nvidia-cudnn-cu13",),
}
LLVM_NAMES = {"win_amd64": ("i386:x86-64", "x86_64-pc-windows-msvc"), "win_arm64": ("arm64", "aarch64-pc-windows-msvc")}


@pytest.fixture(scope="module")
def zig(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LLVM's programs, all in one."""
    (wheel,) = fetch("ziglang", pytestconfig).glob(f"ziglang-*{os.uname().machine}*.whl")
    with zipfile.ZipFile(wheel) as archive:
        program = Path(archive.extract("ziglang/zig", tmp_path_factory.mktemp("zig")))
    program.chmod(0o755)
    return program


@pytest.fixture(scope="module", params=WINDOWS)
def platform(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def files(platform: str, pytestconfig: pytest.Config) -> list[Path]:
    """The exports of every DLL, and the import libraries, of the newest toolkit and the products."""
    cache = Path(pytestconfig.cache.mkdir("wheel-layouts"))
    with FileLock(cache / f".{platform}.lock"):
        requirements = [f"cuda-toolkit[all]=={NEWEST}", *WINDOWS[platform]]
        urls = layout.resolve(requirements, platform, release_lock(NEWEST))
        with ThreadPoolExecutor(8) as executor:
            return [file for found in executor.map(lambda url: layout.exports(url, cache), urls) for file in found]


def exported(file: Path) -> dict[str, tuple[int, bool]]:
    """What a DLL exports by name: its place in the table, and whether it is data, as pefile reads it.

    Not DllMain, which a DLL has for itself.
    """
    with pefile.PE(str(file), fast_load=True) as pe:
        pe.parse_data_directories([pefile.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_EXPORT"]])
        named = [symbol for symbol in pe.DIRECTORY_ENTRY_EXPORT.symbols if symbol.name]
        found = {
            symbol.name.decode(): (
                hint,
                not symbol.forwarder and not pe.get_section_by_rva(symbol.address).IMAGE_SCN_MEM_EXECUTE,
            )
            for hint, symbol in enumerate(named)
        }
    assert len(found) == len(named)
    found.pop("DllMain", None)
    return found


def by_llvm(dll: str, exports: Mapping[str, tuple[int, bool]], target: str, zig: Path, directory: Path) -> bytes:
    """The import library that LLVM's dlltool makes of these exports; it takes a function's number for the hint."""
    lines = [f'"{name}" @{hint}{" DATA" * is_data}' for name, (hint, is_data) in exports.items()]
    (directory / "exports.def").write_text("\n".join([f'LIBRARY "{dll}"', "EXPORTS", *lines]))
    run([zig, "dlltool", "-m", target, "-d", "exports.def", "-l", "llvm.lib"], cwd=directory)
    return (directory / "llvm.lib").read_bytes()


@pytest.fixture(scope="module")
def libraries(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """The import library of each DLL."""
    directory = tmp_path_factory.mktemp("libraries")
    made = {dll: directory / f"{dll.stem}.lib" for dll in files if dll.suffix == ".dll"}
    for dll, library in made.items():
        library.write_bytes(import_library(str(dll)))
    return made


@pytest.mark.everything
def test_llvm_makes_the_same_of_every_dll(
    platform: str, libraries: dict[Path, Path], zig: Path, tmp_path: Path
) -> None:
    assert len(libraries) > 40
    for dll, library in libraries.items():
        made = by_llvm(dll.name, exported(dll), LLVM_NAMES[platform][0], zig, tmp_path)
        assert made == library.read_bytes(), dll.name


@pytest.mark.everything
@pytest.mark.parametrize(("machine", "name"), LLVM)
def test_what_llvm_makes(machine: int, name: str, zig: Path, tmp_path: Path) -> None:
    target = {X64: "i386:x86-64", ARM64: "arm64"}[machine]
    assert hashlib.sha256(by_llvm(name, NAMES, target, zig, tmp_path)).hexdigest()[:32] == LLVM[machine, name]


def readobj(*arguments: Argument) -> str:
    if not shutil.which("llvm-readobj"):
        pytest.skip("there is no llvm-readobj here (Debian: llvm)")
    return run(["llvm-readobj", *arguments])


@pytest.mark.everything
def test_a_linker_finds_every_export(platform: str, libraries: dict[Path, Path], zig: Path, tmp_path: Path) -> None:
    """A program that has the address of each of them imports it, by its name and its hint."""
    expected: dict[str, tuple[str, int, bool]] = {}
    for dll in libraries:
        for name, (hint, is_data) in exported(dll).items():
            expected.setdefault(name, (dll.name, hint, is_data))  # a few are in several
    addresses = [f'.quad "{"__imp_" * is_data}{name}"' for name, (_, _, is_data) in expected.items()]
    (tmp_path / "program.s").write_text("\n".join([".globl main", "main:", ".data", *addresses, ""]))
    run([zig, "clang", f"--target={LLVM_NAMES[platform][1]}", "-c", "program.s"], cwd=tmp_path)
    options = ["/entry:main", "/subsystem:console", "/nodefaultlib", "/out:program.exe"]
    run([zig, "lld-link", *options, "program.o", *libraries.values()], cwd=tmp_path)
    imported = {}
    for dll, symbols in re.findall(
        r"^  Name: (\S+)\n(.*?)^}", readobj("--coff-imports", tmp_path / "program.exe"), re.M | re.S
    ):
        for name, hint in re.findall(r"^  Symbol: (\S+) \((\d+)\)", symbols, re.M):
            imported[name] = (dll, int(hint))
    assert imported == {name: (dll, hint) for name, (dll, hint, _) in expected.items()}


@pytest.mark.everything
def test_llvm_readobj_reads_every_library(libraries: dict[Path, Path]) -> None:
    members = re.findall(r"^Type: (\w+)\nName type: name\n((?:Symbol: .*\n)+)", readobj(*libraries.values()), re.M)
    assert members == [
        ("data", f"Symbol: __imp_{name}\n") if is_data else ("code", f"Symbol: __imp_{name}\nSymbol: {name}\n")
        for dll in libraries
        for name, (_, is_data) in exported(dll).items()
    ]


@pytest.mark.everything
def test_microsofts_linker_made_the_same(files: list[Path], libraries: dict[Path, Path]) -> None:
    """The few import libraries in the wheels have the same exports, hints and, but for what is data, types."""

    def short(library: Path) -> dict[str, dict[str, tuple[int, int]]]:
        found: dict[str, dict[str, tuple[int, int]]] = {}
        for _, content in members(library.read_bytes()):
            if content.startswith(b"\0\0\xff\xff\0\0"):
                name, dll, _ = content[20:].decode().split("\0")
                found.setdefault(dll.lower(), {})[name] = struct.unpack("<HH", content[16:20])
        return found

    theirs = {dll: found for file in files if file.suffix == ".lib" for dll, found in short(file).items()}
    ours = {dll: found for library in libraries.values() for dll, found in short(library).items()}
    compared = theirs.keys() & ours.keys()
    assert {"nvfatbin_130_0.dll", "nvjitlink_130_0.dll"} <= compared
    for dll in compared:
        assert ours[dll].keys() == theirs[dll].keys()
        for name, (hint, kind) in theirs[dll].items():
            # A linker that makes it of a list of names takes them all for code: cuTENSOR's.
            assert ours[dll][name] in ((hint, kind), (hint, kind | 1)), (dll, name)
