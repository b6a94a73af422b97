"""The words in which a feature is declared. A declaration says WHAT a number means; how it is computed,
stored, encoded, checked and documented follows from it.

Three clocks (design.md, "Time"):
  as of      rows that happened and arrived before day D; a window of N days is [D − N, D)
  event      rows that arrived by D and were complete before ts − event_lag of the impression
  snapshot   the newest daily snapshot that arrived before D
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Literal

from features.errors import CatalogError

MAX_WINDOW_DAYS = 365
NAME_PATTERN = re.compile(r"^[a-z][a-z0-9_]*$")


class Entity(StrEnum):
    """Whose property a feature is; its key columns are those of the impression it is joined to."""

    USER = "user"
    ANCHOR = "anchor"
    USER_CATEGORY = "user_category"
    USER_ANCHOR = "user_anchor"
    ROOM = "room"
    IMPRESSION = "impression"

    @property
    def keys(self) -> tuple[str, ...]:
        """Key columns in profiles and samples."""
        return {
            Entity.USER: ("user_id",),
            Entity.ANCHOR: ("anchor_id",),
            Entity.USER_CATEGORY: ("user_id", "category"),
            Entity.USER_ANCHOR: ("user_id", "anchor_id"),
            Entity.ROOM: ("room_id",),
            Entity.IMPRESSION: ("impression_id",),
        }[self]


TILED_ENTITIES = (Entity.USER, Entity.ANCHOR, Entity.USER_CATEGORY, Entity.USER_ANCHOR)


class DType(StrEnum):
    """Type of an unencoded feature in the samples, as Spark SQL spells it."""

    BIGINT = "bigint"
    DOUBLE = "double"
    STRING = "string"
    VECTOR = "array<float>"


# --- Measures: what tiles add up, always integers so that nothing drifts -------------------------------


@dataclass(frozen=True, kw_only=True)
class Measure:
    """An additive integer per raw row.

    Attributes:
        name: column in the tiles.
        action: the action counted, or None for impressions.
        value_scale: None counts rows; else the sum of round(value × value_scale): 1000 turns watch
            seconds into milliseconds, 1 sums coins.
    """

    name: str
    action: str | None
    value_scale: int | None = None


IMPRESSIONS = Measure(name="impressions", action=None)
ENTERS = Measure(name="enters", action="enter")
WATCHES = Measure(name="watches", action="watch")
WATCH_MS = Measure(name="watch_ms", action="watch", value_scale=1000)
GIFTS = Measure(name="gifts", action="gift")
GIFT_COINS = Measure(name="gift_coins", action="gift", value_scale=1)
FOLLOWS = Measure(name="follows", action="follow")
COMMENTS = Measure(name="comments", action="comment")
LIKES = Measure(name="likes", action="like")
SHARES = Measure(name="shares", action="share")
MEASURES = (IMPRESSIONS, ENTERS, WATCHES, WATCH_MS, GIFTS, GIFT_COINS, FOLLOWS, COMMENTS, LIKES, SHARES)


# --- Operations ------------------------------------------------------------------------------------------


def _check_days(days: int) -> None:
    if not 1 <= days <= MAX_WINDOW_DAYS:
        raise CatalogError(f"a window of {days} days is outside 1..{MAX_WINDOW_DAYS}")


@dataclass(frozen=True, kw_only=True)
class Sum:
    """As of D: the sum of a measure over [D − days, D)."""

    measure: Measure
    days: int

    def __post_init__(self) -> None:
        _check_days(self.days)


@dataclass(frozen=True, kw_only=True)
class Rate:
    """As of D: (numerator + prior × strength) / (denominator + strength) over [D − days, D).

    `strength` is in units of the denominator: how many rows the prior is worth.
    """

    numerator: Measure
    denominator: Measure
    days: int
    prior: float
    strength: float

    def __post_init__(self) -> None:
        _check_days(self.days)
        if self.strength <= 0:
            raise CatalogError(f"strength {self.strength} must be above 0: an empty window has no rate")


@dataclass(frozen=True, kw_only=True)
class ActiveDays:
    """As of D: number of days in [D − days, D) on which the measure is above 0."""

    measure: Measure
    days: int

    def __post_init__(self) -> None:
        _check_days(self.days)


@dataclass(frozen=True, kw_only=True)
class DaysSinceLast:
    """As of D: D − (last day in [D − days, D) with the measure above 0); `days + 1` when there is none."""

    measure: Measure
    days: int

    def __post_init__(self) -> None:
        _check_days(self.days)


@dataclass(frozen=True, kw_only=True)
class DistinctPartners:
    """As of D: how many anchors of a user (users of an anchor) have the measure above 0 in [D − days, D)."""

    measure: Measure
    days: int

    def __post_init__(self) -> None:
        _check_days(self.days)


@dataclass(frozen=True, kw_only=True)
class TopCategory:
    """As of D: the category with the largest sum of the measure in [D − days, D); ties by name."""

    measure: Measure
    days: int

    def __post_init__(self) -> None:
        _check_days(self.days)


@dataclass(frozen=True, kw_only=True)
class OnAir:
    """As of D: milliseconds on air within [D − days, D), sessions clipped at D and at `max_session_hours`."""

    days: int
    max_session_hours: int = 24

    def __post_init__(self) -> None:
        _check_days(self.days)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A column of the users or anchors snapshot, as it stood before D."""

    column: str


@dataclass(frozen=True, kw_only=True)
class SnapshotAge:
    """Days from a date column of the snapshot to D; −1 when unknown."""

    column: str


@dataclass(frozen=True, kw_only=True)
class RoomLast:
    """Event time: a room_stats column at the last minute complete in (ts − lag − minutes, ts − lag).

    The bound keeps the value the same however far back the minutes are read.
    """

    column: str
    minutes: int


@dataclass(frozen=True, kw_only=True)
class RoomSum:
    """Event time: the sum of a room_stats column over minutes complete in (ts − lag − minutes, ts − lag).

    The default when there is no such minute.
    """

    column: str
    minutes: int


@dataclass(frozen=True, kw_only=True)
class RoomField:
    """Event time: a field of the room known at its start (rows with dt ≤ D, started before ts − event_lag)."""

    column: str


@dataclass(frozen=True, kw_only=True)
class RoomAge:
    """Event time: whole minutes from the room's start to the impression; −1 when the start is unknown."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """A column of the impression itself."""

    column: str


@dataclass(frozen=True, kw_only=True)
class HourOfDay:
    """0..23 in the business time zone."""


@dataclass(frozen=True, kw_only=True)
class DayOfWeek:
    """0 = Monday .. 6 = Sunday in the business time zone."""


WindowOp = Sum | Rate | ActiveDays | DaysSinceLast | DistinctPartners | TopCategory | OnAir
SnapshotOp = Snapshot | SnapshotAge
RoomOp = RoomLast | RoomSum | RoomField | RoomAge
ImpressionOp = Field | HourOfDay | DayOfWeek
Op = WindowOp | SnapshotOp | RoomOp | ImpressionOp


# --- Encodings -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Ids:
    """Keys of a vocabulary. Features that share `vocabulary` share embedding rows."""

    vocabulary: str
    min_frequency: int = 1


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """Id 2 + (number of boundaries ≤ value); missing encodes as OOV. Boundaries are strictly increasing."""

    boundaries: tuple[float, ...]

    def __post_init__(self) -> None:
        if list(self.boundaries) != sorted(set(self.boundaries)) or not self.boundaries:
            raise CatalogError(f"boundaries {self.boundaries} must be strictly increasing and not empty")


@dataclass(frozen=True, kw_only=True)
class Dense:
    """A number, transformed, then normalised by mean and deviation of the fit days."""

    transform: Literal["identity", "log1p"] = "identity"


@dataclass(frozen=True, kw_only=True)
class Vector:
    """A fixed number of floats passed through; absent or of another length becomes zeros."""

    dim: int


@dataclass(frozen=True, kw_only=True)
class Position:
    """Display position 0..size−1 (larger is clipped): it enters training through an additive tower only."""

    size: int


Encoding = Ids | Buckets | Dense | Vector | Position


# --- Declarations ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One number (or string, or vector) per impression.

    Attributes:
        name: column in samples and prefix-free name in the train set; unique in the catalog.
        default: value when the entity has no row (or the field is null); null is not a value.

    Raises:
        CatalogError: when name, dtype, encoding and default contradict each other.
    """

    name: str
    entity: Entity
    op: Op
    dtype: DType
    encoding: Encoding
    default: int | float | str | None
    doc: str

    def __post_init__(self) -> None:
        if not NAME_PATTERN.match(self.name):
            raise CatalogError(f"feature name {self.name!r} must match {NAME_PATTERN.pattern}")
        if isinstance(self.op, WindowOp) and self.entity not in TILED_ENTITIES:
            raise CatalogError(f"{self.name}: windows exist on {[str(e) for e in TILED_ENTITIES]}, not {self.entity}")
        if isinstance(self.op, RoomOp) and self.entity is not Entity.ROOM:
            raise CatalogError(f"{self.name}: {type(self.op).__name__} is an operation on rooms, not {self.entity}")
        if isinstance(self.op, TopCategory | DistinctPartners) and self.entity not in (Entity.USER, Entity.ANCHOR):
            raise CatalogError(f"{self.name}: {type(self.op).__name__} needs a user or an anchor, not {self.entity}")
        expected = {DType.BIGINT: int, DType.DOUBLE: float, DType.STRING: str, DType.VECTOR: type(None)}[self.dtype]
        if not isinstance(self.default, expected):
            raise CatalogError(f"{self.name}: default {self.default!r} is not a {self.dtype}")
        if isinstance(self.encoding, Dense | Buckets) and self.dtype in (DType.STRING, DType.VECTOR):
            raise CatalogError(f"{self.name}: {self.dtype} cannot be encoded as {type(self.encoding).__name__}")
        if isinstance(self.encoding, Vector) != (self.dtype is DType.VECTOR):
            raise CatalogError(f"{self.name}: a vector is encoded as Vector, and nothing else is")

    @property
    def days(self) -> int | None:
        """Window length in days, or None without a window."""
        return getattr(self.op, "days", None)


@dataclass(frozen=True, kw_only=True)
class SequenceField:
    """One attribute of a sequence's events.

    `source`: anchor_id or category of the event's room, watch_ms or coins (the action's value), or
    age_s (whole seconds from the event to the impression).
    """

    name: str
    source: Literal["anchor_id", "category", "watch_ms", "coins", "age_s"]
    encoding: Ids | Buckets

    @property
    def dtype(self) -> DType:
        """Element type in the samples."""
        return DType.STRING if self.source == "category" else DType.BIGINT


@dataclass(frozen=True, kw_only=True)
class SequenceFeature:
    """Event time: the user's last `length` actions of one kind before ts − event_lag, newest first.

    Ordered by (ts, action_id); none older than `max_age_days`.
    """

    name: str
    action: str
    length: int
    max_age_days: int
    fields: tuple[SequenceField, ...]
    doc: str


@dataclass(frozen=True, kw_only=True)
class Label:
    """A binary task.

    Attributes:
        space: the impressions on which it is defined; elsewhere it is masked.
        action: the action that decides it.
        positive_from, negative_to: for a valued action (watch seconds): positive at or above, negative at
            or below, masked between. None: positive when the action is there, negative when not.
    """

    name: str
    space: Literal["impressions", "entered"]
    action: str
    parent: str | None = None
    positive_from: float | None = None
    negative_to: float | None = None
    doc: str = ""


def canonical(value: object) -> str:
    """A text that is equal exactly when two declarations mean the same; `doc` does not count."""
    if isinstance(value, StrEnum):
        return repr(value.value)
    if is_dataclass(value):
        inner = ", ".join(f"{f.name}={canonical(getattr(value, f.name))}" for f in fields(value) if f.name != "doc")
        return f"{type(value).__name__}({inner})"
    if isinstance(value, tuple):
        return f"({', '.join(canonical(item) for item in value)})"
    return repr(value)


def fingerprint(value: object) -> str:
    """First 16 hex digits of the SHA-256 of `canonical(value)`."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]
