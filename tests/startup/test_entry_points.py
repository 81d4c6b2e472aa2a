"""Console scripts of NVIDIA's: since 13.5.37, nvidia-cuda-nvcc for Windows on Arm has commands named nvcc, ptxas, ...

Such a script runs the tool in the wheels' own directory, where a build does not find what it links. It must not come
before the root's own nvcc. Here a wheel for Linux is given the same scripts.
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from conftest import VEnv, copy_example, fetch, make_toolkit, run, script
from faults import ACTIVATED, expect, fault
from test_frontends import FRONT_ENDS, check
from toolkits import NEWEST, release_lock

# As in the wheel for Windows on Arm.
ENTRY_POINTS = "[console_scripts]\n" + "".join(
    f"{name} = nvidia.cu13.cuda_entrypoints._dispatch:main\n"
    for name in ("bin2c", "fatbinary", "nvcc", "nvlink", "ptxas")
)
DISPATCH = """
import os
import sys
from pathlib import Path


def main():
    program = Path(__file__).resolve().parent.parent / "bin" / Path(sys.argv[0]).stem
    print("the console script was called", file=sys.stderr)
    os.execv(program, [program, *sys.argv[1:]])
"""


@pytest.fixture
def with_scripts(for_the_example: dict[str, str], pytestconfig: pytest.Config, tmp_path: Path) -> dict[str, str]:
    """An index in which the wheel of nvcc has console scripts."""
    (version,) = re.findall(r"^nvidia-cuda-nvcc==(.*)", release_lock(NEWEST).read_text(), re.MULTILINE)
    (wheel,) = fetch("example", pytestconfig).glob(f"nvidia_cuda_nvcc-{version}-*.whl")
    name, version, tags = wheel.stem.split("-", 2)
    old, new = f"{name}-{version}.dist-info", f"{name}-{version}+scripts.dist-info"
    (tmp_path / "index").mkdir()
    made = tmp_path / "index" / f"{name}-{version}+scripts-{tags}.whl"
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(made, "w") as target:
        added = {f"{new}/entry_points.txt": ENTRY_POINTS, "nvidia/cu13/cuda_entrypoints/_dispatch.py": DISPATCH}
        for entry in source.infolist():
            content = source.read(entry)
            entry.filename = entry.filename.replace(old, new)
            if entry.filename == f"{new}/METADATA":
                content = content.replace(f"\nVersion: {version}".encode(), f"\nVersion: {version}+scripts".encode())
            if entry.filename == f"{new}/RECORD":
                record = content.decode().replace(old, new)
                content = (record + "".join(f"{path},,\n" for path in added)).encode()
            target.writestr(entry, content)
        for path, text in added.items():
            target.writestr(path, text)
    return {
        **for_the_example,
        "PIP_FIND_LINKS": f"{for_the_example['PIP_FIND_LINKS']} {made.parent}",
        "UV_FIND_LINKS": f"{for_the_example['UV_FIND_LINKS']},{made.parent}",
        "UV_CACHE_DIR": str(tmp_path / "cache"),  # the wheel is new each time, under the same name
    }


@fault("environment variables", "NVIDIA's console script `nvcc` is first on `PATH`", ACTIVATED)
def test_a_script_in_the_environment(env: VEnv, environ: dict[str, str]) -> None:
    called = script(env.path / "bin" / "nvcc", "echo 'the console script was called' >&2; exit 1")
    environ["PATH"] = f"{called.parent}{os.pathsep}{environ['PATH']}"
    expect(ACTIVATED, env, environ)
    seen = env.environ(env=environ)
    assert shutil.which("nvcc", path=seen["PATH"]) == f"{env.root}/bin/nvcc"


def test_a_toolkit_without_nvcc_does_not_displace_the_script_of_another(venv: VEnv, environ: dict[str, str]) -> None:
    """It belongs to the environment around this one, whose toolkit is complete."""
    make_toolkit(venv.site, nvcc=False)
    called = script(venv.path.parent / "outer" / "bin" / "nvcc", "")
    environ["PATH"] = f"{called.parent}{os.pathsep}{environ['PATH']}"
    assert venv.environ(env=environ) == venv.environ("-S", env=environ)


@pytest.mark.everything
@pytest.mark.parametrize("front_end", ["pip", "uv", "build"])
def test_a_build_with_scripts_in_its_environment(
    front_end: str, with_scripts: dict[str, str], temporary: dict[str, str], cuobjdump: Path, tmp_path: Path
) -> None:
    project = copy_example(tmp_path / "project")
    environ = {**temporary, **with_scripts, "CUDAARCHS": "86"}
    log = run(FRONT_ENDS[front_end](project, tmp_path / "out"), env=environ, cwd=tmp_path)
    assert re.search(r"nvidia[-_]cuda[-_]nvcc[-=]+[\d.]+\+scripts", log)
    assert "the console script was called" not in log
    check(log, tmp_path / "out", cuobjdump)


@pytest.mark.everything
def test_the_script_in_an_environment_that_stays(
    with_scripts: dict[str, str], clean: dict[str, str], tmp_path: Path
) -> None:
    """It runs nvcc where the wheel has it; with this package, what looks for nvcc on PATH does not come to it."""
    made = VEnv(tmp_path / "venv")
    made.install("cuda-build-activate", "cuda-toolkit[nvcc,cudart,cccl]", index=with_scripts)
    clean["PATH"] = f"{made.path}/bin{os.pathsep}{clean['PATH']}"
    (tmp_path / "runtime.cu").write_text("int main() { return cudaDeviceReset(); }\n")
    link = ["nvcc", "-cudart", "shared", "runtime.cu", "-o", "program"]
    with pytest.raises(AssertionError, match="the console script was called"):  # and cannot find -lcudart
        run(link, env=clean, cwd=tmp_path)
    said = run([made.path / "bin" / "cuda-build-activate", "run", "--", *link], env=clean, cwd=tmp_path)
    assert "the console script was called" not in said
    assert run([made.path / "bin" / "cuda-build-activate", "doctor"], env=clean).endswith("nothing is wrong\n")
    # A shell that was given the variables, and the environment's activate script after that.
    child = {**made.environ(env=clean), "PATH": clean["PATH"]}
    done = made.python_("-m", "cuda_build_activate", "doctor", env=child)
    assert f"{made.path}/bin/nvcc comes first on PATH" in done.stdout
    assert done.returncode == 1
