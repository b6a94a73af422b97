"""A search at work: draw, train, tell the study, until there are enough trials; then what they came to."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from features.errors import LimelightError, NotReadyError, Problem
from features.manifest import SplitName, TrainSet
from jobs.console import Step, Steps, console
from jobs.fit import check_model, conf_for, given_splits
from jobs.launch import launch, training_arguments
from jobs.search_report import SearchReport
from jobs.search_space import SearchSpace, with_values
from jobs.settings import TrainingSettings
from jobs.study import FAILED, RUN_ID, STUDY, SearchedTrial, cut_off, importance, next_seed, study_url
from jobs.trial_link import DIVERGED, PRUNED, TrialLink
from jobs.trial_runs import TrialRuns
from training.config import TrainConf
from training.evaluation import judge, score
from training.exchange import SingleExchange
from training.feed import Feed
from training.judgement import monitored
from training.result import RESULT_FILE, load_model
from training.world import World

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

TRAINSET, TRIALS, BEST_FILE, TRIAL_FILE = "trainset", "trials", "best.yaml", "trial.json"
LOWER_IS_BETTER = ("logloss",)
FAILURES_IN_A_ROW = 3


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """What was asked for.

    Attributes:
        conf: training settings that all trials share, instead of conf/models/<model>.yaml.
        trials: that are complete, pruned or diverged in the end, earlier calls included.
        metric, task: the figure of valid to choose by; by default conf's early_stopping, and the model's first task.
        unpruned: trials that are complete before one is pruned.
    """

    train: str
    valid: str
    test: str | None
    schema: Path
    model: str
    conf: Path | None
    space: Path
    trials: int
    ranks: int
    out: Path
    metric: str | None = None
    task: str | None = None
    seed: int = 0
    unpruned: int = 5

    @property
    def splits(self) -> dict[SplitName, str]:
        """Split → URL."""
        return given_splits(self.train, self.valid, self.test)


class Search:
    """One call of `limelight tune`, from the first trial that is wanted to the report."""

    def __init__(
        self,
        options: TuneOptions,
        space: SearchSpace,
        values: dict[str, Any],
        trainset: TrainSet,
        study: Study,
        steps: Steps,
    ) -> None:
        self.options, self.space, self.values, self.trainset = options, space, values, trainset
        self.study, self.steps = study, steps
        self.out = options.out.absolute()
        space.check(values, self._built, options.space)
        self.task, self.metric = self._built(with_values(values, {}))
        self.runs = TrialRuns(self.out / TRIALS, self._conf_of({}).tracking.uri)

    def _built(self, values: dict[str, Any]) -> tuple[str, str]:
        """Build the model of some settings; → the figure that trials are judged by."""
        conf = self._shared(values)
        return monitored("early_stopping", conf.early_stopping, check_model(conf, self.trainset).tasks)

    def _shared(self, values: dict[str, Any]) -> TrainConf:
        """Settings fitted to the samples; --task is not replaced by a label where the samples have no such task."""
        conf = conf_for(values, self.trainset)
        if self.options.task is None:
            return conf
        stopping = conf.early_stopping.model_copy(update={"task": self.options.task})
        return conf.model_copy(update={"early_stopping": stopping})

    def _conf_of(self, values: Mapping[str, Any]) -> TrainConf:
        """Of a trial: neither train nor test is judged, and there is a store for its run."""
        conf = self._shared(with_values(self.values, values))
        changes: dict[str, Any] = {"judge_train": False, "judge_test": False}
        if conf.tracking.uri is None:
            artifacts = (self.out / "mlflow").as_uri()
            store = {"uri": f"sqlite:///{self.out / 'mlflow.db'}", "artifacts": artifacts}
            changes["tracking"] = conf.tracking.model_copy(update=store)
        return conf.model_copy(update=changes)

    def run(self) -> SearchReport:
        """Trials until there are enough, and what they came to."""
        for number in self._cut_off():
            console.print(f"[yellow]note[/] trial {number} was cut off; it is drawn again")
        try:
            with self._bar() as bar:
                self._trials(bar)
        except KeyboardInterrupt as error:
            self._cut_off()
            self._written(None)
            judged = sum(trial.judged for trial in self._searched())
            what = f"the search was interrupted after {judged} of {self.options.trials} trials"
            raise NotReadyError([Problem(what=what, remedy="The same command goes on")]) from error
        report = self._written(None)
        if report.best is None:
            raise LimelightError(f"none of {len(report.trials)} trials is complete; {report.whys()}")
        if self.options.test is None:
            return report
        with self.steps.step("test, best trial") as step:
            return self._written(self._judged_on_test(report.best, step))

    def _trials(self, bar: Progress) -> None:
        task = bar.add_task("", total=self.options.trials)
        failures = 0
        while True:
            searched = self._searched()
            judged = sum(trial.judged for trial in searched)
            bar.update(task, completed=min(judged, self.options.trials), description=self._so_far())
            if judged >= self.options.trials:
                return
            trial = self._trial(next_seed(self.options.seed, searched), judged + 1)
            failures = failures + 1 if trial.state == "failed" else 0
            if failures == FAILURES_IN_A_ROW:
                self._written(None)
                raise LimelightError(f"{failures} trials in a row failed; the last one: {trial.why}")

    def _trial(self, seed: int, place: int) -> SearchedTrial:
        """Draw, train, tell the study."""
        from optuna.samplers import TPESampler

        self.study.sampler = TPESampler(seed=seed)
        trial = self.study.ask()
        values = self.space.suggest(trial)
        with self.steps.step(f"trial {trial.number} ({place} of {self.options.trials})", live=False) as step:
            why = ""
            try:
                self._train(trial, self._conf_of(values))
            except LimelightError as error:
                why = str(error)
            told = self._told(trial, why)
            step.note = told.why or f"{told.state}, {self.metric} {_shown(told)}"
        self.runs.tidy(self._best())
        return told

    def _train(self, trial: Trial, conf: TrainConf) -> None:
        folder = self.runs.folder(trial.number)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        link = TrialLink(
            storage=study_url(self.out),
            study=STUDY,
            trial_id=trial._trial_id,
            task=self.task,
            metric=self.metric,
            unpruned=self.options.unpruned,
        )
        (folder / TRIAL_FILE).write_text(link.model_dump_json(indent=1) + "\n", encoding="utf-8")
        settings = TrainingSettings(
            ranks=self.options.ranks, launcher="horovodrun" if self.options.ranks > 1 else "alone"
        )
        root, run, at = str(self.out / TRAINSET), str(folder / "run"), str(folder / TRIAL_FILE)
        launch(settings, training_arguments(conf, root, run, trial=at))

    def _told(self, trial: Trial, why: str) -> SearchedTrial:
        """Tell the study how a training ended: with a value, pruned, diverged, or failed for another reason."""
        from optuna.trial import TrialState

        attributes = self._frozen(trial.number).user_attrs
        value = self.runs.figure(trial.number, self.task, self.metric)
        if (run_id := self.runs.run_id(trial.number)) is not None:
            trial.set_user_attr(RUN_ID, run_id)
        if value is not None:
            self.study.tell(trial.number, value)
        elif PRUNED in attributes or DIVERGED in attributes:
            self.study.tell(trial.number, state=TrialState.PRUNED)
        else:
            trial.set_user_attr(FAILED, why or f"{self.metric} of {self.task} is undefined on valid")
            self.study.tell(trial.number, state=TrialState.FAIL)
        told = SearchedTrial.of(self._frozen(trial.number), self.space)
        self.runs.tag(trial.number, told.state)
        return told

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _searched(self) -> list[SearchedTrial]:
        return [SearchedTrial.of(trial, self.space) for trial in self.study.get_trials(deepcopy=False)]

    def _best(self) -> int | None:
        complete = [trial for trial in self._searched() if trial.state == "complete"]
        return self.study.best_trial.number if complete else None

    def _cut_off(self) -> list[int]:
        """Close what was left running, here and in MLflow."""
        numbers = cut_off(self.study)
        for number in numbers:
            self.runs.tag(number, "cut off", ended=True)
        self.runs.tidy(self._best())
        return numbers

    def _bar(self) -> Progress:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        return Progress(*columns, TimeElapsedColumn(), console=console, transient=True)

    def _so_far(self) -> str:
        best = self._best()
        return "trials" if best is None else f"trials, best {self.metric} {self.study.best_value:.4f} (trial {best})"

    def _written(self, test: Mapping[str, Any] | None) -> SearchReport:
        """Write the report and the best settings."""
        report = SearchReport(
            model=self.options.model,
            task=self.task,
            metric=self.metric,
            lower_is_better=self.metric in LOWER_IS_BETTER,
            seed=self.options.seed,
            wanted=self.options.trials,
            trials=tuple(self._searched()),
            best=self._best(),
            importance=importance(self.study),
            test=test,
        )
        report.write(self.out)
        if report.best is not None:
            conf = self._shared(with_values(self.values, report.trials[report.best].values))
            head = f"# limelight tune: trial {report.best} of {self.out.name}, {report.said_of_best()}.\n"
            text = yaml.safe_dump(conf.model_dump(mode="json"), sort_keys=False, default_flow_style=None)
            (self.out / BEST_FILE).write_text(head + text, encoding="utf-8")
        return report

    def _judged_on_test(self, best: int, step: Step) -> dict[str, Any]:
        """Task → figures of the best trial's model on the test split."""
        run, root = self.runs.folder(best) / "run", str(self.out / TRAINSET)
        if not (run / RESULT_FILE).is_file():
            remedy = "Train best.yaml by `limelight fit --conf`, which judges test"
            raise NotReadyError([Problem(what=f"the best trial's training is no longer in {run}", remedy=remedy)])
        model, _ = load_model(str(run))
        conf = self._conf_of(self._searched()[best].values)
        feed = Feed(
            self.trainset,
            root,
            split="test",
            batch_size=conf.evaluation_batch_size,
            world=World(),
            seed=conf.seed,
            threads=conf.feed_threads,
        )
        dtype = getattr(torch, conf.precision)
        scored = score(model, feed, torch.device("cpu"), dtype, sampled="test" in conf.sampled_splits)
        step.rows = len(scored.row_id)
        return {task: found.as_dict() for task, found in judge(scored, model.tasks, SingleExchange()).items()}


def _shown(trial: SearchedTrial) -> str:
    last = trial.value if trial.value is not None else trial.epochs.get(max(trial.epochs, default=-1))
    after = "" if trial.state == "complete" else f" after epoch {max(trial.epochs, default=0)}"
    return "undefined" if last is None else f"{last:.4f}{after}"
