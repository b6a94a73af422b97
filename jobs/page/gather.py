"""The facts of a run's page, from its folder, the manifests, and the registry. Nothing is computed anew.

runs/<train set>/summary.json              times and rows; absent where the command did not end
runs/<train set>/<model>/verdict.json      and result.json, predictions-gate.parquet, published/MANIFEST.json
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from features.errors import NotReadyError, Problem
from features.manifest import TrainSet
from features.paths import require_name
from features.spec import Entity
from features.storage import list_folders
from jobs.page.facts import HISTORY, Facts, ModelFacts, RunFacts
from jobs.page.lineage import trace
from jobs.report import read_evidence
from jobs.settings import Settings
from jobs.summary import SUMMARY_FILE, Summary
from pipeline.decision import Record
from pipeline.ledger import LOOK_BACK
from pipeline.manifests import PartitionManifest, day_partition
from pipeline.stages.names import DECISIONS, TRAINSETS, evaluation_table, profile_table
from pipeline.tables import Warehouse
from pipeline.trainset import load, trainset_partition
from training.published import MANIFEST_FILE, Contents
from training.registry import Registry
from training.verdict import VERDICT_FILE, read_verdict
from training.version_history import Version

PUBLISHED_FOLDER = "published"
KNOWN_TABLES = (profile_table(Entity.USER), profile_table(Entity.ANCHOR))
History = Callable[[str], list[Version]]
Find = Callable[[str, str], PartitionManifest | None]


class RunFolders:
    """The runs of one warehouse: which there are, and what their folders hold."""

    def __init__(self, root: Path, find: Find) -> None:
        self.root, self._find = root, find

    def names(self) -> list[str]:
        """Every folder of a run that a model was trained in."""
        return [name for name in list_folders(str(self.root)) if self.models(name)]

    def models(self, run: str) -> list[str]:
        """Models with a folder in a run."""
        folder = self.root / require_name(run)
        return [name for name in list_folders(str(folder)) if not name.startswith(".")]

    def read(self, run: str) -> RunFacts:
        """Verdicts and digests of a run.

        Raises:
            DataError: when a verdict cannot be read.
        """
        verdicts, digests = {}, {}
        for model in self.models(run):
            folder = self.root / run / model
            verdict, contents = folder / VERDICT_FILE, folder / PUBLISHED_FOLDER / MANIFEST_FILE
            if verdict.is_file():
                verdicts[model] = read_verdict(verdict.read_text(encoding="utf-8"), str(verdict))
            if contents.is_file():
                digests[model] = Contents.model_validate_json(contents.read_text(encoding="utf-8")).digest()
        manifest = self._find(TRAINSETS, trainset_partition(run))
        made_at = manifest.created_at if manifest is not None else None
        return RunFacts(name=run, made_at=made_at, verdicts=verdicts, digests=digests)

    def require(self, run: str) -> str:
        """The name of a run that is there.

        Raises:
            NotReadyError: when there is none of that name; it names the newest there are.
        """
        names = self.names()
        if run not in names:
            some = ", ".join(names[-5:]) or "none"
            remedy = f"Runs at hand: {some}; `limelight daily` makes one"
            raise NotReadyError([Problem(table="runs", what=f"there is no run {run!r} in {self.root}", remedy=remedy)])
        return run


def gather(warehouse: Warehouse, settings: Settings, history: History, run: str) -> Facts:
    """All that is known of a run.

    Args:
        history: model → its versions, newest first, as `Registry.history` gives them.

    Raises:
        NotReadyError: when there is no such run.
        DataError: when a file of it cannot be read.
    """
    find = functools.cache(warehouse.manifest)
    folders = RunFolders(settings.runs_folder(warehouse.url), find)
    runs = sorted((folders.read(name) for name in folders.names()), key=lambda found: found.order)
    place = [found.name for found in runs].index(folders.require(run))
    own, main_task = runs[place], settings.pipeline.tasks.main
    models = list(dict.fromkeys((*settings.training.models, *folders.models(run))))
    trainset = _trainset(warehouse, find, run)
    gate_day = _gate_day(own, trainset)
    return Facts(
        run=own,
        models=tuple(
            _model(warehouse, find, folders.root / run, name, history, gate_day, main_task) for name in models
        ),
        main_task=main_task,
        earlier=tuple(runs[max(0, place - HISTORY) : place]),
        summary=_summary(folders.root / run),
        trainset=trainset,
        decision=_decision(warehouse, find, own),
        gate_days={digest: r.verdicts[m].day for r in runs for m, digest in r.digests.items() if m in r.verdicts},
        empty_share=settings.trigger.empty_share if settings.trigger is not None else None,
        profiles={table: _rows(find, table, gate_day) for table in KNOWN_TABLES} if gate_day else {},
        lineage=trace(TRAINSETS, trainset_partition(run), find),
    )


def open_registry(settings: Settings, warehouse: Warehouse) -> History:
    """The history of the warehouse's registry."""
    return Registry.open(*settings.tracking(warehouse.url)).history


def _model(
    warehouse: Warehouse,
    find: Find,
    run_folder: Path,
    model: str,
    history: History,
    gate_day: datetime.date | None,
    main_task: str,
) -> ModelFacts:
    from training.result import read_result  # brings torch
    from training.storage import Folder

    folder = run_folder / model
    there = folder.is_dir()
    return ModelFacts(
        model=model,
        result=read_result(Folder(str(folder))) if there else None,
        calibration=read_evidence(folder, main_task).calibration if there else {},
        versions=tuple(history(model)),
        evaluations=tuple(
            found.evaluation for found in _evaluations(warehouse, find, model, gate_day) if found.evaluation
        ),
    )


def _evaluations(
    warehouse: Warehouse, find: Find, model: str, until: datetime.date | None
) -> Iterator[PartitionManifest]:
    """Of the champions of a model, by day, up to the gate day of the run; of all days where that is not known."""
    table = evaluation_table(model)
    last = day_partition(until) if until is not None else None
    for partition in sorted(warehouse.partitions(table)):
        manifest = find(table, partition) if last is None or partition <= last else None
        if manifest is not None:
            yield manifest


def _trainset(warehouse: Warehouse, find: Find, run: str) -> TrainSet | None:
    return load(warehouse, run)[0] if find(TRAINSETS, trainset_partition(run)) is not None else None


def _gate_day(run: RunFacts, trainset: TrainSet | None) -> datetime.date | None:
    days: Iterable[str] = {verdict.day for verdict in run.verdicts.values()}
    if trainset is not None and "gate" in trainset.splits:
        days = trainset.splits["gate"].days
    return max((datetime.date.fromisoformat(day) for day in days), default=None)


def _summary(run_folder: Path) -> Summary | None:
    return Summary.read(run_folder) if (run_folder / SUMMARY_FILE).is_file() else None


def _rows(find: Find, table: str, day: datetime.date) -> int | None:
    manifest = find(table, day_partition(day))
    return manifest.rows if manifest is not None else None


def _decision(warehouse: Warehouse, find: Find, run: RunFacts) -> Record | None:
    """The newest decision of the trigger that asked for the run; looked for among the newest LOOK_BACK."""
    found = None
    for partition in sorted(warehouse.partitions(DECISIONS))[-LOOK_BACK:]:
        manifest = find(DECISIONS, partition)
        record = manifest.decision if manifest is not None else None
        if record is not None and (record.decision.action, record.date) == (run.kind, run.date):
            found = record
    return found
