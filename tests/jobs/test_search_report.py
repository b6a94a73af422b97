"""The report of a search: how its columns are named."""

from __future__ import annotations

from jobs.search_report import shortest


def test_a_column_is_named_by_what_tells_it_apart() -> None:
    keys = ["optim.dense.learning_rate", "optim.embedding.learning_rate", "model.dropout", "epochs"]
    assert shortest(keys) == ["dense.learning_rate", "embedding.learning_rate", "dropout", "epochs"]
    assert shortest(["a.b", "b"]) == ["a.b", "b"]
