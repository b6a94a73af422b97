"""The live session: what is known of it at its start, and its heat when it is shown."""

from __future__ import annotations

from features.spec import (
    Buckets,
    Dense,
    DType,
    Entity,
    Feature,
    Ids,
    RoomAge,
    RoomField,
    RoomLast,
    RoomSum,
    Vector,
)

CONTENT_DIM = 8

FEATURES = (
    Feature(
        name="category",
        entity=Entity.ROOM,
        op=RoomField(column="category"),
        dtype=DType.STRING,
        encoding=Ids(vocabulary="category"),
        default="",
        doc="Category of the room.",
    ),
    Feature(
        name="room_content",
        entity=Entity.ROOM,
        op=RoomField(column="content"),
        dtype=DType.VECTOR,
        encoding=Vector(dim=CONTENT_DIM),
        default=None,
        doc="Embedding of the room's content, passed through.",
    ),
    Feature(
        name="room_age_minutes",
        entity=Entity.ROOM,
        op=RoomAge(),
        dtype=DType.BIGINT,
        encoding=Buckets(boundaries=(0, 1, 5, 15, 30, 60, 120, 240)),
        default=-1,
        doc="Minutes since the room started; -1 unknown.",
    ),
    Feature(
        name="room_viewers",
        entity=Entity.ROOM,
        op=RoomLast(column="viewers", minutes=60),
        dtype=DType.BIGINT,
        encoding=Dense(transform="log1p"),
        default=0,
        doc="Viewers at the last complete minute: the room's heat.",
    ),
    *(
        Feature(
            name=f"room_{column}_{minutes}m",
            entity=Entity.ROOM,
            op=RoomSum(column=column, minutes=minutes),
            dtype=DType.BIGINT,
            encoding=Dense(transform="log1p"),
            default=0,
            doc=f"{column} of the room in the last complete minutes.",
        )
        for column, minutes in (("entries", 10), ("comments", 10), ("gift_coins", 10), ("entries", 60))
    ),
)
