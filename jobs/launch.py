"""Starts the one training function on ranks: horovodrun, Spark executors, or this process alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from features.errors import LimelightError, ResourceError
from features.storage import write_bytes
from jobs.settings import TrainingSettings
from training.config import TrainConf
from training.run import TrainResult

SPARK_START_TIMEOUT_S = 60
TRAIN_CONF_FILE = "train_conf.json"


def training_arguments(
    conf: TrainConf, trainset_url: str, out_url: str, *, resume: bool = False, init_from: str | None = None
) -> list[str]:
    """The rank's command line; settings travel as a file below `out_url`."""
    conf_url = f"{out_url}/{TRAIN_CONF_FILE}"
    write_bytes(conf_url, conf.model_dump_json(indent=1).encode())
    arguments = ["--trainset", trainset_url, "--out", out_url, "--conf", conf_url]
    arguments += ["--resume"] if resume else []
    return [*arguments, "--init-from", init_from] if init_from else arguments


def launch(settings: TrainingSettings, arguments: Sequence[str]) -> None:
    """Run `jobs/train.py` on every rank and wait.

    Raises:
        LimelightError: when a rank failed; its output is above.
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
    code = subprocess.run(command, env=environment, check=False).returncode
    if code != 0:
        raise LimelightError(f"training ended with exit code {code}; see the ranks' output above, then run again")


def _horovodrun(settings: TrainingSettings) -> list[str]:
    executable = Path(sys.executable).with_name("horovodrun")
    if not executable.exists():
        raise ResourceError("horovodrun is not installed beside this Python; run `make setup`")
    hosts = settings.hosts or f"localhost:{settings.ranks}"
    return [str(executable), "-np", str(settings.ranks), "--gloo", "-H", hosts]


def run_on_spark(ranks: int, arguments: list[str]) -> list[dict[str, Any]]:
    """Run the ranks on Spark executors through horovod.spark.

    Raises:
        ResourceError: within SPARK_START_TIMEOUT_S seconds, naming the slots wanted and free.
    """
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession() or SparkSession.builder.getOrCreate()
    free = session.sparkContext.defaultParallelism
    if free < ranks:
        raise ResourceError(
            f"{ranks} ranks want {ranks} Spark slots and {free} are free: ask for more executors, or for fewer ranks "
            "(conf training.ranks)"
        )
    import horovod.spark

    try:
        results: list[str] = horovod.spark.run(
            rank_entry, args=(arguments,), num_proc=ranks, start_timeout=SPARK_START_TIMEOUT_S, use_gloo=True, verbose=1
        )
    except Exception as error:
        if "Timed out waiting for" in str(error):
            raise ResourceError(
                f"{ranks} ranks want {ranks} Spark slots at the same time; fewer became free within "
                f"{SPARK_START_TIMEOUT_S} s: {str(error).splitlines()[0]}"
            ) from error
        raise
    return [json.loads(result) for result in results]


def rank_entry(arguments: list[str]) -> str:
    """What every rank runs on an executor; the result as JSON."""
    from jobs.train import run_rank

    return run_rank(arguments).model_dump_json()


__all__ = ["TrainResult", "launch", "run_on_spark", "training_arguments"]
