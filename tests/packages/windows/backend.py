"""A backend of its own: CMake, with Ninja, lets nvcc compile a kernel. The test's environment says where both are."""

import os
import subprocess
import zipfile

INFO = "windows_demo-1.0.0.dist-info"
METADATA = "Metadata-Version: 2.1\nName: windows-demo\nVersion: 1.0.0\n"
WHEEL = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    os.mkdir(os.path.join(metadata_directory, INFO))
    for name, content in (("METADATA", METADATA), ("WHEEL", WHEEL)):
        with open(os.path.join(metadata_directory, INFO, name), "w") as file:
            file.write(content)
    return INFO


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    cmake, ninja = os.environ["CMAKE"], os.environ["NINJA"]
    subprocess.run([cmake, "-GNinja", f"-DCMAKE_MAKE_PROGRAM={ninja}", "-S.", "-Bbuild"], check=True)
    subprocess.run([cmake, "--build", "build"], check=True)
    name = "windows_demo-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        for file in ("kernel.ptx", "found.txt"):
            wheel.write(os.path.join("build", file), f"windows_demo/{file}")
        for file, content in (("METADATA", METADATA), ("WHEEL", WHEEL), ("RECORD", "")):
            wheel.writestr(f"{INFO}/{file}", content)
    return name
