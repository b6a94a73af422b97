"""Where and when the room was shown."""

from __future__ import annotations

from features.spec import Buckets, DayOfWeek, DType, Entity, Feature, Field, HourOfDay, Ids, Position

FEATURES = (
    Feature(
        name="hour",
        entity=Entity.IMPRESSION,
        op=HourOfDay(),
        dtype=DType.BIGINT,
        encoding=Buckets(boundaries=tuple(range(1, 24))),
        default=0,
        doc="Hour of the day, business time.",
    ),
    Feature(
        name="weekday",
        entity=Entity.IMPRESSION,
        op=DayOfWeek(),
        dtype=DType.BIGINT,
        encoding=Buckets(boundaries=tuple(range(1, 7))),
        default=0,
        doc="Day of the week, 0 = Monday.",
    ),
    *(
        Feature(
            name=column,
            entity=Entity.IMPRESSION,
            op=Field(column=column),
            dtype=DType.STRING,
            encoding=Ids(vocabulary=column),
            default="",
            doc=f"{column.capitalize()} of the impression.",
        )
        for column in ("scene", "device")
    ),
    Feature(
        name="position",
        entity=Entity.IMPRESSION,
        op=Field(column="position"),
        dtype=DType.BIGINT,
        encoding=Position(size=32),
        default=0,
        doc="Display position: known in training, not when serving.",
    ),
)
