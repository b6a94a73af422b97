"""What the user did last."""

from __future__ import annotations

from features.spec import Buckets, Ids, SequenceFeature, SequenceField

ANCHOR = SequenceField(name="anchor", source="anchor_id", encoding=Ids(vocabulary="anchor", min_frequency=5))
CATEGORY = SequenceField(name="category", source="category", encoding=Ids(vocabulary="category"))
AGE = SequenceField(
    name="age",
    source="age_s",
    encoding=Buckets(boundaries=(60, 600, 3_600, 6 * 3_600, 86_400, 3 * 86_400, 7 * 86_400, 14 * 86_400)),
)

SEQUENCES = (
    SequenceFeature(
        name="watched",
        action="watch",
        length=50,
        max_age_days=30,
        fields=(
            ANCHOR,
            CATEGORY,
            SequenceField(
                name="watch_time",
                source="watch_ms",
                encoding=Buckets(boundaries=(2_000, 10_000, 30_000, 60_000, 180_000, 600_000)),
            ),
            AGE,
        ),
        doc="Last anchors watched.",
    ),
    SequenceFeature(
        name="gifted",
        action="gift",
        length=20,
        max_age_days=30,
        fields=(
            ANCHOR,
            CATEGORY,
            SequenceField(name="coins", source="coins", encoding=Buckets(boundaries=(2, 10, 50, 100, 500, 1_000))),
            AGE,
        ),
        doc="Last anchors given a gift.",
    ),
)
