"""What the models learn to predict."""

from __future__ import annotations

from features.spec import Label

LABELS = (
    Label(name="enter", space="impressions", action="enter", doc="The user entered the room."),
    Label(
        name="watch",
        space="entered",
        action="watch",
        parent="enter",
        positive_from=30.0,
        negative_to=2.0,
        doc="Watched at least 30 s (positive) or at most 2 s (negative).",
    ),
    *(
        Label(name=action, space="entered", action=action, parent="enter", doc=f"{action} after the enter.")
        for action in ("gift", "follow", "comment", "like", "share")
    ),
)
