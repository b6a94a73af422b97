"""The training that is disturbed, in a process of its own: trained, judged and published by what `daily` calls.

`python -m tests.chaos.training_process ORDER` starts two ranks by horovodrun, as the product does. `started` forks the
one rank that trains from a process that has imported all: cheaper by ten seconds, and it can be ended at any file.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from features.errors import LimelightError
from jobs import train_model as training_step
from jobs.release import release
from jobs.settings import Settings, TrainingSettings
from jobs.train import run_rank
from tests.chaos.training_world import MODEL, MODELS, OVERRIDES, PUBLISHED_MODEL, TRAINING
from training.config import TrainConf
from training.mlflow_access import quiet_client
from training.registry import Registry
from training.result import read_trainset

RUN, TRAINSET, OUTPUT = "run", "trainset", "output.log"
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.chaos.training_process", "tests.chaos.training_inspection", "tests.chaos.warm"])


class Order(BaseModel):
    """Train below `folder`, and publish if it is to; where to die.

    Attributes:
        folder: has `trainset` and `samples` (training_world).
        registry: MLflow's URI; None: train only, untracked.
        artifacts: folder of artefacts, for a database.
        ranks: started by horovodrun; 1: this process is the rank.
        step: the n-th opening for writing, link or renaming of a file below `folder`, at which to die; None lives.
        log: where to write the files' names, one a line; None nowhere.
        environment: further variables.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    folder: str
    registry: str | None = None
    artifacts: str | None = None
    ranks: int = 1
    resume: bool = True
    step: int | None = None
    log: str | None = None
    environment: Mapping[str, str] = {}

    @property
    def model(self) -> str:
        """Of this name."""
        return MODEL if self.registry is None else PUBLISHED_MODEL

    @property
    def run(self) -> Path:
        """The training's folder."""
        return Path(self.folder) / RUN


def carry_out(order: Order) -> None:
    """Train, and where a registry is named, judge and publish."""
    root = f"{order.folder}/{TRAINSET}"
    trainset = read_trainset(root)
    tracking = {"uri": order.registry, "artifacts": order.artifacts}
    conf = TrainConf.of({**TRAINING, "model": MODELS[order.model], "tracking": tracking})
    ranks = TrainingSettings(
        models=(order.model,), ranks=order.ranks, launcher="horovodrun" if order.ranks > 1 else "alone"
    )
    training_step.train_model(order.model, conf, trainset, root, order.run, ranks, start=None, resume=order.resume)
    if order.registry is not None:
        gate = Settings.load("local", OVERRIDES).gate
        registry = Registry.open(order.registry, order.artifacts)
        release(order.model, order.run, root, registry, gate, who="chaos").verdict.require_pass()


def started(order: Order) -> ForkServerProcess:
    """The order in a process of its own; its exit code is the command's, what it said is in `<folder>.log`."""
    process = CONTEXT.Process(target=_entry, args=(order,))
    process.start()
    return process


def output_of(order: Order) -> Path:
    """Where a forked process says what it says: beside its folder, which may be full."""
    return Path(f"{order.folder}.{OUTPUT}")


def _entry(order: Order) -> None:
    log = os.open(output_of(order), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(order.environment)
    vars(training_step)["launch"] = _inside
    _die_at(order)
    os._exit(_code(order))


def _code(order: Order) -> int:
    """Run, and turn errors into exit codes as the commands do."""
    try:
        carry_out(order)
    except LimelightError as error:
        print(f"error {error}", flush=True)
        return int(error.exit_code)
    except BaseException:  # noqa: BLE001 - what the interpreter would do
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    return 0


def _inside(settings: TrainingSettings, arguments: Sequence[str]) -> None:
    """`jobs.launch.launch` of one rank, without a further process for it."""
    assert settings.ranks == 1
    run_rank(arguments)


def _die_at(order: Order) -> None:
    """Count what Python itself opens for writing, links and renames, and end by SIGKILL before it is done."""
    if order.step is None and order.log is None:
        return
    count = 0

    def seen(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        path = _written(event, arguments)
        if path is None or not path.startswith(order.folder + "/"):
            return
        count += 1
        if order.log is not None:
            line = f"{event} {path.removeprefix(order.folder + '/')}\n"
            os.write(_log(order.log), line.encode())
        if count == order.step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(seen)


def _written(event: str, arguments: tuple[object, ...]) -> str | None:
    """The file that an audited event is about to write, link or rename to; None for any other event."""
    if event in ("os.link", "os.rename"):
        return str(arguments[1])
    if event != "open":
        return None
    path, mode, flags = arguments
    if isinstance(mode, str):
        return str(path) if set(mode) & set("wax+") else None
    return str(path) if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else None


_logs: dict[str, int] = {}


def _log(path: str) -> int:
    if path not in _logs:
        _logs[path] = -1  # opening is an event, too
        _logs[path] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    return _logs[path]


def new_database(order: Order) -> None:
    """The MLflow database of an order, made beforehand: its migrations take longer than a training."""
    assert order.registry is not None
    Path(order.registry.removeprefix("sqlite:///")).parent.mkdir(parents=True)
    quiet_client(order.registry).search_experiments()


def main() -> None:
    """The order is the one argument, as JSON."""
    order = Order.model_validate_json(sys.argv[1])
    os.environ.update(order.environment)
    sys.exit(_code(order))


if __name__ == "__main__":
    main()
