"""How the run was made: time and rows by stage, pace of the trainings, lineage. Facts → blocks; nothing is read."""

from __future__ import annotations

from jobs.page.facts import Facts
from jobs.page.lineage import RAW, Lineage, Read
from jobs.page.model import UNKNOWN, BarChart, Block, DataTable, Fold, Missing, Note, Section
from jobs.page.words import count, number, percent, seconds

SHORT = 16  # signs of a digest that are shown


def stages(facts: Facts) -> Section:
    """Seconds and rows of every stage of the run."""
    if facts.summary is None or not facts.summary.stages:
        why = "the run's folder has no summary.json: its command did not end, or a scheduler took it step by step"
        what = Missing(what="stage times", why=why)
        return Section(anchor="stages", title="Time and rows by stage", blocks=(what,))
    done = facts.summary.stages
    table = DataTable(
        caption="Stages in the order in which they ended",
        head=("stage", "seconds", "rows written", "rows/s"),
        rows=tuple(
            (s.name, number(s.seconds, 1), count(s.rows), count(round(s.rows / s.seconds)) if s.seconds else UNKNOWN)
            for s in done
        ),
    )
    total = facts.summary.seconds_total
    bars = tuple((s.name, s.seconds, seconds(s.seconds)) for s in done)
    note = Note(f"{seconds(total)} from the start of the command to its summary.")
    return Section(
        anchor="stages",
        title="Time and rows by stage",
        blocks=(note, BarChart(title="Seconds by stage", bars=bars, table=table)),
    )


def training(facts: Facts) -> Section:
    """Pace of every training."""
    blocks: list[Block] = []
    rows = []
    for model in facts.models:
        result = model.result
        if result is None:
            blocks.append(Missing(what=f"training of {model.model}", why="its run folder has no result.json"))
            continue
        exchange = result.exchange_ms_per_step
        sent = None if result.bytes_sent_per_step is None else result.bytes_sent_per_step / 1e6
        rows.append(
            (
                model.model,
                count(result.world_size),
                count(result.epochs),
                count(result.steps),
                count(None if result.rows_per_second is None else round(result.rows_per_second)),
                percent(result.waiting_share),
                count(result.dropped_per_epoch),
                number(exchange, 2),
                number(sent, 3),
            )
        )
    if rows:
        feed = ("rows/s, all ranks", "waiting for data", "rows dropped per epoch")
        head = ("model", "ranks", "epochs", "steps", *feed, "exchange, ms per step", "sent, MB per step")
        blocks.insert(0, DataTable(caption="Pace of the trainings", head=head, rows=tuple(rows)))
        words = (
            "Waiting is the share of its steps' wall time in which the rank that waited most stood still for the feed."
        )
        blocks.append(Note(words))
    return Section(anchor="training", title="Training", blocks=tuple(blocks))


def lineage(facts: Facts) -> Section:
    """Versions → run → train set → samples → … → raw partitions."""
    blocks: list[Block] = [_versions(facts), *_tables(facts)]
    return Section(anchor="lineage", title="Lineage: from model to raw partitions", blocks=tuple(blocks))


def _versions(facts: Facts) -> Block:
    rows = []
    for model in facts.models:
        digest = facts.run.digests.get(model.model)
        versions = [v.version for v in model.versions if digest is not None and v.digest == digest]
        named = ", ".join(versions) or "none"
        rows.append((model.model, named, f"{facts.run.name}/{model.model}", digest[:SHORT] if digest else UNKNOWN))
    return DataTable(
        caption="Models of this run",
        head=("model", "published as version", "run", "digest of the published folder"),
        rows=tuple(rows),
        left=4,
    )


def _tables(facts: Facts) -> list[Block]:
    found = facts.lineage
    if not found.tables:
        return [Missing(what="lineage of the train set", why=f"there is no committed train set {facts.run.name}")]
    folds: list[Block] = [_table_fold(found, table) for table in found.tables]
    if not any(table.startswith(RAW) for table in found.tables):
        folds.append(Missing(what="raw partitions", why="no manifest on the way down names any"))
    return folds


def _table_fold(found: Lineage, table: str) -> Fold:
    reads = found.tables[table]
    first, last = (read.partition.partition("=")[2] or read.partition for read in (reads[0], reads[-1]))
    span = first if len(reads) == 1 else f"{first} to {last}"
    number_of = f"{len(reads)} partition{'s' if len(reads) != 1 else ''}"
    blocks: list[Block] = []
    made_from = found.made_from(table)
    if made_from:
        blocks.append(Note(f"Made from {', '.join(made_from)}."))
    elif not table.startswith(RAW):
        blocks.append(Missing(what=f"what {table} was made from", why="its manifests name no inputs, or are gone"))
    blocks.append(_partitions(table, reads))
    changed = sum(read.state not in ("raw", "as it was read") for read in reads)
    note = f", {changed} not as read" if changed else ""
    return Fold(title=f"{table}: {number_of}, {span}{note}", blocks=tuple(blocks))


def _partitions(table: str, reads: tuple[Read, ...]) -> DataTable:
    if table.startswith(RAW):
        rows = tuple((read.partition, read.digest[:SHORT]) for read in reads)
        return DataTable(caption=table, head=("partition", "digest of its listing"), rows=rows, left=2)
    return DataTable(
        caption=table,
        head=("partition", "digest that was read", "state", "made at (UTC)", "rows", "inputs"),
        rows=tuple(
            (
                read.partition,
                read.digest[:SHORT],
                read.state,
                read.made_at.strftime("%Y-%m-%d %H:%M:%S") if read.made_at else UNKNOWN,
                count(read.rows),
                count(len(read.inputs)),
            )
            for read in reads
        ),
        left=4,
    )
