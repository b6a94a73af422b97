"""The command `limelight`: each subcommand parses, loads conf, and calls one function."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.table import Table

from jobs import cli_gate, cli_registry, cli_samples, cli_trigger
from jobs.cli_options import (
    DEFAULT_WAREHOUSE,
    Day,
    Force,
    From,
    Out,
    Overrides,
    Place,
    Resume,
    To,
    Warehouse,
    parse_day,
)
from jobs.console import Steps, console, people_first

app = typer.Typer(
    name="limelight",
    help="From raw live-stream logs to trained, gated, published ranking models.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
)


@app.command()
def ingest(
    source: Annotated[str, typer.Argument(help="simulate, kuairand, kuailive or completejourney.")],
    warehouse: Warehouse = DEFAULT_WAREHOUSE,
    data: Annotated[str | None, typer.Option(help="Folder of the dataset (kuairand, kuailive).")] = None,
    impressions: Annotated[int, typer.Option(help="simulate: impressions over all days, 10^4 to 10^9.")] = 300_000,
    users: Annotated[int | None, typer.Option(help="simulate: users before the first day.")] = None,
    days: Annotated[int | None, typer.Option(help="Days (simulate: 18, completejourney: 24).")] = None,
    from_day: Annotated[int, typer.Option(help="simulate: first day to write, counted from 0.")] = 0,
    to_day: Annotated[int | None, typer.Option(help="simulate: end of the days to write.")] = None,
    seed: Annotated[int, typer.Option(help="simulate: everything random follows from it.")] = 20250301,
    truth: Annotated[str | None, typer.Option(help="simulate: folder of the true probabilities.")] = None,
    place: Place = "local",
) -> None:
    """Write raw tables from a source."""
    from jobs.ingest import IngestOptions
    from jobs.run_command import ingest_source

    options = IngestOptions(
        data=data,
        truth=truth,
        impressions=impressions,
        users=users,
        days=days,
        seed=seed,
        from_day=from_day,
        to_day=to_day,
    )
    with people_first():
        ingest_source(source, options, warehouse, place, Steps())


@app.command("write-kuailive")
def write_kuailive(
    to: Annotated[str, typer.Option("--to", help="Folder for the CSV files.")],
    warehouse: Warehouse = DEFAULT_WAREHOUSE,
    place: Place = "local",
) -> None:
    """Write a warehouse's raw tables, e.g. simulated ones, in KuaiLive's official CSV layout."""
    from jobs.run_command import write_kuailive_layout

    with people_first():
        write_kuailive_layout(warehouse, to, place)


@app.command("check-raw")
def check_raw(
    warehouse: Warehouse = DEFAULT_WAREHOUSE,
    from_: From = None,
    to: To = None,
    place: Place = "local",
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Does the warehouse keep the raw-table contract? All violations at once."""
    from jobs.run_command import check_raw_tables

    with people_first():
        raise typer.Exit(check_raw_tables(warehouse, from_, to, place, overrides))


@app.command()
def backfill(
    from_: From = None,
    to: To = None,
    warehouse: Warehouse = DEFAULT_WAREHOUSE,
    place: Place = "local",
    overrides: Overrides = [],  # noqa: B006
    force: Force = False,
    stale: Annotated[
        bool, typer.Option("--stale", help="Rebuild what `limelight plan -w` lists, and no more.")
    ] = False,
) -> None:
    """Compute everything up to the samples of some days, or what is stale; what is up to date is left alone."""
    if stale == (from_ is not None or to is not None) or (from_ is None) != (to is None):
        raise typer.BadParameter("give either --stale, or --from and --to")
    with people_first():
        if stale:
            from jobs.stale import backfill_stale

            raise typer.Exit(backfill_stale(warehouse, place, overrides))
        from jobs.run_command import backfill_days

        assert from_ is not None
        assert to is not None
        backfill_days(warehouse, from_, to, place, overrides, force=force)


@app.command()
def daily(
    date: Day,
    warehouse: Warehouse = DEFAULT_WAREHOUSE,
    out: Out = Path("build/daily"),
    place: Place = "local",
    overrides: Overrides = [],  # noqa: B006
    truth: Annotated[str | None, typer.Option(help="The simulator's truth, for the report's ceilings.")] = None,
    resume: Resume = False,
) -> None:
    """Full retrain: train on the last M mature days, judge, publish. Sees only rows with dt before --date."""
    from jobs.run_command import retrain

    with people_first():
        raise typer.Exit(retrain("full", warehouse, date, place, overrides, out, truth, resume=resume))


@app.command()
def incremental(
    date: Day,
    warehouse: Warehouse = DEFAULT_WAREHOUSE,
    out: Out = Path("build/incremental"),
    place: Place = "local",
    overrides: Overrides = [],  # noqa: B006
    truth: Annotated[str | None, typer.Option(help="The simulator's truth, for the report's ceilings.")] = None,
    resume: Resume = False,
) -> None:
    """Warm start from the champions on the newly mature days but the last, which judges them."""
    from jobs.run_command import retrain

    with people_first():
        raise typer.Exit(retrain("incremental", warehouse, date, place, overrides, out, truth, resume=resume))


cli_trigger.add_to(app)
cli_samples.add_to(app)


@app.command()
def audit(
    warehouse: Warehouse = DEFAULT_WAREHOUSE,
    trainset: Annotated[str | None, typer.Option(help="A train set of the warehouse, with its artefacts.")] = None,
    from_: From = None,
    to: To = None,
    samples: Annotated[str | None, typer.Option(help="Folder of somebody's Parquet instead.")] = None,
    key: Annotated[str | None, typer.Option(help="--samples: column that names a row.")] = None,
    time: Annotated[str | None, typer.Option(help="--samples: column with the row's time.")] = None,
    label: Annotated[str | None, typer.Option(help="--samples: 0/1 columns, by commas.")] = None,
    group: Annotated[
        list[str],
        typer.Option(help="--samples: name=column,column@time: features, and when their newest event happened."),
    ] = [],  # noqa: B006
    checks: Annotated[str | None, typer.Option(help="cutoffs,probe,fitted,recompute,mutation; all by default.")] = None,
    scratch: Annotated[str | None, typer.Option(help="Where the mutation trial copies raw rows to.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for audit.json and audit.html.")] = Path(
        "build/audit"
    ),
    place: Place = "local",
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Does any row know its own future? Non-zero when something leaks or is suspected to."""
    from jobs.audit import AuditOptions, run_audit

    with people_first():
        options = AuditOptions(
            warehouse=warehouse, trainset=trainset, first=from_, last=to, samples=samples, key=key, time=time,
            labels=label, groups=group, checks=checks, scratch=scratch,
        )  # fmt: skip
        raise typer.Exit(run_audit(options, place, overrides, out))


@app.command()
def status(
    warehouse: Warehouse = DEFAULT_WAREHOUSE,
    place: Place = "local",
    checks: Annotated[bool, typer.Option("--checks", help="Every figure of the border checks instead.")] = False,
    table: Annotated[str | None, typer.Option(help="With --checks: only this table.")] = None,
    day: Annotated[
        datetime.date | None,
        typer.Option(parser=parse_day, metavar="YYYY-MM-DD", help="With --checks: this day, not the newest."),
    ] = None,
) -> None:
    """What is in the warehouse, what its border checks found, and which versions are published."""
    from jobs.status import show_checks, show_status

    with people_first():
        if checks or table is not None or day is not None:
            show_checks(warehouse, table, day)
        else:
            show_status(warehouse, place)


@app.command()
def page(
    warehouse: Warehouse = DEFAULT_WAREHOUSE,
    run: Annotated[str | None, typer.Option("--run", help="Name of the run: that of its train set.")] = None,
    date: Annotated[
        datetime.date | None,
        typer.Option("--date", "-d", parser=parse_day, metavar="YYYY-MM-DD", help="Every run of this date instead."),
    ] = None,
    place: Place = "local",
) -> None:
    """Draw the page of a run again, by default of the newest: verdict, figures, drift, lineage, as one HTML file."""
    if run is not None and date is not None:
        raise typer.BadParameter("give either --run or --date")
    from jobs.page.command import draw_pages

    with people_first():
        draw_pages(warehouse, place, run, date)


@app.command()
def gc(
    warehouse: Warehouse = DEFAULT_WAREHOUSE,
    place: Place = "local",
    overrides: Overrides = [],  # noqa: B006
    apply: Annotated[bool, typer.Option("--apply", help="Delete; without it nothing is.")] = False,
) -> None:
    """What may be deleted of the derived tables, how large it is, and why the rest is kept."""
    from jobs.gc import collect

    with people_first():
        collect(warehouse, place, overrides, apply=apply)


@app.command()
def forget(
    user: Annotated[int, typer.Option("--user", help="The user_id.")],
    warehouse: Warehouse = DEFAULT_WAREHOUSE,
    place: Place = "local",
    overrides: Overrides = [],  # noqa: B006
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without it nothing is changed.")] = False,
) -> None:
    """Where a user is and which models learned from it; with --apply, out of everything that was derived."""
    from jobs.forget import forget_user

    with people_first():
        forget_user(warehouse, user, place, overrides, apply=apply)


@app.command()
def serving(
    date: Day,
    warehouse: Warehouse = DEFAULT_WAREHOUSE,
    place: Place = "local",
    overrides: Overrides = [],  # noqa: B006
    force: Force = False,
) -> None:
    """The serving tables as of --date, for a key-value store to load. Sees only rows with dt before it."""
    from jobs.serving import serve

    with people_first():
        serve(warehouse, date, place, overrides, force=force)


cli_registry.add_to(app)
cli_gate.add_to(app)


@app.command()
def conf(place: Place = "local", overrides: Overrides = []) -> None:  # noqa: B006
    """Print the conf in force, checked."""
    from jobs.settings import Settings

    with people_first():
        settings = Settings.load(place, overrides)
        console.print(yaml.safe_dump(json.loads(settings.model_dump_json()), sort_keys=False), end="")


@app.command()
def features(name: Annotated[str | None, typer.Argument(help="Only names that contain this.")] = None) -> None:
    """List the catalog: every feature with its type, meaning and encoding."""
    from features.schema import load_catalog
    from features.spec import canonical

    table = Table("name", "type", "meaning", "encoding", "what it is")
    for feature in load_catalog().features:
        if name is None or name in feature.name:
            meaning, encoding = canonical(feature.op), canonical(feature.encoding)
            table.add_row(feature.name, feature.dtype.value, meaning, encoding, feature.doc)
    console.print(table)


@app.command()
def plan(
    warehouse: Annotated[
        str | None, typer.Option("--warehouse", "-w", help="List what is stale in this warehouse, and why.")
    ] = None,
    place: Place = "local",
    overrides: Overrides = [],  # noqa: B006
    as_json: Annotated[
        bool, typer.Option("--json", help="With --warehouse: the DAGs of its schedule instead, for dags/.")
    ] = False,
) -> None:
    """The stages in order: reads, writes, days. With --warehouse: what is stale there, in the order of a rebuild."""
    if as_json:
        if warehouse is None:
            raise typer.BadParameter("--json is the schedule of a warehouse: give --warehouse")
        from jobs.plan_command import schedule_of

        with people_first():
            print(schedule_of(warehouse, place, overrides).model_dump_json(indent=1))
        return
    if warehouse is not None:
        from jobs.stale import show_plan

        with people_first():
            raise typer.Exit(show_plan(warehouse, place, overrides))
    from pipeline.plan import PLAN

    table = Table("stage", "reads", "writes", "days", "door")
    for stage in PLAN:
        table.add_row(stage.name, "\n".join(stage.reads), "\n".join(stage.writes), stage.span, stage.door)
    console.print(table)


@app.command()
def demo(
    source: Annotated[str, typer.Option(help="simulate, kuairand, kuailive or completejourney.")] = "simulate",
    data: Annotated[str | None, typer.Option(help="Folder of the dataset (kuairand, kuailive).")] = None,
    out: Out = Path("build/demo"),
    place: Place = "local",
    overrides: Overrides = [],  # noqa: B006
    impressions: Annotated[int, typer.Option(help="simulate: impressions over 18 days.")] = 300_000,
) -> None:
    """The whole chain: raw logs to published models and a report."""
    from jobs.demo import run_demo

    with people_first():
        raise typer.Exit(run_demo(source, data, out, place, overrides, impressions))


if __name__ == "__main__":
    app()
