"""What an ELF file says about itself: the libraries that it needs, where it looks for them, and its device code."""

import os
from typing import IO, Any, NamedTuple, cast

from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile

from cuda_build_activate import _device_code

MAGIC = b"\x7fELF"


class Elf(NamedTuple):
    """An ELF file.

    machine: pyelftools' name for it, without EM_. soname: its own name, or "". needed: the sonames that it needs.
    run_path: the directories where the loader looks for these, as written. inherited: whether the loader also looks
    there for what these need (DT_RPATH). device_code: such as sm_90a, or compute_90 for PTX, sorted.
    """

    machine: str
    soname: str
    needed: tuple[str, ...]
    run_path: tuple[str, ...]
    inherited: bool
    device_code: tuple[str, ...]


def read(file: IO[bytes]) -> Elf:
    """Read the ELF file *file*, and little more of it than necessary. Raises ValueError if it is damaged."""
    try:
        return _read(file)
    except Exception as error:  # pyelftools raises many kinds for a damaged file
        raise ValueError(str(error) or type(error).__name__) from error


def _read(file: IO[bytes]) -> Elf:
    elf = ELFFile(file)
    size = file.seek(0, os.SEEK_END)
    needed, paths, soname = [], {}, ""
    for segment in elf.iter_segments("PT_DYNAMIC"):
        if segment["p_offset"] + segment["p_filesz"] > size:
            raise ValueError("the file is cut short")
        for tag in cast("DynamicSegment", segment).iter_tags():
            kind, value = tag.entry.d_tag, cast(Any, tag)  # has an attribute named after its kind
            if kind == "DT_NEEDED":
                needed.append(value.needed)
            elif kind == "DT_SONAME":
                soname = value.soname
            elif kind == "DT_RPATH":
                paths[kind] = value.rpath
            elif kind == "DT_RUNPATH":
                paths[kind] = value.runpath
    device_code = {
        entry
        for section in elf.iter_sections()
        if section.name in _device_code.SECTIONS and section["sh_type"] != "SHT_NOBITS"
        for entry in _device_code.entries(file, section["sh_offset"], section["sh_size"])
    }
    run_path = paths.get("DT_RUNPATH", paths.get("DT_RPATH", ""))  # if there is a RUNPATH, the loader ignores RPATH
    return Elf(
        elf["e_machine"].removeprefix("EM_") if isinstance(elf["e_machine"], str) else str(elf["e_machine"]),
        soname,
        tuple(needed),
        tuple(run_path.split(":")) if run_path else (),
        bool(paths) and "DT_RUNPATH" not in paths,
        tuple(str(entry) for entry in sorted(device_code)),
    )
