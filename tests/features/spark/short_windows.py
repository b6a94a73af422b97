"""A catalog for the tests: every window operation, with windows short enough to empty within a random log, one that
reaches a bit set's second word, and one longer than any short log."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from features.schema import Catalog
from features.spec import (
    COMMENTS,
    ENTERS,
    FOLLOWS,
    GIFT_COINS,
    GIFTS,
    IMPRESSIONS,
    LIKES,
    WATCH_MS,
    ActiveDays,
    DaysSinceLast,
    Dense,
    DistinctPartners,
    DType,
    Entity,
    Feature,
    Ids,
    OnAir,
    Rate,
    Sum,
    TopCategory,
    WindowOp,
)
from tests.features.random_logs import LOG_STRIDE, LogShape, RawLogs, joined, many_logs, moved, random_logs

FIRST_DAY = LogShape().first_day
LONG = LogShape(days=80, impressions=90, max_lateness_days=9, quiet_share=0.4)
DAYS = [FIRST_DAY + dt.timedelta(days=offset) for offset in (*range(13), 40, 66, 72, 81, 82)]
"""Target days: before the first row, through the short logs, and until after their longest window."""

_EVERYWHERE: tuple[WindowOp, ...] = (
    Sum(measure=IMPRESSIONS, days=1),
    Sum(measure=WATCH_MS, days=3),
    Sum(measure=GIFT_COINS, days=2),
    Sum(measure=LIKES, days=4),
    Rate(numerator=ENTERS, denominator=IMPRESSIONS, days=3, prior=0.3, strength=7),
    Rate(numerator=GIFTS, denominator=ENTERS, days=1, prior=0.015, strength=0.5),
    ActiveDays(measure=ENTERS, days=4),
    DaysSinceLast(measure=COMMENTS, days=3),
)
_USER: tuple[WindowOp, ...] = (
    ActiveDays(measure=IMPRESSIONS, days=70),
    DaysSinceLast(measure=ENTERS, days=70),
    DistinctPartners(measure=ENTERS, days=2),
    DistinctPartners(measure=GIFT_COINS, days=5),
    TopCategory(measure=ENTERS, days=2),
    TopCategory(measure=WATCH_MS, days=5),
)
_ANCHOR: tuple[WindowOp, ...] = (
    DistinctPartners(measure=FOLLOWS, days=3),
    DistinctPartners(measure=IMPRESSIONS, days=1),
    OnAir(days=1),
    OnAir(days=3, max_session_hours=5),
)


def _features(entity: Entity, ops: tuple[WindowOp, ...]) -> Iterator[Feature]:
    for number, op in enumerate(ops):
        name = f"{entity}_{number}"
        if isinstance(op, TopCategory):
            words = Ids(vocabulary="category")
            yield Feature(
                name=name, entity=entity, op=op, dtype=DType.STRING, encoding=words, default="none", doc="A category."
            )
        else:
            dtype, default = (DType.DOUBLE, 0.5) if isinstance(op, Rate) else (DType.BIGINT, 0)
            yield Feature(
                name=name, entity=entity, op=op, dtype=dtype, encoding=Dense(), default=default, doc="A number."
            )


SHORT_WINDOWS = Catalog(
    features=(
        *_features(Entity.USER, (*_EVERYWHERE, *_USER)),
        *_features(Entity.ANCHOR, (*_EVERYWHERE, *_ANCHOR)),
        *_features(Entity.USER_CATEGORY, _EVERYWHERE),
        *_features(Entity.USER_ANCHOR, _EVERYWHERE),
    ),
    sequences=(),
    labels=(),
)


def short_and_long_logs(seeds: list[int]) -> RawLogs:
    """A short log per seed, and a long sparse one from the last seed."""
    return joined([many_logs(seeds), moved(random_logs(seeds[-1], LONG), len(seeds) * LOG_STRIDE)])
