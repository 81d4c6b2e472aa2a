"""A library that a CUDA compiler made."""

import ctypes
import os
from pathlib import Path

for directory in Path(__file__).parents[1].glob("nvidia/cu*/bin/*64"):
    os.add_dll_directory(str(directory))
_library = ctypes.CDLL(str(Path(__file__).with_name("demo.dll")))


def launch() -> int:
    """What the runtime says when a kernel is launched."""
    return int(_library.launch())


def compiled(source: str) -> str:
    """What NVRTC makes of *source*."""
    ptx = ctypes.create_string_buffer(1 << 16)
    error = _library.compile(source.encode(), ptx)
    if error:
        raise ValueError(f"NVRTC says {error}")
    return ptx.value.decode()
