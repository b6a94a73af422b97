"""`limelight plan --warehouse W` and `limelight backfill --stale`: what is stale, why, and rebuilding exactly that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from features.errors import ExitCode
from features.manifest import TRAINSET_FILE, TrainSet
from features.storage import absolute, list_files
from jobs.console import Steps, console
from jobs.open_run import Run, open_run, session
from jobs.stage_lines import tell_stages
from pipeline.run import StageRun
from pipeline.stale import Kind, Reason, StalePlan, find_stale, in_lines, lineage_reasons, rebuild
from training.registry import Registry

SHOWN_REASONS = 3


def show_plan(warehouse: str, place: str, overrides: Sequence[str]) -> int:
    """List what is stale, in the order in which it would be rebuilt; nothing is written."""
    with session("plan", warehouse, place, overrides) as spark:
        run = open_run(spark, warehouse, place, overrides)
        plan = find_stale(run.context)
        tell_plan(plan)
        tell_built_on(run, warehouse, plan)
    return int(ExitCode.OK)


def backfill_stale(warehouse: str, place: str, overrides: Sequence[str]) -> int:
    """Rebuild the stale days, those and no others, and look once more.

    Returns:
        NOT_READY when something is stale still: raw days moved meanwhile, or what it needs is gone.
    """
    steps = Steps()
    with session("backfill --stale", warehouse, place, overrides) as spark:
        run = open_run(spark, warehouse, place, overrides)
        plan = find_stale(run.context)
        tell_plan(plan)
        if not plan.partitions:
            tell_built_on(run, warehouse, plan)
            return int(ExitCode.OK)
        with steps.watch("backfill --stale") as step:
            runs = rebuild(run.context, plan, step.say)
        tell_stages(steps, runs, run.context)
        tell_left_alone(plan, runs)
        after = find_stale(open_run(spark, warehouse, place, overrides).context)
        if after.partitions:
            console.print("[yellow]Stale still:[/]")
            tell_plan(after)
        tell_built_on(run, warehouse, after)
    return int(ExitCode.NOT_READY if after.partitions else ExitCode.OK)


def tell_plan(plan: StalePlan) -> None:
    """One line per table and run of days with equal reasons."""
    if not plan.partitions:
        console.print(f"[green]✓[/] nothing is stale: {plan.looked_at:,} partitions compared")
        return
    table = Table("", "table", "days", "why")
    for number, line in enumerate(in_lines(plan), start=1):
        table.add_row(str(number), line.table, line.span, escape("\n".join(line.reasons)))
    console.print(table)
    waiting = sum(entry.only_waits for entry in plan.partitions)
    partly = sum(entry.keeps_columns for entry in plan.partitions)
    unreadable = [entry.name for entry in plan.partitions if any(r.kind is Kind.UNREADABLE for r in entry.reasons)]
    console.print(
        f"{len(plan.partitions) - waiting:,} of {plan.looked_at:,} partitions are to be rebuilt, {partly:,} of them "
        f"only in some columns; {waiting:,} more follow, if what they wait for comes out with another digest. "
        "`limelight backfill --stale` does it."
    )
    for name in unreadable:
        console.print(f"[yellow]✗ {escape(name)} cannot be rebuilt as things are[/]")


def tell_left_alone(plan: StalePlan, runs: Sequence[StageRun]) -> None:
    """Which days only waited, and were not computed as their inputs came out the same."""
    computed = {run.name: set(run.result.computed) for run in runs}
    for stage in computed:
        left = [day for day in plan.days(stage) if day not in computed[stage]]
        if left:
            days = ", ".join(map(str, left))
            console.print(f"[dim]{stage}: left alone, as its inputs came out the same: {days}[/]", soft_wrap=True)


def tell_built_on(run: Run, warehouse: str, plan: StalePlan) -> None:
    """Train sets, trainings and published versions that no longer follow from the samples; nobody rebuilds them."""
    stale = {entry.name: entry for entry in plan.partitions}
    lines = [(f"train set {found.name}", found.reasons) for found in plan.trainsets]
    lines += [
        (name, reasons)
        for name, trainset in _built(run, warehouse)
        if (reasons := tuple(lineage_reasons(run.context, trainset.lineage, stale)))
    ]
    if not lines:
        return
    console.print("Built on samples that are stale or were rebuilt since; train again where it matters:")
    for name, reasons in lines:
        console.print(f"[yellow]•[/] {escape(name)}: {escape(_few(reasons))}", soft_wrap=True)


def _few(reasons: Sequence[Reason]) -> str:
    more = len(reasons) - SHOWN_REASONS
    return ", ".join(map(str, reasons[:SHOWN_REASONS])) + (f" and {more} more" if more > 0 else "")


def _built(run: Run, warehouse: str) -> Iterator[tuple[str, TrainSet]]:
    """Trainings in the folder of runs, then every published version, with the train set that each learnt from."""
    folder = run.settings.runs_folder(warehouse)
    for file in sorted(folder.glob(f"*/*/{TRAINSET_FILE}")):
        yield f"training {file.parent.relative_to(folder)}", _read(file)
    if run.settings.registry.uri is None and not list_files(f"{absolute(warehouse)}/mlflow"):
        return  # opening the warehouse's own registry would make it
    registry = Registry.open(*run.settings.tracking(warehouse))
    for model in run.settings.training.models:
        for version in registry.history(model):
            published = registry.fetch(model, version.version)
            yield f"{model} version {version.version} ({version.state})", _read(published / TRAINSET_FILE)


def _read(file: Path) -> TrainSet:
    return TrainSet.model_validate_json(file.read_text(encoding="utf-8"))
