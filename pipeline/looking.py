"""What stages would read, without reading it: their own code is asked, so whoever asks cannot disagree with a run."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

from pipeline.context import Context
from pipeline.plan import Stage

Inputs = Mapping[str, str]
RAW_PREFIX = "raw/"


@dataclass(frozen=True, kw_only=True)
class _Looking(Context):
    """A context in which stages find nothing to do; the question "which days are stale?" is taken down instead."""

    seen: dict[str, dict[datetime.date, Inputs]] = field(default_factory=dict)

    def stale_days(self, table: str, inputs: Mapping[datetime.date, Inputs]) -> list[datetime.date]:
        self.seen.setdefault(table, {}).update(inputs)
        return []


def inputs_now(context: Context, stage: Stage, days: Iterable[datetime.date]) -> dict[str, dict[datetime.date, Inputs]]:
    """Table → day → input partitions with their digests as they are now, for the tables of a day-by-day stage.

    Raises:
        DataError: as the stage does where a day has no inputs at all, e.g. no snapshot.
    """
    looking = _Looking(**{entry.name: getattr(context, entry.name) for entry in fields(Context)})
    if stage.run is not None:
        stage.run(looking, list(days))
    return looking.seen


def raw_days_to_read(context: Context, days: Mapping[Stage, Iterable[datetime.date]]) -> dict[str, set[datetime.date]]:
    """Raw table → days that the stages will read for what is not up to date."""
    wanted: dict[str, set[datetime.date]] = {}
    for stage, its_days in days.items():
        for table, found in inputs_now(context, stage, its_days).items():
            for day, inputs in found.items():
                if not context.is_fresh(table, day, inputs):
                    _add_raw(wanted, inputs)
    return wanted


def _add_raw(wanted: dict[str, set[datetime.date]], inputs: Iterable[str]) -> None:
    for name in inputs:
        if name.startswith(RAW_PREFIX):
            table, _, day = name.removeprefix(RAW_PREFIX).partition("/dt=")
            wanted.setdefault(table, set()).add(datetime.date.fromisoformat(day))
