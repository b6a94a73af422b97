"""What the machine must have before anything is installed; every lack is one line with its remedy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

PYTHON_VERSION = (3, 11)
GIB = 1 << 30
_PROBE_TIMEOUT_S = 60
_PROBE = """
import importlib.util, json, os, sys, sysconfig
print(json.dumps({
    "version": sys.version_info[:2],
    "full_version": sys.version.split()[0],
    "executable": sys.executable,
    "venv": all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")),
    "headers": os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")),
}))
"""


class Interpreter(NamedTuple):
    """A Python found on this machine."""

    executable: Path
    version: tuple[int, int]
    full_version: str
    has_venv: bool
    has_headers: bool

    @property
    def is_complete(self) -> bool:
        """Can it make a virtual environment and compile an extension?"""
        return self.version == PYTHON_VERSION and self.has_venv and self.has_headers


class Space(NamedTuple):
    """Room that a folder must have, in bytes."""

    folder: Path
    needed: int
    purpose: str


def probe(executable: str) -> Interpreter | None:
    """Asks a Python what it is; None when it does not answer (a pyenv shim without a version, say)."""
    try:
        asked = subprocess.run(
            [executable, "-I", "-c", _PROBE],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PROBE_TIMEOUT_S,
        )
        told = json.loads(asked.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
    major, minor = told["version"]
    return Interpreter(
        Path(told["executable"]), (major, minor), told["full_version"], bool(told["venv"]), bool(told["headers"])
    )


def python_candidates(environ: Mapping[str, str]) -> list[str]:
    """Where a Python 3.11 may be: only PYTHON when it is set, else PATH and pyenv's versions."""
    if environ.get("PYTHON"):
        return [environ["PYTHON"]]
    wanted = ".".join(map(str, PYTHON_VERSION))
    pyenv = Path(environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    own = sorted(pyenv.glob(f"versions/{wanted}.*/bin/python{wanted}"), reverse=True)
    return [f"python{wanted}", "python3", "python", f"/usr/local/bin/python{wanted}", *map(str, own)]


def find_python(candidates: Iterable[str]) -> tuple[Interpreter | None, list[str]]:
    """The first complete Python 3.11; where there is none, the lacks of the nearest one."""
    nearest: Interpreter | None = None
    for candidate in candidates:
        found = probe(candidate)
        if found is None or found.version != PYTHON_VERSION:
            continue
        if found.is_complete:
            return found, []
        nearest = nearest or found
    if nearest is None:
        lack = (
            "Python 3.11 is missing: install it (Debian and Ubuntu: python3.11 python3.11-venv python3.11-dev) "
            "or name one with `make setup PYTHON=/path/to/python3.11`."
        )
        return None, [lack]
    lacks = []
    if not nearest.has_venv:
        lacks.append(f"the venv module of {nearest.executable} is missing: install it (Debian: python3.11-venv).")
    if not nearest.has_headers:
        lacks.append(f"the C headers of {nearest.executable} are missing: install them (Debian: python3.11-dev).")
    return None, lacks


def check_compiler(environ: Mapping[str, str]) -> list[str]:
    """A compiler that speaks C++20, which torch's headers ask for; the first that CMake would pick is tried."""
    names = [environ["CXX"]] if environ.get("CXX") else ["c++", "g++", "clang++"]
    compiler = next((path for path in (shutil.which(name) for name in names) if path), None)
    if compiler is None:
        lack = (
            f"a C++ compiler is missing (looked for {', '.join(names)}): install one "
            "(Debian and Ubuntu: g++; Red Hat: gcc-c++) or set CXX to it."
        )
        return [lack]
    command = [compiler, "-std=c++20", "-fsyntax-only", "-x", "c++", "-"]
    tried = subprocess.run(command, input=b"#include <concepts>\nint main() {}\n", capture_output=True)
    if tried.returncode:
        return [f"the C++ compiler {compiler} does not know C++20: install g++ 11 or newer and set CXX to it."]
    return []


def check_make() -> list[str]:
    """CMake builds Horovod with make."""
    return [] if shutil.which("make") else ["make is missing: install it (Debian and Ubuntu: make)."]


def existing_parent(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def check_folders(spaces: Iterable[Space]) -> list[str]:
    """Write permission, and free disk per file system: folders on the same one need the sum."""
    lacks = []
    per_device: dict[int, list[Space]] = {}
    for space in spaces:
        folder = existing_parent(space.folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            lacks.append(f"{folder} cannot be written ({space.purpose}): give yourself write permission on it.")
        per_device.setdefault(folder.stat().st_dev, []).append(space)
    for group in per_device.values():
        needed = sum(space.needed for space in group)
        free = shutil.disk_usage(existing_parent(group[0].folder)).free
        if free < needed:
            purposes = ", ".join(f"{space.purpose} in {space.folder}" for space in group)
            lacks.append(
                f"disk space is short: {free / GIB:.1f} GiB free, {needed / GIB:.1f} GiB needed ({purposes}): "
                "free some space, or move the checkout, TMPDIR or XDG_CACHE_HOME to a larger disk."
            )
    return lacks
