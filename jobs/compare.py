"""`limelight compare`: a list of models on one sample set → one table, one picture.

<out>/trainset/              the samples, encoded once
<out>/models/<name>/run/     as training/result.py lists it; `limelight explain` takes <out>/models/<name>
<out>/compare.json           model → parameters, rows/s, split → task → figures; the best per figure
<out>/compare.md, .svg       the same to read and to look at

A model that was trained already with the same settings and samples is not trained again; one that was cut off goes on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.errors import ConfError, DataError, LimelightError, Problem
from features.manifest import SplitName, TrainSet
from jobs.comparison import ComparedModel, Comparison
from jobs.console import Steps, console, errors
from jobs.fit import SOURCE_FILE, conf_for, encoded, given_splits, judged_splits, train_below, values_in
from jobs.settings import model_values
from pipeline.config import conf_folder
from training import models
from training.config import TrainConf
from training.result import METRICS_FILE, TrainResult, read_result
from training.samples.schema import SampleSchema
from training.storage import Folder

ALL_THAT_FIT = "all-that-fit"
MARKER = "trained_from.json"
MODELS, TRAINSET = "models", "trainset"


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What was asked for.

    Attributes:
        models: names of conf files, or `all-that-fit` alone.
        confs: folder of <name>.yaml instead of conf/models.
        task: what models of one task learn; by default the one in their conf, else the schema's first label.
    """

    train: str
    valid: str
    test: str | None
    schema: Path
    models: tuple[str, ...]
    confs: Path | None
    task: str | None
    out: Path
    ranks: int

    @property
    def splits(self) -> dict[SplitName, str]:
        """Split → URL."""
        return given_splits(self.train, self.valid, self.test)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model that these samples can be given to: its settings, and how many parameters it has."""

    name: str
    conf: TrainConf
    parameters: int
    embedding_parameters: int


def compare(options: CompareOptions, steps: Steps) -> Comparison:
    """Encode once, train each model, write the comparison down.

    A model whose training fails is told of and left out of the table; the others go on.

    Raises:
        ConfError: a model that is named is not known, or its conf is wrong; all of them at once.
        DataError: the samples are wrong, or a model that is named cannot be trained on them.
    """
    schema = SampleSchema.load(options.schema)
    settings = {name: _values(name, options) for name in _names(options)}
    root = options.out.absolute() / TRAINSET
    trainset = encoded(schema, options.splits, root, options.out.name, steps)
    candidates, left_out = _candidates(settings, trainset, strict=ALL_THAT_FIT not in options.models)
    samples = hashlib.sha256((root / SOURCE_FILE).read_bytes()).hexdigest()
    compared, failed = {}, {}
    for place, candidate in enumerate(candidates, start=1):
        title = f"{candidate.name} ({place} of {len(candidates)})"
        try:
            result = _trained(candidate, root, samples, options, title, steps)
        except LimelightError as error:
            errors.print(f"[bold red]{title}[/] {error}", soft_wrap=True)
            failed[candidate.name] = str(error)
            continue
        compared[candidate.name] = _judged(candidate, result, options, has_group=schema.plain("group") is not None)
    if not compared:
        raise LimelightError("no model could be trained; see above")
    comparison = Comparison(models=compared, left_out=left_out, failed=failed)
    comparison.write(options.out)
    return comparison


def _names(options: CompareOptions) -> list[str]:
    folder = options.confs or conf_folder() / "models"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if options.models == (ALL_THAT_FIT,):
        return known
    repeated = sorted({name for name in options.models if options.models.count(name) > 1})
    unknown = sorted(set(options.models) - set(known))
    if unknown or repeated or not options.models:
        wrong = [f"there is no {name}.yaml" for name in unknown] + [f"{name} is named twice" for name in repeated]
        raise ConfError(f"--models: {', '.join(wrong) or 'none'}; {folder} has {', '.join(known)}, or {ALL_THAT_FIT}")
    return list(options.models)


def _values(name: str, options: CompareOptions) -> dict[str, Any]:
    """A model's settings; with --confs, several files may be of one model."""
    if options.confs is None:
        values = model_values(name)
    else:
        values = values_in(options.confs / f"{name}.yaml")
        values["model"].setdefault("name", name)
    if options.task is not None and "task" in values["model"]:
        values["model"]["task"] = options.task
        if "early_stopping" in values:
            values["early_stopping"]["task"] = options.task
    return values


def _candidates(
    settings: Mapping[str, dict[str, Any]], trainset: TrainSet, *, strict: bool
) -> tuple[list[Candidate], dict[str, str]]:
    """Models that can be built for these samples, and why the others cannot; `strict` raises instead."""
    found, left_out = [], {}
    for name, values in settings.items():
        try:
            conf = conf_for(values, trainset)
            model = models.build(conf.model.name, trainset, conf.model.conf, conf.seed)
        except (ConfError, DataError) as error:
            left_out[name] = str(error)
            continue
        parameters, embeddings = sum(p.numel() for p in model.parameters()), model.table.weight.numel()
        found.append(Candidate(name=name, conf=conf, parameters=parameters, embedding_parameters=embeddings))
    if (strict and left_out) or not found:
        remedy = "Take it out of --models, or change its conf or the schema."
        raise DataError([Problem(table=name, what=why.rstrip("."), remedy=remedy) for name, why in left_out.items()])
    return found, left_out


def _trained(
    candidate: Candidate, root: Path, samples: str, options: CompareOptions, title: str, steps: Steps
) -> TrainResult:
    """Train, go on with a training that was cut off, or take over what is there."""
    folder = options.out.absolute() / MODELS / candidate.name
    marker = json.dumps({"samples": samples, "conf": candidate.conf.model_dump(mode="json")}, indent=1)
    known = (folder / MARKER).is_file() and (folder / MARKER).read_text(encoding="utf-8") == marker
    result = read_result(Folder(str(folder / "run"))) if known else None
    if result is not None:
        console.print(f"[green]✓[/] {title}: trained already with these settings and samples", soft_wrap=True)
        return result
    if not known:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / MARKER).write_text(marker, encoding="utf-8")
    with steps.step(title, live=False) as step:
        return train_below(folder / "run", candidate.conf, root, options.ranks, step, resume=known)


def _judged(candidate: Candidate, result: TrainResult, options: CompareOptions, *, has_group: bool) -> ComparedModel:
    path = options.out / MODELS / candidate.name / "run" / METRICS_FILE
    metrics = judged_splits(json.loads(path.read_text(encoding="utf-8")), has_group=has_group)
    return ComparedModel(
        model=candidate.conf.model.name,
        parameters=candidate.parameters,
        embedding_parameters=candidate.embedding_parameters,
        rows_per_second=result.rows_per_second,
        ranks=result.world_size,
        epochs=result.epochs,
        best_epoch=result.best_epoch,
        calibration=candidate.conf.calibration.kind,
        metrics=metrics,
    )


def parse_models(text: str) -> tuple[str, ...]:
    """Names by commas."""
    names: Sequence[str] = [name.strip() for name in text.split(",")]
    return tuple(name for name in names if name)
