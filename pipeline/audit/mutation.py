"""Mutation trial: in a scratch copy, what no row may see is deleted, changed and added, and nothing may move.

1. raw rows of some users, three times over                 a scratch warehouse, see `scratch.py`
2. the pipeline's own stages over it, for one day D         samples of D: every impression on three sides
3. side 1 and side 2 against side 0, column by column       columns that moved
4. the scratch warehouse is removed
"""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from features import storage
from features.schema import Catalog, sequence_name
from features.spec import TILED_ENTITIES, Entity, SnapshotOp, WindowOp
from pipeline.audit.conf import AuditConf
from pipeline.audit.duck import Connection, connect, fetch, make_view, quoted
from pipeline.audit.report import Finding, Verdict, shown
from pipeline.audit.sample_set import ROOM_GROUP, Own, profile_group, sequence_group, snapshot_group
from pipeline.audit.scratch import AS_OF, EVENT, Scratch, write_scratch
from pipeline.config import ChecksConf, Limit
from pipeline.context import Context
from pipeline.run import compute_samples, open_context
from pipeline.stages.names import SAMPLES

Report = Callable[[str], None]
Compute = Callable[[Context, Sequence[datetime.date], Report], object]
"""Tiles, profiles and samples of some days: what the trial puts on trial."""


def mutation_trial(
    own: Own, conf: AuditConf, report: Report, *, scratch: str | None = None, compute: Compute = compute_samples
) -> list[Finding]:
    """A finding per group of features that stood still, and per column that moved.

    Args:
        scratch: folder (or URL that every executor reaches) for the copy; a temporary one by default. What is written
            below it is removed.
    """
    day = own.days[-1]
    with _scratch_folder(scratch) as folder, connect() as connection:
        report(f"copying raw rows of {conf.mutation_users:,} users for {day}")
        made = write_scratch(connection, own.context, day, conf.mutation_users, folder)
        if not made.users:
            what = f"nobody has an impression on {day}"
            return [_finding("all features", Verdict.NOT_CHECKABLE, what)]
        # What is changed on purpose is not to be stopped by how unusual it is.
        unjudged = ChecksConf.model_validate({name: Limit() for name in _limits()})
        conf_of_copy = own.context.conf.model_copy(update={"checks": unjudged})
        context = open_context(own.context.spark, folder, conf_of_copy)
        try:
            compute(context, [day], lambda text: report(f"scratch copy: {text}"))
        finally:
            context.raw.close()
        report("comparing the three sides")
        manifest = context.warehouse.require(SAMPLES, [day])[day]
        make_view(connection, "computed", context.warehouse.file_urls(manifest))
        return [*_as_of(connection, own.context.catalog, made), *_event(connection, own.context.catalog, made)]


def _limits() -> list[str]:
    """Names of the thresholds of border checks."""
    return [name for name, field in ChecksConf.model_fields.items() if field.annotation is Limit]


@contextmanager
def _scratch_folder(given: str | None) -> Iterator[str]:
    """A folder of its own, removed at the end, whatever happens."""
    if given is None:
        with tempfile.TemporaryDirectory(prefix="limelight-audit-") as folder:
            yield folder
        return
    folder = f"{storage.absolute(given)}/limelight-audit"
    storage.delete(folder)
    try:
        yield folder
    finally:
        storage.delete(folder)


def _finding(subject: str, verdict: Verdict, what: str, **more: object) -> Finding:
    return Finding.model_validate({"check": "mutation", "subject": subject, "verdict": verdict, "what": what, **more})


def _as_of(connection: Connection, catalog: Catalog, made: Scratch) -> Iterator[Finding]:
    """Profiles and snapshots of D: no impression of D may have moved on side 1."""
    rule = f"what happened or arrived on {made.day} or later was changed"
    for entity in TILED_ENTITIES:
        windows = [f.name for f in catalog.of_entity(entity) if isinstance(f.op, WindowOp)]
        snapshot = [f.name for f in catalog.of_entity(entity) if isinstance(f.op, SnapshotOp)]
        for group, names in ((profile_group(entity), windows), (snapshot_group(entity), snapshot)):
            if names:
                tables = ("users", "anchors") if names is snapshot else ("impressions", "actions", "rooms")
                yield from _group(connection, made, AS_OF, group, dict.fromkeys(names, ""), "true", tables, rule)


def _event(connection: Connection, catalog: Catalog, made: Scratch) -> Iterator[Finding]:
    """Sequences and room state: what is shown up to the cutoff of its user (its room) may not have moved on side 2."""
    rule = "what was complete at or after the cutoff, or arrived after the day, was changed"
    for key, group, names in _event_groups(catalog, made.stride * EVENT):
        cut = f"epoch_us(b.ts) - {made.lag_micros} <= (SELECT c.cut FROM cuts_{key} c WHERE c.{key}_id = b.{key}_id)"
        tables = ("room_stats", "rooms") if key == "room" else ("actions",)
        yield from _group(connection, made, EVENT, group, names, cut, tables, rule)


def _event_groups(catalog: Catalog, shift: int) -> Iterator[tuple[str, str, dict[str, str]]]:
    """(whose cutoff, group, column → how ids in it are moved back)."""
    for sequence in catalog.sequences:
        names = {}
        for field in sequence.fields:
            back = f"list_transform({{}}, lambda x: x - {shift})" if field.source == "anchor_id" else ""
            names[sequence_name(sequence.name, field.name)] = back
        yield "user", sequence_group(sequence.name), names
    yield "room", ROOM_GROUP, {feature.name: "" for feature in catalog.of_entity(Entity.ROOM)}


def _group(
    connection: Connection,
    made: Scratch,
    side: int,
    group: str,
    columns: dict[str, str],
    condition: str,
    tables: Sequence[str],
    rule: str,
) -> Iterator[Finding]:
    """Base rows `b` against those of a side, `m`, where the condition holds; a row that is lost has moved."""
    both = f"""FROM computed b LEFT JOIN computed m ON m.impression_id = b.impression_id + {side * made.stride}
        WHERE b.impression_id < {made.stride // 4} AND {condition}"""
    moved = {name: _moved(name, back) for name, back in columns.items()}
    counts = ", ".join(f"count(*) FILTER ({sql})" for sql in moved.values())
    rows, *found = fetch(connection, f"SELECT count(*), {counts} {both}")[0]
    changed = sum(made.mutated[side][table] for table in tables)
    figures = {"rows": rows, "raw rows deleted, changed or added": changed, "users": made.users}
    if not rows or not changed:
        what = "the day has no rows to compare, or nothing that could be changed"
        yield _finding(group, Verdict.NOT_CHECKABLE, what, figures=figures)
        return
    leaks = {name: count for name, count in zip(moved, found, strict=True) if count}
    for name, count in leaks.items():
        column = quoted(name)
        raw_id = "(SELECT n.id FROM numbers_impression_id n WHERE n.number = b.impression_id)"
        sql = f"SELECT {raw_id}, b.{column}, m.{column} {both} AND {moved[name]} ORDER BY 1 LIMIT 5"
        examples = [f"impression {row[0]}: {row[1]} became {row[2]}"[:120] for row in fetch(connection, sql)]
        what = f"{rule}, and {count:,} of {rows:,} rows moved"
        yield _finding(name, Verdict.LEAK, what, count=count, examples=shown(examples), figures=figures)
    if len(leaks) < len(columns):
        still = len(columns) - len(leaks)
        what = f"{rule} ({changed:,} raw rows); {still} of {len(columns)} columns stood still in {rows:,} rows"
        yield _finding(group, Verdict.PASS, what, figures=figures)


def _moved(name: str, back: str) -> str:
    theirs = f"m.{quoted(name)}"
    return f"(b.{quoted(name)} IS DISTINCT FROM {back.format(theirs) if back else theirs})"
