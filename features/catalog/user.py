"""Who is watching: the user's own numbers, and what the user is to a category and to an anchor."""

from __future__ import annotations

from features.spec import (
    COMMENTS,
    ENTERS,
    FOLLOWS,
    GIFT_COINS,
    GIFTS,
    IMPRESSIONS,
    SHARES,
    WATCH_MS,
    ActiveDays,
    Buckets,
    DaysSinceLast,
    Dense,
    DistinctPartners,
    DType,
    Entity,
    Feature,
    Field,
    Ids,
    Rate,
    Snapshot,
    SnapshotAge,
    Sum,
    TopCategory,
)

WINDOWS = (1, 7, 30)
LOG = Dense(transform="log1p")

PROFILE = (
    Feature(
        name="user_id",
        entity=Entity.IMPRESSION,
        op=Field(column="user_id"),
        dtype=DType.BIGINT,
        encoding=Ids(vocabulary="user", min_frequency=5),
        default=0,
        doc="The user.",
    ),
    *(
        Feature(
            name=f"user_{column}",
            entity=Entity.USER,
            op=Snapshot(column=column),
            dtype=DType.STRING,
            encoding=Ids(vocabulary=vocabulary, min_frequency=5),
            default="",
            doc=f"{column.capitalize()} in the user's profile.",
        )
        for column, vocabulary in (("gender", "gender"), ("city", "city"))
    ),
    Feature(
        name="user_age",
        entity=Entity.USER,
        op=Snapshot(column="age"),
        dtype=DType.BIGINT,
        encoding=Buckets(boundaries=(0, 18, 24, 30, 40, 50)),
        default=-1,
        doc="Years of age in the profile; -1 unknown.",
    ),
    Feature(
        name="user_registered_days",
        entity=Entity.USER,
        op=SnapshotAge(column="registered_on"),
        dtype=DType.BIGINT,
        encoding=Buckets(boundaries=(0, 1, 3, 7, 30, 180, 365)),
        default=-1,
        doc="Days since registration; -1 unknown.",
    ),
)

COUNTS = tuple(
    Feature(
        name=f"user_{measure.name}_{days}d",
        entity=Entity.USER,
        op=Sum(measure=measure, days=days),
        dtype=DType.BIGINT,
        encoding=LOG,
        default=0,
        doc=f"{measure.name} of the user.",
    )
    for measure in (IMPRESSIONS, ENTERS, WATCH_MS, GIFT_COINS)
    for days in WINDOWS
) + tuple(
    Feature(
        name=f"user_{measure.name}_30d",
        entity=Entity.USER,
        op=Sum(measure=measure, days=30),
        dtype=DType.BIGINT,
        encoding=LOG,
        default=0,
        doc=f"{measure.name} of the user.",
    )
    for measure in (GIFTS, FOLLOWS, COMMENTS, SHARES)
)

RATES = (
    *(
        Feature(
            name=f"user_enter_rate_{days}d",
            entity=Entity.USER,
            op=Rate(numerator=ENTERS, denominator=IMPRESSIONS, days=days, prior=0.2, strength=10),
            dtype=DType.DOUBLE,
            encoding=Dense(),
            default=0.2,
            doc="Smoothed share of impressions that the user entered.",
        )
        for days in (7, 30)
    ),
    Feature(
        name="user_gift_rate_30d",
        entity=Entity.USER,
        op=Rate(numerator=GIFTS, denominator=ENTERS, days=30, prior=0.015, strength=20),
        dtype=DType.DOUBLE,
        encoding=Dense(),
        default=0.015,
        doc="Smoothed gifts per enter.",
    ),
    Feature(
        name="user_watch_ms_per_enter_30d",
        entity=Entity.USER,
        op=Rate(numerator=WATCH_MS, denominator=ENTERS, days=30, prior=60_000.0, strength=5),
        dtype=DType.DOUBLE,
        encoding=LOG,
        default=60_000.0,
        doc="Smoothed milliseconds watched per enter.",
    ),
)

HABITS = (
    Feature(
        name="user_active_days_30d",
        entity=Entity.USER,
        op=ActiveDays(measure=ENTERS, days=30),
        dtype=DType.BIGINT,
        encoding=Dense(),
        default=0,
        doc="Days with an enter.",
    ),
    Feature(
        name="user_days_since_enter",
        entity=Entity.USER,
        op=DaysSinceLast(measure=ENTERS, days=30),
        dtype=DType.BIGINT,
        encoding=Buckets(boundaries=(1, 2, 3, 5, 8, 15, 31)),
        default=31,
        doc="Days since the last enter; 31 = not within 30 days.",
    ),
    Feature(
        name="user_anchors_30d",
        entity=Entity.USER,
        op=DistinctPartners(measure=ENTERS, days=30),
        dtype=DType.BIGINT,
        encoding=LOG,
        default=0,
        doc="Distinct anchors entered.",
    ),
    *(
        Feature(
            name=f"user_top_category_{days}d",
            entity=Entity.USER,
            op=TopCategory(measure=measure, days=days),
            dtype=DType.STRING,
            encoding=Ids(vocabulary="category"),
            default="",
            doc=f"Category with the most {measure.name}.",
        )
        for measure, days in ((ENTERS, 7), (WATCH_MS, 30))
    ),
)

AFFINITIES = tuple(
    feature
    for entity, prefix, strength in ((Entity.USER_CATEGORY, "user_category", 8), (Entity.USER_ANCHOR, "user_anchor", 4))
    for feature in (
        *(
            Feature(
                name=f"{prefix}_{measure.name}_{days}d",
                entity=entity,
                op=Sum(measure=measure, days=days),
                dtype=DType.BIGINT,
                encoding=LOG,
                default=0,
                doc=f"{measure.name} between the two.",
            )
            for measure in (IMPRESSIONS, ENTERS, WATCH_MS)
            for days in (7, 30)
        ),
        *(
            Feature(
                name=f"{prefix}_enter_rate_{days}d",
                entity=entity,
                op=Rate(numerator=ENTERS, denominator=IMPRESSIONS, days=days, prior=0.2, strength=strength),
                dtype=DType.DOUBLE,
                encoding=Dense(),
                default=0.2,
                doc="Smoothed enter rate between the two.",
            )
            for days in (7, 30)
        ),
        Feature(
            name=f"{prefix}_gift_coins_30d",
            entity=entity,
            op=Sum(measure=GIFT_COINS, days=30),
            dtype=DType.BIGINT,
            encoding=LOG,
            default=0,
            doc="Coins given between the two.",
        ),
    )
)

FEATURES = (*PROFILE, *COUNTS, *RATES, *HABITS, *AFFINITIES)
