"""Which GPUs a library has device code for: what is in the fat binaries that nvcc puts into an ELF file.

The format is undocumented. It was derived from what nvcc 11.8 to 13.5 write; the tests compare the results with those
of NVIDIA's cuobjdump. A section consists of fat binaries; each has a header

    u32 0xba55ed50, u16 version (1), u16 size of this header (16), u64 size of what follows

and then entries, each with a header of its own

    u16 kind, u16 version, u32 size of this header, u64 size of the payload, ..., at 28: u32 architecture, ...,
    at 40: u64 flags

Headers are never compressed. Payloads may be, and are skipped.
"""

import struct
from collections.abc import Iterator
from typing import IO, NamedTuple

SECTIONS = (".nv_fatbin", "__nv_relfatbin")
_MAGIC = 0xBA55ED50
_KINDS = {1: "compute", 2: "sm", 8: "lto"}  # PTX, machine code, input for -dlto
_ARCHITECTURE_SPECIFIC, _FAMILY_SPECIFIC = 1 << 20, 1 << 21  # sm_90a, sm_100f


class Entry(NamedTuple):
    """One piece of device code. kind: "sm", "compute" (PTX), or "lto". architecture: such as "90a"."""

    kind: str
    architecture: str

    def __str__(self) -> str:
        return f"{self.kind}_{self.architecture}"


def entries(file: IO[bytes], offset: int, size: int) -> Iterator[Entry]:
    """The entries of the section at *offset* of *file*. Raises ValueError if its fat binaries are damaged."""
    end = offset + size
    while offset + 16 <= end:
        magic, _, header, length = struct.unpack("<IHHQ", _read(file, offset, 16))
        if not magic:  # padding
            offset += 8
            continue
        if magic != _MAGIC or header < 16 or offset + header + length > end:
            raise ValueError("a fat binary is damaged")
        entry, offset = offset + header, offset + header + length
        while entry + 48 <= offset:
            fields = _read(file, entry, 48)
            kind, _, header, length = struct.unpack_from("<HHIQ", fields)
            (architecture,), (flags,) = struct.unpack_from("<I", fields, 28), struct.unpack_from("<Q", fields, 40)
            if header < 48 or entry + header + length > offset:
                raise ValueError("an entry of a fat binary is damaged")
            suffix = "a" if flags & _ARCHITECTURE_SPECIFIC else "f" if flags & _FAMILY_SPECIFIC else ""
            if kind in _KINDS:
                yield Entry(_KINDS[kind], f"{architecture}{suffix}")
            entry += header + length


def _read(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    content = file.read(size)
    if len(content) < size:
        raise ValueError("the file is cut short")
    return content
