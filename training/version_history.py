"""What became of a model's versions, as their tags and the alias tell it.

Tags, all on versions:

    limelight.digest       digest of the folder's MANIFEST.json
    limelight.promotion    who, what, why, when, and the version that it takes over from: rollback goes there
    limelight.rollback     who, what, why, when, and the version that it gave way to; none when it was withdrawn
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from features.errors import DataError, Problem
from features.manifest import Frozen

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

State = Literal["champion", "retired", "rolled back", "withdrawn", "never promoted"]
DIGEST_TAG = "limelight.digest"
PROMOTION_TAG = "limelight.promotion"
ROLLBACK_TAG = "limelight.rollback"


class Move(Frozen):
    """Who moved the alias, why and when; `previous` and `to` are versions."""

    who: str
    why: str
    when: str
    previous: str | None = None
    to: str | None = None


@dataclass(frozen=True, kw_only=True)
class Version:
    """A registered version.

    Attributes:
        state: champion now; retired, when a later one took over; rolled back; withdrawn, when nothing took its
            place; or never promoted, when a publication ended before the alias moved.
        uri: of the published folder.
    """

    name: str
    version: str
    state: State
    uri: str
    digest: str
    run_id: str | None
    promotion: Move | None
    rollback: Move | None


def history_of(found: Iterable[ModelVersion], champion: str | None) -> list[Version]:
    """All versions of a model, newest first; `champion` is the one in use.

    Raises:
        DataError: a version has no folder, or a tag of somebody else's.
    """
    versions = {str(v.version): v for v in sorted(found, key=lambda v: -int(v.version))}
    line = _line(versions, champion)
    return [_described(version, line) for version in versions.values()]


def _line(versions: Mapping[str, ModelVersion], champion: str | None) -> list[str]:
    """The champion, its predecessor, that one's predecessor, and so on."""
    line: list[str] = []
    at = champion
    while at is not None and at in versions and at not in line:
        line.append(at)
        promotion = move_of(versions[at], PROMOTION_TAG)
        at = promotion.previous if promotion else None
    return line


def _described(version: ModelVersion, line: list[str]) -> Version:
    rollback = move_of(version, ROLLBACK_TAG)
    number = str(version.version)
    state: State = "never promoted"
    if line and number == line[0]:
        state = "champion"
    elif rollback is not None:
        state = "rolled back" if rollback.to is not None else "withdrawn"
    elif number in line:
        state = "retired"
    return Version(
        name=version.name,
        version=number,
        state=state,
        uri=source_of(version),
        digest=version.tags.get(DIGEST_TAG, ""),
        run_id=version.run_id,
        promotion=move_of(version, PROMOTION_TAG),
        rollback=rollback,
    )


def move_of(version: ModelVersion, tag: str) -> Move | None:
    """What a tag of a version says; None where it has none.

    Raises:
        DataError: somebody else has written the tag.
    """
    text = version.tags.get(tag)
    if text is None:
        return None
    try:
        return Move.model_validate_json(text)
    except ValidationError as error:
        remedy = "Only Limelight may write this tag; delete it, or restore its value"
        what = f"tag {tag} of version {version.version} of {version.name} is not readable: {error.errors()[0]['msg']}"
        raise DataError([Problem(what=what, remedy=remedy)]) from error


def source_of(version: ModelVersion) -> str:
    """URI of a version's published folder.

    Raises:
        DataError: it has none.
    """
    if version.source is None:
        remedy = "Publish the model again; only Limelight may register versions of it"
        what = f"version {version.version} of {version.name} has no published folder"
        raise DataError([Problem(what=what, remedy=remedy)])
    return str(version.source)
