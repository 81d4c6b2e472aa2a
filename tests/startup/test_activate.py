"""Finding, deciding and applying, on small made-up trees."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from random import Random

import pytest
from conftest import make_toolkit, script

import cuda_build_activate
from cuda_build_activate import LONGEST, ROOT_VARIABLES, _activate, _assemble, _toolkit, activate
from cuda_build_activate._activate import decide
from cuda_build_activate._toolkit import find


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site-packages"
    site.mkdir()
    return site


def test_every_variable_points_at_one_root(site: Path) -> None:
    make_toolkit(site)
    environ = {"PATH": "/usr/bin", "CMAKE_PREFIX_PATH": "/opt/dep"}
    done = activate([site], environ)
    root = f"{site}/cuda-build-activate/cu13"
    assert done.root == root
    assert environ == done.variables
    assert environ == {
        "CUDA_BUILD_ACTIVATE_ROOT": root,
        "CUDA_BUILD_ACTIVATE_SITE": f"{root}/.site",
        "CUDA_HOME": root,
        "CUDA_PATH": root,
        "CUDA_ROOT": root,
        "CUDAToolkit_ROOT": root,
        "CUDA_TOOLKIT_ROOT_DIR": root,
        "CUDACXX": f"{root}/bin/nvcc",
        "PATH": f"{root}/bin:/usr/bin",
        "CMAKE_PREFIX_PATH": f"{root}:/opt/dep",
        "LIBRARY_PATH": f"{root}/lib64/stubs",
    }


def test_doing_it_again_changes_nothing(site: Path) -> None:
    make_toolkit(site)
    environ = {"PATH": "/usr/bin"}
    activate([site], environ)
    # What a build does between: a directory of its own in front.
    environ["PATH"] = f"/ccache:{environ['PATH']}"
    before = dict(environ)
    assert activate([site], environ).root
    assert environ == before


@pytest.mark.parametrize("switch", ["0", "off", "OFF", "false", "no"])
def test_switched_off(site: Path, switch: str) -> None:
    make_toolkit(site)
    environ = {"CUDA_BUILD_ACTIVATE": switch}
    done = activate([site], environ)
    assert (done.root, done.variables, environ) == (None, {}, {"CUDA_BUILD_ACTIVATE": switch})
    assert "switched off" in done.reason
    assert os.listdir(site) == ["nvidia"]


@pytest.mark.parametrize("switch", ["", "1", "on", "True", "yes", "13"])
def test_switched_on(site: Path, switch: str) -> None:
    make_toolkit(site)
    assert activate([site], {"CUDA_BUILD_ACTIVATE": switch}).root


@pytest.mark.parametrize("switch", ["maybe", "13.4", "-1", "²"])
def test_a_switch_that_is_none(site: Path, switch: str) -> None:
    make_toolkit(site)
    environ = {"CUDA_BUILD_ACTIVATE": switch}
    done = activate([site], environ)
    assert (done.root, environ) == (None, {"CUDA_BUILD_ACTIVATE": switch})
    assert repr(switch) in done.reason


def test_a_chosen_compiler_wins(site: Path) -> None:
    make_toolkit(site)
    environ = {"CUDACXX": "/opt/cuda/bin/nvcc"}
    assert "CUDACXX is set to /opt/cuda/bin/nvcc" in activate([site], environ).reason
    assert environ == {"CUDACXX": "/opt/cuda/bin/nvcc"}


def test_an_empty_variable_is_unset(site: Path) -> None:
    make_toolkit(site)
    environ = {"CUDACXX": "", "PATH": "", "CMAKE_PREFIX_PATH": "", "CUDA_HOME": "", "CUDA_BUILD_ACTIVATE_ROOT": ""}
    root = activate([site], environ).root
    assert environ["CUDACXX"] == f"{root}/bin/nvcc"
    assert environ["PATH"] == f"{root}/bin:{os.defpath}"
    assert environ["CMAKE_PREFIX_PATH"] == root


def test_no_toolkit(site: Path) -> None:
    (site / "nvidia" / "cublas" / "lib").mkdir(parents=True)
    environ = {"CUDA_HOME": "/usr/local/cuda"}
    done = activate([site, site / "missing", "", "relative", "/dev/null"], environ)
    assert (done.root, done.major, done.version, environ) == (None, None, None, {"CUDA_HOME": "/usr/local/cuda"})
    assert "no CUDA toolkit" in done.reason
    assert os.listdir(site) == ["nvidia"]


def test_over_an_ambient_toolkit(site: Path, tmp_path: Path) -> None:
    make_toolkit(site)
    nvcc = script(tmp_path / "system" / "bin" / "nvcc", "exit 1")
    environ = {"PATH": str(nvcc.parent), **dict.fromkeys(ROOT_VARIABLES, str(tmp_path / "system"))}
    root = activate([site], environ).root
    assert {environ[name] for name in ROOT_VARIABLES} == {root}
    assert environ["PATH"] == f"{root}/bin:{nvcc.parent}"


def test_the_innermost_environment_wins(tmp_path: Path) -> None:
    environ = {"PATH": "/usr/bin", "CMAKE_PREFIX_PATH": "/a::/b", "LIBRARY_PATH": "lib64/stubs:/opt/lib"}
    for name in ("outer", "inner"):
        make_toolkit(tmp_path / name)
        root = activate([tmp_path / name], environ).root
    assert root == f"{tmp_path}/inner/cuda-build-activate/cu13"
    assert not [value for value in environ.values() if "outer" in value]
    assert environ["PATH"] == f"{root}/bin:/usr/bin"
    assert environ["CMAKE_PREFIX_PATH"] == f"{root}:/a::/b"
    assert environ["LIBRARY_PATH"] == f"{root}/lib64/stubs:lib64/stubs:/opt/lib"


def test_a_toolkit_without_nvcc(site: Path) -> None:
    make_toolkit(site, nvcc=False)
    environ: dict[str, str] = {}
    root = activate([site], environ).root
    assert {environ[name] for name in ROOT_VARIABLES} == {root}
    assert "CUDACXX" not in environ
    before = dict(environ)
    assert activate([site], environ).root == root
    assert environ == before


def test_a_toolkit_without_nvcc_displaces_nothing(site: Path, tmp_path: Path) -> None:
    make_toolkit(site, nvcc=False)
    nvcc = script(tmp_path / "bin" / "nvcc", "exit 1")
    settings = [("PATH", str(nvcc.parent)), *((name, "/opt/cuda") for name in ROOT_VARIABLES)]
    for name, value in settings:
        environ = {name: value}
        assert "without nvcc does not displace " in activate([site], environ).reason
        assert environ == {name: value}
    make_toolkit(tmp_path / "outer")
    environ = {}
    outer = activate([tmp_path / "outer"], environ).root
    assert activate([site], environ).root is None
    assert environ["CUDA_HOME"] == outer
    assert activate([site], {}).root


def test_of_several_majors_the_newest_with_nvcc(site: Path) -> None:
    make_toolkit(site, directory="cu13")
    make_toolkit(site, directory="cu14")
    make_toolkit(site, directory="cu15", nvcc=False)
    assert os.path.basename(activate([site], {}).root or "") == "cu14"
    assert os.path.basename(activate([site], {"CUDA_BUILD_ACTIVATE": "13"}).root or "") == "cu13"
    assert activate([site], {"CUDA_BUILD_ACTIVATE": "12"}).root is None


def test_components_spread_over_entries(tmp_path: Path) -> None:
    (tmp_path / "first" / "nvidia" / "cu13" / "lib").mkdir(parents=True)
    (tmp_path / "first" / "nvidia" / "cu13" / "lib" / "libcublas.so.13").touch()
    make_toolkit(tmp_path / "second")
    (tmp_path / "third" / "cutensor" / "lib").mkdir(parents=True)
    (tmp_path / "third" / "cutensor" / "lib" / "libcutensor.so.2").touch()
    (tmp_path / "fourth").mkdir()
    paths = [tmp_path / name for name in ("first", "second", "third", "fourth")]
    toolkit = find([str(path) for path in paths])
    assert toolkit
    assert (toolkit.entries, toolkit.nvcc) == ([str(path) for path in paths[:3]], True)
    root = Path(activate(paths, {}).root or "")
    assert root.parent == tmp_path / "first" / "cuda-build-activate"
    for name in ("libcublas.so", "libcudart.so", "libcutensor.so"):
        assert (root / "lib64" / name).exists()
    # Seen through other entries it is another toolkit: the two do not take turns in one place.
    assert activate(paths[:2], {}).root != str(root)
    assert activate(paths, {}).root == str(root)


def test_one_directory_under_two_names(site: Path, tmp_path: Path) -> None:
    make_toolkit(site)
    (tmp_path / "lib64").symlink_to(site)
    toolkit = find([str(tmp_path / "lib64"), str(site)])
    assert toolkit
    assert toolkit.entries == [str(tmp_path / "lib64")]


def test_unusable_paths(site: Path) -> None:
    make_toolkit(site)
    assert find([None, 7, b"bytes", "nul\0", "", "relative", str(site)])
    with pytest.raises(TypeError, match=r"^paths must be an iterable of directories, not a single string$"):
        activate(str(site), {})


def test_version(site: Path) -> None:
    make_toolkit(site)
    done = activate([site], {})
    assert (done.rule, done.major, done.version) == (3, 13, "13.4.0")


def test_search_path_and_environment_by_default(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_toolkit(site)
    monkeypatch.syspath_prepend(site)
    assert activate().root == os.environ["CUDA_HOME"] == f"{site}/cuda-build-activate/cu13"


@pytest.mark.parametrize(
    ("environ", "rule", "code", "reason"),
    [
        ({"CUDA_BUILD_ACTIVATE": "off"}, 1, "switched-off", "switched off by CUDA_BUILD_ACTIVATE"),
        (
            {"CUDA_BUILD_ACTIVATE": "maybe"},
            1,
            "bad-switch",
            "CUDA_BUILD_ACTIVATE='maybe' is neither on nor off nor a CUDA major version",
        ),
        (
            {"CUDA_BUILD_ACTIVATE": "1" * 5000},
            1,
            "bad-switch",
            f"CUDA_BUILD_ACTIVATE='{'1' * 5000}' is neither on nor off nor a CUDA major version",
        ),
        ({"CUDACXX": "/opt/bin/nvcc"}, 2, "compiler-chosen", "CUDACXX is set to /opt/bin/nvcc"),
        (
            {"CUDACXX": "/opt/cu13/bin/nvcc", "CUDA_BUILD_ACTIVATE_ROOT": "/opt/cu14"},
            2,
            "compiler-chosen",
            "CUDACXX is set to /opt/cu13/bin/nvcc",
        ),
        ({"CUDA_BUILD_ACTIVATE": "12"}, 5, "no-toolkit", "no CUDA toolkit in this environment"),
        ({"PATH": "/" + "x" * LONGEST}, 3, "too-long", "PATH would be too long"),
        ({"LIBRARY_PATH": "/" + "x" * LONGEST}, 3, "too-long", "LIBRARY_PATH would be too long"),
    ],
)
def test_a_decision_against(site: Path, environ: dict[str, str], rule: int, code: str, reason: str) -> None:
    make_toolkit(site)
    before = dict(environ)
    done = activate([site], environ)
    assert (done.rule, done.code, done.reason, done.root) == (rule, code, f"nothing activated: {reason}", None)
    assert environ == before


def test_a_decision_for(site: Path) -> None:
    make_toolkit(site)
    root = f"{site}/cuda-build-activate/cu13"
    for reason in ("made", "found"):
        done = activate([site], {})
        assert (done.rule, done.code, done.reason) == (3, "", f"activated CUDA 13.4.0 with nvcc: {root}"), reason
    assert repr(done) == f"Activation(root={root!r}, reason={done.reason!r})"


def test_the_longest_path_that_is_activated(site: Path) -> None:
    make_toolkit(site)
    added = len(f"{site}/cuda-build-activate/cu13/bin:")
    assert activate([site], {"PATH": "x" * (LONGEST - added)}).root
    assert activate([site], {"PATH": "x" * (LONGEST - added + 1)}).root is None


def test_decisions_without_nvcc(site: Path, tmp_path: Path) -> None:
    make_toolkit(site, nvcc=False)
    done = activate([site], {})
    root = f"{site}/cuda-build-activate/cu13"
    assert (done.rule, done.code, done.reason) == (4, "", f"activated CUDA 13.4.0 without nvcc: {root}")
    assert activate([site], {"CUDA_HOME": ""}).root == root
    assert activate([site], {"CUDA_HOME": "", "CUDA_BUILD_ACTIVATE_ROOT": "/opt/cu13"}).root == root
    nvcc = script(tmp_path / "bin" / "nvcc", "exit 1")
    start = "nothing activated: CUDA 13 without nvcc does not displace "
    for name, value, seen in (("PATH", f"/bin:{nvcc.parent}", nvcc), ("CUDA_HOME", "/opt", "CUDA_HOME=/opt")):
        done = activate([site], {name: value})
        assert (done.rule, done.code, done.reason) == (4, "not-displaced", f"{start}{seen}")


def test_a_marker_that_is_no_root_of_ours(site: Path) -> None:
    make_toolkit(site)
    environ = {"CUDA_BUILD_ACTIVATE_ROOT": "/usr", "PATH": "/usr/bin:/bin", "CMAKE_PREFIX_PATH": "/usr"}
    root = activate([site], environ).root
    assert environ["PATH"] == f"{root}/bin:/usr/bin:/bin"
    assert environ["CMAKE_PREFIX_PATH"] == f"{root}:/usr"


def test_a_marker_without_its_directory_in_path(site: Path) -> None:
    make_toolkit(site)
    environ = {"PATH": "/usr/bin", "CUDA_BUILD_ACTIVATE_ROOT": f"{site}/cuda-build-activate/cu13"}
    root = activate([site], environ).root
    assert environ["PATH"] == f"{root}/bin:/usr/bin"


def test_a_path_in_which_no_toolkit_works(tmp_path: Path) -> None:
    make_toolkit(tmp_path / "a;b$")
    done = activate([tmp_path / "a;b$"], {"CUDA_BUILD_ACTIVATE_STABLE_PATH": "off"})
    assert (done.rule, done.code) == (3, "unusable-path")
    root = f"{tmp_path}/a;b$/cuda-build-activate/cu13"
    assert done.reason == f"nothing activated: no toolkit works in a path with '$': {root}"


def test_what_everybody_can_write_to(site: Path) -> None:
    wheels = make_toolkit(site)
    (site / "cuda-build-activate").touch()
    (wheels / "bin").chmod(0o777)
    done = activate([site], {})
    assert (done.rule, done.code) == (3, "open-to-others")
    assert done.reason == f"nothing activated: any user can write to {wheels}/bin"


def test_no_root_can_be_made(site: Path, tmp_path: Path) -> None:
    wheels = make_toolkit(site)
    (tmp_path / "cache" / "cuda-build-activate").mkdir(parents=True)
    (tmp_path / "cache" / "cuda-build-activate").chmod(0o755)
    (site / "cuda-build-activate").symlink_to(tmp_path)
    environ = {"XDG_CACHE_HOME": f"{tmp_path}/cache"}
    why = f"{site}/cuda-build-activate is a link; {tmp_path}/cache/cuda-build-activate is not closed to other users"
    done = activate([site], environ)
    assert (done.rule, done.code, done.root) == (3, "", str(wheels))
    assert done.reason.endswith(f"{wheels} (the wheels' own directory: no toolkit root could be made: {why})")
    (wheels / "bin" / "nvcc").unlink()
    done = activate([site], {"XDG_CACHE_HOME": f"{tmp_path}/cache"})
    assert (done.rule, done.code, done.root) == (4, "root-not-writable", None)
    assert done.reason == f"nothing activated: no toolkit root for CUDA 13 without nvcc could be made: {why}"


def test_cuda_12(site: Path) -> None:
    """Its components have a directory each, and its libraries the version."""
    (site / "nvidia" / "cuda_runtime" / "lib").mkdir(parents=True)
    assert find([str(site)]) is None
    for name in ("libcudadevrt.a", "libcudart.so.12.9.79", "libcudart_static.a"):
        (site / "nvidia" / "cuda_runtime" / "lib" / name).touch()
    assert find([str(site)]) is None  # without the headers nothing can be built
    for component, name in (("cuda_runtime", "cuda_runtime_api.h"), ("cublas", "cublas_v2.h")):
        (site / "nvidia" / component / "include").mkdir(parents=True)
        (site / "nvidia" / component / "include" / name).touch()
    (site / "nvidia_cuda_runtime_cu12-12.9.79.dist-info").mkdir()
    done = activate([site], {})
    assert (done.rule, done.major, done.version) == (4, 12, "12.9.79")
    assert done.root == f"{site}/cuda-build-activate/cu12"
    assert (Path(done.root) / "include" / "cublas_v2.h").exists()
    assert (Path(done.root) / "lib64" / "libcudart.so").resolve().name == "libcudart.so.12.9.79"


def test_a_component_without_libraries_hides_no_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "first" / "nvidia" / "cuda_runtime").mkdir(parents=True)
    (tmp_path / "first" / "nvidia" / "cux3").mkdir()
    for name in ("lib/libcudart.so.15", "include/cuda_runtime_api.h"):
        (tmp_path / "first" / "nvidia" / "cudart" / name).parent.mkdir(parents=True)
        (tmp_path / "first" / "nvidia" / "cudart" / name).touch()
    make_toolkit(tmp_path / "first", directory="cu14")
    make_toolkit(tmp_path / "second")
    (tmp_path / "link").symlink_to(tmp_path / "first")
    paths = [str(tmp_path / name) for name in ("first", "link", "second")]
    listdir = os.listdir  # in an order that is nobody's promise: here the component comes before the toolkit
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listdir(path), reverse=True))
    toolkit = find(paths, 13)
    assert toolkit
    assert (toolkit.major, toolkit.entries) == (13, [paths[0], paths[2]])
    newest = find(paths)
    assert newest
    assert newest.major == 14
    assert find(paths, 15) is None  # which lies where no wheel has it


def test_of_two_toolkits_of_a_major_version_the_first(tmp_path: Path) -> None:
    wheels = [make_toolkit(tmp_path / name) for name in ("first", "second")]
    toolkit = find([str(tmp_path / name) for name in ("first", "second")])
    assert toolkit
    assert toolkit.wheels == str(wheels[0])


def test_a_root_that_is_current_is_not_made_again(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_toolkit(site)
    for environ in ({}, {"HOME": str(tmp_path)}):
        root = activate([site], environ).root
        with monkeypatch.context() as mock:
            mock.setattr(_assemble, "assemble", None)
            assert activate([site], {"HOME": str(tmp_path)}).root == root
        shutil.rmtree(site / "cuda-build-activate", ignore_errors=True)
        (site / "cuda-build-activate").touch()
    assert str(root).startswith(f"{tmp_path}/.cache/cuda-build-activate/")
    assert (tmp_path / ".cache").stat().st_mode == 0o40700


def test_by_a_stable_path(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_toolkit(site)
    own = f"{site}/cuda-build-activate/cu13"
    monkeypatch.setattr("cuda_build_activate._root._TEMPORARY", (str(tmp_path),))
    environ = {"CUDA_BUILD_ACTIVATE_STABLE_PATH": str(tmp_path / "base")}
    (tmp_path / "base").touch()
    done = activate([site], {**environ})
    assert (done.root, done.own_root) == (own, own)
    assert done.no_stable_path == f"{tmp_path}/base is not closed to other users"
    assert done.reason == f"activated CUDA 13.4.0 with nvcc: {own} (no stable path: {done.no_stable_path})"
    (tmp_path / "base").unlink()
    done = activate([site], environ)
    assert done.root == environ["CUDA_HOME"] != own
    assert (done.own_root, done.no_stable_path, done.version) == (own, "", "13.4.0")
    assert done.reason == f"activated CUDA 13.4.0 with nvcc: {done.root} -> {own}"
    assert activate([site], environ).root == done.root
    # Where the variables lead nowhere any more, another process of the same build gets new ones.
    shutil.rmtree(tmp_path / "base")
    assert activate([site], environ).own_root == own
    assert os.path.exists(environ["CUDACXX"])
    environ["CUDA_BUILD_ACTIVATE_STABLE_PATH"] = "off"
    assert activate([site], environ).root == environ["CUDA_HOME"] == own
    assert (activate([], {}).own_root, activate([], {}).no_stable_path) == (None, "")


def test_which_environments_get_a_stable_path(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_toolkit(site)
    own = f"{site}/cuda-build-activate/cu13"
    monkeypatch.setattr("cuda_build_activate._root._TEMPORARY", ())
    monkeypatch.setattr("cuda_build_activate._root._BASE", f"{tmp_path}/cba-")
    above, begun = str(tmp_path), str(site)[:-1]
    for name, directory in (("HOME", above), ("TMPDIR", ""), ("TMPDIR", "relative"), ("TMPDIR", begun)):
        assert activate([site], {name: directory}).root == own
    monkeypatch.chdir(above)
    for name in ("TMPDIR", "TEMP", "TMP"):
        for _ in range(2):
            done = activate([site], {name: above})
            assert str(done.root).startswith(f"{tmp_path}/cba-{os.geteuid()}/")
            assert done.no_stable_path == ""
    variable = "CUDA_BUILD_ACTIVATE_STABLE_PATH"
    for value in ("off", "OFF"):
        done = activate([site], {"TMPDIR": above, variable: value})
        assert (done.root, done.no_stable_path) == (own, "")
    for value in ("relative", f"{tmp_path}/a;b"):
        done = activate([site], {"TMPDIR": above, variable: value})
        assert done.root == own
        assert done.no_stable_path == f"{variable}={value!r} is neither off nor a usable absolute path"
    # Others may search the directory above, or add to it where they cannot remove what is there.
    for mode, usable in ((0o1777, True), (0o771, True), (0o777, False)):
        base = tmp_path / f"{mode:o}" / "base"
        base.parent.mkdir()
        base.parent.chmod(mode)
        done = activate([site], {"TMPDIR": above, variable: str(base)})
        assert str(done.root).startswith(f"{base}/") == usable
        assert done.no_stable_path == ("" if usable else f"{base} is not closed to other users")


def test_names_by_which_environments_are_told_apart() -> None:
    assert len({_toolkit.fingerprint([str(number)]) for number in range(1000)}) == 1000


def test_for_the_site_directory_that_is_being_processed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which need not be on sys.path."""
    make_toolkit(site)
    environ = {"PATH": "/bin"}
    monkeypatch.setattr(sys, "path", ["/usr/lib/python3"])
    monkeypatch.setattr(os, "environ", environ)
    _activate.startup(str(site))
    assert environ["CUDA_HOME"] == f"{site}/cuda-build-activate/cu13"
    assert environ["CUDA_BUILD_ACTIVATE_SITE"] == f"{site}/cuda-build-activate/cu13/.site"
    changed = {"PATH": "/bin", "CUDA_BUILD_ACTIVATE_ROOT": environ["CUDA_HOME"], "CUDA_HOME": "/changed"}
    monkeypatch.setattr(os, "environ", {**changed})
    _activate.startup(str(site))  # by the build, for its children
    assert os.environ == changed


def test_the_site_directory_comes_first_where_it_is_not_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (str(make_toolkit(tmp_path / name).parents[1]) for name in ("first", "second"))
    for paths, entry in (([first], second), ([first, second], first)):
        monkeypatch.setattr(sys, "path", paths)
        monkeypatch.setattr(os, "environ", {"PATH": "/bin"})
        _activate.startup(second)
        assert os.environ["CUDA_HOME"].startswith(entry)
    monkeypatch.setattr(os, "environ", {"PATH": "/bin"})
    _activate.startup(None)
    assert os.environ["CUDA_HOME"].startswith(first)


def test_what_a_start_tells(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_activate, "_told", "")

    def told(verbose: str, *paths: object) -> str:
        monkeypatch.setattr(sys, "path", list(paths))
        variables = {"CUDA_BUILD_ACTIVATE_VERBOSE": verbose, "CUDA_BUILD_ACTIVATE_STABLE_PATH": "off"}
        monkeypatch.setattr(os, "environ", {"PATH": "/bin", **variables})
        _activate.startup(None)
        return capsys.readouterr().err

    make_toolkit(site)
    for silent in ("", "0", "off", "OFF"):
        assert told(silent, str(site)) == ""
    line = f"cuda-build-activate: activated CUDA 13.4.0 with nvcc: {site}/cuda-build-activate/cu13\n"
    assert [told("1", str(site)) for _ in range(2)] == [line, ""]  # a .pth file is processed twice
    assert told("1") == "cuda-build-activate: nothing activated: no CUDA toolkit in this environment\n"
    assert told("yes", str(site)) == line
    make_toolkit(tmp_path / "line\nbreak")
    assert told("1", str(tmp_path / "line\nbreak")).splitlines() == [
        r"cuda-build-activate: nothing activated: no toolkit works in a path with '\\n': "
        rf"{tmp_path}/line\nbreak/cuda-build-activate/cu13"
    ]
    make_toolkit(tmp_path / "é")
    assert f"{tmp_path}/é/" in told("1", str(tmp_path / "é"))
    monkeypatch.setattr(_activate, "find", None)
    assert told("1").startswith("cuda-build-activate: nothing activated: TypeError(")
    monkeypatch.setattr(os, "environ", {"PATH": "/bin"})
    monkeypatch.setattr(_activate, "_told", "")
    _activate.startup(None)
    assert capsys.readouterr().err == ""


def test_nothing_is_raised_at_a_start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "environ", {"PATH": "/bin", "CUDA_BUILD_ACTIVATE_VERBOSE": "1"})
    monkeypatch.setattr(sys, "path", ["/usr/lib/python3"])
    monkeypatch.setattr(_activate, "_told", "")
    with monkeypatch.context() as without:
        without.setattr(sys, "stderr", None)
        _activate.startup(None)
    monkeypatch.setattr(_activate, "startup", None)
    monkeypatch.setattr(cuda_build_activate, "searched", ())
    cuda_build_activate.startup(None)
    assert capsys.readouterr() == ("", "")


def test_roots_of_several_entries_have_names_of_their_own(tmp_path: Path) -> None:
    for name in ("first", "second", "third"):
        make_toolkit(tmp_path / name)
    sets = (["first"], ["first", "second"], ["first", "third"], ["first", "second", "third"])
    roots = [activate([tmp_path / name for name in names], {}).root for names in sets]
    assert len(set(roots)) == 4
    assert {os.path.basename(str(root)).partition("-")[0] for root in roots} == {"cu13"}
    assert all(set(str(root).partition("cu13-")[2]) <= set("0123456789abcdef") for root in roots)


CHOICES: dict[str, tuple[str | None, ...]] = {
    "CUDA_BUILD_ACTIVATE": ("", "0", "off", "1", "13", "12", "nonsense"),
    "CUDACXX": ("", "/opt/nvcc", "{root}/bin/nvcc"),
    "CUDA_BUILD_ACTIVATE_ROOT": ("", "{root}", "/other/cuda-build-activate/cu13", "/bin/cu"),
    "CUDA_HOME": ("", "/opt/cuda"),
    "PATH": ("", None, ":/bin:", "{root}/bin:/bin", "/bin:{root}/bin", "/bin/cu/bin:/bin", "/" + "x" * 40_000),
    "CMAKE_PREFIX_PATH": ("", "/opt", "{root}:/opt", "/opt:"),
    "LIBRARY_PATH": ("", "/opt", "{root}/lib64/stubs"),
    "CUDA_BUILD_ACTIVATE_RPATH": ("", "off", "relative", "absolute", "nonsense"),
    "LD_RUN_PATH": ("/opt", "{root}/lib64/."),
}


@pytest.mark.parametrize("seed", range(int(os.environ.get("SEEDS", "1500"))))
def test_the_shortcut_does_what_would_be_decided(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheels: list[str]
) -> None:
    """The short way of an ordinary start has the same result as the decision function, or none."""
    random = Random(seed)
    monkeypatch.chdir(wheels[0])
    paths: list[object] = ["/usr/lib/python3", *random.choices(wheels, k=random.choice([0, 1, 1, 1, 2]))]
    paths += random.choices([None, "", ".", 7], weights=[4, 4, 4, 1])
    random.shuffle(paths)
    sitedir = random.choice([None, None, *wheels])
    searched = [*paths] if sitedir is None or sitedir in paths else [sitedir, *paths]
    root = decide({"PATH": "/bin"}, searched).root or "/none/cu13"
    before = {"PATH": "/bin"}
    for name in random.sample([*CHOICES], k=random.choice([0, 1, 1, 2])):
        value = random.choice(CHOICES[name])
        if value is None:
            del before[name]
        else:
            before[name] = value.format(root=root)
    environ = dict(before)
    monkeypatch.setattr(os, "environ", environ)
    monkeypatch.setattr(sys, "path", paths)
    try:
        taken = cuda_build_activate.shortcut((*paths, sitedir), sitedir)  # type: ignore[arg-type]
    except Exception:
        taken = False
    decided = decide(before, searched)
    if taken:
        assert environ == {**before, **decided.variables}
    else:
        assert environ == before


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Site directories of all kinds."""
    sites = [
        tmp_path_factory.mktemp(name)
        for name in ("cu13", "cu13-too", "none", "cu14-too", "host", "cu12", "empty", "$", "stale", "product")
    ]
    for site in (sites[0], sites[1], sites[3], sites[7], sites[8]):
        make_toolkit(site)
    (sites[9] / "cutensor" / "lib").mkdir(parents=True)
    make_toolkit(sites[3], directory="cu14")
    make_toolkit(sites[4], nvcc=False)
    (sites[5] / "nvidia" / "cuda_runtime" / "lib").mkdir(parents=True)
    (sites[6] / "nvidia").mkdir()
    for site in sites:
        decide({"PATH": "/bin"}, [str(site)])  # makes the root
    (sites[8] / "nvidia" / "cu13" / "bin" / "nvcc").unlink()
    return [str(site) for site in sites]


def test_most_starts_take_no_decision(wheels: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/usr/lib/python3", wheels[0]])
    monkeypatch.setattr(os, "environ", {"PATH": "/bin"})
    assert cuda_build_activate.shortcut((*sys.path, wheels[0]), wheels[0])
    assert os.environ["CUDA_HOME"].startswith(wheels[0])
    assert cuda_build_activate.shortcut((*sys.path, ""), None)  # the child of such a process, by a .start file
    monkeypatch.setattr(sys, "path", ["/usr/lib/python3", wheels[2]])
    monkeypatch.setattr(os, "environ", {"PATH": "/bin"})
    assert cuda_build_activate.shortcut((*sys.path, wheels[2]), wheels[2])
    assert os.environ == {"PATH": "/bin"}
