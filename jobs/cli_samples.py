"""Commands on somebody's own samples: no warehouse, no Spark. `jobs/cli.py` adds them to `limelight`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from jobs.console import Steps, console, people_first

Train = Annotated[str, typer.Option(help="Parquet file, or folder of them, to learn from.")]
Valid = Annotated[str, typer.Option(help="To stop early on, and judge.")]
Test = Annotated[str | None, typer.Option(help="To judge only.")]
Schema = Annotated[Path, typer.Option(help="YAML: the role of every column.")]
Ranks = Annotated[int, typer.Option("--np", help="Horovod ranks.")]


def fit(
    train: Train,
    valid: Valid,
    schema: Schema,
    model: Annotated[str, typer.Option(help="As in conf/models.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for metrics, checkpoint, export and curves.")],
    test: Test = None,
    conf_: Annotated[
        Path | None, typer.Option("--conf", help="Training settings instead of conf/models/MODEL.yaml.")
    ] = None,
    ranks: Ranks = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with trainings that were cut off.")] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Where a step's time goes: a table, and a trace in OUT/profile.")
    ] = False,
) -> None:
    """Train a model on your own Parquet: no warehouse, no Spark."""
    from jobs.fit import FitOptions, show, show_training
    from jobs.fit import fit as fit_samples

    with people_first():
        options = FitOptions(
            train=train,
            valid=valid,
            test=test,
            schema=schema,
            model=model,
            conf=conf_,
            out=out,
            ranks=ranks,
            resume=resume,
            profile=profile,
        )
        show(fit_samples(options, Steps()))
        show_training(options)


def compare(
    train: Train,
    valid: Valid,
    schema: Schema,
    models: Annotated[str, typer.Option(help="Names as in conf/models, by commas; or all-that-fit.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for compare.json, .md, .svg, and the trainings.")],
    test: Test = None,
    confs: Annotated[
        Path | None, typer.Option(help="Folder of NAME.yaml instead of conf/models; several may be of one model.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="The label that models of one task learn.")] = None,
    ranks: Ranks = 1,
) -> None:
    """Train several models on the same samples: one table, one picture. What was trained already is taken over."""
    from jobs.compare import CompareOptions, parse_models
    from jobs.compare import compare as compare_models

    with people_first():
        options = CompareOptions(
            train=train,
            valid=valid,
            test=test,
            schema=schema,
            models=parse_models(models),
            confs=confs,
            task=task,
            out=out,
            ranks=ranks,
        )
        comparison = compare_models(options, Steps())
        console.print(comparison.table())
        for note in comparison.notes():
            console.print(f"[yellow]note[/] {note}", soft_wrap=True)
        raise typer.Exit(1 if comparison.failed else 0)


def tune(
    train: Train,
    valid: Valid,
    schema: Schema,
    model: Annotated[str, typer.Option(help="As in conf/models.")],
    space: Annotated[Path, typer.Option(help="YAML: dotted keys of the training conf, and their ranges.")],
    trials: Annotated[int, typer.Option(min=1, help="In the end, those of earlier calls included.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for study, best.yaml, trials.json, .md and .svg.")],
    test: Annotated[str | None, typer.Option(help="Judged once, for the best trial; never chosen by.")] = None,
    conf_: Annotated[
        Path | None, typer.Option("--conf", help="What trials share, instead of conf/models/MODEL.yaml.")
    ] = None,
    metric: Annotated[
        Literal["auc", "gauc", "logloss"] | None,
        typer.Option(help="Of valid; conf's early_stopping.metric by default."),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="The label that is learnt, or chosen by where there are many.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    unpruned: Annotated[int, typer.Option(min=1, help="Trials that are complete before one is pruned.")] = 5,
    ranks: Ranks = 1,
) -> None:
    """Search for a model's settings: Optuna over ranges, bad trials pruned early. The same command goes on."""
    from jobs.tune import TuneOptions
    from jobs.tune import tune as search

    with people_first():
        options = TuneOptions(
            train=train,
            valid=valid,
            test=test,
            schema=schema,
            model=model,
            conf=conf_,
            space=space,
            trials=trials,
            ranks=ranks,
            out=out,
            metric=metric,
            task=task,
            seed=seed,
            unpruned=unpruned,
        )
        report = search(options, Steps())
        console.print(report.table())
        for note in report.notes():
            console.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True)


def explain(
    model: Annotated[Path, typer.Argument(help="Folder of `fit`, or OUT/models/NAME of `compare`.")],
    split: Annotated[
        Literal["train", "valid", "test"] | None, typer.Option(help="Test by default, valid where there is none.")
    ] = None,
    by: Annotated[list[str], typer.Option(help="Figures per value of this column; may be repeated.")] = [],  # noqa: B006
    repeats: Annotated[int, typer.Option(min=1, help="Permutations of each group.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the permutations, and of the rows drawn.")] = 0,
    rows: Annotated[int, typer.Option(min=1, help="At most so many rows are permuted.")] = 200_000,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for explain.json, .svg; MODEL/explain by default.")
    ] = None,
) -> None:
    """Which inputs a trained model lives on (loss of AUC when permuted), and figures by segment."""
    from jobs.explain import ExplainOptions, tables
    from jobs.explain import explain as explain_model

    with people_first():
        options = ExplainOptions(
            model=model,
            split=split,
            repeats=repeats,
            seed=seed,
            rows=rows,
            by=tuple(by),
            out=out or model / "explain",
        )
        for table in tables(explain_model(options, Steps())):
            console.print(table)


def add_to(app: typer.Typer) -> None:
    """Give an application these commands."""
    for command in (fit, compare, tune, explain):
        app.command()(command)
