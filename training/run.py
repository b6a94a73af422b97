"""The one training function: alone, on each rank under horovodrun, or on each executor under horovod.spark.

Below `out_url`, written by rank 0:

    trainset.json               what the model was trained on
    checkpoints/                see training.checkpoint
    best/                       weights and optimiser of the best epoch so far
    model.safetensors           weights of the best epoch, and optimiser.safetensors its state
    model.json                  name, settings, tasks and what each predicts, best epoch
    predictions-<split>.parquet see training.evaluation, for every split that is judged
    calibration.json            the curves of calibrated probabilities, if conf asks for them
    metrics.json                split → task → figures
    curves.json                 one record per epoch
    result.json                 last of all: the training is complete
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import Field
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from features.errors import DataError, Problem
from features.manifest import TRAINSET_FILE, Frozen, SplitName, TrainSet
from training import checkpoint, models
from training.calibration import CALIBRATION_FILE, Calibration, CalibrationLayer, fit, fitted_on
from training.config import TrainConf
from training.evaluation import Figures, Scored, gathered, judge, score, write_predictions
from training.exchange import Exchange, open_exchange
from training.feed import Feed
from training.judgement import Record
from training.loop import Hooks, Loop, StopRequest
from training.optim import OptimConf, Optimiser
from training.progress import progress_bar
from training.step import Learner
from training.storage import Folder
from training.tracking import Tracking
from training.warm_start import grown_state, grown_weights, growth
from training.world import World

log = logging.getLogger(__name__)

INTERRUPTED_EXIT_CODE = 143  # 128 + SIGTERM, as shells and schedulers expect: saved, go on with --resume

CHECKPOINTS, BEST = "checkpoints", "best"
MODEL_FILE, WEIGHTS_FILE, OPTIMISER_FILE = "model.json", "model.safetensors", "optimiser.safetensors"
METRICS_FILE, CURVES_FILE, RESULT_FILE, RUN_FILE = "metrics.json", "curves.json", "result.json", "run.json"
TABLE_WEIGHT = "table.weight"
_WRITTEN = (
    CHECKPOINTS,
    BEST,
    MODEL_FILE,
    WEIGHTS_FILE,
    OPTIMISER_FILE,
    CALIBRATION_FILE,
    METRICS_FILE,
    CURVES_FILE,
    RESULT_FILE,
)


class TrainResult(Frozen):
    """What a training came to; the same on every rank.

    Attributes:
        interrupted: a request to stop ended it before its end; a checkpoint was saved.
        given_up: it was ended after an epoch because it promised too little; only curves.json was written.
        metrics: split → task → figures; empty when interrupted or given up.
        rows_per_second: over all ranks, in the steps of this process's epochs.
        added: vocabulary → ids that a warm start added.
        run_id: of MLflow; None without tracking.
    """

    model: str
    tasks: tuple[str, ...]
    interrupted: bool
    given_up: bool = False
    epochs: int
    best_epoch: int | None
    world_size: int
    steps: int
    dropped_per_epoch: int
    rows_per_second: float | None = None
    metrics: Mapping[str, Mapping[str, Mapping[str, float | int | None]]] = Field(default_factory=dict)
    added: Mapping[str, int] = Field(default_factory=dict)
    run_id: str | None = None


def train(
    conf: TrainConf,
    trainset_url: str,
    out_url: str,
    *,
    exchange: Exchange | None = None,
    resume: bool = False,
    init_from: str | None = None,
    show_progress: bool = True,
    gives_up: Callable[[Record], bool] | None = None,
) -> TrainResult:
    """Train a model; a collective call: every rank makes it with the same arguments.

    Args:
        conf: settings.
        trainset_url: folder of trainset.json.
        out_url: folder of the results; results of an earlier training there are removed, unless resumed.
        exchange: with the other ranks; those that Horovod was initialised with by default.
        resume: go on from the newest checkpoint below `out_url`, if there is one.
        init_from: `out_url` of an earlier training to start warm from.
        show_progress: a progress bar on rank 0.
        gives_up: asked on rank 0 with each epoch's record; true ends the training there, on all ranks. All ranks have
            one, or none.

    Raises:
        ConfError: settings do not fit the model, the train set, or the checkpoint.
        DataError: files of the train set break its contract, the earlier model does not fit the train set, or
            the training has diverged.
    """
    exchange = exchange or open_exchange(World.current())
    if conf.threads is not None:
        torch.set_num_threads(conf.threads)
    training = _Training(conf, trainset_url, out_url, exchange, gives_up)
    done = training.done() if resume else None
    if done is not None:
        return done
    if not resume:
        training.clear()
    return training.run(resume=resume, init_from=init_from, show_progress=show_progress)


class _Training:
    """One call of `train`."""

    def __init__(
        self,
        conf: TrainConf,
        trainset_url: str,
        out_url: str,
        exchange: Exchange,
        gives_up: Callable[[Record], bool] | None = None,
    ) -> None:
        self.conf, self.exchange, self.out, self.gives_up = conf, exchange, Folder(out_url), gives_up
        self.trainset = read_trainset(trainset_url)
        self.url = trainset_url
        self.device, self.dtype = device_of(conf, exchange.world), getattr(torch, conf.precision)
        torch.manual_seed(conf.seed * 1_000_003 + exchange.world.rank)  # of dropout: another one on every rank
        model = models.build(conf.model.name, self.trainset, conf.model.conf, conf.seed)
        model = model.to(device=self.device, dtype=self.dtype)
        regularised = model.regularised_parameters()
        optimiser = Optimiser(model.table, model.dense_parameters(), conf.optim, regularised=regularised)
        self.learner = Learner(model, optimiser, exchange, conf.accumulate)
        self.tracking = Tracking.absent()
        self.added: Mapping[str, int] = {}

    def done(self) -> TrainResult | None:
        """The result of a training that is complete already."""
        return read_result(self.out)

    def clear(self) -> None:
        """Remove what an earlier training left."""
        if self.exchange.world.is_first:
            for name in _WRITTEN:
                self.out.delete(name)
        self.exchange.barrier()

    def run(self, *, resume: bool, init_from: str | None, show_progress: bool) -> TrainResult:
        """Train from a checkpoint, an earlier model, or anew; evaluate the best epoch; write everything down."""
        stop = StopRequest()
        feed = self._feed("train", self.conf.batch_size)
        saved = checkpoint.latest(self._checkpoints) if resume else None
        if saved is None and init_from is not None:
            self._start_warm(init_from)
        self.exchange.broadcast_parameters(self.learner.model.state_dict())
        self._open_tracking(resumed=saved is not None)
        with progress_bar(feed, self.conf, shown=show_progress and self.exchange.world.is_first) as advance:
            hooks = Hooks(
                evaluate=lambda: self._judged("valid", keep=False),
                improved=self._keep_best,
                epoch_done=self._epoch_done,
                step_done=advance,
                gives_up=self._gives_up,
            )
            loop = Loop(self.learner, feed, self.conf, hooks, self._checkpoints, stop)
            if saved is not None:
                loop.resume(saved)
                log.info("resumed at step %d of epoch %d", feed.position.step, feed.position.epoch)
            with stop.listening(), self._tracked():
                loop.run()
                return self._finish(loop, feed)

    @property
    def _checkpoints(self) -> str:
        return self.out.folder(CHECKPOINTS).url

    def _feed(self, split: SplitName, batch_size: int) -> Feed:
        return Feed(
            self.trainset,
            self.url,
            split=split,
            batch_size=batch_size,
            world=self.exchange.world,
            seed=self.conf.seed,
            threads=self.conf.feed_threads,
            row_groups=self.conf.feed_row_groups,
            prefetch=self.conf.feed_prefetch,
            device=self.device,
        )

    def _start_warm(self, url: str) -> None:
        """Take over an earlier model of the same kind, its table grown to this train set's.

        Raises:
            DataError: it is of another kind, or its train set forbids it (see training.warm_start).
        """
        folder = Folder(url)
        earlier = json.loads(folder.read(MODEL_FILE))
        if earlier["conf"]["model"] != self.conf.model.model_dump(mode="json"):
            what = f"the earlier model in {url} is {earlier['conf']['model']}, the conf asks for another"
            raise DataError([Problem(what=what, remedy="Train in full, or use the earlier model's settings.")])
        grown = growth(TrainSet.model_validate_json(folder.read(TRAINSET_FILE)), self.trainset)
        weights = load_tensors(folder.read(WEIGHTS_FILE))
        self.learner.model.load_state_dict(grown_weights(weights, grown, TABLE_WEIGHT))
        if OptimConf.model_validate(earlier["conf"]["optim"]) == self.conf.optim:
            self.learner.optimiser.load_state_dict(grown_state(load_tensors(folder.read(OPTIMISER_FILE)), grown))
        self.added = grown.added
        log.info("warm start from %s: %d ids added", url, sum(self.added.values()))

    def _open_tracking(self, *, resumed: bool) -> None:
        if not self.exchange.world.is_first:
            return
        known = json.loads(self.out.read(RUN_FILE)) if resumed and RUN_FILE in self.out.names() else {}
        name = f"{self.conf.model.name} {self.trainset.name}"
        self.tracking = Tracking.open(self.conf.tracking, name, known.get("run_id"))
        if not resumed:
            settings = {**self.conf.model_dump(mode="json"), "trainset": self.trainset.name}
            self.tracking.params({**settings, "world_size": self.exchange.world.size})
        self.out.write(RUN_FILE, _json({"run_id": self.tracking.run_id}))
        self.out.write(TRAINSET_FILE, self.trainset.model_dump_json(indent=1).encode())

    @contextmanager
    def _tracked(self) -> Iterator[None]:
        """Close the MLflow run as failed when an error ends the training."""
        try:
            yield
        except BaseException:
            self.tracking.end({}, "FAILED")
            raise

    def _judged(self, split: SplitName, *, keep: bool) -> Figures:
        """Figures of a split by the model as it is, none for a split without rows; `keep` writes predictions down."""
        if split not in self.trainset.splits or self.trainset.splits[split].rows == 0:
            return {}
        model, scored = self.learner.model, self._scored(split)
        if split == "valid" and model.calibration is not None:
            scored = scored.where(~fitted_on(scored.row_id))
        if keep:
            write_predictions(self.out, f"predictions-{split}.parquet", scored, model.tasks, self.exchange)
        return judge(scored, model.tasks, self.exchange)

    def _scored(self, split: SplitName) -> Scored:
        feed, sampled = self._feed(split, self.conf.evaluation_batch_size), split in self.conf.sampled_splits
        return score(self.learner.model, feed, self.device, self.dtype, sampled=sampled)

    def _calibrate(self) -> None:
        """Fit curves on one half of the valid split, and put them into the model; the other half stays for judging."""
        kind, model = self.conf.calibration.kind, self.learner.model
        if kind is None or self.trainset.splits["valid"].rows == 0:
            return
        scored = self._scored("valid")
        chosen = fitted_on(scored.row_id)
        before = judge(scored.where(~chosen), model.tasks, self.exchange)
        rows, found = gathered(scored.where(chosen), self.exchange), None
        if self.exchange.world.is_first:
            found = fit(kind, model.targets_of, rows.scores.numpy(), rows.labels.numpy(), rows.weights.numpy())
            found = found.model_copy(update={"uncalibrated": {task: f.as_dict() for task, f in before.items()}})
            self.out.write(CALIBRATION_FILE, found.model_dump_json(indent=1).encode())
        found = self.exchange.broadcast_object(found)
        assert found is not None
        model.calibration = CalibrationLayer(found).to(self.device)

    def _keep_best(self, epoch: int) -> None:
        if self.exchange.world.is_first:
            names = self.out.folder(BEST).names()
            state = self.learner.optimiser.state_dict()
            self.out.write(f"{BEST}/{epoch}.{OPTIMISER_FILE}", _tensors(state))
            self.out.write(f"{BEST}/{epoch}.{WEIGHTS_FILE}", _tensors(self.learner.model.state_dict()))
            for name in names:
                if not name.startswith(f"{epoch}."):
                    self.out.delete(f"{BEST}/{name}")
        self.exchange.barrier()

    def _epoch_done(self, record: Record) -> None:
        self.tracking.epoch(record)
        if self.exchange.world.is_first:
            log.info("epoch %d: %s", record["epoch"], json.dumps(record["valid"]))

    def _gives_up(self, record: Record) -> bool:
        """What rank 0 was told, on every rank."""
        if self.gives_up is None:
            return False
        told = self.exchange.world.is_first and self.gives_up(record)
        return self.exchange.broadcast_object(told)

    def _finish(self, loop: Loop, feed: Feed) -> TrainResult:
        progress = loop.progress
        result = TrainResult(
            model=self.conf.model.name,
            tasks=self.learner.model.tasks,
            interrupted=not progress.finished and not loop.given_up,
            given_up=loop.given_up,
            epochs=len(progress.curves),
            best_epoch=progress.best_epoch,
            world_size=self.exchange.world.size,
            steps=progress.steps,
            dropped_per_epoch=feed.dropped_per_epoch,
            rows_per_second=loop.rows_per_second,
            added=self.added,
            run_id=self.exchange.broadcast_object(self.tracking.run_id),
        )
        if result.interrupted:
            self.tracking.end({}, "KILLED")
            return result
        if result.given_up:
            return self._given_up(result, list(progress.curves))
        return self._complete(result, list(progress.curves))

    def _given_up(self, result: TrainResult, curves: list[Record]) -> TrainResult:
        """Write down how far it came."""
        if self.exchange.world.is_first:
            self.out.write(CURVES_FILE, _json(curves))
        self.tracking.end({CURVES_FILE: curves}, "KILLED")
        return result

    def _complete(self, result: TrainResult, curves: list[Record]) -> TrainResult:
        """Evaluate the best epoch, and write the results down, `result.json` last."""
        weights = self.out.read(f"{BEST}/{result.best_epoch}.{WEIGHTS_FILE}")
        self.learner.model.load_state_dict(load_tensors(weights))
        self._calibrate()
        judged: Mapping[SplitName, bool] = {"train": self.conf.judge_train, "test": self.conf.judge_test}
        names: tuple[SplitName, ...] = ("train", "valid", "gate", "test")
        splits = [split for split in names if judged.get(split, True)]
        figures = {split: self._judged(split, keep=True) for split in splits if split in self.trainset.splits}
        metrics = {
            split: {task: values.as_dict() for task, values in tasks.items()} for split, tasks in figures.items()
        }
        result = result.model_copy(update={"metrics": metrics})
        if self.exchange.world.is_first:
            self.out.write(WEIGHTS_FILE, weights)
            self.out.write(OPTIMISER_FILE, self.out.read(f"{BEST}/{result.best_epoch}.{OPTIMISER_FILE}"))
            self.out.write(METRICS_FILE, _json(metrics))
            self.out.write(CURVES_FILE, _json(curves))
            self.out.write(MODEL_FILE, _json(self._card(result)))
            self.tracking.end({METRICS_FILE: metrics, CURVES_FILE: curves, MODEL_FILE: self._card(result)}, "FINISHED")
            self.out.write(RESULT_FILE, result.model_dump_json(indent=1).encode())
            self.out.delete(BEST)
        self.exchange.barrier()
        return result

    def _card(self, result: TrainResult) -> dict[str, Any]:
        """model.json."""
        return {
            "name": result.model,
            "conf": self.conf.model_dump(mode="json"),
            "tasks": list(result.tasks),
            "predicts": {target.name: list(target.all_of) for target in self.learner.model.targets_of},
            "best_epoch": result.best_epoch,
            "calibration": self._calibrated_how(),
            "trainset": self.trainset.name,
            "run_id": result.run_id,
        }

    def _calibrated_how(self) -> dict[str, str | None]:
        """Target → what its probabilities went through, as in the published manifest; {} without calibration."""
        layer = self.learner.model.calibration
        return {} if layer is None else {task: layer.calibration.how(task) for task in layer.calibration.targets}


def read_trainset(url: str) -> TrainSet:
    """The manifest in a train set's folder.

    Raises:
        DataError: there is none.
    """
    try:
        return TrainSet.model_validate_json(Folder(url).read(TRAINSET_FILE))
    except FileNotFoundError as error:
        raise DataError([Problem(what=f"no {TRAINSET_FILE} in {url}", remedy="Export the train set first.")]) from error


def read_result(out: Folder) -> TrainResult | None:
    """The result of a complete training, None before that."""
    return TrainResult.model_validate_json(out.read(RESULT_FILE)) if RESULT_FILE in out.names() else None


def load_model(out_url: str) -> tuple[models.RankingModel, TrainSet]:
    """The trained model of a complete training, on CPU and in evaluation mode, and what it was trained on."""
    folder = Folder(out_url)
    conf = TrainConf.of(json.loads(folder.read(MODEL_FILE))["conf"])
    trainset = TrainSet.model_validate_json(folder.read(TRAINSET_FILE))
    model = models.build(conf.model.name, trainset, conf.model.conf, conf.seed)
    model.to(getattr(torch, conf.precision)).load_state_dict(load_tensors(folder.read(WEIGHTS_FILE)))
    if CALIBRATION_FILE in folder.names():
        model.calibration = CalibrationLayer(Calibration.model_validate_json(folder.read(CALIBRATION_FILE)))
    return model.eval(), trainset


def device_of(conf: TrainConf, world: World) -> torch.device:
    """The GPU of the local rank, if the machine has one for it and the conf wants it."""
    if conf.device == "cpu" or world.local_rank >= torch.cuda.device_count():
        return torch.device("cpu")
    return torch.device("cuda", world.local_rank)


def _json(document: Any) -> bytes:
    return json.dumps(document, indent=1).encode()


def _tensors(state: Mapping[str, Tensor]) -> bytes:
    return save_tensors({name: value.detach().cpu().contiguous() for name, value in state.items()})
