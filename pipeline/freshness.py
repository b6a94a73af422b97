"""What stands of a committed partition: all of it, some of its columns, or nothing.

    inputs, code, conf, keys     another one: nothing stands
    meanings of the columns      those of the same meaning stand: they can be copied, and the others computed alone

An input that was rewritten around the columns that it had (`same_rows_as`) is no other one: what was made of them
stands. What is said of columns holds for the rows of an action in the states of the last actions too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from features.errors import MAX_EXAMPLES
from pipeline.manifests import PartitionManifest
from pipeline.meanings import KEYS, read_for_some_columns, stands_in_parts

KEYS_CHANGED = "which keys there are, by the longest window"


@dataclass(frozen=True, kw_only=True)
class Making:
    """What the rows of a table are made by and of."""

    code: str
    conf: str
    meanings: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Change:
    """Something that is not what it was; None where it was not, or is not any more."""

    what: str
    was: str | None
    now: str | None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A committed partition against what it would be made of now.

    Attributes:
        whole: why nothing of it stands; empty when something does.
        columns: those that came, went or changed their meaning.
        kept: columns that stand, in their order of now.
        computed: columns that have to be computed, likewise.
        is_fresh: it is what it would be.
    """

    manifest: PartitionManifest
    whole: tuple[Change, ...]
    columns: tuple[Change, ...]
    kept: tuple[str, ...]
    computed: tuple[str, ...]
    is_fresh: bool

    @property
    def is_partial(self) -> bool:
        """Whether some of its columns stand, and it is not fresh."""
        return not self.whole and not self.is_fresh

    @property
    def like(self) -> tuple[str, ...]:
        """The contents whose columns of the same meaning are those of this partition."""
        return (self.manifest.digest, *self.manifest.same_rows_as)

    def told(self) -> str:
        """In words, what is computed and what is kept."""
        groups: dict[str, list[str]] = {}
        for change in self.columns:
            word = "new" if change.was is None else "gone" if change.now is None else "changed"
            groups.setdefault(word, []).append(change.what)
        if not groups:
            return f"another order of columns, or inputs that were widened; all {len(self.kept)} columns are kept"
        return "; ".join([*(f"{word}: {_some(names)}" for word, names in groups.items()), f"{len(self.kept)} are kept"])


def compare(
    manifest: PartitionManifest,
    inputs: Mapping[str, str],
    making: Making,
    keeps_rows_of: Callable[[str, str], bool],
) -> Standing:
    """What stands of a partition.

    Args:
        inputs: as they are now.
        keeps_rows_of: whether an input, as it is now, kept the columns of the content with a digest.
    """
    was, now = manifest.meanings, making.meanings
    columns = tuple(
        Change(what=name, was=was.get(name), now=now.get(name))
        for name in dict.fromkeys([*now, *was])
        if name != KEYS and was.get(name) != now.get(name)
    )
    kept = tuple(name for name, meaning in now.items() if name != KEYS and was.get(name) == meaning)
    whole = [*_input_changes(manifest, inputs, columns, keeps_rows_of)]
    for what, before, after in (
        ("code", manifest.code, making.code),
        ("conf time", manifest.conf, making.conf),
        (KEYS_CHANGED, was.get(KEYS), now.get(KEYS)),
    ):
        if before != after:
            whole.append(Change(what=what, was=before, now=after))
    if columns and (not kept or not stands_in_parts(manifest.table)):
        whole += [Change(what=f"catalog: {change.what}", was=change.was, now=change.now) for change in columns]
    is_same = not whole and not columns and list(was) == list(now)
    return Standing(
        manifest=manifest,
        whole=tuple(whole),
        columns=columns,
        kept=kept,
        computed=tuple(name for name in now if name != KEYS and name not in kept),
        is_fresh=is_same and dict(manifest.inputs) == dict(inputs),
    )


def _input_changes(
    manifest: PartitionManifest,
    inputs: Mapping[str, str],
    columns: Sequence[Change],
    keeps_rows_of: Callable[[str, str], bool],
) -> Iterator[Change]:
    """Inputs that are others than they were, so that no column stands."""
    before, after = ({_table(name) for name in names} for names in (manifest.inputs, inputs))
    came = after - before if any(column.now is not None for column in columns) else set[str]()
    went = before - after if any(column.was is not None for column in columns) else set[str]()
    with_columns = (came | went) & read_for_some_columns(manifest.table)
    for name in sorted(manifest.inputs.keys() | inputs.keys()):
        was, now = manifest.inputs.get(name), inputs.get(name)
        is_widened = was is not None and now is not None and keeps_rows_of(name, was)
        if was != now and not is_widened and _table(name) not in with_columns:
            yield Change(what=name, was=was, now=now)


def _table(partition: str) -> str:
    return partition.rsplit("/", 1)[0]


def _some(names: list[str]) -> str:
    more = len(names) - MAX_EXAMPLES
    return ", ".join(names[:MAX_EXAMPLES]) + (f" and {more} more" if more > 0 else "")
