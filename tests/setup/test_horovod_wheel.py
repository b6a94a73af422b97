"""The change to Horovod's sources, the checksum, the cache: everything about the wheel but the compiling."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

import horovod_wheel
from steps import Runner, SetupError

PIN = horovod_wheel.Pin("0.28.1", "0" * 64)
TORCH_CMAKE = "if(x)\n    set(CMAKE_CXX_STANDARD 14)\nendif()\n"


def sources(root: Path, *, top: str = "set(CMAKE_CXX_STANDARD 14)\n", torch: str = TORCH_CMAKE) -> Path:
    """The two CMake files of an unpacked sdist."""
    (root / "horovod" / "torch").mkdir(parents=True)
    (root / "CMakeLists.txt").write_text(top, encoding="utf-8")
    (root / "horovod" / "torch" / "CMakeLists.txt").write_text(torch, encoding="utf-8")
    return root


def test_exactly_the_two_lines_change(tmp_path: Path) -> None:
    source = sources(
        tmp_path, top="project(h)\nset(CMAKE_CXX_STANDARD 14)\nset(CMAKE_CXX_STANDARD_REQUIRED ON)\n# 14\n"
    )
    horovod_wheel.allow_cpp20(source)
    top = (source / "CMakeLists.txt").read_text(encoding="utf-8")
    assert top == "project(h)\nset(CMAKE_CXX_STANDARD 20)\nset(CMAKE_CXX_STANDARD_REQUIRED ON)\n# 14\n"
    torch = (source / "horovod" / "torch" / "CMakeLists.txt").read_text(encoding="utf-8")
    assert torch == TORCH_CMAKE.replace("14", "20")


@pytest.mark.parametrize("torch", ["", "set(CMAKE_CXX_STANDARD 17)\n", TORCH_CMAKE + TORCH_CMAKE])
def test_other_sources_are_refused_and_left_as_they_are(tmp_path: Path, torch: str) -> None:
    source = sources(tmp_path, torch=torch)
    with pytest.raises(SetupError, match=r"horovod/torch/CMakeLists.txt of Horovod has [02] lines"):
        horovod_wheel.allow_cpp20(source)
    assert (source / "CMakeLists.txt").read_text(encoding="utf-8") == "set(CMAKE_CXX_STANDARD 14)\n"


def folder(**changes: object) -> Path:
    """The cache folder of a usual build, with some of what it depends on changed."""
    usual: dict[str, object] = {"torch": "2.13.0+cpu", "python": "3.11", "options": horovod_wheel.build_options({})}
    return horovod_wheel.cache_folder(Path("/cache"), PIN, **(usual | changes))  # type: ignore[arg-type]


def test_the_cache_folder_depends_on_what_the_binary_depends_on() -> None:
    nccl = horovod_wheel.build_options({"HOROVOD_GPU_OPERATIONS": "NCCL"})
    different = {folder(), folder(torch="2.13.0+cu130"), folder(python="3.12"), folder(options=nccl)}
    assert len(different) == 4
    assert folder(python="3.11.7") == folder()


def test_another_sdist_has_another_folder() -> None:
    options = horovod_wheel.build_options({})
    other = horovod_wheel.Pin("0.28.1", "1" * 64)
    named = {
        horovod_wheel.cache_folder(Path("/cache"), pin, torch="2", python="3.11", options=options)
        for pin in (PIN, other)
    }
    assert len(named) == 2


def test_the_cache_lies_outside_the_checkout(tmp_path: Path) -> None:
    assert horovod_wheel.cache_root({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "limelight" / "horovod"
    assert horovod_wheel.cache_root({}) == Path.home() / ".cache" / "limelight" / "horovod"


def test_options_of_a_run_are_no_options_of_the_build() -> None:
    assert horovod_wheel.options_given({"HOROVOD_TIMELINE": "t.json", "HOROVOD_RANK": "0", "PATH": "/bin"}) is None
    assert horovod_wheel.options_given({"HOROVOD_GPU_OPERATIONS": "NCCL", "HOROVOD_RANK": "0"}) == {
        "HOROVOD_GPU_OPERATIONS": "NCCL"
    }


def test_an_empty_option_goes_back_to_the_default() -> None:
    assert horovod_wheel.options_given({"HOROVOD_GPU_OPERATIONS": ""}) == {}


def test_a_given_option_overrules_its_opposite() -> None:
    options = horovod_wheel.build_options({"HOROVOD_WITH_MPI": "1"})
    assert "HOROVOD_WITHOUT_MPI" not in options
    assert options["HOROVOD_WITH_GLOO"] == "1"


def test_the_pin_of_this_project_is_whole() -> None:
    pin = horovod_wheel.read_pin(Path(horovod_wheel.__file__).parent / "requirements-horovod.lock")
    assert pin.version == "0.28.1"
    assert len(pin.sha256) == 64


def test_a_lock_without_a_hash_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "requirements-horovod.lock"
    lock.write_text("horovod==0.28.1\n", encoding="utf-8")
    with pytest.raises(SetupError, match="one version and one sha256"):
        horovod_wheel.read_pin(lock)


def a_lock_for(sdist_bytes: bytes, path: Path) -> Path:
    """A lock that names a file with these bytes."""
    sha256 = hashlib.sha256(sdist_bytes).hexdigest()
    path.write_text(f"horovod==0.28.1 --hash=sha256:{sha256}\n", encoding="utf-8")
    return path


def test_a_cached_sdist_with_the_right_checksum_needs_no_download(tmp_path: Path) -> None:
    lock = a_lock_for(b"sources", tmp_path / "lock")
    sdist = tmp_path / "sdist" / "horovod-0.28.1.tar.gz"
    sdist.parent.mkdir()
    sdist.write_bytes(b"sources")
    no_python = tmp_path / "absent"
    assert horovod_wheel.fetch_sdist(Runner(tmp_path / "log"), no_python, lock, tmp_path) == sdist


def test_a_download_with_another_checksum_is_refused(tmp_path: Path) -> None:
    lock = a_lock_for(b"sources", tmp_path / "lock")
    downloads_something_else = tmp_path / "python"
    downloads_something_else.write_text(
        '#!/bin/sh\nfor folder in "$@"; do :; done\necho other > "$folder/horovod-0.28.1.tar.gz"\n', encoding="utf-8"
    )
    downloads_something_else.chmod(0o755)
    with pytest.raises(SetupError, match=r"checksum of .*horovod-0.28.1.tar.gz differs from lock"):
        horovod_wheel.fetch_sdist(Runner(tmp_path / "log"), downloads_something_else, lock, tmp_path)


def test_a_build_that_was_cut_off_is_no_cached_wheel(tmp_path: Path) -> None:
    assert horovod_wheel.cached_wheel(tmp_path / "absent") is None
    (tmp_path / "horovod-0.28.1-cp311-cp311-linux_x86_64.whl").write_bytes(b"")
    assert horovod_wheel.cached_wheel(tmp_path) is not None


def test_the_cuda_toolkit_is_where_its_compiler_is(tmp_path: Path) -> None:
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("", encoding="utf-8")
    assert horovod_wheel.cuda_home({"CUDA_HOME": str(tmp_path), "PATH": ""}) == tmp_path
    assert horovod_wheel.cuda_home({"CUDA_HOME": str(tmp_path / "runtime-only"), "PATH": ""}) is None


def test_no_more_compilers_than_cores_or_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    gib = 1 << 30
    for memory, jobs in ((1 * gib, 1), (8 * gib, 4), (1024 * gib, 64)):
        pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": memory // 4096}
        monkeypatch.setattr(os, "sysconf", pages.__getitem__)
        assert horovod_wheel.compiler_jobs() == jobs
