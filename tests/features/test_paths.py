"""Names and paths of documents: nothing leads out of a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import DataError
from features.manifest import DataFile, LeafModel, Vocabulary
from features.paths import fault_of_name, fault_of_path, inside, require_name, require_path

BAD_NAMES = [
    "", ".", "..", "a/b", "/etc", "a\\b", "a\0b", "a\nb", "%2e%2e", "%2E.", "a%2fb", "a%5Cb", "a%00b", "x" * 256,
]  # fmt: skip
BAD_PATHS = [
    "", "/etc/passwd", "\\share", "../x", "a/../../x", "a//b", "./a", "a/.", "a/", "s3://bucket/x", "file:///etc/passwd",
    "a\0b", "a/%2e%2e/b", "a%2f..%2fb",
]  # fmt: skip
GOOD_NAMES = ["dt=2026-01-19", "name=full-2026-01-19", "deepfm", "主播", "a b", ".hidden", "..a", "50% off", "x" * 255]
GOOD_PATHS = [*GOOD_NAMES, "vocabularies/user.parquet", "data/3f/written=2026-01-19/part-0.parquet"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names(name: str) -> None:
    assert fault_of_name(name) is not None
    with pytest.raises(DataError, match="the name"):
        require_name(name)


@pytest.mark.parametrize("path", BAD_PATHS)
def test_bad_paths_stop_every_document_that_has_one(path: str) -> None:
    with pytest.raises(DataError, match="the path"):
        require_path(path)
    with pytest.raises(DataError, match="the path"):
        Vocabulary(name="user", num_ids=2, path=path)
    with pytest.raises(DataError, match="the path"):
        LeafModel(path=path, digest="", trees=1, features=(), fit_days=())
    with pytest.raises(DataError, match="the path"):
        DataFile(path=path, row_groups=())


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_good_names(name: str) -> None:
    assert require_name(name) == name


@pytest.mark.parametrize("path", GOOD_PATHS)
def test_good_paths(path: str) -> None:
    assert require_path(path) == path


@given(st.lists(st.sampled_from(["a", "..", ".", "", "%2e%2e", "b c"]), min_size=1, max_size=6).map("/".join))
def test_what_passes_stays_below(path: str) -> None:
    """Against what the operating system makes of it."""
    root = Path("/root/of/it")
    if fault_of_path(path) is None:
        assert (root / path).resolve().is_relative_to(root)
        assert (root / path).resolve() != root


def test_links_out_of_the_folder_are_refused_and_others_followed(tmp_path: Path) -> None:
    folder = tmp_path / "published"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "x").write_text("x")
    (tmp_path / "outside").write_text("secret")
    (folder / "within").symlink_to("data/x")
    (folder / "out").symlink_to("../outside")
    (folder / "away").symlink_to(tmp_path)
    (tmp_path / "current").symlink_to(folder)
    assert inside(tmp_path / "current", "within").read_text() == "x", "the folder itself may be a link"
    for path in ("out", "away/outside"):
        with pytest.raises(DataError, match="is a link that leads out"):
            inside(folder, path)
