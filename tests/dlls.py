"""DLLs for Windows with no more in them than the exports, which no machine could run."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

X64, ARM64 = 0x8664, 0xAA64
CODE, TABLE, DATA = 0x1000, 0x2000, 0x100000  # the addresses of the sections
TABLE_IN_FILE = 0x600


class Export(NamedTuple):
    """What a DLL exports: name is None for what has only a number, forwarded is "DLL.NAME" for what is elsewhere."""

    name: str | None
    address: int = CODE
    forwarded: str = ""


def make_dll(exports: Sequence[Export], machine: int = X64) -> bytes:
    """A DLL for *machine* whose *exports* have their numbers in the order that is given."""
    named = sorted((export.name.encode(), number) for number, export in enumerate(exports) if export.name is not None)
    functions = TABLE + 40
    names = functions + 4 * len(exports)
    numbers = names + 4 * len(named)
    strings = numbers + 2 * len(named)
    text = b""
    addresses = []
    for export in exports:
        addresses.append(strings + len(text) if export.forwarded else export.address)
        text += export.forwarded.encode() + b"\0" if export.forwarded else b""
    for name, _ in named:
        addresses.append(strings + len(text))
        text += name + b"\0"
    table = struct.pack("<12x7I", strings + len(text), 1, len(exports), len(named), functions, names, numbers)
    table += struct.pack(f"<{len(addresses)}I{len(named)}H", *addresses, *(number for _, number in named))
    table += text + b"first.dll\0"
    size = -(-len(table) // 0x200) * 0x200
    sections = (
        (b".text", 0x200, CODE, 0x200, 0x400, 0x60000020),
        (b".rdata", len(table), TABLE, size, TABLE_IN_FILE, 0x40000040),
        (b".data", 0x1000, DATA, 0x200, TABLE_IN_FILE + size, 0xC0000040),
    )
    content = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    content += b"PE\0\0" + struct.pack("<HH12xHH", machine, len(sections), 240, 0x2022)
    content += struct.pack("<H", 0x20B).ljust(108, b"\0") + struct.pack("<III", 16, TABLE, len(table)).ljust(132, b"\0")
    content += b"".join(struct.pack("<8sIIII12xI", *section) for section in sections)
    for _, _, _, _, place, _ in sections:
        content = content.ljust(place, b"\0") + (table if place == TABLE_IN_FILE else b"")
    return content + bytes(0x200)
