"""Champions on newly mature days: figures, histograms, OOV shares, committed per model and day. Needs no Spark.

python jobs/evaluate.py --warehouse URL --date 2026-01-19      sees the samples that `daily --date` would
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from features.errors import DataError, ExitCode, Problem
from features.evaluation import Evaluation
from features.storage import exists, read_bytes
from jobs.champions import Champions, Published
from jobs.console import Steps, people_first
from jobs.settings import Settings
from jobs.stage_door import a_day, choose_conf, door_parser
from pipeline.config import PipelineConf, full_retrain_days
from pipeline.evaluations import commit_evaluation, new_days
from pipeline.sources.report import SourceFacts, source_file
from pipeline.stages.names import SAMPLES
from pipeline.tables import Warehouse
from training.champion_day import Subject, evaluate_day, needed_columns, read_batches
from training.registry import Registry
from training.scorer import Scorer


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What one look at the champions did.

    Attributes:
        done: evaluations that were committed.
        unread: model → why its champion cannot be evaluated: the samples lack columns that it reads.
    """

    done: list[Evaluation] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)


def newest_mature_day(date: datetime.date, conf: PipelineConf) -> datetime.date:
    """The newest day whose samples can be mature on the morning of `date`: the gate day of a retrain then."""
    return full_retrain_days(date, conf).gate


def settings_of(warehouse: Warehouse, place: str, overrides: Sequence[str]) -> tuple[Settings, SourceFacts | None]:
    """Conf as a retrain of this warehouse has it: what conf leaves open follows the source.

    Raises:
        ConfError: on any bad value.
    """
    url = source_file(warehouse.url)
    facts = SourceFacts.model_validate_json(read_bytes(url)) if exists(url) else None
    return Settings.load(place, overrides, facts), facts


def evaluate_new(
    warehouse: Warehouse,
    champions: Mapping[str, Published | None],
    until: datetime.date,
    steps: Steps,
    *,
    commit: bool = True,
) -> Evaluated:
    """Evaluate every champion on every day up to `until` that it was not evaluated on yet.

    Args:
        commit: False writes nothing.

    Raises:
        HeldError: when another run evaluates one of the days; those before are committed.
    """
    evaluated = Evaluated()
    for model, published in champions.items():
        days = new_days(warehouse, published.in_use, until) if published is not None else []
        if published is None or not days:
            continue
        scorer = Scorer.open(str(published.folder))
        for day in days:
            missing = missing_columns(warehouse, scorer, day)
            if missing:
                some = ", ".join(missing[:5])
                evaluated.unread[model] = f"samples of {day} lack {len(missing)} columns that it reads, e.g. {some}"
                continue
            with steps.step(f"evaluate {model}") as step:
                evaluated.done.append(_evaluate(warehouse, published, scorer, day, commit=commit))
                step.rows, step.note = evaluated.done[-1].rows, f"{day}, version {published.in_use.version}"
    return evaluated


def missing_columns(warehouse: Warehouse, scorer: Scorer, day: datetime.date) -> list[str]:
    """Columns that an evaluation needs and the day's samples do not have, by its manifest."""
    manifest = warehouse.require(SAMPLES, [day])[day]
    return sorted(set(needed_columns(scorer)) - {name for name, _ in manifest.schema_})


def _evaluate(
    warehouse: Warehouse, published: Published, scorer: Scorer, day: datetime.date, *, commit: bool
) -> Evaluation:
    champion = published.in_use

    def score(urls: list[str], digest: str) -> Evaluation:
        subject = Subject(
            model=champion.model, version=champion.version, digest=champion.digest, day=day, samples=digest
        )
        return evaluate_day(scorer, read_batches(urls, needed_columns(scorer)), subject)

    if commit:
        return commit_evaluation(warehouse, champion, day, score)
    samples = warehouse.require(SAMPLES, [day])[day]
    return score(warehouse.file_urls(samples), samples.digest)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, also when there was nothing new; errors made on purpose exit with theirs."""
    parser = door_parser("evaluate", "Evaluate champions on the days that are newly mature, and commit what was found.")
    parser.add_argument("--date", required=True, type=a_day, metavar="YYYY-MM-DD", help="sees dt < date")
    options = parser.parse_args(arguments)
    with people_first():
        choose_conf(options.conf_dir)
        warehouse = Warehouse(options.warehouse)
        settings, _ = settings_of(warehouse, options.place, options.overrides)
        champions = Champions(Registry.open(*settings.tracking(warehouse.url))).of(settings.training.models)
        evaluated = evaluate_new(warehouse, champions, newest_mature_day(options.date, settings.pipeline), Steps())
        require_read(evaluated)
    return int(ExitCode.OK)


def require_read(evaluated: Evaluated) -> None:
    """Stop where a champion cannot be evaluated.

    Raises:
        DataError: names every such model and what its champion lacks.
    """
    remedy = "Train on the catalog as it is now: `limelight daily`"
    problems = [
        Problem(table=SAMPLES, what=f"the champion of {model} cannot be evaluated: {why}", remedy=remedy)
        for model, why in evaluated.unread.items()
    ]
    if problems:
        raise DataError(problems)


if __name__ == "__main__":
    sys.exit(main())
