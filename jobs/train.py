"""One rank of a training, or the door that starts them all.

horovodrun -np 2 python -m jobs.train --trainset URL --out URL --conf FILE
spark-submit jobs/train.py --launcher spark --ranks 2 --trainset URL --out URL --conf FILE
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence

from features.errors import DivergedError, LimelightError
from features.redaction import RedactedFormatter
from features.storage import read_bytes
from jobs import rank_exit
from jobs.trial_link import TrialLink
from training.config import TrainConf
from training.profiler import TEXT_FILE, ProfileRequest
from training.ranks import join, told_of_lost_ranks
from training.result import PROFILE, TrainResult
from training.run import INTERRUPTED_EXIT_CODE, train
from training.storage import Folder
from training.world import World


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(prog="jobs/train.py", description="Train one ranking model on a train set.")
    parser.add_argument("--trainset", required=True, help="URL of the folder with trainset.json")
    parser.add_argument("--out", required=True, help="URL of the folder for weights, metrics and predictions")
    parser.add_argument("--conf", required=True, help="URL of the training settings (JSON, as conf/models/*.yaml)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --out")
    parser.add_argument("--init-from", help="--out of an earlier training to start warm from")
    parser.add_argument("--trial", help="URL of the trial of a search that this training is (jobs/trial_link.py)")
    parser.add_argument(
        "--profile",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="rank 0 writes a trace of some steps and a table of their parts into FOLDER (docs/profile.md); without "
        "a folder into --out/profile, and the table is printed",
    )
    parser.add_argument("--launcher", choices=("alone", "spark"), default="alone", help="alone: this process is a rank")
    parser.add_argument("--ranks", type=int, default=2, help="with --launcher spark: how many executors' slots")
    return parser.parse_args(arguments)


def run_rank(arguments: Sequence[str]) -> TrainResult:
    """Train as one rank; with Horovod's environment it joins the others."""
    options = parse_arguments(arguments)
    conf = TrainConf.of(json.loads(read_bytes(options.conf)))
    join(conf.ranks)
    profile = None if options.profile is None else ProfileRequest(url=_profile_url(options))
    with told_of_lost_ranks(conf.ranks):
        if options.trial is not None:
            return _run_trial(conf, options)
        return train(
            conf, options.trainset, options.out, resume=options.resume, init_from=options.init_from, profile=profile
        )


def _profile_url(options: argparse.Namespace) -> str:
    return options.profile or f"{options.out}/{PROFILE}"


def _show_profile(options: argparse.Namespace) -> None:
    """Print what rank 0 has measured, unless whoever named a folder for it does."""
    if options.profile == "" and World.current().is_first:
        folder = Folder(_profile_url(options))
        if TEXT_FILE in folder.names():
            print(folder.read(TEXT_FILE).decode(), end="")


def _run_trial(conf: TrainConf, options: argparse.Namespace) -> TrainResult:
    """The search's own bar is shown; it hears of every epoch, and of a loss that is no number."""
    link = TrialLink.model_validate_json(read_bytes(options.trial))
    try:
        return train(conf, options.trainset, options.out, show_progress=False, gives_up=link.gives_up)
    except DivergedError as error:
        if World.current().is_first:
            link.diverged(str(error))
        raise


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 trained, 143 interrupted and saved, else the error's."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    lines = logging.StreamHandler()
    lines.setFormatter(RedactedFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[lines])
    try:
        if parse_arguments(given).launcher == "spark":
            from jobs.launch import run_on_spark

            rest = [given[at] for at in range(len(given)) if "--launcher" not in given[max(0, at - 1) : at + 1]]
            results = run_on_spark(parse_arguments(given).ranks, rest)
            interrupted = any(result["interrupted"] for result in results)
        else:
            interrupted = run_rank(given).interrupted
        _show_profile(parse_arguments(given))
        return INTERRUPTED_EXIT_CODE if interrupted else 0
    except LimelightError as error:
        print(f"error: {error}", file=sys.stderr)
        rank_exit.leave(parse_arguments(given).out, error.exit_code)
        return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main())
