"""The reader of device code sees what NVIDIA's own program sees."""

from __future__ import annotations

import io
import os
import re
import struct
from pathlib import Path

import pytest
from conftest import VEnv, run
from toolkits import NEWEST

from cuda_build_activate import _device_code, _elf

PTX, SM, LTO = 1, 2, 8
SPECIFIC, FAMILY, COMPRESSED = 1 << 20, 1 << 21, 1 << 13


def entry(kind: int, architecture: int, flags: int = 0, payload: bytes = bytes(24), header: int = 64) -> bytes:
    start = struct.pack("<HHIQIIHHIIIQ", kind, 0x101, header, len(payload), 0, 0, 0, 0, architecture, 0, 0, flags)
    return start.ljust(header, b"\0") + payload


def fat_binary(*entries: bytes) -> bytes:
    content = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(content)) + content


def read(section: bytes, before: bytes = b"") -> list[str]:
    return [str(found) for found in _device_code.entries(io.BytesIO(before + section), len(before), len(section))]


def test_entries() -> None:
    section = fat_binary(entry(SM, 90, SPECIFIC), entry(SM, 100, FAMILY, header=112), entry(PTX, 75, COMPRESSED))
    section += bytes(8) + fat_binary() + fat_binary(entry(LTO, 80), entry(64, 90), entry(SM, 120))
    assert read(section, b"before it") == ["sm_90a", "sm_100f", "compute_75", "lto_80", "sm_120"]
    assert read(b"") == []


@pytest.mark.parametrize(
    "section",
    [
        b"no fat binary at all",
        fat_binary(entry(SM, 90))[:-1],
        fat_binary(entry(SM, 90)[:-1]),
        struct.pack("<IHHQ", 0xBA55ED50, 1, 8, 0),
        fat_binary(entry(SM, 90, header=40).ljust(64, b"\0")),
        fat_binary(entry(SM, 90).replace(struct.pack("<Q", 24), struct.pack("<Q", 1 << 40))),
    ],
)
def test_what_is_damaged(section: bytes) -> None:
    with pytest.raises(ValueError, match="damaged"):
        read(section)


def test_what_is_cut_short() -> None:
    section = fat_binary(entry(SM, 90))
    with pytest.raises(ValueError, match="cut short"):
        list(_device_code.entries(io.BytesIO(section[:50]), 0, len(section)))


CODE = {
    "machine code and PTX": ["-gencode=arch=compute_90,code=[sm_90,compute_90]", "-gencode=arch=compute_75,code=sm_75"],
    "for one architecture or family": [
        "-gencode=arch=compute_90a,code=sm_90a",
        "-gencode=arch=compute_100f,code=[sm_100f,compute_100f]",
        "-gencode=arch=compute_120a,code=[sm_120a,compute_120a]",
    ],
    "relocatable": ["-rdc=true", "-gencode=arch=compute_80,code=sm_80"],
    "to be linked": ["-gencode=arch=compute_80,code=lto_80", "-gencode=arch=compute_89,code=sm_89"],
    **{f"compressed, {mode}": ["-arch=all-major", f"-compress-mode={mode}"] for mode in ("none", "size", "speed")},
}


@pytest.fixture(scope="module")
def nvcc(for_the_example: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> VEnv:
    made = VEnv(tmp_path_factory.mktemp("nvcc") / "venv")
    made.install("cuda-build-activate", f"cuda-toolkit[nvcc,cudart,cccl]=={NEWEST}", index=for_the_example)
    return made


@pytest.mark.parametrize("options", CODE.values(), ids=CODE)
def test_it_sees_what_cuobjdump_sees(options: list[str], nvcc: VEnv, cuobjdump: Path, tmp_path: Path) -> None:
    source = "__global__ void kernel(int *x) { *x = 1; }\nvoid call() { kernel<<<1, 1>>>(nullptr); }\n"
    (tmp_path / "code.cu").write_text(source)
    environ = nvcc.environ(env=dict(os.environ))
    command = ["nvcc", "-shared", "-Xcompiler", "-fPIC", *options, "-o", "library.so", "code.cu"]
    run(command, env=environ, cwd=tmp_path)
    with (tmp_path / "library.so").open("rb") as file:
        found = set(_elf.read(file).device_code)
    printed = run([cuobjdump, "--dump-elf-symbols", "--dump-ptx", tmp_path / "library.so"])
    pieces = re.findall(r"^Fatbin (elf|ptx) code:\n=+\narch = sm_(\w+)$", printed, re.MULTILINE)
    expected = {f"{'sm' if kind == 'elf' else 'compute'}_{architecture}" for kind, architecture in pieces}
    assert expected
    assert {name for name in found if not name.startswith("lto_")} == expected
    assert ("lto_80" in found) == ("code=lto_80" in " ".join(options))
