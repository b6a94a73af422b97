"""What is said of a machine that lacks something: real files and small scripts in place of the missing tools."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

import machine


def executable(path: Path, text: str) -> Path:
    """A script that stands where a tool would be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def python_that_says(path: Path, *, version: tuple[int, int] = (3, 11), venv: bool = True, headers: bool = True) -> str:
    """An interpreter of which only the answer to the probe exists."""
    told = {
        "version": version,
        "full_version": ".".join(map(str, version)),
        "executable": str(path),
        "venv": venv,
        "headers": headers,
    }
    return str(executable(path, f"#!/bin/sh\necho '{json.dumps(told)}'\n"))


def test_this_python_answers_the_probe() -> None:
    found = machine.probe(sys.executable)
    assert found is not None
    assert found.version == sys.version_info[:2]
    assert found.has_venv


def test_a_shim_without_a_version_is_no_python(tmp_path: Path) -> None:
    shim = executable(tmp_path / "python3.11", "#!/bin/sh\necho 'pyenv: python3.11: command not found' >&2\nexit 127\n")
    assert machine.probe(str(shim)) is None
    assert machine.probe(str(tmp_path / "absent")) is None


def test_the_first_complete_python_is_taken(tmp_path: Path) -> None:
    candidates = [
        str(tmp_path / "absent"),
        python_that_says(tmp_path / "newer", version=(3, 13)),
        python_that_says(tmp_path / "bare", venv=False),
        python_that_says(tmp_path / "whole"),
    ]
    found, lacks = machine.find_python(candidates)
    assert found is not None
    assert found.executable == tmp_path / "whole"
    assert lacks == []


def test_another_version_alone_is_a_missing_python(tmp_path: Path) -> None:
    found, lacks = machine.find_python([python_that_says(tmp_path / "newer", version=(3, 12))])
    assert found is None
    assert len(lacks) == 1
    assert lacks[0].startswith("Python 3.11 is missing: install it")
    assert "PYTHON=" in lacks[0]


def test_an_incomplete_python_names_each_missing_part(tmp_path: Path) -> None:
    bare = python_that_says(tmp_path / "bare", venv=False, headers=False)
    found, lacks = machine.find_python([bare])
    assert found is None
    assert [lack.split(":")[0] for lack in lacks] == [
        f"the venv module of {bare} is missing",
        f"the C headers of {bare} are missing",
    ]


def test_a_named_python_is_the_only_candidate() -> None:
    assert machine.python_candidates({"PYTHON": "/opt/python3.11"}) == ["/opt/python3.11"]


def test_pyenv_versions_are_candidates(tmp_path: Path) -> None:
    own = executable(tmp_path / "versions" / "3.11.9" / "bin" / "python3.11", "")
    assert str(own) in machine.python_candidates({"PYENV_ROOT": str(tmp_path)})


def test_missing_compiler_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (lack,) = machine.check_compiler({})
    assert lack.startswith("a C++ compiler is missing (looked for c++, g++, clang++): install one")
    assert "\n" not in lack


def test_cxx_decides_which_compiler_is_tried(tmp_path: Path) -> None:
    old = executable(tmp_path / "old-g++", "#!/bin/sh\nexit 1\n")
    (lack,) = machine.check_compiler({"CXX": str(old)})
    assert lack.startswith(f"the C++ compiler {old} does not know C++20")


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ on this machine")
def test_a_compiler_with_cpp20_is_enough() -> None:
    assert machine.check_compiler({"CXX": "g++"}) == []


def test_missing_make_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.check_make() == ["make is missing: install it (Debian and Ubuntu: make)."]


def test_folders_on_one_disk_need_the_sum(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    two_thirds = free * 2 // 3
    spaces = [
        machine.Space(tmp_path / "a" / "b", two_thirds, "the environment"),
        machine.Space(tmp_path / "c", two_thirds, "building"),
    ]
    assert machine.check_folders(spaces[:1]) == []
    (lack,) = machine.check_folders(spaces)
    assert lack.startswith("disk space is short: ")
    assert "the environment in" in lack
    assert "building in" in lack


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    (lack,) = machine.check_folders([machine.Space(tmp_path / "new", 0, "the environment")])
    assert lack.startswith(f"{tmp_path} cannot be written")


def test_a_place_under_a_file_that_does_not_exist_is_judged_by_its_parent(tmp_path: Path) -> None:
    assert machine.existing_parent(tmp_path / "x" / "y") == tmp_path
