"""What `limelight gc` may delete, and why the rest is kept. Planning reads; `sweep` deletes what was planned.

Steps, for one table:
  1. manifests   every generation of every partition, newest first
  2. kept        the newest generations of the days that conf keeps, what a kept train set was made from, and what
                 is younger than `young_hours`: a reader may still hold it
  3. files       those that a kept manifest names are kept; the others go unless a live run may be writing them
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from features import storage
from features.errors import ConfError
from features.manifest import TrainSet
from pipeline.config import RetentionConf
from pipeline.leases import live_holders
from pipeline.manifests import PartitionManifest
from pipeline.stages.names import SAMPLES, TRAINSETS
from pipeline.tables import Warehouse

RUNS = "runs"
DAY_PREFIX = "dt="


@dataclass(frozen=True, kw_only=True)
class Need:
    """A train set that a published version rests on; `why` names the version."""

    trainset: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Thing:
    """Something that gc looked at.

    Attributes:
        what: manifest or data.
        urls: files and folders, in the order in which they may be deleted.
        why: it is kept, or goes.
    """

    table: str
    what: str
    urls: tuple[str, ...]
    bytes: int
    why: str
    kept: bool
    partition: str = ""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A generation, and why it stays (or goes)."""

    manifest: PartitionManifest
    url: str
    size: int
    why: str
    kept: bool


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What kept train sets rest on.

    Attributes:
        trainsets: name → why it is kept.
        digests: "table/partition" → digest → why.
        files: URLs of the gate day's samples → why.
    """

    trainsets: Mapping[str, str]
    digests: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


class Retention:
    """Plans for one warehouse.

    Args:
        now: what age is counted from.
        longest_window: days, which tiles must at least cover.

    Raises:
        ConfError: when conf keeps fewer tiles than the features of the kept days are made from.
    """

    def __init__(
        self, warehouse: Warehouse, conf: RetentionConf, *, now: datetime.datetime, longest_window: int
    ) -> None:
        needed = longest_window + conf.state_days
        if conf.tiles_days < needed:
            raise ConfError(
                f"conf retention.tiles_days = {conf.tiles_days} is below {needed} = retention.state_days + the "
                f"longest window of {longest_window} days: what profiles that are kept were made from would be gone"
            )
        self._warehouse, self._conf = warehouse, conf
        self._young = now - datetime.timedelta(hours=conf.young_hours)

    def plan(self, needs: Sequence[Need]) -> list[Thing]:
        """Everything that is there, with what should become of it."""
        manifests = {table: self._manifests(table) for table in self._warehouse.tables()}
        wanted = self._wanted(manifests.get(TRAINSETS, {}), needs)
        things: list[Thing] = []
        for table, partitions in manifests.items():
            judged = [*self._judge(partitions, wanted)]
            things += _manifest_things(table, judged)
            things += self._data_things(table, judged)
        return [*things, *self._run_things(wanted)]

    def _manifests(self, table: str) -> dict[str, list[Judged]]:
        """Partition → generations, newest first; nothing is decided yet."""
        found: dict[str, list[Judged]] = {}
        for partition in self._warehouse.partitions(table):
            entries = self._warehouse.manifest_files(table, partition)
            found[partition] = [
                Judged(
                    manifest=PartitionManifest.model_validate_json(storage.read_bytes(entry.url)),
                    url=entry.url,
                    size=entry.size,
                    why="",
                    kept=True,
                )
                for entry in reversed(entries)
            ]
        return found

    def _wanted(self, partitions: Mapping[str, Sequence[Judged]], needs: Sequence[Need]) -> Wanted:
        current = {name.removeprefix("name="): generations[0].manifest for name, generations in partitions.items()}
        newest = sorted(current, key=lambda name: current[name].created_at)[-self._conf.trainsets :]
        trainsets = dict.fromkeys(newest, f"one of the {self._conf.trainsets} newest train sets")
        trainsets |= {
            name: f"made less than {self._conf.young_hours} hours ago"
            for name, manifest in current.items()
            if name not in trainsets and manifest.created_at > self._young
        }
        for need in needs:
            already = trainsets.get(need.trainset)
            trainsets[need.trainset] = f"{already}; {need.why}" if already and need.why not in already else need.why
        digests: dict[str, dict[str, str]] = {}
        files: dict[str, str] = {}
        for name in trainsets.keys() & current.keys():
            root = f"{self._warehouse.table_url(TRAINSETS)}/data/{current[name].attempt}"
            trainset = TrainSet.model_validate_json(storage.read_bytes(f"{root}/trainset.json"))
            why = f"train set {name} was made from it ({trainsets[name]})"
            for partition, digest in trainset.lineage.items():
                digests.setdefault(partition, {})[digest] = why
            files |= dict.fromkeys(trainset.splits["gate"].sample_files, why)
        return Wanted(trainsets=trainsets, digests=digests, files=files)

    def _judge(self, partitions: Mapping[str, Sequence[Judged]], wanted: Wanted) -> Iterator[Judged]:
        newest = max((_day(name) for name in partitions if name.startswith(DAY_PREFIX)), default=None)
        for generations in partitions.values():
            newer: list[PartitionManifest] = []
            for found in generations:
                kept, why = self._needed(found.manifest, newer, wanted) or self._fate(found.manifest, newer, newest)
                yield replace(found, kept=kept, why=why)
                newer.append(found.manifest)

    def _needed(
        self, manifest: PartitionManifest, newer: Sequence[PartitionManifest], wanted: Wanted
    ) -> tuple[bool, str] | None:
        """Kept because a kept train set rests on it; or None."""
        if manifest.table == TRAINSETS:
            why = wanted.trainsets.get(manifest.partition.removeprefix("name="))
            return (True, why) if why is not None and not newer else None
        for url in self._warehouse.file_urls(manifest):
            if url in wanted.files:
                return True, wanted.files[url]
        lineage = wanted.digests.get(f"{manifest.table}/{manifest.partition}", {})
        same_content = any(other.digest == manifest.digest for other in newer)
        if manifest.digest in lineage and not same_content:
            return True, lineage[manifest.digest]
        # The content it was made from may be gone; a warm start would read what is there now.
        return (True, next(iter(lineage.values()))) if lineage and not newer else None

    def _fate(
        self, manifest: PartitionManifest, newer: Sequence[PartitionManifest], newest: datetime.date | None
    ) -> tuple[bool, str]:
        """Whether a generation stays by its age, and why."""
        if max(other.created_at for other in [manifest, *newer[-1:]]) > self._young:
            return True, f"made or superseded less than {self._conf.young_hours} hours ago"
        if len(newer) >= self._conf.generations:
            return False, f"superseded by generation {newer[-1].generation}"
        if manifest.table == TRAINSETS:
            return False, f"not among the {self._conf.trainsets} newest train sets, and no version in use rests on it"
        days = self._days(manifest.table)
        if newest is not None and manifest.partition.startswith(DAY_PREFIX):
            age = (newest - _day(manifest.partition)).days
            if age >= days:
                return False, f"{age} days older than the newest day; {days} days are kept"
        return True, "current" if not newer else f"one of the {self._conf.generations} newest generations"

    def _days(self, table: str) -> int:
        """Days of a table that are kept, the newest included."""
        if table == SAMPLES:
            return self._conf.samples_days
        return self._conf.tiles_days if table.startswith("tiles_") else self._conf.state_days

    def _data_things(self, table: str, judged: Sequence[Judged]) -> Iterator[Thing]:
        """One thing per attempt and fate: an attempt's files may be named by several manifests."""
        folder = self._warehouse.table_url(table)
        kept, gone = _named(judged, kept=True), _named(judged, kept=False)
        live = live_holders(f"{folder}/leases")
        # The files of a train set beside its splits (vocabularies, booster) are in no manifest: its attempt is one.
        whole = {found.manifest.attempt: found for found in judged if table == TRAINSETS}
        for attempt, entries in itertools.groupby(
            storage.list_files(f"{folder}/data", recursive=True), key=lambda entry: entry.name.split("/")[0]
        ):
            files = list(entries)
            is_young = max(entry.mark for entry in files) / 1e9 > self._young.timestamp()
            fates: dict[tuple[bool, str], list[storage.FileEntry]] = {}
            for entry in files:
                path = f"data/{entry.name}"
                if path in kept or (attempt in whole and whole[attempt].kept):
                    fate = (True, "named by a manifest that is kept")
                elif attempt in live:
                    fate = (True, "a live run is writing it")
                elif is_young:
                    fate = (True, f"written less than {self._conf.young_hours} hours ago")
                else:
                    named = whole[attempt].why if attempt in whole else gone.get(path)
                    fate = (False, named or "no manifest names it")
                fates.setdefault(fate, []).append(entry)
            for (stays, why), chosen in fates.items():
                urls = [f"{folder}/data/{attempt}"] if len(fates) == 1 else [entry.url for entry in chosen]
                size = sum(entry.size for entry in chosen)
                yield Thing(table=table, what="data", urls=tuple(urls), bytes=size, why=why, kept=stays)

    def _run_things(self, wanted: Wanted) -> Iterator[Thing]:
        """Runs of train sets: checkpoints, weights, predictions, verdicts."""
        folder = f"{self._warehouse.url}/{RUNS}"
        for name in storage.list_folders(folder):
            files = storage.list_files(f"{folder}/{name}", recursive=True)
            newest = max((entry.mark for entry in files), default=0) / 1e9
            kept, why = True, wanted.trainsets.get(name, "")
            if not why:
                kept = newest > self._young.timestamp()
                why = f"written less than {self._conf.young_hours} hours ago" if kept else "its train set is not kept"
            size = sum(entry.size for entry in files)
            yield Thing(table=RUNS, what="run", urls=(f"{folder}/{name}",), bytes=size, why=why, kept=kept)


def _day(partition: str) -> datetime.date:
    return datetime.date.fromisoformat(partition.removeprefix(DAY_PREFIX))


def _named(judged: Iterable[Judged], *, kept: bool) -> dict[str, str]:
    """Paths of data files named by kept manifests, or by those that go, with the reason."""
    return {file.path: found.why for found in judged if found.kept is kept for file in found.manifest.files}


def _manifest_things(table: str, judged: Iterable[Judged]) -> Iterator[Thing]:
    for found in judged:
        partition = found.manifest.partition
        yield Thing(
            table=table, what="manifest", urls=(found.url,), bytes=found.size, why=found.why, kept=found.kept,
            partition=partition,
        )  # fmt: skip


def sweep(warehouse: Warehouse, things: Sequence[Thing], holder: str) -> int:
    """Delete what the plan lets go; manifests before data, so that a crash leaves files that the next gc finds.

    Of one partition the oldest generation goes first: whatever is left is never older than what readers saw.

    Returns:
        Bytes deleted.

    Raises:
        HeldError: when a live run works on a partition that loses a manifest; the tables before are done.
    """
    deleted = 0
    for table in dict.fromkeys(thing.table for thing in things):
        doomed = [thing for thing in things if thing.table == table and not thing.kept]
        manifests = [thing for thing in doomed if thing.what == "manifest"]
        with warehouse.lease(table, sorted({thing.partition for thing in manifests}), holder):
            for thing in [*reversed(manifests), *(thing for thing in doomed if thing.what != "manifest")]:
                for url in thing.urls:
                    storage.delete(url)
                deleted += thing.bytes
    return deleted
