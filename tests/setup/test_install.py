"""When set-up has nothing to do, what it keeps, and what it says of a machine that lacks everything."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import install
from machine import Interpreter
from steps import Runner, SetupError

PYPROJECT = '[project]\ndependencies = ["torch==2.13.0"]\n\n[tool.ruff]\nline-length = 120\n'


@pytest.fixture
def site(tmp_path: Path) -> install.Site:
    """A checkout whose environment is a link to this Python and one installed package."""
    (tmp_path / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    made = install.Site(install.PROFILES["default"], tmp_path)
    made.python.parent.mkdir(parents=True)
    made.python.symlink_to(sys.executable)
    package(made, "torch-2.13.0+cpu")
    return made


def package(site: install.Site, name: str, *, whole: bool = True) -> Path:
    """An installed distribution, or one whose installation was killed."""
    info = site.venv / "lib" / "python3.11" / "site-packages" / f"{name}.dist-info"
    info.mkdir(parents=True)
    if whole:
        (info / "RECORD").write_text("", encoding="utf-8")
    return info


def finish(site: install.Site, options: dict[str, str] | None = None) -> None:
    """Leaves the stamp of a finished set-up."""
    site.write_stamp({"core": install.core_key(site, options or {})})


def test_a_finished_set_up_has_nothing_to_do(site: install.Site) -> None:
    assert not install.is_current(site, {})
    finish(site)
    assert install.is_current(site, {})


def test_settings_of_lint_and_tests_call_for_no_set_up(site: install.Site) -> None:
    finish(site)
    (site.root / "pyproject.toml").write_text(PYPROJECT.replace("120", "100"), encoding="utf-8")
    assert install.is_current(site, {})


def test_another_dependency_calls_for_set_up(site: install.Site) -> None:
    finish(site)
    (site.root / "pyproject.toml").write_text(PYPROJECT.replace("2.13.0", "2.14.0"), encoding="utf-8")
    assert not install.is_current(site, {})


def test_other_build_options_call_for_set_up(site: install.Site) -> None:
    finish(site)
    assert not install.is_current(site, {"HOROVOD_GPU_OPERATIONS": "NCCL"})


def test_another_build_of_torch_calls_for_set_up(site: install.Site) -> None:
    finish(site)
    shutil.rmtree(site.venv / "lib")
    package(site, "torch-2.13.0+cu130")
    assert not install.is_current(site, {})


def test_a_checkout_that_was_moved_calls_for_set_up(site: install.Site, tmp_path: Path) -> None:
    finish(site)
    moved = tmp_path / "elsewhere"
    shutil.copytree(site.venv, moved / ".venv", symlinks=True)
    shutil.copy(site.root / "pyproject.toml", moved)
    assert not install.is_current(install.Site(site.profile, moved), {})


def test_an_environment_whose_python_is_gone_calls_for_set_up(site: install.Site) -> None:
    finish(site)
    site.python.unlink()
    executable = site.root / "gone"
    executable.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    executable.chmod(0o755)
    site.python.symlink_to(executable)
    assert not install.is_current(site, {})


def test_a_broken_stamp_calls_for_set_up(site: install.Site) -> None:
    site.stamp.write_text("{", encoding="utf-8")
    assert not install.is_current(site, {})


def test_the_build_options_of_the_last_set_up_stay_until_others_are_given(site: install.Site) -> None:
    finish(site, {"HOROVOD_GPU_OPERATIONS": "NCCL"})
    assert install.chosen_options(site, {"PATH": "/bin"}) == {"HOROVOD_GPU_OPERATIONS": "NCCL"}
    assert install.chosen_options(site, {"HOROVOD_GPU_OPERATIONS": ""}) == {}


def test_packages_of_a_killed_installation_are_forgotten(site: install.Site) -> None:
    half = package(site, "numpy-1.26.4", whole=False)
    install.drop_half_installed(site)
    assert not half.exists()
    assert site.installed_version("torch") == "2.13.0+cpu"


def test_an_environment_of_this_checkout_is_kept(site: install.Site) -> None:
    (site.venv / "bin" / "pip").write_text(f"#!{site.python}\n", encoding="utf-8")
    install.make_venv(site, Runner(site.root / "log"), interpreter(site.root / "never-called"))
    assert site.installed_version("torch") == "2.13.0+cpu"


@pytest.mark.parametrize("entry", [None, "#!/another/checkout/.venv/bin/python\n"], ids=["cut off", "moved"])
def test_an_environment_that_is_cut_off_or_moved_is_made_anew(site: install.Site, entry: str | None) -> None:
    if entry:
        (site.venv / "bin" / "pip").write_text(entry, encoding="utf-8")
    maker = site.root / "python3.11"
    maker.write_text('#!/bin/sh\nmkdir -p "$3" && echo "$@" > "$3/made"\n', encoding="utf-8")
    maker.chmod(0o755)
    install.make_venv(site, Runner(site.root / "log"), interpreter(maker))
    assert (site.venv / "made").read_text(encoding="utf-8") == f"-m venv {site.venv}\n"
    assert site.installed_version("torch") is None


def interpreter(executable: Path) -> Interpreter:
    """A Python 3.11 that find_python would give."""
    return Interpreter(executable, (3, 11), "3.11.9", has_venv=True, has_headers=True)


def test_the_data_side_needs_no_room_for_a_compiler(site: install.Site) -> None:
    spark4 = install.Site(install.PROFILES["spark4"], site.root)
    assert "building Horovod" in [space.purpose for space in install.spaces(site, {})]
    assert "building Horovod" not in [space.purpose for space in install.spaces(spark4, {})]


def test_torch_must_be_pinned(site: install.Site) -> None:
    (site.root / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    with pytest.raises(SetupError, match="does not pin torch"):
        install.install_torch(site, Runner(site.root / "log"))


def test_a_bare_machine_hears_every_lack_at_once(tmp_path: Path) -> None:
    shutil.copytree(install.SETUP, tmp_path / "setup", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(install.ROOT / "pyproject.toml", tmp_path)
    ran = subprocess.run(
        [sys.executable, tmp_path / "setup" / "install.py"],
        env={"PATH": str(tmp_path / "nothing"), "HOME": str(tmp_path), "PYTHON": "no-such-python"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1
    told = ran.stderr.splitlines()
    assert [line.split(" is missing")[0] for line in told[:3]] == [
        "setup: Python 3.11",
        "setup: a C++ compiler",
        "setup: make",
    ]
    assert not (tmp_path / ".venv").exists()


def test_an_extra_is_installed_once(site: install.Site, monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[str] = []
    monkeypatch.setattr(install, "install_extra", lambda site, runner, extra: installed.append(extra))
    finish(site)
    for _ in range(2):
        install.add_extra(site, "completejourney")
    assert installed == ["completejourney"]
    assert install.is_current(site, {})
    assert set(json.loads(site.stamp.read_text(encoding="utf-8"))) == {"core", "completejourney"}
