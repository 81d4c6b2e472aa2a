"""Generate what most wheels for Windows lack: a DLL's import library, which tells the linker what the DLL exports.

It is made from the DLL's export table; nothing else of the DLL is read. Microsoft's documentation, "PE Format",
describes both formats. An import library is an archive of

    two indexes of the member that defines each symbol: in the order of the members, and in that of the symbols
    the DLL's name, which all members have, if it does not fit into their headers
    three object files: the DLL's import descriptor, the null descriptor that ends all descriptors, and the null thunks
    that end the DLL's two lists
    a short member for each export: its name, whether it is data, and its index in the export table (a hint, so that
    Windows need not search)

An export has the symbol `__imp_NAME`, where the program finds its address, and, unless it is data, `NAME`, a jump there
that the linker generates. Exports by ordinal alone have no symbol, and are left out. From the same exports, LLVM's
dlltool makes the same bytes.
"""

import os
import re
from struct import calcsize, iter_unpack, pack, unpack, unpack_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

_RELOCATION = {0x8664: 3, 0xAA64: 2}  # by machine, x64 and ARM64: an address relative to the image base
_EXTERNAL, _STATIC, _SECTION = 2, 3, 0x68  # storage classes of symbols
_EXECUTE = 0x20000000  # a section flag
_MOST_SECTIONS = 96  # Windows loads no more
# Limits for what a damaged file may ask for.
_LARGEST_TABLE = 1 << 24  # bytes; CUDA's largest export table takes a thirtieth of it
_MOST_EXPORTS = 0xFFFF - 3  # the archive's index has 16 bits for the number of a member


# A DLL in a root; the group is its name without the version: cublas64_13, cupti64_2026.3.1, nvJitLink_130_0. Not
# nvrtc64_130_0.alt, which users are meant to rename (nvidia-cuda-nvrtc 13.0.48).
_DLL = re.compile(r"bin/(?:.+/)?([^./]+?)(?:64)?(?:_\d[\d._]*)?\.dll")


def add_missing(content: "MutableMapping[str, str | bytes | None]") -> None:
    """Add to the *content* of a root the import library of each DLL that lacks one: cublas.lib for cublas64_13.dll.

    content: maps a place to the path of the file there, to a new file's bytes, or to None for a directory.
    """
    libraries = f"lib/{'arm64' if 'lib/arm64' in content else 'x64'}"
    content.setdefault("lib", None)
    content.setdefault(libraries, None)
    for place, path in [*content.items()]:
        if re.fullmatch(r"lib/[^/]+\.lib", place):  # cutensor-cu13 2.8.1; nvcc does not look there
            content.setdefault(place.replace("lib", libraries, 1), path)
    existing = {place.lower() for place in content}
    for place, path in [*content.items()]:
        dll = _DLL.fullmatch(place)
        library = f"{libraries}/{dll[1]}.lib" if dll else place
        if isinstance(path, str) and library.lower() not in existing:
            try:
                content.setdefault(library, import_library(path))
            except (OSError, ValueError):  # as if the DLL were missing
                pass


def import_library(dll: str) -> bytes:
    """The import library of the DLL at the path *dll*. Programs linked with it load a DLL of the same file name.

    Raises OSError if the file cannot be read, and ValueError if it is not a DLL for x64 or ARM64, exports nothing by
    name, or is damaged.
    """
    machine, exports = _exports(dll)
    name = os.fsencode(os.path.basename(dll))
    stem = os.path.splitext(name)[0]
    descriptor, null_descriptor = b"__IMPORT_DESCRIPTOR_" + stem, b"__NULL_IMPORT_DESCRIPTOR"
    null_thunk = b"\x7f" + stem + b"_NULL_THUNK_DATA"
    # The linker joins .idata$2 to .idata$6 in this order: descriptors, their end, the two lists, names. The descriptor
    # refers to the DLL's name and to its lists, each by the number of a symbol.
    parts = [(b".idata$2", 4, bytes(20), [(12, 2), (0, 3), (16, 4)]), (b".idata$6", 2, name + b"\0", [])]
    symbols = [(descriptor, 1, _EXTERNAL), (b".idata$2", 1, _SECTION), (b".idata$6", 2, _STATIC)]
    symbols += [(b".idata$4", 0, _SECTION), (b".idata$5", 0, _SECTION)]
    symbols += [(null_descriptor, 0, _EXTERNAL), (null_thunk, 0, _EXTERNAL)]  # so that both are linked, too
    members = [([descriptor], _object(machine, parts, symbols))]
    parts = [(b".idata$3", 4, bytes(20), [])]
    members.append(([null_descriptor], _object(machine, parts, [(null_descriptor, 1, _EXTERNAL)])))
    parts = [(b".idata$5", 8, bytes(8), []), (b".idata$4", 8, bytes(8), [])]
    members.append(([null_thunk], _object(machine, parts, [(null_thunk, 1, _EXTERNAL)])))
    for hint, (export, is_data) in enumerate(exports):
        if export == b"DllMain":  # nvperf_host.dll exports it; a DLL linked with that must not use it as its own
            continue
        names = b"%b\0%b\0" % (export, name)
        # The last field: 4 is "imported by name", and 1 is data.
        header = pack("<HHHHIIHH", 0, 0xFFFF, 0, machine, 0, len(names), hint, 4 | is_data)
        members.append(([b"__imp_" + export] + [export] * (not is_data), header + names))
    return _archive(name, members)


def _exports(dll: str) -> "tuple[int, list[tuple[bytes, bool]]]":
    """The machine that *dll* is for, and its exports in the table's order: the name, and whether it is data."""
    with open(dll, "rb") as file:

        def read(place: int, size: int) -> bytes:
            file.seek(place)
            content = file.read(size)
            if len(content) < size:
                raise ValueError("the file is cut short")
            return content

        (place,) = unpack("<I", read(0x3C, 4))
        signature, machine, count, size = unpack("<4sHH12xH2x", read(place, 24))
        if signature != b"PE\0\0" or machine not in _RELOCATION or size < 120 or count > _MOST_SECTIONS:
            raise ValueError("the file is not a DLL for x64 or ARM64")
        first, length = unpack_from("<II", read(place + 24, size), 112)
        # Of each: its address in memory, its size and place in the file, and its flags.
        sections = list(iter_unpack("<12xIII12xI", read(place + 24 + size, 40 * count)))
        places = [place + first - start for start, size, place, _ in sections if start <= first < start + size]
        if not places or not 40 <= length <= _LARGEST_TABLE:
            raise ValueError("the file has no export table")
        table = read(places[0], length)

    def numbers(kind: str, start: int, count: int) -> "tuple[int, ...]":
        start -= first
        if start < 0 or count > _MOST_EXPORTS or start + count * calcsize(kind) > length:
            raise ValueError("the export table is damaged")
        return unpack_from(f"<{count}{kind}", table, start)

    # Functions lie in code, or, if another DLL has them, in the table: as the name of that DLL's function.
    functions = [(first, length)] + [(start, size) for start, size, _, flags in sections if flags & _EXECUTE]
    exports = []
    left = length  # for all names together: overlapping ones could each be as long as the table
    count, names, start_of_addresses, start_of_names, start_of_ordinals = unpack_from("<5I", table, 20)
    addresses = numbers("I", start_of_addresses, count)
    for name, ordinal in zip(numbers("I", start_of_names, names), numbers("H", start_of_ordinals, names)):
        place = name - first
        stop = table.find(b"\0", place)
        left -= stop - place
        if not 0 <= place < stop or left < 0 or ordinal >= count:
            raise ValueError("the export table is damaged")
        is_data = not any(start <= addresses[ordinal] < start + size for start, size in functions)
        exports.append((table[place:stop], is_data))
    if not exports:
        raise ValueError("the DLL exports nothing by name")
    return machine, exports


def _object(
    machine: int,
    sections: "Sequence[tuple[bytes, int, bytes, Sequence[tuple[int, int]]]]",
    symbols: "Sequence[tuple[bytes, int, int]]",
) -> bytes:
    """An object file.

    sections: each with its name, alignment, content, and relocations (an offset, and the number of the symbol whose
    address goes there). symbols: each with its name, section number (0: defined elsewhere), and storage class.
    """
    headers, contents, entries, strings = b"", b"", b"", b""
    start = 20 + 40 * len(sections)
    for name, alignment, content, addresses in sections:
        place = start + len(contents)
        contents += content
        relocations = start + len(contents) if addresses else 0
        contents += b"".join(pack("<IIH", *address, _RELOCATION[machine]) for address in addresses)
        flags = 0xC0000040 | alignment.bit_length() << 20  # data, to read and write
        headers += pack("<8sIIIIIIHHI", name, 0, 0, len(content), place, relocations, 0, len(addresses), 0, flags)
    for name, section, kind in symbols:
        if len(name) > 8:  # it goes into the string table, at this offset
            name, strings = pack("<II", 0, 4 + len(strings)), strings + name + b"\0"
        entries += pack("<8sIhHBB", name, 0, section, 0, kind, 0)
    header = pack("<HHIIIHH", machine, len(sections), 0, start + len(contents), len(symbols), 0, 0)
    return header + headers + contents + entries + pack("<I", 4 + len(strings)) + strings


def _archive(name: bytes, members: "Sequence[tuple[Sequence[bytes], bytes]]") -> bytes:
    """An archive of *members*, each with the symbols that it defines and its content. All have the same *name*."""
    fits = len(name) < 16
    contents, places = bytearray(), []
    for _, content in members:
        places.append(len(contents))
        contents += _header(name + b"/" if fits else b"/0", len(content), b"644")
        contents += content + b"\n" * (len(content) % 2)
    symbols = [(symbol, number) for number, (defined, _) in enumerate(members) for symbol in defined]
    in_order = sorted(symbols)
    strings = [b"".join([b"%b\0" % symbol for symbol, _ in listed]) for listed in (symbols, in_order)]

    def indexes(start: int) -> bytes:
        """Everything that precedes the members, if these begin at *start*."""
        by_member = pack(f">{1 + len(symbols)}I", len(symbols), *[start + places[number] for _, number in symbols])
        by_symbol = pack(f"<{2 + len(members)}I", len(members), *[start + place for place in places], len(symbols))
        by_symbol += pack(f"<{len(symbols)}H", *[number + 1 for _, number in in_order])
        made = b"!<arch>\n"
        for index in (by_member + strings[0], by_symbol + strings[1]):
            index += bytes(len(index) % 2)
            made += _header(b"/", len(index)) + index
        if not fits:
            text = name + (b"\0" if len(name) % 2 else b"\0\n")
            made += b"%-48b%-10d`\n%b" % (b"//", len(text), text)
        return made

    return indexes(len(indexes(0))) + contents


def _header(name: bytes, size: int, mode: bytes = b"0") -> bytes:
    return b"%-16b%-12d%-6d%-6d%-8b%-10d`\n" % (name, 0, 0, 0, mode, size)
