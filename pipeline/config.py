"""Sizes, paths and thresholds: conf/base.yaml, an overlay for the place, and `--set key=value`.

What a number MEANS is never in conf; it is in the catalog.
"""

from __future__ import annotations

import datetime
import difflib
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from features.errors import ConfError

CONF_FOLDER_VARIABLE = "LIMELIGHT_CONF"
Model = TypeVar("Model", bound=BaseModel)


class Section(BaseModel):
    """Frozen and closed: an unknown key is an error that names its nearest neighbour."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TimeConf(Section):
    """The rules of time (design.md)."""

    zone: str = "Asia/Shanghai"
    event_lag_seconds: int = Field(default=30, ge=0, le=86_400)
    label_delay_days: int = Field(default=1, ge=0, le=30)
    attribution_hours: int = Field(default=24, ge=1, le=24 * 30)
    max_lateness_days: int = Field(default=3, ge=0, le=30)
    max_snapshot_age_days: int = Field(default=3, ge=1, le=365)
    max_room_age_days: int | None = Field(default=7, ge=1, le=365, description="null: rooms of any age, all read")
    conversions_imply_enter: bool = True

    @field_validator("zone")
    @classmethod
    def _zone_exists(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{value!r} is not a time zone; write one such as Asia/Shanghai") from error
        return value


class RawConf(Section):
    """What raw partitions may look like."""

    max_repeat_share: float = Field(default=0.01, ge=0, le=1)
    min_free_bytes: int = Field(default=1 << 30, ge=0)


class TrainDaysConf(Section):
    """M train days after K days for the booster, vocabularies' first counts and normalisers.

    The last three are of incremental train sets alone (docs/incremental.md).
    """

    train: int = Field(default=8, ge=1, le=365)
    fit: int = Field(default=4, ge=1, le=90)
    refit_booster_days: int = Field(default=7, ge=1, le=90)
    evict_after_days: int | None = Field(default=30, ge=1, le=3650, description="without a row; null: never")
    replay_share: float = Field(default=0.0, ge=0, le=10, description="older rows per row of the new days")
    replay_days: int = Field(default=7, ge=1, le=365, description="before the new days, that older rows are of")


_INCREMENTAL_ONLY = {"days": {"evict_after_days", "replay_share", "replay_days"}}


class DownsampleConf(Section):
    """Share of negatives kept per task space in the train split; weights are 1/rate."""

    impressions: float = Field(default=1.0, gt=0, le=1)
    entered: float = Field(default=1.0, gt=0, le=1)


class TasksConf(Section):
    """Which tasks a held-out day can judge."""

    main: str = "enter"
    only: tuple[str, ...] | None = Field(default=None, description="tasks that the source can teach; null = all")
    min_positives: int = Field(default=50, ge=1)
    min_negatives: int = Field(default=50, ge=1)
    max_share: float = Field(default=0.995, gt=0.5, le=1, description="above it a task is near-constant")


class LeavesConf(Section):
    """The booster whose leaves become features."""

    trees: int = Field(default=20, ge=1, le=1000)
    depth: int = Field(default=4, ge=1, le=10)
    learning_rate: float = Field(default=0.2, gt=0, le=1)
    min_child_weight: float = Field(default=20.0, ge=0)
    workers: int = Field(default=2, ge=1)


class ExportConf(Section):
    """Row groups and shards of a train set."""

    logical_shards: int = Field(default=16, ge=1, le=4096)
    target_row_group_rows: int = Field(default=4096, ge=16)
    files: int = Field(default=4, ge=1)
    seed: int = 20250301


class WindowsConf(Section):
    """How window state is carried (docs/time.md); it decides what a day costs, never what its rows are."""

    max_carried_days: int = Field(default=7, ge=0, le=365, description="more days at once are made in bulk; 0: all are")
    max_deltas: int = Field(default=6, ge=1, le=100, description="more than these are compacted into a new base")
    max_delta_share: float = Field(default=1.0, gt=0, description="rows in deltas per row in the base, likewise")


class Limit(Section):
    """What happens to a figure above a threshold; null lets everything pass."""

    warn: float | None = Field(default=None, ge=0)
    stop: float | None = Field(default=None, ge=0)


class ChecksConf(Section):
    """Border checks (docs/checks.md): how far a partition may be from what it should be."""

    reference_days: int = Field(default=7, ge=1, le=90)
    one_in: int = Field(default=4, ge=1, le=1_000_000, description="rows per row whose values are put into histograms")
    min_rows: int = Field(default=1000, ge=1, description="sampled; below, on either side, shares are noise")
    empty_share: float = Field(default=1e-4, gt=0, lt=0.1, description="what an empty bin counts for in psi")
    rows: Limit = Limit(warn=0.5)
    nulls: Limit = Limit(stop=0)
    non_finite: Limit = Limit(stop=0)
    range: Limit = Limit(stop=0)
    repeated_keys: Limit = Limit(warn=0.08, stop=0.2)
    label_rate: Limit = Limit(warn=0.5)
    psi: Limit = Limit(warn=0.25)
    state: Limit = Limit(stop=0)
    touched: Limit = Limit()


class RetentionConf(Section):
    """What `limelight gc` keeps of derived tables, counted back from the newest day of each."""

    tiles_days: int = Field(default=75, ge=1)
    state_days: int = Field(default=30, ge=1, description="profiles and every other table of states")
    samples_days: int = Field(default=60, ge=1)
    generations: int = Field(default=1, ge=1, description="newest generations of each partition")
    trainsets: int = Field(default=3, ge=1, description="newest train sets, beside those that versions rest on")
    rollbacks: int = Field(default=2, ge=0, description="predecessors of each champion that stay able to take over")
    young_hours: int = Field(default=24, ge=0, description="what is younger may be in use; 0: nothing reads meanwhile")


class ServingConf(Section):
    """The layout of the serving tables (docs/serving.md)."""

    buckets: int = Field(default=16, ge=1, le=65_536, description="files of a table: one per bucket")


class PipelineConf(Section):
    """Everything that the data side reads from conf."""

    time: TimeConf = TimeConf()
    raw: RawConf = RawConf()
    days: TrainDaysConf = TrainDaysConf()
    downsample: DownsampleConf = DownsampleConf()
    tasks: TasksConf = TasksConf()
    leaves: LeavesConf = LeavesConf()
    export: ExportConf = ExportConf()
    windows: WindowsConf = WindowsConf()
    checks: ChecksConf = ChecksConf()
    retention: RetentionConf = RetentionConf()
    serving: ServingConf = ServingConf()

    def trainset_fingerprint(self) -> str:
        """Changes when a value changes that decides what a full train set holds; goes into its manifest.

        What only incremental ones look at is left out: a champion can go on under other values of it.
        """
        sections = {"time", "days", "downsample", "tasks", "leaves", "export"}
        deciding = self.model_dump_json(include=sections, exclude=_INCREMENTAL_ONLY)
        return hashlib.sha256(deciding.encode()).hexdigest()[:16]


class TrainDays(Section):
    """The days of one train set: fit < train < valid < gate < the day it is made on.

    `replay`: of the fit days, those that some rows are trained on once more (incremental).
    """

    fit: tuple[datetime.date, ...]
    train: tuple[datetime.date, ...]
    valid: tuple[datetime.date, ...]
    gate: datetime.date
    replay: tuple[datetime.date, ...] = ()

    @property
    def all(self) -> tuple[datetime.date, ...]:
        """Every day whose samples are needed, oldest first."""
        return (*self.fit, *self.train, *self.valid, self.gate)


def day_range(first: datetime.date, last: datetime.date) -> list[datetime.date]:
    """Days from first to last, both included."""
    return [first + datetime.timedelta(days=offset) for offset in range((last - first).days + 1)]


def full_retrain_days(date: datetime.date, conf: PipelineConf) -> TrainDays:
    """`daily --date D` sees dt < D: gate day D − 1 − label_delay, the day before it validates."""
    one = datetime.timedelta(days=1)
    gate = date - one * (1 + conf.time.label_delay_days)
    valid = gate - one
    train = day_range(valid - one * conf.days.train, valid - one)
    fit = day_range(train[0] - one * conf.days.fit, train[0] - one)
    return TrainDays(fit=tuple(fit), train=tuple(train), valid=(valid,), gate=gate)


def conf_folder() -> Path:
    """$LIMELIGHT_CONF, or conf/ beside the packages."""
    given = os.environ.get(CONF_FOLDER_VARIABLE)
    return Path(given) if given else Path(__file__).resolve().parent.parent / "conf"


def read_conf(place: str = "local", overrides: Iterable[str] = ()) -> dict[str, Any]:
    """conf/base.yaml, overlaid with conf/<place>.yaml, overlaid with `a.b=value` pairs.

    Raises:
        ConfError: when a file is missing or a pair has no '='.
    """
    merged: dict[str, Any] = {}
    for name in ("base", place):
        path = conf_folder() / f"{name}.yaml"
        if not path.exists():
            known = sorted(p.stem for p in conf_folder().glob("*.yaml"))
            raise ConfError(f"there is no {path.name} in the conf folder; it has {', '.join(known)}")
        merged = merge(merged, yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    for pair in overrides:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfError(f"--set {pair!r} must look like key=value, e.g. days.train=8")
        nested: Any = yaml.safe_load(value)
        for part in reversed(key.split(".")):
            nested = {part: nested}
        merged = merge(merged, nested)
    return merged


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with some keys replaced, however deep they are."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


def parse(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """Check values against a section.

    Raises:
        ConfError: every wrong key at once, with its value and the remedy.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfError("\n".join(_explain(model, detail, where) for detail in error.errors())) from error


def _explain(model: type[BaseModel], detail: Any, where: str) -> str:
    path = [str(part) for part in detail["loc"]]
    key = ".".join([where, *path]) if where else ".".join(path)
    if detail["type"] != "extra_forbidden":
        return f"conf {key} = {detail['input']!r}: {detail['msg']}"
    fields = _fields_at(model, path[:-1])
    near = difflib.get_close_matches(path[-1], fields, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(sorted(fields))}"
    return f"conf {key} is unknown; {hint}"


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    current: Any = model
    for part in path:
        field = current.model_fields.get(part)
        current = field.annotation if field is not None else current
    return list(getattr(current, "model_fields", {}))
