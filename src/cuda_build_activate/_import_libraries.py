"""Generate what most wheels for Windows lack: the import library of a DLL, by which a linker knows what the DLL has.

The DLL's own table of exports says that as well, and no more of the DLL is read. Both formats are in "PE Format" of
Microsoft's documentation. An import library is an archive of

    two indexes: which member defines a symbol, in the order of the members, and in that of the symbols
    the DLL's name, which all members have, where it does not fit into their headers
    three object files: the head of what a program imports from the DLL, the end of all heads, the end of its two lists
    a short member for each export: its name, whether it is data, and its place in the table of exports (a hint, so that
    Windows need not search)

An export has the symbol `__imp_NAME`, where the program finds its address, and, unless it is data, `NAME`, a jump there
that the linker makes. What is exported by number alone has no symbol, and is left out. Of the same exports, LLVM's
dlltool makes the same bytes.
"""

import os
import re
from struct import calcsize, iter_unpack, pack, unpack, unpack_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

_RELOCATION = {0x8664: 3, 0xAA64: 2}  # by machine, x64 and ARM64: to an address, counted from where the DLL is loaded
_EXTERNAL, _STATIC, _SECTION = 2, 3, 0x68  # classes of symbols
_EXECUTE = 0x20000000  # a flag of sections
_MOST_SECTIONS = 96  # that Windows loads
# What a damaged file may ask for ends here.
_LARGEST_TABLE = 1 << 24  # bytes; CUDA's largest takes a thirtieth of it
_MOST_EXPORTS = 0xFFFF - 3  # the archive's index has 16 bits for the number of a member


# A DLL in a root, and its name without the version: cublas64_13, cupti64_2026.3.1, nvJitLink_130_0. Not
# nvrtc64_130_0.alt, which is there to be renamed (nvidia-cuda-nvrtc 13.0.48).
_DLL = re.compile(r"bin/(?:.+/)?([^./]+?)(?:64)?(?:_\d[\d._]*)?\.dll")


def add_missing(content: "MutableMapping[str, str | bytes | None]") -> None:
    """Add to the *content* of a root cublas.lib for cublas64_13.dll, and so for each DLL without one.

    content: by place the path of what is there, or None for a directory.
    """
    libraries = f"lib/{'arm64' if 'lib/arm64' in content else 'x64'}"
    content.setdefault("lib", None)
    content.setdefault(libraries, None)
    for place, path in [*content.items()]:
        if re.fullmatch(r"lib/[^/]+\.lib", place):  # cutensor-cu13 2.8.1; nvcc does not look there
            content.setdefault(place.replace("lib", libraries, 1), path)
    there = {place.lower() for place in content}
    for place, path in [*content.items()]:
        dll = _DLL.fullmatch(place)
        library = f"{libraries}/{dll[1]}.lib" if dll else place
        if isinstance(path, str) and library.lower() not in there:
            try:
                content.setdefault(library, import_library(path))
            except (OSError, ValueError):  # as if the DLL was not there
                pass


def import_library(dll: str) -> bytes:
    """The import library of the DLL *dll*; what is linked with it asks for a DLL of this file's name.

    Raises OSError if the file cannot be read, and ValueError if it is no DLL for x64 or ARM64, exports nothing by name,
    or is damaged.
    """
    machine, exports = _exports(dll)
    name = os.fsencode(os.path.basename(dll))
    stem = os.path.splitext(name)[0]
    head, end_of_heads = b"__IMPORT_DESCRIPTOR_" + stem, b"__NULL_IMPORT_DESCRIPTOR"
    end_of_lists = b"\x7f" + stem + b"_NULL_THUNK_DATA"
    # The linker puts together what is in .idata$2 to .idata$6, in this order: heads, their end, two lists, names. The
    # head has the addresses of the DLL's name and of its lists, each by the number of a symbol.
    parts = [(b".idata$2", 4, bytes(20), [(12, 2), (0, 3), (16, 4)]), (b".idata$6", 2, name + b"\0", [])]
    symbols = [(head, 1, _EXTERNAL), (b".idata$2", 1, _SECTION), (b".idata$6", 2, _STATIC)]
    symbols += [(b".idata$4", 0, _SECTION), (b".idata$5", 0, _SECTION)]
    symbols += [(end_of_heads, 0, _EXTERNAL), (end_of_lists, 0, _EXTERNAL)]  # so that the ends are linked as well
    members = [([head], _object(machine, parts, symbols))]
    parts = [(b".idata$3", 4, bytes(20), [])]
    members.append(([end_of_heads], _object(machine, parts, [(end_of_heads, 1, _EXTERNAL)])))
    parts = [(b".idata$5", 8, bytes(8), []), (b".idata$4", 8, bytes(8), [])]
    members.append(([end_of_lists], _object(machine, parts, [(end_of_lists, 1, _EXTERNAL)])))
    for hint, (export, is_data) in enumerate(exports):
        if export == b"DllMain":  # nvperf_host.dll has it there; a DLL linked with that must not take it for its own
            continue
        names = b"%b\0%b\0" % (export, name)
        # The last field: 4 is "found by its name", and 1 is data.
        header = pack("<HHHHIIHH", 0, 0xFFFF, 0, machine, 0, len(names), hint, 4 | is_data)
        members.append(([b"__imp_" + export] + [export] * (not is_data), header + names))
    return _archive(name, members)


def _exports(dll: str) -> "tuple[int, list[tuple[bytes, bool]]]":
    """Which machine *dll* is for, and its exports, in the order of the table: the name, and whether it is data."""
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
            raise ValueError("the file is no DLL for x64 or ARM64")
        first, length = unpack_from("<II", read(place + 24, size), 112)
        # Of each: its address in memory, its size and its place in the file, its flags.
        sections = list(iter_unpack("<12xIII12xI", read(place + 24 + size, 40 * count)))
        places = [place + first - start for start, size, place, _ in sections if start <= first < start + size]
        if not places or not 40 <= length <= _LARGEST_TABLE:
            raise ValueError("the file has no table of exports")
        table = read(places[0], length)

    def numbers(kind: str, start: int, count: int) -> "tuple[int, ...]":
        start -= first
        if start < 0 or count > _MOST_EXPORTS or start + count * calcsize(kind) > length:
            raise ValueError("the table of exports is damaged")
        return unpack_from(f"<{count}{kind}", table, start)

    # Code, or the name of another DLL's function, which is in the table and stands for that.
    functions = [(first, length)] + [(start, size) for start, size, _, flags in sections if flags & _EXECUTE]
    exports = []
    left = length  # each of many names could be as long as the table, if they may overlap
    count, names, start_of_addresses, start_of_names, start_of_ordinals = unpack_from("<5I", table, 20)
    addresses = numbers("I", start_of_addresses, count)
    for name, ordinal in zip(numbers("I", start_of_names, names), numbers("H", start_of_ordinals, names)):
        place = name - first
        stop = table.find(b"\0", place)
        left -= stop - place
        if not 0 <= place < stop or left < 0 or ordinal >= count:
            raise ValueError("the table of exports is damaged")
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

    sections: of each the name, the alignment, the content, and where in it the addresses of which symbols go.
    symbols: of each the name, the number of its section (0: it is defined elsewhere), and the class.
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
        if len(name) > 8:  # it is where these four bytes say
            name, strings = pack("<II", 0, 4 + len(strings)), strings + name + b"\0"
        entries += pack("<8sIhHBB", name, 0, section, 0, kind, 0)
    header = pack("<HHIIIHH", machine, len(sections), 0, start + len(contents), len(symbols), 0, 0)
    return header + headers + contents + entries + pack("<I", 4 + len(strings)) + strings


def _archive(name: bytes, members: "Sequence[tuple[Sequence[bytes], bytes]]") -> bytes:
    """An archive of *members*: of each the symbols that it defines, and its content. All have the same *name*."""
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
        """All that stands before the members, if these begin at *start*."""
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
