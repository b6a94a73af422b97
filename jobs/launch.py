"""Starts the one training function on ranks: horovodrun, Spark executors, or this process alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.errors import ExitCode, LimelightError, ResourceError
from features.storage import write_bytes
from jobs import rank_exit
from jobs.settings import TrainingSettings
from training.config import TrainConf
from training.result import TrainResult
from training.tracking import hand_over

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SLOTS_TIMEOUT_S = 40.0  # executors register one by one after the session is there
SLOTS_POLL_S = 0.2
SPARK_START_TIMEOUT_S = 20  # of the ranks, once there are slots: both together make a minute
TRAIN_CONF_FILE = "train_conf.json"


class RanksFailedError(LimelightError):
    """A training has ended before its end; `exit_code` is that of the rank which failed first."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def training_arguments(
    conf: TrainConf,
    trainset_url: str,
    out_url: str,
    *,
    resume: bool = False,
    init_from: str | None = None,
    trial: str | None = None,
    profile: str | None = None,
) -> list[str]:
    """The rank's command line; settings travel as a file below `out_url`, but for MLflow's password.

    Args:
        trial: URL of a TrialLink.
        profile: URL of a folder for a profile.
    """
    conf_url = f"{out_url}/{TRAIN_CONF_FILE}"
    hand_over(conf.tracking)
    write_bytes(conf_url, conf.model_dump_json(indent=1).encode())
    arguments = ["--trainset", trainset_url, "--out", out_url, "--conf", conf_url]
    arguments += ["--resume"] if resume else []
    arguments += ["--trial", trial] if trial else []
    arguments += ["--profile", profile] if profile else []
    return [*arguments, "--init-from", init_from] if init_from else arguments


def launch(settings: TrainingSettings, arguments: Sequence[str]) -> None:
    """Run `jobs/train.py` on every rank and wait.

    Raises:
        RanksFailedError: when a rank failed, with its exit code; its output is above.
        ResourceError: when the cluster has fewer slots than ranks.
    """
    if settings.launcher == "spark":
        run_on_spark(settings.ranks, list(arguments))
        return
    rank = [sys.executable, "-m", "jobs.train", *arguments]
    command = rank if settings.launcher == "alone" or settings.ranks == 1 else [*_horovodrun(settings), *rank]
    # Ranks share the machine's cores; more than one thread each makes them fight.
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    root = str(Path(__file__).resolve().parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    out_url = arguments[arguments.index("--out") + 1]
    rank_exit.take(out_url)  # of an earlier attempt
    code = subprocess.run(command, env=environment, check=False).returncode
    if code != 0:
        why = rank_exit.take(out_url)
        shown = code if why is ExitCode.FAILURE else int(why)
        raise RanksFailedError(
            f"training ended with exit code {shown}; see the ranks' output above, then run again", why
        )


def _horovodrun(settings: TrainingSettings) -> list[str]:
    executable = Path(sys.executable).with_name("horovodrun")
    if not executable.exists():
        raise ResourceError("horovodrun is not installed beside this Python; run `make setup`")
    hosts = settings.hosts or f"localhost:{settings.ranks}"
    return [str(executable), "-np", str(settings.ranks), "--gloo", "-H", hosts]


def run_on_spark(ranks: int, arguments: list[str], *, slots_timeout_s: float = SLOTS_TIMEOUT_S) -> list[dict[str, Any]]:
    """Run the ranks on Spark executors through horovod.spark.

    Raises:
        ResourceError: within a minute, naming the slots wanted and free.
    """
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession() or SparkSession.builder.getOrCreate()
    require_slots(session, ranks, slots_timeout_s)
    import horovod.spark

    try:
        results: list[str] = horovod.spark.run(
            rank_entry, args=(arguments,), num_proc=ranks, start_timeout=SPARK_START_TIMEOUT_S, use_gloo=True, verbose=1
        )
    except Exception as error:
        if "Timed out waiting for" in str(error):
            raise ResourceError(
                f"{ranks} ranks want {ranks} Spark slots at the same time, of {slots(session)} that the application "
                f"has; fewer were free within {SPARK_START_TIMEOUT_S} s: {str(error).splitlines()[0]}"
            ) from error
        raise
    return [json.loads(result) for result in results]


def slots(session: SparkSession) -> int:
    """Tasks that the executors which have registered can run at the same time."""
    context = session.sparkContext._jsc.sc()
    return int(context.maxNumConcurrentTasks(context.resourceProfileManager().defaultResourceProfile()))


def require_slots(session: SparkSession, ranks: int, timeout_s: float) -> None:
    """Wait until executors with enough slots have registered.

    Raises:
        ResourceError: they have not within `timeout_s`; it names the slots wanted and free.
    """
    deadline = time.monotonic() + timeout_s
    while slots(session) < ranks:
        if time.monotonic() >= deadline:
            raise ResourceError(
                f"{ranks} ranks want {ranks} Spark slots and {slots(session)} are free after {timeout_s:.0f} s: ask "
                "for more executors, or for fewer ranks (--ranks, conf training.ranks)"
            )
        time.sleep(SLOTS_POLL_S)


def rank_entry(arguments: list[str]) -> str:
    """What every rank runs on an executor; the result as JSON."""
    from jobs.train import run_rank

    return run_rank(arguments).model_dump_json()


__all__ = ["TrainResult", "launch", "run_on_spark", "training_arguments"]
