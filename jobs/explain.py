"""`limelight explain`: which inputs a trained model lives on, and for whom it is good.

    loss of AUC per permuted group    training/importance.py, on the rows that the split was judged on
    figures by segment                from the predictions of the split, by any column of the files that `fit` read

<out>/explain.json, explain.svg
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from features.encoding import flat_array
from features.errors import ConfError, DataError, NotReadyError, Problem
from features.manifest import ROW_ID_COLUMN, SplitName, TrainSet, label_column, mask_column
from features.storage import resolve
from jobs.choice_charts import LossBar, importance_picture
from jobs.console import Steps, console
from jobs.fit import SOURCE_FILE
from training.evaluation import score_column
from training.exchange import SingleExchange
from training.importance import Explained, Group, Loss, groups_of
from training.metrics import Judged, evaluate
from training.result import RESULT_FILE, load_model
from training.samples.files import SplitFiles

EXPLAIN_FILE, PICTURE_FILE = "explain.json", "explain.svg"
TOP_VALUES = 20
REST, NULL = "(all others)", "(null)"
FIGURES = ("auc", "logloss", "pcoc")


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """What was asked for.

    Attributes:
        model: folder of `limelight fit`, or <out>/models/<name> of `limelight compare`.
        split: that the model was judged on; None: test if there is one, else valid.
        rows: at most so many of them are permuted, drawn by the seed.
        by: columns of the files, whatever their role.
    """

    model: Path
    split: SplitName | None
    repeats: int
    seed: int
    rows: int
    by: tuple[str, ...]
    out: Path


def explain(options: ExplainOptions, steps: Steps) -> dict[str, Any]:
    """Permute, judge by segment, write explain.json and explain.svg; → what explain.json holds.

    Raises:
        ConfError: no such split or column.
        NotReadyError: the folder has no complete training.
        DataError: files have changed since the training.
    """
    run, root = _folders(options.model)
    model, trainset = load_model(str(run))
    split = _split(options.split, run)
    judged = pq.read_table(run / f"predictions-{split}.parquet")
    segments = {}
    for column in options.by:
        with steps.step(f"by {column}") as step:
            values = column_values(root, split, column, judged[ROW_ID_COLUMN])
            segments[column] = by_segment(judged, model.tasks, values)
            step.rows = len(judged)
    with steps.step("permute", live=False) as step:
        rows = _encoded_rows(root, trainset, split, judged[ROW_ID_COLUMN], options)
        explained, groups = Explained(model, trainset, rows), groups_of(trainset)
        lost = ranked(_losses(explained, groups, options), model.tasks)
        step.rows = len(rows)
        step.note = f"{len(groups)} groups × {options.repeats} repeats"
    document: dict[str, Any] = {
        "split": split,
        "rows": len(rows),
        "repeats": options.repeats,
        "seed": options.seed,
        "auc": explained.auc,
        "loss_of_auc": lost,
        "by": segments,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / EXPLAIN_FILE).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    bars = {
        target: [LossBar(label=one["group"], mean=one["mean"], low=one["min"], high=one["max"]) for one in entries]
        for target, entries in lost.items()
    }
    (options.out / PICTURE_FILE).write_text(importance_picture(split, bars), encoding="utf-8")
    return document


def _losses(explained: Explained, groups: Sequence[Group], options: ExplainOptions) -> list[Loss]:
    """Under a progress bar over groups and repeats."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("permute", total=len(groups) * options.repeats)

        def done(group: Group) -> None:
            bar.update(task, advance=1, description=group.name)

        return list(explained.losses(groups, repeats=options.repeats, seed=options.seed, done=done))


def _folders(model: Path) -> tuple[Path, Path]:
    """Of the run and of the encoded samples."""
    run = model.absolute() / "run"
    if not (run / RESULT_FILE).is_file():
        remedy = "Name a folder of `limelight fit`, or <out>/models/<name> of `limelight compare`, that is complete"
        raise NotReadyError([Problem(what=f"no complete training in {run}", remedy=remedy)])
    roots = [model.absolute() / "trainset", model.absolute().parent.parent / "trainset"]
    found = next((root for root in roots if (root / SOURCE_FILE).is_file()), None)
    if found is None:
        remedy = "Run the command that trained the model again: it encodes the samples anew"
        raise NotReadyError([Problem(what=f"no encoded samples in {roots[0]}", remedy=remedy)])
    return run, found


def _split(wanted: SplitName | None, run: Path) -> SplitName:
    """The split asked for, if its predictions are there."""
    names: tuple[SplitName, ...] = ("test", "valid", "gate", "train")
    there = [name for name in names if (run / f"predictions-{name}.parquet").is_file()]
    chosen = wanted or there[0]
    if chosen not in there:
        raise ConfError(f"--split {chosen}: the model was judged on {', '.join(there)}")
    return chosen


def _encoded_rows(
    root: Path, trainset: TrainSet, split: SplitName, judged: pa.ChunkedArray, options: ExplainOptions
) -> pa.Table:
    """The split's encoded rows that predictions are of; at most `options.rows`, drawn by the seed."""
    table = pa.concat_tables(pq.read_table(root / file.path) for file in trainset.splits[split].files)
    table = table.filter(pc.is_in(table[ROW_ID_COLUMN], value_set=flat_array(judged)))
    if len(table) > options.rows:
        drawn = np.random.default_rng(options.seed).choice(len(table), options.rows, replace=False)
        table = table.take(pa.array(np.sort(drawn)))
    return table


def ranked(losses: Sequence[Loss], targets: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Target → groups by falling mean loss, with spread over the repeats (sample standard deviation)."""
    found: dict[str, list[dict[str, Any]]] = {target: [] for target in targets}
    for loss in losses:
        if loss.losses:
            found[loss.target].append(
                {
                    "group": loss.group.name,
                    "kind": loss.group.kind,
                    "mean": float(np.mean(loss.losses)),
                    "std": float(np.std(loss.losses, ddof=1)) if len(loss.losses) > 1 else 0.0,
                    "min": min(loss.losses),
                    "max": max(loss.losses),
                }
            )
    return {target: sorted(entries, key=lambda entry: -entry["mean"]) for target, entries in found.items()}


def column_values(root: Path, split: str, column: str, row_ids: pa.ChunkedArray) -> pa.Array:
    """A column of somebody's files for some rows, as text.

    Raises:
        ConfError: the files have no such column, or it holds lists.
        DataError: a file has changed since it was encoded: rows are found by their number.
    """
    files: Mapping[str, list[int]] = json.loads((root / SOURCE_FILE).read_text(encoding="utf-8"))["files"]
    own = {name.removeprefix(f"{split} "): known for name, known in files.items() if name.startswith(f"{split} ")}
    changed = [url for url, known in own.items() if _size_and_time(url) != known]
    if changed:
        remedy = "Run the command that trained the model again"
        what = "files have changed since the model was trained on them"
        raise DataError([Problem(what=what, table=split, count=len(changed), examples=changed, remedy=remedy)])
    source = SplitFiles(split=split, urls=tuple(own))
    for url in source.urls:
        filesystem, path = resolve(url)
        with filesystem.open_input_file(path) as opened:
            there = pq.ParquetFile(opened).schema_arrow
        if column not in there.names:
            raise ConfError(f"--by {column}: {url} has no such column; it has {', '.join(there.names)}")
        if pa.types.is_nested(there.field(column).type):
            raise ConfError(f"--by {column}: it holds {there.field(column).type}, not one value per row")
    values = pa.chunked_array([batch.column(0).cast(pa.string()) for batch in source.batches([column])], pa.string())
    return flat_array(values.take(flat_array(row_ids)))


def _size_and_time(url: str) -> list[int]:
    filesystem, path = resolve(url)
    info = filesystem.get_file_info(path)
    return [info.size, info.mtime_ns]


def by_segment(judged: pa.Table, targets: Sequence[str], values: pa.Array) -> dict[str, list[dict[str, Any]]]:
    """Target → figures of the rows of each value: the TOP_VALUES with the most rows, then all others together."""
    named = pc.fill_null(values, NULL)
    counts = sorted(
        ((entry["values"], entry["counts"]) for entry in pc.value_counts(named).to_pylist()),
        key=lambda pair: (-pair[1], pair[0]),
    )
    top = [value for value, _ in counts[:TOP_VALUES]]
    place = pc.fill_null(pc.index_in(named, value_set=pa.array(top, pa.string())), len(top)).to_numpy()
    labels = [*top, *([REST] if len(counts) > TOP_VALUES else [])]
    return {
        target: [{"value": label} | _figures(judged, target, place == number) for number, label in enumerate(labels)]
        for target in targets
    }


def _figures(judged: pa.Table, target: str, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, Any]:
    names = (score_column(target), label_column(target), mask_column(target))
    score, label, weight = (torch.tensor(judged[name].to_numpy()[chosen]) for name in names)
    rows = Judged(score=score, label=label, weight=weight, group=torch.zeros(len(score), dtype=torch.int64))
    found = evaluate(rows, SingleExchange()).as_dict()
    return {name: found[name] for name in (*FIGURES, "rows", "positives")}


def tables(document: Mapping[str, Any]) -> Iterator[Table]:
    """What explain.json holds, for a terminal."""
    for target, entries in document["loss_of_auc"].items():
        auc = document["auc"][target]
        title = f"{target} on {document['split']}: AUC {'undefined' if auc is None else f'{auc:.4f}'}"
        table = Table("group", "kind", title=title, title_justify="left")
        for name in ("loss of AUC", "± over repeats", "least", "most"):
            table.add_column(name, justify="right")
        for entry in entries:
            shown = [f"{entry[name]:.4f}" for name in ("mean", "std", "min", "max")]
            table.add_row(entry["group"], entry["kind"], *shown)
        yield table
    for column, targets in document["by"].items():
        for target, entries in targets.items():
            table = Table(column, title=f"{target} on {document['split']} by {column}", title_justify="left")
            for name in ("AUC", "logloss", "PCOC", "rows", "positives"):
                table.add_column(name, justify="right")
            for entry in entries:
                shown = [f"{entry[name]:.4f}" if entry[name] is not None else "–" for name in FIGURES]
                table.add_row(entry["value"], *shown, f"{entry['rows']:,}", f"{entry['positives']:,}")
            yield table
