"""From samples to a train set: fitted artefacts, encoded splits, one manifest.

Steps:
  1. tasks       labels counted per split; tasks that the gate day cannot judge are left out by name
  2. artefacts   vocabularies (fit + train days), normaliser and booster (fit days only)
  3. splits      train (with replayed rows, if it is incremental), valid, gate: encoded and packed in equal row groups
  4. commit      trainset.json, then the partition `trainsets/name=<name>`
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from features import manifest as names
from features import storage
from features.encoding import Encoder, VocabularyIndex, load_booster
from features.errors import NotReadyError, Problem
from features.manifest import Split, SplitName, TrainSet
from features.schema import Catalog, label_name, mask_name
from pipeline import artefacts
from pipeline.artefacts import Artefacts
from pipeline.attempts import Attempt
from pipeline.config import PipelineConf, TrainDays
from pipeline.manifests import DataFile, PartitionManifest, day_partition
from pipeline.pack import PackPlan, pack
from pipeline.stages.names import SAMPLES, TRAINSETS
from pipeline.tables import Warehouse
from pipeline.task_choice import Counts, choose_tasks, count_labels
from pipeline.train_rows import SplitRows, downsampled, is_train_row, replay_rate, rows_by_day

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Report = Callable[[str], None]
SplitDays = Mapping[SplitName, tuple[datetime.date, ...]]


def trainset_partition(name: str) -> str:
    """Name of the partition of a train set."""
    return f"name={name}"


def load(warehouse: Warehouse, name: str) -> tuple[TrainSet, str]:
    """A committed train set and the URL of its folder.

    Raises:
        NotReadyError: when there is none of that name.
    """
    found = warehouse.manifest(TRAINSETS, trainset_partition(name))
    if found is None:
        remedy = f"Run `limelight daily`; train sets at hand: {warehouse.partitions(TRAINSETS) or 'none'}"
        raise NotReadyError([Problem(table=TRAINSETS, what=f"there is no train set {name!r}", remedy=remedy)])
    root = f"{warehouse.table_url(TRAINSETS)}/data/{found.attempt}"
    return TrainSet.model_validate_json(storage.read_bytes(f"{root}/{names.TRAINSET_FILE}")), root


@dataclass(frozen=True, kw_only=True)
class ChosenTasks:
    """What the models of a train set learn; `left_out` and `unjudged` say why, as in `TrainSet`."""

    tasks: tuple[names.Task, ...]
    left_out: Mapping[str, str]
    unjudged: Mapping[str, str] = field(default_factory=dict)


class TrainSetBuilder:
    """Builds one train set; `previous` lends its booster and normaliser (incremental, or young enough)."""

    def __init__(
        self, spark: SparkSession, warehouse: Warehouse, catalog: Catalog, conf: PipelineConf, source: str
    ) -> None:
        self._spark = spark
        self._warehouse = warehouse
        self._catalog = catalog
        self._conf = conf
        self._source = source

    def build(
        self,
        name: str,
        days: TrainDays,
        previous: str | None = None,
        *,
        warm: bool = False,
        report: Report = lambda _: None,
    ) -> tuple[TrainSet, str]:
        """Compute, write and commit the train set.

        Args:
            previous: name of the train set whose booster and normaliser are kept.
            warm: models of `previous` go on learning on this one, so its tasks are kept too; its id numbering is
                continued, as fitting on more days only appends ids.

        Returns:
            The train set and the URL of its folder.
        """
        split_days: SplitDays = {"train": days.train, "valid": days.valid, "gate": (days.gate,)}
        with self._warehouse.attempt(TRAINSETS, [trainset_partition(name)]) as attempt:
            report("counting labels")
            counts = self._count(split_days)
            lender = load(self._warehouse, previous) if previous else None
            continued = lender[0] if lender and warm else None
            chosen = self._choose(counts["gate"], continued)
            train = self._train_rows(name, days, chosen.tasks, counts["train"])
            report("fitting vocabularies, normaliser and booster")
            samples = self._warehouse.read_days(self._spark, SAMPLES, (*days.fit, *days.train))
            fitted = artefacts.fit(samples, self._catalog, self._conf, days, lender, warm=warm)
            draft = self._describe(name, fitted, chosen, days, continued, train.replayed)
            self._write_artefacts(attempt.url, draft, fitted)
            splits: dict[SplitName, Split] = {}
            for split, its_days in split_days.items():
                report(f"encoding the {split} split")
                rows = train if split == "train" else self._every_row(its_days, counts[split])
                splits[split] = self._export(split, rows, draft, fitted, attempt.url)
            trainset = TrainSet.model_validate(draft.model_dump() | {"splits": splits})
            storage.write_bytes(f"{attempt.url}/{names.TRAINSET_FILE}", trainset.model_dump_json(indent=1).encode())
            attempt.lease.check()
            self._commit(trainset, attempt)
        return trainset, attempt.url

    def _count(self, split_days: SplitDays) -> Mapping[SplitName, Counts]:
        every = [day for its_days in split_days.values() for day in its_days]
        return count_labels(self._warehouse.read_days(self._spark, SAMPLES, every), self._catalog, split_days)

    def _choose(self, gate: Counts, continued: TrainSet | None) -> ChosenTasks:
        """Tasks that the gate day can judge; those of the train set that is continued, whether it can or not."""
        tasks, left_out = choose_tasks(gate, self._catalog, self._conf.tasks, self._source)
        if continued is None:
            return ChosenTasks(tasks=tasks, left_out=left_out)
        trained = {task.name for task in continued.tasks}
        unjudged = {task: why for task, why in left_out.items() if task in trained}
        return ChosenTasks(tasks=continued.tasks, left_out=continued.left_out, unjudged=unjudged)

    def _describe(
        self,
        name: str,
        fitted: Artefacts,
        chosen: ChosenTasks,
        days: TrainDays,
        continued: TrainSet | None,
        replayed: Mapping[str, int],
    ) -> TrainSet:
        position = self._catalog.position()
        digests = {
            f"{SAMPLES}/{manifest.partition}": manifest.digest
            for manifest in self._warehouse.require(SAMPLES, days.all).values()
        }
        return TrainSet(
            name=name,
            source=self._source,
            seed=self._conf.export.seed,
            logical_shards=self._conf.export.logical_shards,
            catalog_fingerprint=self._catalog.fingerprint(),
            fingerprints=self._catalog.fingerprints(),
            vocabularies=fitted.vocabularies,
            categorical=fitted.categorical,
            dense=fitted.dense,
            vectors=fitted.vectors,
            sequences=fitted.sequences,
            positions=artefacts.position_size(position),
            leaves=fitted.leaves,
            tasks=chosen.tasks,
            left_out=dict(chosen.left_out),
            unjudged=dict(chosen.unjudged),
            splits={},
            lineage=digests,
            seen_until=max((*days.train, *days.valid)).isoformat(),
            vocabulary_from=fitted.vocabulary_from.isoformat(),
            trained_from=continued.first_trained if continued else days.train[0].isoformat(),
            evict_after_days=self._conf.days.evict_after_days if continued else None,
            replayed=dict(replayed),
        )

    @staticmethod
    def _write_artefacts(root: str, draft: TrainSet, fitted: Artefacts) -> None:
        for vocabulary in draft.vocabularies:
            if vocabulary.path is not None:
                sink = pa.BufferOutputStream()
                pq.write_table(fitted.keys[vocabulary.name], sink)
                storage.write_bytes(f"{root}/{vocabulary.path}", bytes(sink.getvalue()))
        if draft.leaves is not None:
            storage.write_bytes(f"{root}/{draft.leaves.path}", fitted.booster)

    def _train_rows(self, name: str, days: TrainDays, tasks: Sequence[names.Task], counts: Counts) -> SplitRows:
        """The rows of the train days that are kept, and older ones (pipeline.train_rows)."""
        seed, older = self._conf.export.seed, days.replay
        samples = self._warehouse.read_days(self._spark, SAMPLES, (*older, *days.train))
        if older:
            there = sum(manifest.rows for manifest in self._warehouse.require(SAMPLES, older).values())
            rate = replay_rate(self._conf.days.replay_share, counts.rows, there)
            samples = samples.where(is_train_row(days.train, older, rate, seed, name))
        kept = downsampled(samples, tasks, self._conf.downsample, seed)
        if kept is samples and not older:
            return SplitRows(days=days.train, counts=counts, frame=samples, rows=counts.rows)
        by_day = rows_by_day(kept, (*older, *days.train))
        replayed = {day.isoformat(): by_day[day] for day in older}
        rows = sum(by_day.values())
        return SplitRows(days=days.train, counts=counts, frame=kept, rows=rows, replayed=replayed)

    def _every_row(self, days: tuple[datetime.date, ...], counts: Counts) -> SplitRows | None:
        if not days:
            return None
        samples = self._warehouse.read_days(self._spark, SAMPLES, days)
        return SplitRows(days=days, counts=counts, frame=samples, rows=counts.rows)

    def _export(
        self, split: SplitName, chosen: SplitRows | None, draft: TrainSet, fitted: Artefacts, root: str
    ) -> Split:
        if chosen is None:
            return Split(days=(), files=(), rows=0)
        counts = chosen.counts
        manifests = self._warehouse.require(SAMPLES, chosen.days)
        export = self._conf.export
        files = pack(
            _needed(chosen.frame, draft),
            _encode_with(draft, fitted),
            f"{root}/{split}",
            PackPlan.of(chosen.rows, export.logical_shards, export.target_row_group_rows),
            files=export.files,
            seed=export.seed,
        )
        return Split(
            days=tuple(day.isoformat() for day in chosen.days),
            files=tuple(files),
            rows=chosen.rows,
            dropped=counts.rows - (chosen.rows - sum(chosen.replayed.values())),
            sample_files=tuple(url for m in manifests.values() for url in self._warehouse.file_urls(m)),
            positives=counts.positives,
            judged=counts.judged,
        )

    def _commit(self, trainset: TrainSet, attempt: Attempt) -> None:
        partition = trainset_partition(trainset.name)
        rows = {split: part.rows for split, part in trainset.splits.items()}
        self._warehouse.commit(
            [
                PartitionManifest(
                    table=TRAINSETS,
                    partition=partition,
                    generation=attempt.generations[partition],
                    attempt=attempt.name,
                    files=tuple(
                        DataFile(path=f"{attempt.path}/{file.path}", rows=sum(file.row_groups), bytes=0)
                        for part in trainset.splits.values()
                        for file in part.files
                    ),
                    rows=sum(rows.values()),
                    digest=artefacts.digest(trainset.model_dump_json(exclude={"splits"}).encode()),
                    schema=(),
                    inputs=trainset.lineage,
                    conf=self._conf.trainset_fingerprint(),
                    counts={f"{split}_rows": count for split, count in rows.items()},
                    created_at=datetime.datetime.now(datetime.UTC),
                )
            ]
        )


def _needed(samples: DataFrame, draft: TrainSet) -> DataFrame:
    """Only the columns that encoding reads: sequences are wide, and the shuffle carries every column."""
    supervision = [f(task.name) for task in draft.tasks for f in (label_name, mask_name)]
    extra = ["position"] if draft.positions is not None else []
    columns = dict.fromkeys([*Encoder(draft, {}).columns(), *supervision, *extra, "dt"])
    return samples.select(*columns)


def _encode_with(draft: TrainSet, fitted: Artefacts) -> Callable[[pa.RecordBatch], pa.Table]:
    """The encoder as Spark ships it: built once per task, from bytes."""
    text, keys, booster = draft.model_dump_json(), dict(fitted.keys), fitted.booster
    built: list[Encoder] = []

    def encode(batch: pa.RecordBatch) -> pa.Table:
        if not built:
            indexes = {name: VocabularyIndex.from_table(table) for name, table in keys.items()}
            built.append(Encoder(TrainSet.model_validate_json(text), indexes, load_booster(booster)))
        return built[0].encode(batch)

    return encode


__all__ = ["TrainSetBuilder", "day_partition", "load"]
