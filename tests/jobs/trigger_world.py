"""A warehouse with days of samples, a train set and a published champion: real files and a real registry, no Spark."""

from __future__ import annotations

import datetime
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from features.manifest import TrainSet
from features.schema import load_catalog
from jobs.settings import Settings, model_values
from pipeline.manifests import DataFile, PartitionManifest, day_partition
from pipeline.stages.names import SAMPLES, TRAINSETS
from pipeline.tables import Warehouse
from pipeline.trainset import trainset_partition
from tests.training.raw_trainset import GATE_DAY, TRAIN_DAY, raw_samples, write_raw_trainset
from tests.training.test_registry import verdict
from training.export import export_folder
from training.models import build
from training.registry import Registry

ONE_DAY = datetime.timedelta(days=1)
BETWEEN, NEXT_DAY = TRAIN_DAY + ONE_DAY, GATE_DAY + ONE_DAY
MODEL = "deepfm"
ROWS = 400
QUIET = ("auc_drop", "calibration", "score_psi", "feature_psi", "oov")
OVERRIDES = (
    *(f"training.models=[{MODEL}]", "trigger.min_rows=50", "trigger.min_positives=5"),
    *(f"trigger.{reason}={{incremental: 9, full: null}}" for reason in QUIET),
    *("trigger.new_rows={incremental: 100000, full: null}", "trigger.hours={incremental: 48, full: 240}"),
)


@dataclass(frozen=True, kw_only=True)
class World:
    """`overrides` keep every reason quiet but hours, which fire when a third unseen day can be mature."""

    root: Path
    folder: Path
    registry: Registry
    overrides: Sequence[str] = OVERRIDES

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(str(self.root))

    @property
    def settings(self) -> Settings:
        return Settings.load("local", self.overrides)

    def publish(self) -> str:
        """The folder once more, as a further version."""
        return self.registry.publish(MODEL, self.folder, verdict(MODEL))


def make_world(root: Path) -> World:
    """Samples of the day between train and gate day, of the gate day and of the day after it; one champion."""
    settings = Settings.load("local", OVERRIDES)
    warehouse = Warehouse(str(root))
    for day in (BETWEEN, GATE_DAY, NEXT_DAY):
        commit_samples(warehouse, day)
    scratch = root / "scratch"
    raw = write_raw_trainset(scratch / "trainset", gate_rows=ROWS)
    described = raw.trainset.model_dump() | {"catalog_fingerprint": load_catalog().fingerprint()}
    trainset = TrainSet.model_validate(described)
    model = build(MODEL, trainset, {"embedding_dim": 4, "hidden": [8]}, seed=1)
    card: dict[str, Any] = {
        "name": MODEL, "trainset": trainset.name, "conf": {"model": model_values(MODEL)["model"]},
    }  # fmt: skip
    export_folder(model, trainset, raw.root, raw.samples, card, scratch / "published")
    commit_trainset(warehouse, trainset.name, settings.pipeline.trainset_fingerprint())
    world = World(root=root, folder=scratch / "published", registry=Registry.open(*settings.tracking(str(root))))
    world.publish()
    return world


def copy_warehouse(made: World, to: Path) -> None:
    """Its samples and train sets, for a test that writes beside them."""
    for folder in ("samples", "trainsets"):
        shutil.copytree(made.root / folder, to / folder)


def own_world(made: World, to: Path) -> World:
    """A warehouse of a test's own, with a registry that has the artefacts of all."""
    copy_warehouse(made, to)
    shutil.copytree(made.root / "mlflow", to / "mlflow")
    return World(root=to, folder=made.folder, registry=made.registry)


def commit_samples(warehouse: Warehouse, day: datetime.date, seed: int = 0, without: Sequence[str] = ()) -> None:
    """Rows of a day as the next generation of its partition."""
    rows = raw_samples(ROWS, day, 100 * seed + day.day).drop(list(without))
    with warehouse.attempt(SAMPLES, [day_partition(day)]) as attempt:
        files = [_written(attempt.url, attempt.path, part, half) for part, half in enumerate((rows[:250], rows[250:]))]
        content = hashlib.sha256(f"{day} {seed} {without}".encode()).hexdigest()
        _commit(warehouse, attempt.generations, SAMPLES, day_partition(day), attempt.name, files, content, rows)


def _written(url: str, path: str, part: int, rows: pa.Table) -> DataFile:
    Path(url).mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, f"{url}/part-{part}.parquet")
    return DataFile(path=f"{path}/part-{part}.parquet", rows=len(rows), bytes=1)


def _commit(
    warehouse: Warehouse,
    generations: Any,
    table: str,
    partition: str,
    attempt: str,
    files: Sequence[DataFile],
    digest: str,
    rows: pa.Table | None,
    conf: str = "unknown",
) -> None:
    manifest = PartitionManifest(
        table=table,
        partition=partition,
        generation=generations[partition],
        attempt=attempt,
        files=tuple(files),
        rows=sum(file.rows for file in files),
        digest=digest,
        schema=tuple((field.name, str(field.type)) for field in rows.schema) if rows is not None else (),
        conf=conf,
        created_at=datetime.datetime.now(datetime.UTC),
    )
    warehouse.commit([manifest])


def commit_trainset(warehouse: Warehouse, name: str, conf: str) -> None:
    """The manifest of a train set alone: nothing here reads its files."""
    partition = trainset_partition(name)
    with warehouse.attempt(TRAINSETS, [partition]) as attempt:
        _commit(warehouse, attempt.generations, TRAINSETS, partition, attempt.name, (), name, None, conf)
