"""The one training function: alone, on each rank under horovodrun, or on each executor under horovod.spark.

What it writes below `out_url` is listed in training.result.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from features.manifest import TRAINSET_FILE, SplitName
from training import checkpoint, models
from training.config import TrainConf
from training.exchange import Exchange, open_exchange
from training.feed import Feed
from training.judgement import Record
from training.loop import Hooks, Loop, StopRequest
from training.memory import keep_freed_memory
from training.optim import Optimiser
from training.profiler import ProfileRequest, profiled
from training.progress import progress_bar
from training.result import (
    BEST,
    CHECKPOINTS,
    CURVES_FILE,
    METRICS_FILE,
    MODEL_FILE,
    OPTIMISER_FILE,
    RESULT_FILE,
    RUN_FILE,
    WEIGHTS_FILE,
    WRITTEN,
    TrainResult,
    read_result,
    read_trainset,
)
from training.splits import Splits
from training.step import Learner
from training.storage import Folder
from training.tracking import Tracking
from training.verification import verify_files
from training.warm_start import start_warm
from training.world import World

log = logging.getLogger(__name__)

INTERRUPTED_EXIT_CODE = 143  # 128 + SIGTERM, as shells and schedulers expect: saved, go on with --resume


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
    profile: ProfileRequest | None = None,
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
        profile: where rank 0 writes a profile of some steps to, if anywhere.

    Raises:
        ConfError: settings do not fit the model, the train set, or the checkpoint.
        DataError: files of the train set break its contract, the earlier model does not fit the train set, or
            the training has diverged.
    """
    exchange = exchange or open_exchange(World.current())
    if conf.threads is not None:
        torch.set_num_threads(conf.threads)
    training = _Training(conf, trainset_url, out_url, exchange, gives_up, profile)
    done = training.done() if resume else None
    if done is not None:
        if profile is not None and exchange.world.is_first:
            log.warning("no profile: the training in %s is complete, and no step is left to measure", out_url)
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
        profile: ProfileRequest | None = None,
    ) -> None:
        self.conf, self.exchange, self.out = conf, exchange, Folder(out_url)
        self.gives_up, self.profile = gives_up, profile
        self.trainset = read_trainset(trainset_url)
        device, dtype = device_of(conf, exchange.world), getattr(torch, conf.precision)
        if device.type == "cpu":
            keep_freed_memory()
        self.splits = Splits(
            conf=conf, trainset=self.trainset, url=trainset_url, exchange=exchange, device=device, dtype=dtype
        )
        torch.manual_seed(conf.seed * 1_000_003 + exchange.world.rank)  # of dropout: another one on every rank
        model = models.build(conf.model.name, self.trainset, conf.model.conf, conf.seed)
        model = model.to(device=device, dtype=dtype)
        if conf.dense_precision == "bfloat16" and device.type == "cuda":
            model.lower(torch.bfloat16)
        if conf.compile:
            model.compile_dense()
        regularised = model.regularised_parameters()
        optimiser = Optimiser(model.table, model.dense_parameters(), conf.optim, regularised=regularised)
        self.learner = Learner(model, optimiser, exchange, conf.accumulate, conf.exchange)
        self.tracking = Tracking.absent()
        self.added: Mapping[str, int] = {}

    def done(self) -> TrainResult | None:
        """The result of a training that is complete already."""
        return read_result(self.out)

    def clear(self) -> None:
        """Remove what an earlier training left."""
        if self.exchange.world.is_first:
            for name in WRITTEN:
                self.out.delete(name)
        self.exchange.barrier()

    def run(self, *, resume: bool, init_from: str | None, show_progress: bool) -> TrainResult:
        """Train from a checkpoint, an earlier model, or anew; evaluate the best epoch; write everything down."""
        verify_files(self.trainset, self.splits.url, self.conf.verify_files, self.exchange)
        stop = StopRequest()
        feed = self.splits.feed("train", self.conf.batch_size)
        saved = checkpoint.latest(self._checkpoints) if resume else None
        if saved is None and init_from is not None:
            self.added = start_warm(init_from, self.learner, self.conf, self.trainset)
        self.exchange.broadcast_parameters(self.learner.model.state_dict())
        self._open_tracking(resumed=saved is not None)
        with progress_bar(feed, self.conf, shown=show_progress and self.exchange.world.is_first) as shown:
            hooks = Hooks(
                evaluate=lambda: self.splits.judged(self.learner.model, "valid"),
                improved=self._keep_best,
                epoch_done=self._epoch_done,
                step_done=shown.advance,
                gives_up=self._gives_up,
            )
            loop = Loop(self.learner, feed, self.conf, hooks, self._checkpoints, stop)
            if saved is not None:
                loop.resume(saved)
                log.info("resumed at step %d of epoch %d", feed.position.step, feed.position.epoch)
            with stop.listening(), self._tracked():
                with self._profiled(loop, shown.say):
                    loop.run()
                return self._finish(loop, feed)

    @property
    def _checkpoints(self) -> str:
        return self.out.folder(CHECKPOINTS).url

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

    def _profiled(self, loop: Loop, say: Callable[[str], None]) -> AbstractContextManager[None]:
        """The profile that was asked for, on rank 0."""
        if self.profile is None or not self.exchange.world.is_first:
            return nullcontext()
        return profiled(self.profile, loop, say)

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
            **loop.clock.pace(),
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
        model = self.learner.model
        model.load_state_dict(load_tensors(weights))
        self.splits.calibrate(model, self.out)
        judged: Mapping[SplitName, bool] = {"train": self.conf.judge_train, "test": self.conf.judge_test}
        names: tuple[SplitName, ...] = ("train", "valid", "gate", "test")
        splits = [split for split in names if judged.get(split, True) and split in self.trainset.splits]
        figures = {split: self.splits.judged(model, split, keep_in=self.out) for split in splits}
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


def device_of(conf: TrainConf, world: World) -> torch.device:
    """The GPU of the local rank, if the machine has one for it and the conf wants it."""
    if conf.device == "cpu" or world.local_rank >= torch.cuda.device_count():
        return torch.device("cpu")
    return torch.device("cuda", world.local_rank)


def _json(document: Any) -> bytes:
    return json.dumps(document, indent=1).encode()


def _tensors(state: Mapping[str, Tensor]) -> bytes:
    return save_tensors({name: value.detach().cpu().contiguous() for name, value in state.items()})
