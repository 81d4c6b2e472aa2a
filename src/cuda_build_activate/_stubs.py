"""Generate what no wheel has: stubs of the driver's libraries to link with, `libcuda.so` and `libnvidia-ml.so`.

A toolkit from NVIDIA's installer has them in `lib64/stubs`. They export every function of the driver's API, and each
function only returns an error. A program linked with them records their sonames, `libcuda.so.1` and
`libnvidia-ml.so.1`, so that it needs the driver's real libraries to start. The installed headers define the API. A
linker needs only this of a shared library ("System V Application Binary Interface", chapters 4 and 5):

    ELF header, program headers
    .text      two functions: one returns the error number, the other the address of the text that follows it
    .dynsym    an entry for every function of the API, with the address of one of these two
    .hash      lets the loader find a symbol, should somebody load a stub: one bucket that chains all symbols
    .dynstr    the names
    .dynamic   the soname, and where the loader finds the above; the loader writes here, hence a separate segment
    .shstrtab, section headers

Everything but .dynamic is loaded at the address that equals its offset in the file.
"""

from struct import pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# By library: its soname, the error, its headers (the stub is made if the first exists), and what precedes a function's
# name in them.
LIBRARIES = {
    "libcuda.so": (
        b"libcuda.so.1",
        34,  # CUDA_ERROR_STUB_LIBRARY, as in NVIDIA's stub
        ("cuda.h", "cudaGL.h", "cudaEGL.h", "cudaVDPAU.h", "cudaProfiler.h"),
        rb"CUDAAPI\s+",  # CUresult CUDAAPI cuInit(
    ),
    "libnvidia-ml.so": (
        b"libnvidia-ml.so.1",
        12,  # NVML_ERROR_LIBRARY_NOT_FOUND: NVML has no error for stubs; this one is close
        ("nvml.h",),
        rb"DECLDIR\s+(?:char\s*\*\s*)?",  # nvmlReturn_t DECLDIR nvmlInit_v2(, const DECLDIR char* nvmlErrorString(
    ),
}
RETURN_TEXT = {b"nvmlErrorString"}  # all others return a number
TEXT = b"This is a stub, only to link with. To run, use the library that the NVIDIA driver installs.\0"

_NAME = rb"((?:cu|nvml)[A-Z]\w*)"
_SECTIONS = b"\0.text\0.dynsym\0.hash\0.dynstr\0.dynamic\0.shstrtab\0"  # in the order of their numbers, from 1
_MACHINES = {"x86_64": 62, "aarch64": 183}
_PAGE = 0x10000  # the largest page size


def driver_stubs(headers: "Mapping[str, str]", machine: str) -> dict[str, bytes]:
    """The content of each stub, by name, whose API is in *headers* (paths by name); none for an unknown *machine*."""
    stubs = {}
    if machine in _MACHINES:
        for library, (soname, error, sources, before) in LIBRARIES.items():
            if sources[0] in headers:
                try:
                    names = _functions([headers[source] for source in sources if source in headers], before)
                except OSError:  # as if the header were missing
                    continue
                if names:
                    stubs[library] = _shared_library(soname, sorted(names), error, machine)
    return stubs


def _functions(headers: "Iterable[str]", before: bytes) -> set[bytes]:
    """The name of every function that a program which includes *headers* can need, whatever macros it defines."""
    import re  # takes longer than the rest of making a root, and a toolkit may have no such header

    # Both expressions begin with a literal word: otherwise the searches take ten times as long.
    declaration = re.compile(before + _NAME + rb"\s*\(")
    # `#define cuMemAlloc cuMemAlloc_v2`, `#define cuMemcpy __CUDA_API_PTDS(cuMemcpy)`
    renaming = re.compile(rb"#define[ \t]+" + _NAME + rb"[ \t]+(?:__CUDA_API_(PTDS|PTSZ)\()?" + _NAME)
    declared: set[bytes] = set()
    renamed: list[tuple[bytes, bytes, bytes]] = []
    for header in headers:
        with open(header, "rb") as file:
            content = file.read()
        declared.update(declaration.findall(content))
        renamed += renaming.findall(content)
    names = set(declared)
    for name, stream, target in renamed:
        if name in declared or target in declared:  # macros also rename types and constants
            names |= {name, target}
            if stream:  # called if the program defines CUDA_API_PER_THREAD_DEFAULT_STREAM
                names.add(target + b"_" + stream.lower())
    return names


def _shared_library(soname: bytes, names: list[bytes], error: int, machine: str) -> bytes:
    """A stub, as an ELF file; `pack` gets the fields of each structure in the order of the specification."""
    # Each function takes eight bytes; TEXT follows the second.
    if machine == "x86_64":
        code = pack("<BIBH", 0xB8, error, 0xC3, 0xCCCC)  # mov eax, error; ret; int3; int3
        code += pack("<HBIB", 0x8D48, 0x05, 1, 0xC3)  # lea rax, [rip + 1]; ret
    else:
        code = pack("<II", 0x52800000 | error << 5, 0xD65F03C0)  # mov w0, error; ret
        code += pack("<II", 0x10000040, 0xD65F03C0)  # adr x0, . + 8; ret
    text = 64 + 4 * 56  # their place: after the ELF header and four program headers

    strings = b"\0" + soname + b"\0"
    symbols = bytearray(24)  # the first is null
    for name in names:
        # a global function in section 1, eight bytes long
        symbols += pack("<IBBHQQ", len(strings), 0x12, 0, 1, text + 8 * (name in RETURN_TEXT), 8)
        strings += name + b"\0"
    count = len(names) + 1
    chain = pack(f"<{count + 3}I", 1, count, 1, 0, *range(2, count), 0)

    image = bytearray(text)
    sections = bytearray(64)  # the first is null

    def add(name: bytes, kind: int, flags: int, content: bytes, link: int = 0, info: int = 0, size: int = 0) -> int:
        """Add a section and return its address. *flags*: 1 writable, 2 loaded, 4 executable."""
        image.extend(bytes(-len(image) % 16))
        place, start = len(image), _SECTIONS.index(name + b"\0")
        address = place + _PAGE * (flags & 1) if flags else 0
        sections.extend(pack("<IIQQQQIIQQ", start, kind, flags, address, place, len(content), link, info, 16, size))
        image.extend(content)
        return address

    add(b".text", 1, 6, code + TEXT)
    symtab = add(b".dynsym", 11, 2, bytes(symbols), link=4, info=1, size=24)
    hashes = add(b".hash", 5, 2, chain, link=2, size=4)
    strtab = add(b".dynstr", 3, 2, strings)
    # DT_SONAME, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT, DT_NULL
    tags = pack("<14Q", 14, 1, 4, hashes, 5, strtab, 6, symtab, 10, len(strings), 11, 24, 0, 0)
    dynamic = add(b".dynamic", 6, 3, tags, link=4, size=16)
    add(b".shstrtab", 3, 0, _SECTIONS)
    image += bytes(-len(image) % 16)

    place = dynamic - _PAGE
    header = b"\x7fELF\2\1\1" + bytes(9)  # 64 bits, little endian
    header += pack("<HHIQQQIHHHHHH", 3, _MACHINES[machine], 1, 0, 64, len(image), 0, 64, 56, 4, 64, 7, 6)
    for kind, flags, start, address, size, align in (
        (1, 5, 0, 0, place, _PAGE),  # PT_LOAD, readable and executable
        (1, 6, place, dynamic, len(tags), _PAGE),  # PT_LOAD, readable and writable
        (2, 6, place, dynamic, len(tags), 8),  # PT_DYNAMIC
        (0x6474E551, 6, 0, 0, 0, 16),  # PT_GNU_STACK: needs no executable stack
    ):
        header += pack("<IIQQQQQQ", kind, flags, start, address, address, size, size, align)
    image[:text] = header
    return bytes(image + sections)
