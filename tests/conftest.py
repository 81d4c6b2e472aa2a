"""Real environments for the tests: the wheel as it would be published, interpreters, virtual environments, toolkits."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Union

import hermetic
import pytest
from filelock import FileLock
from lock import BUILD_TOOLS, CACHES, COMPILERS, FRONT_ENDS
from toolkits import (
    INCOMPLETE,
    MIXED,
    NEWEST,
    OLDEST_OF_THE_EXTRA,
    PRODUCTS,
    RELEASES,
    TOOLKITS,
    TORCH,
    WINDOWS_COMPONENTS,
    WINDOWS_TOOLS,
    WITHOUT_NVCC,
    lock,
    release_lock,
)

pytest.register_assert_rewrite("faults")

MACHINE = hermetic.isolate()  # what the machine says of where to fetch from; nothing else may use it

PROJECT = Path(__file__).parent.parent
Argument = Union[str, "os.PathLike[str]"]

# File modes do not apply to root with all its capabilities.
SETPRIV = shutil.which("setpriv") or "setpriv"
WITHOUT_PRIVILEGE = [SETPRIV, "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []

# Root can take the place of other users, unless it is alone in a user namespace.
_USERS = Path("/proc/self/uid_map").read_text().split()[2::3]
OTHER_USERS = os.geteuid() == 0 and max(map(int, _USERS)) > 1

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

PURE = ("--no-deps", "--platform=any", "--implementation=py", "--abi=none")

# By name: what is fetched together, each with the lock that has its versions. Only those of the example are fetched for
# the quick part.
SETS: dict[str, list[tuple[tuple[str, ...], Path]]] = {
    "example": [
        ((f"cuda-toolkit[cccl,cublas,cudart,cuobjdump,nvcc]=={NEWEST}",), release_lock(NEWEST)),
        (("cmake", "ninja", "scikit-build-core", "hatchling", "hatch-autorun", "pytest"), lock("tools")),
    ],
    "all": [
        ((f"cuda-toolkit[all]=={NEWEST}", *PRODUCTS, "nvidia-cuda-cuobjdump"), release_lock(NEWEST)),
        *(
            ((f"cuda-toolkit[cccl,cudart,nvcc]=={version}",), release_lock(version))
            for version in (*TOOLKITS, OLDEST_OF_THE_EXTRA, MIXED, INCOMPLETE)
            if version != NEWEST
        ),
        *(((requirement,), release_lock(requirement.partition("==")[2])) for requirement in WITHOUT_NVCC),
        (BUILD_TOOLS, lock("tools")),
        (("cmake==3.25.*",), lock("cmake-3.25")),
    ],
    "caches": [(CACHES, lock("caches"))],
    "ziglang": [(("ziglang",), lock("ziglang"))],
    # What scikit-build-core requires on Python 3.9 and 3.10, for every version of it.
    "older Pythons": [((*PURE, "exceptiongroup", "tomli", "typing-extensions"), lock("tools"))],
    # pip evaluates markers for the machine that it runs on, so that all are named; without cuBLAS, which takes 420 MB.
    "windows": [
        (("--platform=win_amd64", "--no-deps", "cuda-toolkit", *WINDOWS_COMPONENTS), release_lock(NEWEST)),
        (("--platform=win_amd64", "--no-deps", *WINDOWS_TOOLS), lock("tools")),
        (("--platform=win_amd64", "--no-deps", "ziglang"), lock("ziglang")),
    ],
    "front ends": [(FRONT_ENDS, lock("front-ends"))],
    "torch": [
        ((f"torch=={[*TORCH][-1]}", "cuda-toolkit[nvcc,cccl]", "setuptools", "ninja", *COMPILERS), lock("torch"))
    ],
}


# These come first, and are so run by one process each, which makes what all tests of the file use: a machine, PyTorch.
LONGEST = ("test_arm64.py", "test_torch.py", "test_windows.py")

# Most of the time of these is that of making files.
IN_MEMORY = ("test_activate.py", "test_assemble.py", "test_faults.py", "test_races.py")
MEMORY = "/dev/shm"  # noqa: S108

needs_headers = pytest.mark.skipif(
    not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")),
    reason="this Python has no headers to build extension modules with (Debian: python3-dev)",
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


def copy_example(destination: Path, *, whole: bool = False) -> Path:
    """A copy of the example, *whole*, or without its sort, which takes nvcc the most time by far."""
    project = shutil.copytree(PROJECT / "examples" / "skbuild", destination)
    if not whole:
        source = project / "src" / "skbuild_demo.cu"
        text = source.read_text().replace("<cub/device/device_radix_sort.cuh>", "<cub/version.cuh>")
        text, count = re.subn(r"^.*cub::DeviceRadixSort::SortKeys.*\n", "", text, flags=re.MULTILINE)
        assert count == 2
        source.write_text(text)
    return project


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
        import coverage

        directory = os.path.dirname(os.path.dirname(coverage.__file__))
        start = f'(sys.path.append({directory!r}), __import__("coverage").process_startup(), sys.path.pop())'
        (self.site / "0_coverage.pth").write_text(f'import sys; "coverage" in sys.modules or {start}\n')

    def at(self, path: Path) -> VEnv:
        """This environment, after it was moved or copied to *path*."""
        moved = copy(self)
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


def make_wheel(directory: Path, name: str, version: str, files: Mapping[str, str], *fields: str) -> Path:
    """Write a small wheel, with *fields* in its metadata besides, and return the path."""
    stem = f"{name.replace('-', '_')}-{version}"
    wheel = directory / f"{stem}-py3-none-any.whl"
    info = {
        "METADATA": "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *fields, ""]),
        "WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in {**files, **{f"{stem}.dist-info/{path}": text for path, text in info.items()}}.items():
            archive.writestr(path, content)
    return wheel


def script(path: Path, text: str) -> Path:
    """Write an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def without_cuda() -> list[str]:
    """The start of a command line for a process that sees no CUDA of the machine's."""
    try:
        return hermetic.without_cuda()
    except PermissionError as error:
        pytest.skip(str(error))


def loaded(installed: VEnv, code: str, environ: Mapping[str, str]) -> tuple[str, set[str]]:
    """Run *code* in an environment where no CUDA of the machine's can answer.

    Return what it printed, and the libraries of CUDA's that it loaded: all of them the environment's own, by their path
    in site-packages; the driver is none of them.
    """
    mapped = "import sys; sys.stdout.flush(); print('mapped', *open('/proc/self/maps'), sep='\\n')"
    printed = run([*without_cuda(), installed.python, "-c", f"{code}\n{mapped}"], env=environ)
    output, _, maps = printed.partition("mapped\n")
    paths = set(re.findall(r"/.*/lib(?:cu|nv|nccl)[^/]*\.so\S*", maps))
    libraries = {path for path in paths if not path.endswith("/stubs/libcuda.so")}
    assert [path for path in libraries if not path.startswith(f"{installed.site}/")] == []
    return output, {path.removeprefix(f"{installed.site}/") for path in libraries}


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


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """No test passes on what it has set: activation sets variables in this process, too."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session", autouse=True)
def staying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For the package in this process, too, the tests' environments are none of a front end's temporary ones."""
    with pytest.MonkeyPatch.context() as mock:
        mock.setattr("cuda_build_activate._root._TEMPORARY", ())
        mock.setattr("cuda_build_activate._root._BASE", f"{tmp_path_factory.mktemp('stable')}/")
        yield


@pytest.fixture
def clean() -> dict[str, str]:
    """An environment without anything of CUDA's."""
    return dict(os.environ)


# The root of an isolated build, by its stable path, in the default base or in one of a test's own.
STABLE = r"/tmp/(?:cba-\d+|s\w+/c)/\w+/cu13(?:\.\d+)?"  # noqa: S108  # that is where it is


def by_default(environ: Mapping[str, str]) -> dict[str, str]:
    """*environ* without what the tests set, for builds in temporary environments."""
    return {name: value for name, value in environ.items() if name != "CUDA_BUILD_ACTIVATE_STABLE_PATH"}


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


@pytest.fixture
def base() -> Iterator[str]:
    """A directory for the stable paths of one test: in the default one, another test takes a path that becomes free."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="s") as directory:
        yield f"{directory}/c"


@pytest.fixture
def temporary(hostile: dict[str, str], base: str) -> dict[str, str]:
    """A hostile environment for builds in temporary environments."""
    return {**hostile, "CUDA_BUILD_ACTIVATE_STABLE_PATH": base}


def in_memory() -> bool:
    """Whether programs can be started from /dev/shm, and some space is left there: a container's has little."""
    try:
        found = os.statvfs(MEMORY)
    except OSError:
        return False
    return not found.f_flag & os.ST_NOEXEC and found.f_bavail * found.f_frsize > 2 << 30 and os.access(MEMORY, os.W_OK)


@pytest.fixture
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory for files by the thousand: in memory, if that can be."""
    place = tempfile.mkdtemp(prefix="tests-", dir=MEMORY) if in_memory() else tmp_path_factory.mktemp("memory")
    yield Path(place)
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest) -> Path:
    """pytest's own, but in memory for the tests of IN_MEMORY."""
    path: Path = request.getfixturevalue("memory" if request.path.name in IN_MEMORY else "tmp_path")
    return path


def fetch(name: str, config: pytest.Config) -> Path:
    """Fetch the wheels of a set, once, into a directory in pytest's cache, and return that."""
    # What is for Windows has names that other tests look for.
    directory = Path(config.cache.mkdir("wheelhouse-windows" if name == "windows" else "wheelhouse"))
    with FileLock(directory / ".lock"):
        for requirements, versions in SETS[name]:
            wanted = f"{' '.join(requirements)} {versions.read_text()}"
            fetched = directory / f".{hashlib.sha256(wanted.encode()).hexdigest()[:16]}"
            if not fetched.exists():
                command: list[Argument] = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", directory]
                # As a variable, it takes the place of constraints that the machine may have.
                constraint = {"PIP_CONSTRAINT": str(versions)}
                run([*command, "--only-binary", ":all:", *requirements], env={**MACHINE, **constraint})
                fetched.touch()
    return directory


def index_of(wheelhouse: Path, wheel: Path, config: pytest.Config) -> dict[str, str]:
    """The variables by which pip and uv install what the tests have fetched and the wheel under test, nothing else."""
    directories = (str(wheelhouse), str(wheel.parent))
    return {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": " ".join(directories),
        # uv reads no variable for --no-index, and prefers what its cache has of an index that it may not ask.
        "UV_OFFLINE": "1",
        "UV_DEFAULT_INDEX": config.cache.mkdir("no-index").as_uri(),
        "UV_FIND_LINKS": ",".join(directories),
        # Several GB, which go with the checkout.
        "UV_CACHE_DIR": str(config.cache.mkdir("uv")),
    }


@pytest.fixture(scope="session")
def for_the_example(wheel: Path, pytestconfig: pytest.Config) -> dict[str, str]:
    """As `offline`, with no more than the example needs."""
    return index_of(fetch("example", pytestconfig), wheel, pytestconfig)


@pytest.fixture(scope="session")
def cuobjdump(for_the_example: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that shows the device code in a file."""
    made = VEnv(tmp_path_factory.mktemp("cuobjdump") / "venv")
    made.install("nvidia-cuda-cuobjdump", index=for_the_example)
    program = made.site / "nvidia" / "cu13" / "bin" / "cuobjdump"
    done = subprocess.run(
        [program, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if "GLIBC_" in done.stdout:  # that for arm64 needs a newer C library than Debian 12 has
        pytest.skip(f"cuobjdump does not run here: {done.stdout}")
    assert done.returncode == 0, done.stdout
    return program


@pytest.fixture(scope="session")
def wheelhouse(pytestconfig: pytest.Config) -> Path:
    """A directory with every wheel that the tests install."""
    return fetch("all", pytestconfig)


@pytest.fixture(scope="session")
def offline(wheelhouse: Path, wheel: Path, pytestconfig: pytest.Config) -> dict[str, str]:
    """The variables by which pip and uv install what the tests have fetched and the wheel under test, nothing else."""
    return index_of(wheelhouse, wheel, pytestconfig)


@pytest.fixture(scope="session")
def full(offline: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[VEnv]:
    """An environment with every component of the newest toolkit and every product."""
    made = VEnv(tmp_path_factory.mktemp("full") / "venv")
    made.install("cuda-build-activate", f"cuda-toolkit[all]=={NEWEST}", *PRODUCTS, index=offline)
    yield made
    shutil.rmtree(made.path)


@pytest.fixture
def driver(clean: dict[str, str], full: VEnv, tmp_path: Path) -> dict[str, str]:
    """An environment for programs, with this package's stub in the place of the driver, and no other library."""
    run([full.python, "-c", ""], env=clean)
    (tmp_path / "driver").mkdir()
    (tmp_path / "driver" / "libcuda.so.1").symlink_to(full.root / "lib64" / "stubs" / "libcuda.so")
    return {**clean, "LD_LIBRARY_PATH": f"{tmp_path}/driver"}


# What a person reads.
PAGES = [PROJECT / "README.md", *sorted(PROJECT.glob("docs/**/*.md"))]


def blocks(page: Path) -> list[str]:
    """The code blocks of a page."""
    return re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def block(start: str) -> str:
    """The one code block that begins with *start*, on whatever page it is."""
    (found,) = [text for page in PAGES for text in blocks(page) if text.startswith(start)]
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fetch", action="store_true", help="fetch what the tests install and survey, and run none")
    parser.addoption(
        "--unlocked", action="append", metavar="RELEASE", help="survey these releases, which the tests do not know yet"
    )


def pytest_configure(config: pytest.Config) -> None:
    MACHINE.update(getattr(config, "workerinput", {}).get("machine", {}))
    if config.option.fetch:
        for name in SETS:
            fetch(name, config)
        import layout  # which imports this module

        for platform in layout.PLATFORMS:
            layout.survey(platform, Path(config.cache.mkdir("wheel-layouts")), RELEASES)
        pytest.exit("all is fetched", 0)
    # mutants.py: where several sessions end at once, pytest fails to remove the same dead link twice.
    if os.environ.get("MUTANT_UNDER_TEST"):
        config.option.basetemp = os.path.join(tempfile.gettempdir(), f"{os.getpid()}")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Tell a worker of pytest-xdist, whose environment is isolated already, what the machine's is."""
    node.workerinput["machine"] = MACHINE  # type: ignore[attr-defined]  # that plugin's


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed, others = (
        {
            value
            for outcome in some
            for report in terminalreporter.stats.get(outcome, [])
            for name, value in getattr(report, "user_properties", ())
            if name == "fault"
        }
        for some in (["passed"], ["failed", "error", "skipped"])
    )
    if passed:
        terminalreporter.write_line(f"{len(passed - others)} faults provoked, and withstood")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what fetches, and run the quick tests first."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "wheelhouse" in fixtures:
            item.add_marker("everything")
        if {"wheelhouse", "for_the_example"}.intersection(fixtures) or item.get_closest_marker("everything"):
            item.add_marker("network")
        item.user_properties += [("fault", marker.args[0]) for marker in item.iter_markers("fault")]
    items.sort(
        key=lambda item: ("network" in item.keywords, "everything" in item.keywords, item.path.name not in LONGEST)
    )
