"""Who is streaming: the anchor's profile, reach and habits."""

from __future__ import annotations

from features.spec import (
    ENTERS,
    FOLLOWS,
    GIFT_COINS,
    GIFTS,
    IMPRESSIONS,
    WATCH_MS,
    Buckets,
    Dense,
    DistinctPartners,
    DType,
    Entity,
    Feature,
    Field,
    Ids,
    OnAir,
    Rate,
    Snapshot,
    SnapshotAge,
    Sum,
)

LOG = Dense(transform="log1p")

PROFILE = (
    Feature(
        name="anchor_id",
        entity=Entity.IMPRESSION,
        op=Field(column="anchor_id"),
        dtype=DType.BIGINT,
        encoding=Ids(vocabulary="anchor", min_frequency=5),
        default=0,
        doc="The anchor.",
    ),
    *(
        Feature(
            name=f"anchor_{column}",
            entity=Entity.ANCHOR,
            op=Snapshot(column=column),
            dtype=DType.STRING,
            encoding=Ids(vocabulary=vocabulary, min_frequency=5),
            default="",
            doc=f"{column.capitalize()} in the anchor's profile.",
        )
        for column, vocabulary in (("gender", "gender"), ("city", "city"))
    ),
    Feature(
        name="anchor_age",
        entity=Entity.ANCHOR,
        op=Snapshot(column="age"),
        dtype=DType.BIGINT,
        encoding=Buckets(boundaries=(0, 18, 24, 30, 40, 50)),
        default=-1,
        doc="Years of age in the profile; -1 unknown.",
    ),
    Feature(
        name="anchor_level",
        entity=Entity.ANCHOR,
        op=Snapshot(column="level"),
        dtype=DType.BIGINT,
        encoding=Buckets(boundaries=(0, 1, 5, 10, 20, 30, 40, 50)),
        default=-1,
        doc="Platform level; -1 unknown.",
    ),
    Feature(
        name="anchor_signed_days",
        entity=Entity.ANCHOR,
        op=SnapshotAge(column="signed_on"),
        dtype=DType.BIGINT,
        encoding=Buckets(boundaries=(0, 1, 3, 7, 30, 180, 365)),
        default=-1,
        doc="Days since the anchor signed; -1 unknown.",
    ),
)

REACH = (
    *(
        Feature(
            name=f"anchor_{measure.name}_{days}d",
            entity=Entity.ANCHOR,
            op=Sum(measure=measure, days=days),
            dtype=DType.BIGINT,
            encoding=LOG,
            default=0,
            doc=f"{measure.name} of the anchor's rooms.",
        )
        for measure in (IMPRESSIONS, ENTERS, WATCH_MS, GIFT_COINS)
        for days in (1, 7, 30)
    ),
    *(
        Feature(
            name=f"anchor_enter_rate_{days}d",
            entity=Entity.ANCHOR,
            op=Rate(numerator=ENTERS, denominator=IMPRESSIONS, days=days, prior=0.2, strength=20),
            dtype=DType.DOUBLE,
            encoding=Dense(),
            default=0.2,
            doc="Smoothed share of impressions that were entered.",
        )
        for days in (1, 7, 30)
    ),
    Feature(
        name="anchor_gift_rate_30d",
        entity=Entity.ANCHOR,
        op=Rate(numerator=GIFTS, denominator=ENTERS, days=30, prior=0.015, strength=50),
        dtype=DType.DOUBLE,
        encoding=Dense(),
        default=0.015,
        doc="Smoothed gifts per enter.",
    ),
    Feature(
        name="anchor_watch_ms_per_enter_30d",
        entity=Entity.ANCHOR,
        op=Rate(numerator=WATCH_MS, denominator=ENTERS, days=30, prior=60_000.0, strength=20),
        dtype=DType.DOUBLE,
        encoding=LOG,
        default=60_000.0,
        doc="Smoothed milliseconds watched per enter.",
    ),
    Feature(
        name="anchor_audience_30d",
        entity=Entity.ANCHOR,
        op=DistinctPartners(measure=ENTERS, days=30),
        dtype=DType.BIGINT,
        encoding=LOG,
        default=0,
        doc="Distinct users who entered.",
    ),
    Feature(
        name="anchor_fans_30d",
        entity=Entity.ANCHOR,
        op=DistinctPartners(measure=FOLLOWS, days=30),
        dtype=DType.BIGINT,
        encoding=LOG,
        default=0,
        doc="Distinct users who followed.",
    ),
)

AIR = tuple(
    Feature(
        name=f"anchor_on_air_ms_{days}d",
        entity=Entity.ANCHOR,
        op=OnAir(days=days),
        dtype=DType.BIGINT,
        encoding=LOG,
        default=0,
        doc="Milliseconds on air.",
    )
    for days in (7, 30)
)

FEATURES = (*PROFILE, *REACH, *AIR)
