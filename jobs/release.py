"""A trained model → exported, proven equal, judged, published. Nothing is published unless the gate says so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import DataError, Problem
from features.manifest import TrainSet
from features.storage import open_input, read_bytes, write_whole
from training.export import export_folder
from training.gate_conf import GateConf
from training.gate_day import judge_folders
from training.parity import check_parity
from training.registry import Registry
from training.result import MODEL_FILE, load_model, read_result
from training.storage import Folder
from training.verdict import VERDICT_FILE, Verdict

PUBLISHED_FOLDER = "published"


@dataclass(frozen=True, kw_only=True)
class Release:
    """What became of one candidate; `version` is None when the gate stopped it."""

    model: str
    verdict: Verdict
    version: str | None
    folder: Path


def read_gate_samples(trainset: TrainSet) -> pa.Table:
    """Unencoded rows of the gate day.

    Raises:
        DataError: when the train set lists none, or files of it cannot be read.
    """
    tables, unreadable = [], []
    for url in trainset.splits["gate"].sample_files:
        try:
            with open_input(url) as source:
                tables.append(pq.read_table(source))
        except (OSError, pa.ArrowException) as error:
            unreadable.append(f"{url} ({str(error).splitlines()[0]})")
    days = ", ".join(trainset.splits["gate"].days)
    if unreadable:
        remedy = "Restore them, or compute the day again (`limelight backfill --force`) and run `limelight daily`"
        what = "files cannot be read"
        raise DataError(
            [Problem(table="samples", day=days, what=what, count=len(unreadable), examples=unreadable, remedy=remedy)]
        )
    if not tables:
        remedy = "Rebuild the train set with `limelight daily`"
        raise DataError([Problem(table="samples", what="the train set names no gate-day samples", remedy=remedy)])
    return pa.concat_tables(tables)


def read_gate_rows(trainset: TrainSet, root: str) -> pa.Table:
    """Encoded rows of the gate day, as the train set holds them."""
    tables = []
    for file in trainset.splits["gate"].files:
        with open_input(f"{root}/{file.path}") as source:
            tables.append(pq.read_table(source))
    return pa.concat_tables(tables)


def release(
    model_name: str,
    run_folder: Path,
    trainset_url: str,
    registry: Registry,
    gate: GateConf | None,
    who: str | None = None,
) -> Release:
    """Export, prove, judge and publish one trained model; verdict.json goes beside it."""
    model, trainset = load_model(str(run_folder))
    samples = read_gate_samples(trainset)
    card = json.loads(read_bytes(str(run_folder / MODEL_FILE)))
    card |= {"run_folder": str(run_folder.absolute()), "trainset_url": trainset_url}
    folder = run_folder / PUBLISHED_FOLDER
    export_folder(model, trainset, trainset_url, samples, card, folder)
    parity = check_parity(model, folder, samples, read_gate_rows(trainset, trainset_url))
    verdict = judge_folders(model_name, folder, registry.champion(model_name), samples, parity, gate)
    write_whole(run_folder / VERDICT_FILE, verdict.model_dump_json(indent=1))
    version = None
    if verdict.passed:
        result = read_result(Folder(str(run_folder)))
        main = {t.task: t for t in verdict.tasks}
        metrics = {f"gate.{task}.auc": found.candidate.auc for task, found in main.items()}
        version = registry.publish(
            model_name,
            folder,
            verdict,
            run_id=result.run_id if result else None,
            metrics={name: value for name, value in metrics.items() if value is not None},
            who=who,
        )
    return Release(model=model_name, verdict=verdict, version=version, folder=folder)
