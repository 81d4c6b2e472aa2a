import ctypes
from pathlib import Path


def versions():
    library = ctypes.CDLL(str(Path(__file__).parent / "inner" / "deep" / "linked.so"))
    found = (ctypes.c_int * 4)()
    if library.versions(found):
        raise RuntimeError("a library failed")
    return list(found)
