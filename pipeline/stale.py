"""What is no longer what its inputs, code and conf would give, and why; and how it is rebuilt, and nothing else.

Steps of `find_stale`, stage by stage in the order of the plan:
  1. look       the stage is asked what it would read for every committed day   table → day → inputs as they are now
  2. compare    with the inputs, code, conf and catalog in the manifest         reasons, per partition
  3. follow     a partition whose input will be rebuilt waits for it            reasons of the second kind
  4. need       days that the stale ones need and nobody has computed           reasons of the third kind

A partition that only waits is left alone when what it waits for comes out with the digest that it had. One whose
stored columns stand but for some (pipeline/freshness.py) keeps them when it is rebuilt.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from features.errors import MAX_EXAMPLES, DataError
from pipeline.context import ONE_DAY, Context
from pipeline.looking import inputs_now
from pipeline.manifests import PartitionManifest, day_partition
from pipeline.plan import PLAN, Stage, sample_stages
from pipeline.run import Report, StageRun, days_of, run_stages
from pipeline.stages.names import SAMPLES, TRAINSETS

SHOWN_DIGEST = 12
DAY_PREFIX = "dt="


class Kind(Enum):
    """Why a partition has to be looked at."""

    CHANGED = "changed"
    """An input, the code, the conf or the catalog is another than it was computed from: it will be rebuilt."""
    COLUMNS = "columns"
    """The catalog has other columns, and nothing else is another: they will be computed, and the others kept."""
    WAITS = "waits"
    """An input will be rebuilt: it follows if that comes out different."""
    MISSING = "missing"
    """A stale partition needs it, and it was never computed."""
    UNREADABLE = "unreadable"
    """What it needs is not there any more: it can neither be trusted nor rebuilt."""


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One reason; `was` and `now` are digests or fingerprints, None where there is none."""

    kind: Kind
    what: str
    was: str | None = None
    now: str | None = None

    def __str__(self) -> str:
        if self.kind is not Kind.CHANGED:
            return self.what
        was, now = (shown[:SHOWN_DIGEST] if shown else "none" for shown in (self.was, self.now))
        return f"{self.what}: {was} → {now}"


@dataclass(frozen=True, kw_only=True)
class StalePartition:
    """A day of a derived table that is, or may become, stale."""

    stage: str
    table: str
    day: datetime.date
    reasons: tuple[Reason, ...]

    @property
    def name(self) -> str:
        """`table/partition`."""
        return f"{self.table}/{day_partition(self.day)}"

    @property
    def only_waits(self) -> bool:
        """Whether nothing but what comes before it is stale."""
        return all(reason.kind is Kind.WAITS for reason in self.reasons)

    @property
    def keeps_columns(self) -> bool:
        """Whether some of its columns stand, unless an input that it waits for comes out different in those too."""
        return {reason.kind for reason in self.reasons} in ({Kind.COLUMNS}, {Kind.COLUMNS, Kind.WAITS})


@dataclass(frozen=True, kw_only=True)
class StaleTrainSet:
    """A train set built on samples that are stale or were rebuilt since; it is never rebuilt by itself."""

    name: str
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, kw_only=True)
class StalePlan:
    """What `backfill --stale` would do, in order.

    Attributes:
        looked_at: committed partitions that were compared.
        trainsets: built on any of it.
    """

    partitions: tuple[StalePartition, ...]
    trainsets: tuple[StaleTrainSet, ...]
    looked_at: int

    def days(self, stage: str) -> list[datetime.date]:
        """Days that a stage has to be run for."""
        return sorted({found.day for found in self.partitions if found.stage == stage})


def find_stale(context: Context) -> StalePlan:
    """Compare every committed day with what it would be computed from now; nothing is computed."""
    found: dict[str, StalePartition] = {}
    looked_at = 0
    for stage in sample_stages():
        committed = _committed(context, stage)
        looked_at += sum(len(days) for days in committed.values())
        for day in sorted(set(itertools.chain.from_iterable(committed.values()))):
            expected = _expected(context, stage, day)
            for table, days in committed.items():
                if day in days:
                    reasons = _reasons(context, days[day], expected.get(table, expected.get("")), found)
                    _add(found, stage, table, day, reasons)
    missing = _missing(context, [entry.day for entry in found.values() if entry.table == SAMPLES])
    order = {stage.name: number for number, stage in enumerate(PLAN)}
    every = sorted([*found.values(), *missing], key=lambda entry: (order[entry.stage], entry.table, entry.day))
    return StalePlan(partitions=tuple(every), trainsets=tuple(_trainsets(context, found)), looked_at=looked_at)


def rebuild(context: Context, plan: StalePlan, report: Report) -> list[StageRun]:
    """Run each stage for the days that the plan lists for it; what turns out to be up to date is left alone.

    Raises:
        HeldError, DataError: as `pipeline.run.run_stages`.
    """
    days = {stage: plan.days(stage.name) for stage in sample_stages()}
    staged = {stage: its_days for stage, its_days in days.items() if its_days}
    return run_stages(context, staged, itertools.chain.from_iterable(staged.values()), report)


def _committed(context: Context, stage: Stage) -> dict[str, dict[datetime.date, PartitionManifest]]:
    """Table → day → current manifest, of a stage's tables."""
    found: dict[str, dict[datetime.date, PartitionManifest]] = {}
    for table in stage.writes:
        days = (
            datetime.date.fromisoformat(partition.removeprefix(DAY_PREFIX))
            for partition in context.warehouse.partitions(table)
            if partition.startswith(DAY_PREFIX)
        )
        found[table] = context.warehouse.require(table, days)
    return found


def _expected(context: Context, stage: Stage, day: datetime.date) -> dict[str, Mapping[str, str] | Reason | None]:
    """Table → inputs of a day as they are now, None where no feature wants it; under "" why they cannot be told."""
    try:
        seen = inputs_now(context, stage, [day])
    except DataError as error:
        return {"": Reason(kind=Kind.UNREADABLE, what=f"its inputs are not there: {error.problems[0]}")}
    gone = Reason(kind=Kind.UNREADABLE, what="its raw day is gone: the history begins later")
    unwanted = {table: None for table in stage.writes if table not in seen}
    return {"": gone} | unwanted | {table: days[day] for table, days in seen.items() if day in days}


def _reasons(
    context: Context,
    manifest: PartitionManifest,
    inputs: Mapping[str, str] | Reason | None,
    stale: Mapping[str, StalePartition],
) -> list[Reason]:
    if isinstance(inputs, Reason) or inputs is None:
        return [inputs] if inputs else []
    standing = context.standing(manifest, inputs)
    reasons = [Reason(kind=Kind.CHANGED, what=change.what, was=change.was, now=change.now) for change in standing.whole]
    if standing.is_partial:
        reasons.append(Reason(kind=Kind.COLUMNS, what=standing.told()))
    return reasons + [_waits(name, stale[name]) for name in sorted(inputs) if name in stale]


def _waits(name: str, stale: StalePartition) -> Reason:
    """That an input will be rebuilt; around what was read of it, or altogether."""
    return Reason(kind=Kind.WAITS, what=f"{name} {'gets other columns' if stale.keeps_columns else 'will be rebuilt'}")


def _add(
    found: dict[str, StalePartition], stage: Stage, table: str, day: datetime.date, reasons: Sequence[Reason]
) -> None:
    if reasons:
        entry = StalePartition(stage=stage.name, table=table, day=day, reasons=tuple(reasons))
        found[entry.name] = entry


def _missing(context: Context, sample_days: Sequence[datetime.date]) -> list[StalePartition]:
    """Days before the samples' that stale samples need and that were never computed."""
    if not sample_days:
        return []
    found = []
    for stage in sample_stages():
        committed = _committed(context, stage)
        needed_by = {
            day: sample_day
            for sample_day in sorted(sample_days, reverse=True)
            for day in days_of(stage, [sample_day], context)
            if any(day not in days for days in committed.values())
        }
        for day, sample_day in sorted(needed_by.items()):
            expected = _expected(context, stage, day)
            reason = Reason(kind=Kind.MISSING, what=f"never computed; samples of {sample_day} need it")
            found += [
                StalePartition(stage=stage.name, table=table, day=day, reasons=(reason,))
                for table in stage.writes
                if day not in committed[table] and isinstance(expected.get(table), Mapping)
            ]
    return found


def _trainsets(context: Context, stale: Mapping[str, StalePartition]) -> Iterable[StaleTrainSet]:
    for partition in context.warehouse.partitions(TRAINSETS):
        manifest = context.warehouse.manifest(TRAINSETS, partition)
        assert manifest is not None
        reasons = lineage_reasons(context, manifest.inputs, stale)
        if reasons:
            yield StaleTrainSet(name=partition.removeprefix("name="), reasons=tuple(reasons))


def lineage_reasons(context: Context, lineage: Mapping[str, str], stale: Mapping[str, StalePartition]) -> list[Reason]:
    """Why what was fitted on these samples (`table/partition` → digest) is no longer what they would give."""
    reasons = []
    for name, was in sorted(lineage.items()):
        current = context.warehouse.manifest(*name.split("/", 1))
        now = current.digest if current is not None else None
        if now != was:
            reasons.append(Reason(kind=Kind.CHANGED, what=name, was=was, now=now))
        elif name in stale:
            reasons.append(Reason(kind=Kind.WAITS, what=f"{name} will be rebuilt"))
    return reasons


@dataclass(frozen=True, kw_only=True)
class StaleDays:
    """Consecutive days of a table that are stale for the same reasons: one line for people."""

    table: str
    first: datetime.date
    last: datetime.date
    count: int
    reasons: tuple[str, ...]

    @property
    def span(self) -> str:
        """The days in words."""
        return f"{self.first}" if self.count == 1 else f"{self.first} … {self.last} ({self.count} days)"


def in_lines(plan: StalePlan) -> list[StaleDays]:
    """The plan in order, days in a row with equal reasons together, at most five reasons of each."""
    lines: list[StaleDays] = []
    for (_, table), group in itertools.groupby(plan.partitions, key=lambda entry: (entry.stage, entry.table)):
        for entry in group:
            shown = _shown(entry)
            last = lines[-1] if lines else None
            if last and (last.table, last.last + ONE_DAY, last.reasons) == (table, entry.day, shown):
                lines[-1] = StaleDays(
                    table=table, first=last.first, last=entry.day, count=last.count + 1, reasons=shown
                )
            else:
                lines.append(StaleDays(table=table, first=entry.day, last=entry.day, count=1, reasons=shown))
    return lines


def _shown(entry: StalePartition) -> tuple[str, ...]:
    """Reasons in words; what waits for its own day says so in words that are those of the next day too."""
    own_day = f"/{day_partition(entry.day)} "
    told = [
        str(reason).replace(own_day, " of the same day ") if reason.kind is Kind.WAITS else str(reason)
        for reason in entry.reasons
    ]
    more = len(told) - MAX_EXAMPLES
    return (*told[:MAX_EXAMPLES], *((f"and {more} more",) if more > 0 else ()))
