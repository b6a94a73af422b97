"""The command `limelight`: each subcommand parses, loads conf, and calls one function."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs import cli_gate, cli_registry, cli_samples, cli_show, cli_trigger
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
)
from jobs.console import Steps, people_first

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
cli_show.add_to(app)


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
