"""Horovod as a wheel: the pinned sdist, two lines changed, built once per (torch, Python, options) and cached.

1. the sdist, from pip's index, its SHA-256 compared with the lock
2. the C++ standard raised from 14 to 20 in two CMake files: torch 2.13's headers ask for it
3. `pip wheel` with the compiler of this machine, about 3 minutes on 2 cores
4. <cache>/<version, torch, Python>-<key>/horovod-*.whl, which every later clone installs in a second

<cache> is ${XDG_CACHE_HOME:-~/.cache}/limelight/horovod.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from machine import GIB
from steps import Runner, SetupError, say

_STANDARD = "set(CMAKE_CXX_STANDARD 14)"
CPP20_EDITS = {
    "CMakeLists.txt": _STANDARD,
    "horovod/torch/CMakeLists.txt": "    " + _STANDARD,
}
_DEFAULT_OPTIONS = {
    "HOROVOD_WITH_PYTORCH": "1",
    "HOROVOD_WITH_GLOO": "1",
    "HOROVOD_WITHOUT_MPI": "1",
    "HOROVOD_WITHOUT_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
}
# Options of the build; other HOROVOD_ variables (HOROVOD_TIMELINE, HOROVOD_RANK, ...) belong to a run.
_OPTION = re.compile(
    r"HOROVOD_(WITH_\w+|WITHOUT_\w+|GPU\w*|CPU_OPERATIONS|CUDA_HOME|ROCM_\w+|NCCL_\w+|BUILD_\w+|ALLOW_MIXED_GPU_IMPL)$"
)
_MEMORY_PER_COMPILER = 2 * GIB


class Pin(NamedTuple):
    """The sdist that the lock names."""

    version: str
    sha256: str


def read_pin(lock: Path) -> Pin:
    """Version and checksum of the sdist. Raises SetupError on a lock that names not exactly one of each."""
    text = lock.read_text(encoding="utf-8")
    versions = re.findall(r"^horovod==(\S+)", text, re.MULTILINE)
    hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})", text)
    if len(versions) != 1 or len(hashes) != 1:
        raise SetupError(f"{lock} must name one version and one sha256 of horovod: restore it from git.")
    return Pin(versions[0], hashes[0])


def options_given(environ: Mapping[str, str]) -> dict[str, str] | None:
    """Build options from the environment; None when none is there, so that an earlier choice stays.

    An option that is set but empty says "the default": `make setup HOROVOD_GPU_OPERATIONS=` goes back to the CPU build.
    """
    named = {name: value for name, value in environ.items() if _OPTION.match(name)}
    return {name: value for name, value in sorted(named.items()) if value} if named else None


def build_options(given: Mapping[str, str]) -> dict[str, str]:
    """The options of the build: Gloo and PyTorch only, overlaid with what was given."""
    options = {**_DEFAULT_OPTIONS, **given}
    for name in given:
        if name.startswith("HOROVOD_WITH_"):
            options.pop(name.replace("_WITH_", "_WITHOUT_"), None)
        elif name.startswith("HOROVOD_WITHOUT_"):
            options.pop(name.replace("_WITHOUT_", "_WITH_"), None)
    return options


def cache_root(environ: Mapping[str, str]) -> Path:
    """Outside the checkout, so that a second clone finds it."""
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "limelight" / "horovod"


def cache_folder(root: Path, pin: Pin, *, torch: str, python: str, options: Mapping[str, str]) -> Path:
    """Folder of the wheel; its name changes with everything that the binary depends on.

    Args:
        torch: installed version with its build, e.g. "2.13.0+cpu".
        python: full version, e.g. "3.11.7"; the extension depends on its first two numbers.
    """
    tag = "cp" + "".join(python.split(".")[:2])
    parts = [
        pin,
        torch,
        tag,
        platform.machine(),
        platform.libc_ver(),
        sorted(options.items()),
        sorted(CPP20_EDITS.items()),
    ]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
    return root / f"{pin.version}-torch{torch}-{tag}-{key}"


def cached_wheel(folder: Path) -> Path | None:
    """The finished wheel; a build that was cut off leaves none."""
    return next(iter(sorted(folder.glob("horovod-*.whl"))), None)


def allow_cpp20(source: Path) -> None:
    """Raises the C++ standard of the unpacked sdist, one line in each of two files.

    Raises:
        SetupError: a file has not exactly one such line, so this is not the Horovod tried; nothing is written.
    """
    edited: dict[Path, str] = {}
    for name, line in CPP20_EDITS.items():
        path = source / name
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        if lines.count(line) != 1:
            raise SetupError(
                f"{name} of Horovod has {lines.count(line)} lines `{line.strip()}`, not 1: "
                "the sdist is not the one this was made for; restore setup/ from git."
            )
        edited[path] = "\n".join(item.replace("14", "20") if item == line else item for item in lines) + "\n"
    for path, text in edited.items():
        path.write_text(text, encoding="utf-8")


def fetch_sdist(runner: Runner, python: Path, lock: Path, root: Path) -> Path:
    """The sdist in the cache, downloaded when it is not there, its checksum compared in any case."""
    pin = read_pin(lock)
    sdist = root / "sdist" / f"horovod-{pin.version}.tar.gz"
    if not sdist.is_file() or _sha256(sdist) != pin.sha256:
        with tempfile.TemporaryDirectory(dir=_made(sdist.parent)) as folder:
            command: list[str | Path] = [
                python,
                "-m",
                "pip",
                "download",
                "--no-deps",
                "--no-binary",
                ":all:",
                "--no-build-isolation",
            ]
            runner.run([*command, "--require-hashes", "-r", lock, "-d", folder])
            (Path(folder) / sdist.name).replace(sdist)
    if _sha256(sdist) != pin.sha256:
        raise SetupError(f"checksum of {sdist} differs from {lock.name}: remove the file and run set-up again.")
    return sdist


def build_wheel(
    runner: Runner, python: Path, sdist: Path, folder: Path, *, options: Mapping[str, str], environ: Mapping[str, str]
) -> Path:
    """Compiles the wheel into `folder` (whole, or not at all) and returns its path."""
    with tempfile.TemporaryDirectory(dir=_made(folder.parent), prefix="build-") as scratch_name:
        scratch = Path(scratch_name)
        with tarfile.open(sdist) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # older 3.11s have no filters
            archive.extractall(scratch)
        source = next(path for path in scratch.iterdir() if path.is_dir())
        allow_cpp20(source)
        command: list[str | Path] = [
            python,
            "-m",
            "pip",
            "wheel",
            "--verbose",
            "--no-deps",
            "--no-index",
            "--no-build-isolation",
        ]
        runner.run([*command, "-w", scratch / "wheel", source], env=_build_environment(environ, python, options))
        built = next((scratch / "wheel").glob("horovod-*.whl"))
        target = _made(folder) / built.name
        built.replace(target)
    return target


def _build_environment(environ: Mapping[str, str], python: Path, options: Mapping[str, str]) -> dict[str, str]:
    """CMake of the virtual environment first on PATH; the options of make itself replaced by a number of jobs."""
    of_make = ("MAKELEVEL", "MFLAGS", "MAKEFLAGS", "MAKEOVERRIDES")
    kept = {name: value for name, value in environ.items() if name not in of_make and not _OPTION.match(name)}
    search = f"{python.parent}{os.pathsep}{environ.get('PATH', os.defpath)}"
    return {**kept, **options, "PATH": search, "MAKEFLAGS": f"-j{compiler_jobs()}"}


def cuda_home(environ: Mapping[str, str]) -> Path | None:
    """The CUDA toolkit to build with: one that is named, else that of nvcc on PATH, else the usual place."""
    named = environ.get("HOROVOD_CUDA_HOME") or environ.get("CUDA_HOME")
    on_path = shutil.which("nvcc", path=environ.get("PATH"))
    usual = Path("/usr/local/cuda")
    home = Path(named) if named else Path(on_path).resolve().parent.parent if on_path else usual
    return home if (home / "bin" / "nvcc").is_file() else None


def compiler_jobs() -> int:
    """As many compilers as there are cores, but no more than fit in memory: torch's headers take about 2 GiB each."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, memory // _MEMORY_PER_COMPILER))


def forget(folder: Path) -> None:
    """Drops a cached wheel that does not load here (another C library, a broken disk)."""
    say(f"the cached wheel in {folder} does not load here; it is built again")
    shutil.rmtree(folder)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
