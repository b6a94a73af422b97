"""Files stay open while they fit, the one used longest ago goes first, and none is left behind."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.errors import DataError
from training import open_files
from training.open_files import OpenFiles
from training.storage import Folder


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenFiles:
    monkeypatch.setattr(open_files, "OPEN_FILES", 2)
    for name in "abc":
        pq.write_table(pa.table({"row_id": [1, 2]}), tmp_path / name)
    return OpenFiles(Folder(str(tmp_path)), ["row_id"])


def test_a_file_is_opened_once_until_others_take_its_room(files: OpenFiles) -> None:
    first, second = files.get("a"), files.get("b")
    assert files.get("a") is first
    third = files.get("c")
    assert (first.closed, second.closed, third.closed) == (False, True, False)
    assert files.get("b") is not second
    assert first.closed
    assert files.get("c") is third


def test_closing_leaves_no_file_open_and_may_be_done_twice(files: OpenFiles) -> None:
    opened = [files.get("a"), files.get("b")]
    files.close()
    files.close()
    assert all(file.closed for file in opened)


def test_a_file_without_a_column_is_refused_by_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"row_id": [1]}), tmp_path / "a")
    with pytest.raises(DataError, match=r"columns missing \(2\); e.g. c__x, d__y"):
        OpenFiles(Folder(str(tmp_path)), ["row_id", "c__x", "d__y"]).get("a")
