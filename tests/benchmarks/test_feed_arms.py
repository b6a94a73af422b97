"""Every arm delivers the same rows in the same matrices, and a checksum that would notice if it did not."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from benchmarks import feed_arms, feed_passes
from benchmarks.feed_arms import ARROW, BY_ROW, OURS, Source, arms
from benchmarks.feed_data import Shape, write_rows
from benchmarks.feed_passes import Checked, Checksum, Delivered, Passes, Reading, checked_pass, require_equal
from training.batch import Batch

# Petastorm 0.13 is written against pyarrow's deprecated ParquetDataset, gives torch arrays that may not be written to,
# and leaves its files to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SHAPES = (
    Shape(name="lists", rows=700, ids=3, lists=2, length=4, keys=30),
    Shape(name="wide", rows=700, ids=2, dense=3, keys=30),
)


@pytest.fixture(scope="module", params=SHAPES, ids=lambda shape: shape.name)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Source:
    root = write_rows(request.param, tmp_path_factory.mktemp("feed"), lambda _rows: None)
    return Source(root=str(root), batch_size=64)


def layout(batch: Batch) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Name of a matrix → its type, and its shape but for the rows."""
    tensors = {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    return {name: (value.dtype, tuple(value.shape[1:])) for name, value in (tensors | dict(batch.sequences)).items()}


def test_all_arms_deliver_the_same_rows_in_the_same_matrices(source: Source) -> None:
    seen: dict[str, Checked] = {}
    layouts = []
    for name, (read, own) in arms(source, files_by_row=None).items():
        layouts.append(layout(next(iter(read(own, 0)))))
        reading = Reading(rows=own.rows, ask=partial(feed_passes.answer, read, own))
        seen[name], _ = feed_passes.whole(name, reading, 0)
        assert seen[name].dropped == 0 or name == OURS
    assert layouts[1:] == layouts[:-1]
    assert {one.whole for one in seen.values()} == {seen[ARROW].whole}
    assert seen[ARROW].whole.rows == 700


def test_rows_that_came_twice_or_with_other_values_are_noticed(source: Source) -> None:
    batches = list(feed_arms.bare_arrow(source, 0))
    for other in ([batches[1], *batches[1:]], [replace(batches[0], ids=batches[0].ids + 1), *batches[1:]]):
        with pytest.raises(ValueError, match="rows of other values"):
            checked_pass(other, source)
    assert checked_pass(batches[1:], source).dropped == len(batches[0])


def test_an_arm_may_be_given_fewer_files(source: Source) -> None:
    read, own = arms(source, files_by_row=2)[BY_ROW]
    reading = Reading(rows=own.rows, ask=partial(feed_passes.answer, read, own))
    seen, _ = feed_passes.whole(BY_ROW, reading, 0)  # Petastorm ends some passes early
    assert seen.whole.rows == own.rows
    assert 0 < own.rows < source.rows


def test_a_shuffled_pass_has_another_order_and_the_same_rows(source: Source) -> None:
    read, own = arms(source, None)[OURS]
    first, second = (torch.cat([batch.row_id for batch in read(own, number)]) for number in (0, 1))
    assert not first.equal(second)
    assert len(first) == len(second)


def changed(batch: Batch, name: str, values: Any) -> Batch:
    return replace(batch, **{name: values})


def test_a_checksum_knows_no_order_and_notices_values_that_moved() -> None:
    rows = torch.arange(12)
    ids = torch.arange(24).reshape(12, 2)
    ones = torch.ones(12, 1)
    made = Batch(
        ids=ids,
        dense=ids.float(),
        vectors={},
        sequences={"s": ids},
        labels=ones,
        label_mask=ones,
        position=None,
        group=rows,
        row_id=rows,
    )
    whole = Checksum.of(made)
    assert Checksum.of(made.rows(0, 5)) + Checksum.of(made.rows(5, 12)) == whole
    backwards = [made.rows(row, row + 1) for row in reversed(range(12))]
    assert sum(map(Checksum.of, backwards), Checksum()) == whole
    assert Checksum.of(made, rows < 5) + Checksum.of(made, rows >= 5) == whole
    assert Checksum.of(changed(made, "ids", ids.roll(1, 0))) != whole
    assert Checksum.of(changed(made, "ids", ids.flip(1))) != whole
    assert Checksum.of(changed(made, "dense", ids.float() + torch.eye(12, 2) * 1e-3)) != whole
    with pytest.raises(ValueError, match="arms delivered other rows"):
        require_equal({"a": whole, "b": Checksum.of(changed(made, "ids", ids + 1))})
    require_equal({"a": whole, "b": Checksum.of(made.rows(0, 11))})


def test_passes_are_interleaved(source: Source) -> None:
    told: list[str] = []
    known = arms(source, None)
    readings = {
        name: Reading(rows=source.rows, ask=partial(feed_passes.answer, *known[name])) for name in (OURS, ARROW)
    }
    passes = feed_passes.interleaved(readings, repeats=2, done=lambda name, _what: told.append(name))
    assert told == [OURS, ARROW, ARROW, OURS, OURS, ARROW]
    summary = passes[OURS].summary()
    assert summary["rows"] + summary["dropped"] == 700
    assert len(summary["all_s"]) == 2
    assert passes[ARROW].rows == 700


def test_a_pass_that_petastorm_cut_short_is_made_again() -> None:
    passes = [Delivered(rows=rows, row_ids=45, seconds=0.5, peak_mb=1.0) for rows in (3, 4, 10)]
    answers = iter(passes)
    reading = Reading(rows=10, ask=lambda _number: next(answers))
    assert feed_passes.whole(BY_ROW, reading, 1) == (passes[2], 2)
    short = Reading(rows=10, ask=lambda _number: passes[0])
    assert feed_passes.whole(OURS, short, 1) == (passes[0], 0)  # what ours lacks is a full batch
    with pytest.raises(ValueError, match="by row: Petastorm has ended 10 passes"):
        feed_passes.whole(BY_ROW, short, 1)


def test_an_arm_answers_from_a_process_of_its_own(source: Source) -> None:
    cores = feed_passes.own_cores()
    with feed_passes.reading_elsewhere(ARROW, source, None, cores) as reading:
        assert reading.ask(0) == feed_passes.answer(feed_arms.bare_arrow, source, 0)
        assert reading.ask(1).rows == source.rows
    assert feed_passes.own_cores() == cores


def test_a_pass_with_other_rows_than_the_first_is_an_error() -> None:
    passes = Passes(rows=10, dropped=0, row_ids=45)
    passes.add(Delivered(rows=10, row_ids=45, seconds=0.5, peak_mb=1.0))
    assert passes.rates == [20.0]
    for rows, row_ids in ((9, 45), (10, 44)):
        with pytest.raises(ValueError, match="not 10 and 45"):
            passes.add(Delivered(rows=rows, row_ids=row_ids, seconds=1.0, peak_mb=1.0))
