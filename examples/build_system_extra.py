"""Add the proposed extra `build-system` to the metapackage `cuda-toolkit`.

    python examples/build_system_extra.py cuda_toolkit-13.5.0-py2.py3-none-any.whl DIRECTORY

writes the same wheel to DIRECTORY, with the local version 13.5.0+build.system and two more lines of metadata. With
``--find-links DIRECTORY``, ``cuda-toolkit[build-system,nvcc,cudart,cccl]==13.*`` also installs cuda-build-activate.
"""

import base64
import hashlib
import sys
import zipfile
from pathlib import Path

EXTRA = "Provides-Extra: build-system\nRequires-Dist: cuda-build-activate; extra == 'build-system'\n"
LOCAL = "+build.system"


def add_extra(wheel: Path, directory: Path) -> Path:
    """Write *wheel* with the extra to *directory*, and return the path."""
    name, version, tags = wheel.stem.split("-", 2)
    old, new = f"{name}-{version}.dist-info", f"{name}-{version}{LOCAL}.dist-info"
    made = directory / f"{name}-{version}{LOCAL}-{tags}.whl"
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target:
        record = []
        for entry in source.infolist():
            content = source.read(entry)
            path = entry.filename.replace(old, new)
            if path == f"{new}/RECORD":
                continue
            if path == f"{new}/METADATA":
                fields, blank, description = content.decode().partition("\n\n")
                fields = fields.replace(f"\nVersion: {version}\n", f"\nVersion: {version}{LOCAL}\n")
                content = f"{fields}\n{EXTRA}{blank[1:]}{description}".encode()
            target.writestr(path, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{path},sha256={digest},{len(content)}\n")
        target.writestr(f"{new}/RECORD", "".join([*record, f"{new}/RECORD,,\n"]))
    return made


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(add_extra(Path(sys.argv[1]), Path(sys.argv[2])))
