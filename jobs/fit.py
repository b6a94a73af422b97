"""`limelight fit`: somebody's own samples → a trained model, its metrics, curves and export. It needs no Spark.

<out>/trainset/      the samples, encoded; made anew when files or schema have changed
<out>/run/           checkpoints, weights, predictions (training/result.py)
<out>/export/        the graph for ONNX Runtime, with all that scoring needs
<out>/metrics.json   split → task → auc, gauc where a group is named, logloss, pcoc, rows
<out>/curves.json    one record per epoch
<out>/profile/       where the time of a step goes, with --profile (training/profiler.py)
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from features.errors import ConfError, NotReadyError, Problem
from features.manifest import FIRST_KEY_ID, TRAINSET_FILE, SplitName, TrainSet
from features.storage import read_bytes, resolve
from jobs.console import Step, Steps, console
from jobs.launch import launch, training_arguments
from jobs.settings import TrainingSettings, model_values
from training import models
from training.config import TrainConf
from training.export import export_folder
from training.profiler import TEXT_FILE
from training.result import CURVES_FILE, METRICS_FILE, MODEL_FILE, PROFILE, TrainResult, load_model, read_result
from training.samples.build import build, sample_rows
from training.samples.files import SplitFiles
from training.samples.schema import SampleSchema
from training.storage import Folder

SOURCE_FILE = "made_from.json"


@dataclass(frozen=True, kw_only=True)
class GivenSamples:
    """URLs of somebody's Parquet, and the file that says what its columns are."""

    train: str
    valid: str
    test: str | None
    schema: Path

    @property
    def splits(self) -> dict[SplitName, str]:
        """Split → URL of those that there are."""
        given: dict[SplitName, str | None] = {"train": self.train, "valid": self.valid, "test": self.test}
        return {split: url for split, url in given.items() if url is not None}


@dataclass(frozen=True, kw_only=True)
class FitOptions(GivenSamples):
    """What was asked for; `conf` is a file like those in conf/models, and goes before the one of the model's name."""

    model: str
    conf: Path | None
    out: Path
    ranks: int
    resume: bool = False
    profile: bool = False

    @property
    def run_folder(self) -> Path:
        """Of the training."""
        return self.out.absolute() / "run"

    @property
    def profile_folder(self) -> Path:
        """Of `--profile`."""
        return self.out.absolute() / PROFILE


def fit(options: FitOptions, steps: Steps) -> dict[str, Any]:
    """Encode, train, judge, export; → what metrics.json holds.

    Raises:
        ConfError: schema or conf contradict themselves or each other.
        DataError: everything that is wrong with the samples, before training starts.
    """
    schema = SampleSchema.load(options.schema)
    values = values_of(options.model, options.conf)
    root = options.out.absolute() / "trainset"
    trainset = encoded(schema, options.splits, root, options.out.name, steps)
    conf = conf_for(values, trainset)
    check_model(conf, trainset)
    run = options.run_folder
    if not options.resume:
        shutil.rmtree(options.profile_folder, ignore_errors=True)  # of the training that this one replaces
    profile = str(options.profile_folder) if options.profile else None
    with steps.step(f"train {options.model}", live=False) as step:
        train_below(run, conf, root, options.ranks, step, resume=options.resume, profile=profile)
    with steps.step("export"):
        model, _ = load_model(str(run))
        first = next(SplitFiles.below("valid", options.valid).batches(schema.read))
        rows = sample_rows(first, schema, 0)
        export_folder(
            model, trainset, str(root), rows, json.loads(read_bytes(str(run / MODEL_FILE))), options.out / "export"
        )
    metrics = judged_splits(
        json.loads(read_bytes(str(run / METRICS_FILE))), has_group=schema.plain("group") is not None
    )
    (options.out / METRICS_FILE).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    (options.out / CURVES_FILE).write_bytes(read_bytes(str(run / CURVES_FILE)))
    return metrics


def values_of(model: str, conf: Path | None) -> dict[str, Any]:
    """What a file like those in conf/models holds; without one, conf/models/<model>.yaml.

    Raises:
        ConfError: there is none, or it is of another model.
    """
    if conf is None:
        return model_values(model)
    values = values_in(conf)
    if values["model"].get("name", model) != model:
        raise ConfError(f"--model is {model}, {conf} is of {values['model']['name']}")
    values["model"]["name"] = model
    return values


def values_in(path: Path) -> dict[str, Any]:
    """What a file like those in conf/models holds.

    Raises:
        ConfError: no such file, or no mapping `model` in it.
    """
    if not path.is_file():
        raise ConfError(f"no training conf at {path}; conf/models has one per model")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict) or not isinstance(values.get("model"), dict):
        raise ConfError(f"{path} has no mapping `model`; conf/models has one per model")
    return values


def conf_for(values: dict[str, Any], trainset: TrainSet) -> TrainConf:
    """Settings of a training; names of tasks that these samples do not have give way to those that they have."""
    model, names = values["model"], [task.name for task in trainset.tasks]
    if model.get("task") not in (None, *names):
        model["task"] = names[0]
    if "parent" in model and not {model["parent"], model["child"]} <= set(names):
        pair = next(((task.parent, task.name) for task in trainset.tasks if task.parent is not None), None)
        if pair is None:
            raise ConfError(f"{model['name']} wants a label that is given another one: `given` in the schema says so")
        model["parent"], model["child"] = pair
    judged = values.get("early_stopping", {})
    if judged.get("task") not in (None, *names):
        judged["task"] = None
    return TrainConf.of({"judge_train": True} | values)


def check_model(conf: TrainConf, trainset: TrainSet) -> models.RankingModel:
    """Build the model once, over tables of few rows, so that what it cannot read is said before ranks start.

    Raises:
        ConfError: unknown settings, or ones that contradict the columns.
        DataError: the train set lacks what the model needs.
    """
    few = tuple(vocabulary.model_copy(update={"num_ids": FIRST_KEY_ID + 1}) for vocabulary in trainset.vocabularies)
    return models.build(conf.model.name, trainset.model_copy(update={"vocabularies": few}), conf.model.conf, conf.seed)


def train_below(
    run: Path, conf: TrainConf, root: Path, ranks: int, step: Step, *, resume: bool, profile: str | None = None
) -> TrainResult:
    """Train on the encoded samples below `root`.

    Raises:
        LimelightError: a rank failed.
        NotReadyError: it was interrupted.
    """
    settings = TrainingSettings(ranks=ranks, launcher="horovodrun" if ranks > 1 else "alone")
    launch(settings, training_arguments(conf, str(root), str(run), resume=resume, profile=profile))
    result = read_result(Folder(str(run)))
    if result is None:
        remedy = "Run the command again with --resume"
        raise NotReadyError([Problem(table=str(run), what="the training was interrupted", remedy=remedy)])
    step.rows = result.steps * conf.batch_size
    step.note = f"{result.pace}, world size {result.world_size}"
    return result


def encoded(schema: SampleSchema, splits: Mapping[SplitName, str], root: Path, name: str, steps: Steps) -> TrainSet:
    """Encode the samples below `root`, unless that was done with the same files and schema."""
    source = made_from(splits, schema)
    known = root / SOURCE_FILE
    if known.is_file() and known.read_text(encoding="utf-8") == source:
        return TrainSet.model_validate_json((root / TRAINSET_FILE).read_text(encoding="utf-8"))
    known.unlink(missing_ok=True)
    with steps.step("samples") as step:
        trainset = build(schema, splits, str(root), name=name, seed=0, report=step.say)
        step.rows = sum(split.rows for split in trainset.splits.values())
        step.note = f"{trainset.table_rows():,} embedding rows"
    known.write_text(source, encoding="utf-8")
    return trainset


def made_from(splits: Mapping[SplitName, str], schema: SampleSchema) -> str:
    """Files with size and time of change, and the schema: another text where a train set is another."""
    files = {}
    for split, url in splits.items():
        for file in SplitFiles.below(split, url).urls:
            filesystem, path = resolve(file)
            info = filesystem.get_file_info(path)
            files[f"{split} {file}"] = [info.size, info.mtime_ns]
    digest = hashlib.sha256(schema.model_dump_json().encode()).hexdigest()
    return json.dumps({"schema": digest, "files": files}, indent=1, sort_keys=True)


def judged_splits(metrics: Mapping[str, Mapping[str, Mapping[str, Any]]], *, has_group: bool) -> dict[str, Any]:
    """Split → task → figures; gauc only where a column is a group."""
    return {
        split: {
            task: {name: value for name, value in figures.items() if has_group or name != "gauc"}
            for task, figures in tasks.items()
        }
        for split, tasks in metrics.items()
    }


def show(
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]], names: Sequence[str] = ("auc", "gauc", "logloss", "pcoc")
) -> None:
    """One line per split and task."""
    table = Table("split", "task", *names, "rows")
    for split, tasks in metrics.items():
        for task, figures in tasks.items():
            shown = [f"{figures[name]:.4f}" if figures.get(name) is not None else "–" for name in names]
            table.add_row(split, task, *shown, f"{figures.get('rows', 0):,}")
    console.print(table)


def show_training(options: FitOptions) -> None:
    """How fast it was, and what `--profile` found."""
    result = read_result(Folder(str(options.run_folder)))
    if result is not None and result.rows_per_second is not None:
        console.print(pace_table(result))
    profile = options.profile_folder / TEXT_FILE
    if options.profile and profile.is_file():
        console.print(profile.read_text(encoding="utf-8"), end="", markup=False, soft_wrap=True)


def pace_table(result: TrainResult) -> Table:
    """One line: the pace of the steps, judging aside."""
    exchange, sent = result.exchange_ms_per_step, result.bytes_sent_per_step
    table = Table("rows/s", "waiting for data", "exchange, ms per step", "bytes sent per step", "ranks", "steps")
    table.add_row(
        f"{result.rows_per_second or 0:,.0f}",
        f"{result.waiting_share or 0:.1%}",
        "–" if exchange is None else f"{exchange:,.2f}",
        f"{sent or 0:,.0f}",
        str(result.world_size),
        f"{result.steps:,}",
    )
    return table
