"""Real environments for the tests: the wheel as it would be published, interpreters, virtual environments, toolkits."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Union

import coverage
import pytest
from filelock import FileLock

pytest.register_assert_rewrite("faults")

PROJECT = Path(__file__).parent.parent
Argument = Union[str, "os.PathLike[str]"]

# File modes do not apply to root with all its capabilities.
SETPRIV = shutil.which("setpriv") or "setpriv"
WITHOUT_PRIVILEGE = [SETPRIV, "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []

NEWEST = "13.4.3"
# The last of each minor version: components have moved between them.
TOOLKITS = ("13.0.3.0", "13.1.2.0", "13.2.2", "13.3.1", NEWEST)
MINIMAL = f"cuda-toolkit[nvcc,cudart,cccl]=={NEWEST}"
OLDEST_OF_THE_EXTRA = "13.2.1"
# The headers include some of CCCL, and of crt, which CUDA 12 has in the wheel of nvcc, without an nvcc.
WITHOUT_NVCC = (
    "cuda-toolkit[cccl,cublas,cudart,nvcc]==11.8.0",
    "cuda-toolkit[cccl,cublas,cudart,nvcc]==12.9.1",
    f"cuda-toolkit[cccl,cublas,cudart,crt]=={NEWEST}",
)
MIXED = "13.0.2"  # its extra nvcc leaves crt and nvvm unpinned
INCOMPLETE = "13.0.0"  # its extra nvcc lacks crt and nvvm
VARIABLES = {
    "CUDA_BUILD_ACTIVATE_ROOT",
    "CUDA_BUILD_ACTIVATE_SITE",
    "CUDA_HOME",
    "CUDA_PATH",
    "CUDA_ROOT",
    "CUDAToolkit_ROOT",
    "CUDA_TOOLKIT_ROOT_DIR",
    "CUDACXX",
    "PATH",
    "CMAKE_PREFIX_PATH",
    "LIBRARY_PATH",
}

PRODUCTS = ("nvidia-cudnn-cu13", "nvidia-nccl-cu13", "nvidia-nvshmem-cu13", "cutensor-cu13")
BUILD_TOOLS = (
    "scikit-build-core",
    "cmake",
    "cmake==3.25.*",
    "ninja",
    "meson",
    "numpy",
    "pytest",
    "pip",
    "hatchling",
    "hatch-autorun",
    "setuptools",
    "pybind11",
    "scikit-build",
    "py-build-cmake",
    "meson-python",
    "Cython",
    "nanobind",
    "cuda-pathfinder",
)


def run(command: Sequence[Argument], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run *command* and return what it printed; its whole output is in the failure if it fails."""
    done = subprocess.run(
        [os.fspath(part) for part in command],
        env=env,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, f"{command} exited with {done.returncode}:\n{done.stdout}"
    return done.stdout


class VEnv:
    """A virtual environment."""

    def __init__(self, path: Path, interpreter: Argument = sys.executable) -> None:
        self.path = path
        self.python = path / "bin" / "python"
        self.prefix: list[str] = []
        run([sys.executable, "-m", "virtualenv", "--quiet", "--no-seed", "--python", interpreter, path])
        self.site = Path(
            run([self.python, "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
        )
        if "COVERAGE_PROCESS_START" in os.environ and interpreter == sys.executable:
            self._measure_coverage()

    def _measure_coverage(self) -> None:
        """Let each interpreter start coverage before all other startup files, with no trace of where it is."""
        directory = os.path.dirname(os.path.dirname(coverage.__file__))
        start = f'(sys.path.append({directory!r}), __import__("coverage").process_startup(), sys.path.pop())'
        (self.site / "0_coverage.pth").write_text(f'import sys; "coverage" in sys.modules or {start}\n')

    def at(self, path: Path) -> VEnv:
        """This environment, after it was moved or copied to *path*."""
        moved = copy.copy(self)
        moved.path = path
        moved.python = path / self.python.relative_to(self.path)
        moved.site = path / self.site.relative_to(self.path)
        return moved

    def copy(self, path: Path, *options: str) -> VEnv:
        """A copy of this environment, by ``cp`` with *options*."""
        run(["cp", *(options or ["-a"]), self.path, path])
        return self.at(path)

    def install(self, *requirements: Argument, index: Mapping[str, str] | None = None) -> None:
        """Install *requirements*, without byte code, as uv does by default; from the *index* alone if that is given.

        As copies if it is not: a test may change what it installed, and not uv's cache with it.
        """
        options = ["--offline", "--no-deps", "--link-mode", "copy"] if index is None else []
        command: list[Argument] = [
            sys.executable,
            "-m",
            "uv",
            "pip",
            "install",
            "--quiet",
            "--python",
            self.python,
            *options,
        ]
        run([*command, *requirements], env={**os.environ, **(index or {})})

    def uninstall(self, *names: str) -> None:
        run([sys.executable, "-m", "uv", "pip", "uninstall", "--quiet", "--python", self.python, *names])

    def start(
        self, code: str = "pass", *options: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Start an interpreter to run *code*."""
        return self.python_(*options, "-c", code, env=env)

    def python_(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Start an interpreter; the caller looks at everything that it did."""
        command = [*self.prefix, str(self.python), *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, errors="surrogateescape", check=False)

    def environ(self, *options: str, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment variables that a process sees after a silent and successful interpreter start."""
        done = self.start("import json, os; print(json.dumps(dict(os.environ)))", *options, env=env)
        assert (done.returncode, done.stderr) == (0, "")
        seen: dict[str, str] = json.loads(done.stdout)
        return seen

    @property
    def root(self) -> Path:
        return self.site / "cuda-build-activate" / "cu13"


def make_toolkit(site: Path, *, nvcc: bool = True, directory: str = "cu13") -> Path:
    """Make a small tree as the wheels of CUDA 13.4 install it, with a compiler that says where it was found."""
    toolkit = site / "nvidia" / directory
    files = {
        "bin/nvcc.profile": "TOP = $(_HERE_)/..\n",
        "bin/crt/link.stub": "",
        "include/crt/host_config.h": "#if __GNUC__ > 99\n",
        "include/crt/host_defines.h": "",
        "include/cuda_runtime.h": "",
        "include/cuda_runtime_api.h": f"#define CUDART_VERSION  {directory[2:]}040\n",
        "include/cccl/thrust/version.h": "",
        "include/nvvm.h": "",
        "lib/libcudart.so.13": "",
        "lib/libcudart_static.a": "",
        "lib/libcudadevrt.a": "",
        "lib/libnvvm.so.4": "",
        "nvvm/bin/cicc": "",
        "nvvm/libdevice/libdevice.10.bc": "",
        "cccl/lib/cmake/cccl/cccl-config.cmake": "",
    }
    for name, content in files.items():
        (toolkit / name).parent.mkdir(parents=True, exist_ok=True)
        (toolkit / name).write_text(content)
    if nvcc:
        script(toolkit / "bin" / "nvcc", 'echo "$0"')
    # Older than a tick of the file system's clock, as it is when a front end starts the backend.
    for path in [site, *site.rglob("*")]:
        os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)
    return toolkit


def script(path: Path, text: str) -> Path:
    """Write an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def without_cuda() -> list[str]:
    """The start of a command line for a process that sees nothing where a machine has its CUDA."""
    there = [path for path in ("/usr/local/cuda", "/usr/local/bin/nvcc") if os.path.exists(path)]
    if not there:
        return []
    if os.geteuid() != 0:
        pytest.skip(f"hiding {there[0]} needs root")
    mounts = [
        f"mount -t tmpfs none {os.path.realpath(path)}" if os.path.isdir(path) else f"mount --bind /dev/null {path}"
        for path in there
    ]
    return ["unshare", "-m", "sh", "-ec", f'{"; ".join(mounts)}; exec "$@"', "sh"]


def clean_environ() -> dict[str, str]:
    """This process's environment without anything of CUDA's, and with a PATH on which there is no nvcc."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if "CUDA" not in name.upper()
        and not name.startswith(("PIP_", "UV_", "PYTHON", "VIRTUAL_ENV", "CMAKE_", "LIBRARY_PATH"))
    }
    path = environ["PATH"].split(os.pathsep)
    environ["PATH"] = os.pathsep.join(entry for entry in path if entry and not (Path(entry) / "nvcc").exists())
    return environ


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist as a publisher builds it."""
    # A path that never was before: by its path uv takes a wheel out of its cache.
    directory = Path(tempfile.mkdtemp(prefix="dist-", dir=tmp_path_factory.getbasetemp()))
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", directory, PROJECT])
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture
def venv(tmp_path: Path, wheel: Path) -> VEnv:
    """An environment of this Python with the wheel in it and no toolkit."""
    made = VEnv(tmp_path / "venv")
    made.install(wheel)
    return made


@pytest.fixture(scope="session")
def template(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> VEnv:
    made = VEnv(tmp_path_factory.mktemp("template") / "venv")
    made.install(wheel)
    make_toolkit(made.site)
    return made


@pytest.fixture
def env(template: VEnv, tmp_path: Path) -> Iterator[VEnv]:
    """An environment with the wheel and a toolkit, in which no interpreter has started yet."""
    yield template.copy(tmp_path / "venv")
    run(["chmod", "-R", "u+rwX", tmp_path])  # so that pytest can remove it


@pytest.fixture
def environ(clean: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """An environment without another toolkit, and with a home and a cache of its own."""
    (tmp_path / "home").mkdir()
    return {**clean, "HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture
def clean() -> dict[str, str]:
    return clean_environ()


@pytest.fixture
def hostile(tmp_path: Path, clean: dict[str, str]) -> dict[str, str]:
    """An environment in which everything that a build tool may look at points at another toolkit, a broken one."""
    decoy = tmp_path / "decoy"
    script(decoy / "bin" / "nvcc", "echo 'the decoy was called' >&2; exit 1")
    for name in ("include/cuda_runtime.h", "lib64/libcudart.so", "lib64/libcublas.so", "version.txt"):
        (decoy / name).parent.mkdir(parents=True, exist_ok=True)
        (decoy / name).write_text("CUDA Version 11.0.1\n")
    shutil.copytree(decoy / "lib64", decoy / "lib")
    toolkit = dict.fromkeys(
        ("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CUDAToolkit_ROOT", "CMAKE_PREFIX_PATH"), str(decoy)
    )
    return {**clean, **toolkit, "PATH": f"{decoy}/bin{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(scope="session")
def wheelhouse(pytestconfig: pytest.Config) -> Path:
    """A directory with every wheel that the tests install, fetched once and kept in pytest's cache."""
    sets: list[tuple[str, ...]] = [
        (f"cuda-toolkit[all]=={NEWEST}", *PRODUCTS, "nvidia-cuda-cuobjdump"),
        *(
            (f"cuda-toolkit[cccl,cudart,nvcc]=={version}",)
            for version in (*TOOLKITS, OLDEST_OF_THE_EXTRA, MIXED, INCOMPLETE)
            if version != NEWEST
        ),
        *((requirement,) for requirement in WITHOUT_NVCC),
        *((tool,) for tool in BUILD_TOOLS),
    ]
    directory = Path(pytestconfig.cache.mkdir("wheelhouse"))
    with FileLock(directory / ".lock"):
        for requirements in sets:
            fetched = directory / f".{hashlib.sha256(' '.join(requirements).encode()).hexdigest()[:16]}"
            if not fetched.exists():
                command: list[Argument] = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", directory]
                run([*command, "--only-binary", ":all:", *requirements])
                fetched.touch()
    return directory


@pytest.fixture(scope="session")
def offline(wheelhouse: Path, wheel: Path, pytestconfig: pytest.Config) -> dict[str, str]:
    """The variables by which pip and uv install what the tests have fetched and the wheel under test, nothing else."""
    directories = (str(wheelhouse), str(wheel.parent))
    return {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": " ".join(directories),
        "UV_OFFLINE": "1",  # uv reads no variable for --no-index
        "UV_FIND_LINKS": ",".join(directories),
        # Several GB, which go with the checkout.
        "UV_CACHE_DIR": str(pytestconfig.cache.mkdir("uv")),
    }


@pytest.fixture(scope="session")
def full(offline: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[VEnv]:
    """An environment with every component of the newest toolkit and every product."""
    made = VEnv(tmp_path_factory.mktemp("full") / "venv")
    made.install("cuda-build-activate", f"cuda-toolkit[all]=={NEWEST}", *PRODUCTS, index=offline)
    yield made
    shutil.rmtree(made.path)


def blocks() -> list[str]:
    """The README's code blocks."""
    text = (PROJECT / "README.md").read_text()
    return re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def block(start: str) -> str:
    """The README's code block that begins with *start*."""
    (found,) = [text for text in blocks() if text.startswith(start)]
    return found


def minor_version(version: str) -> str:
    return ".".join(version.split(".")[:2])


FAULTS: dict[str, str] = {}  # by the tests that provoke them


def pytest_configure(config: pytest.Config) -> None:
    # mutants.py: where several sessions end at once, pytest fails to remove the same dead link twice.
    if os.environ.get("MUTANT_UNDER_TEST"):
        config.option.basetemp = os.path.join(tempfile.gettempdir(), f"{os.getpid()}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed, others = (
        {
            FAULTS[report.nodeid]
            for outcome in some
            for report in terminalreporter.stats.get(outcome, [])
            if report.nodeid in FAULTS
        }
        for some in (["passed"], ["failed", "error", "skipped"])
    )
    if passed:
        terminalreporter.write_line(f"{len(passed - others)} faults provoked, and withstood")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the network, and run the quick tests first."""
    for item in items:
        if "wheelhouse" in getattr(item, "fixturenames", ()):
            item.add_marker("network")
        for marker in item.iter_markers("fault"):
            FAULTS[item.nodeid] = marker.args[0]
    items.sort(key=lambda item: "network" in item.keywords)
