"""The study of a search: an Optuna study in SQLite, tied to what it is of, and what became of its trials."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from features.errors import ConfError, HeldError
from features.manifest import Frozen
from jobs.search_space import SearchSpace
from jobs.trial_link import DIVERGED, PRUNED, open_storage

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

STUDY, STUDY_FILE, LOCK_FILE = "limelight", "study.db", "tune.lock"
MADE_OF, CUT_OFF, FAILED, RUN_ID = "made_of", "cut off", "failed", "run_id"
SEEDS_APART = 1_000_003

MIN_FOR_IMPORTANCE = 5  # complete trials

Direction = Literal["maximize", "minimize"]
State = Literal["complete", "pruned", "diverged", "failed", "cut off", "running"]


class SearchedTrial(Frozen):
    """What became of a trial.

    Attributes:
        state: complete; pruned after an epoch; diverged: a loss was no number, which counts as pruned; failed; cut off
            by an interruption, and drawn again; running.
        values: of the keys of the space.
        value: the figure at its best epoch; None unless complete.
        epochs: epoch → the figure after it.
        run_id: of MLflow.
        why: it failed or diverged.
    """

    number: int
    state: State
    values: Mapping[str, Any]
    value: float | None
    epochs: Mapping[int, float] = Field(default_factory=dict)
    seconds: float | None = None
    run_id: str | None = None
    why: str | None = None

    @property
    def judged(self) -> bool:
        """Whether it counts among the trials that were asked for."""
        return self.state in ("complete", "pruned", "diverged")

    @classmethod
    def of(cls, trial: FrozenTrial, space: SearchSpace) -> SearchedTrial:
        """From the study."""
        return cls(
            number=trial.number,
            state=_state(trial),
            values=space.values(trial.params),
            value=trial.value if _state(trial) == "complete" else None,
            epochs=trial.intermediate_values,
            seconds=None if trial.duration is None else trial.duration.total_seconds(),
            run_id=trial.user_attrs.get(RUN_ID),
            why=trial.user_attrs.get(DIVERGED) or trial.user_attrs.get(FAILED),
        )


def _state(trial: FrozenTrial) -> State:
    if CUT_OFF in trial.user_attrs:
        return "cut off"
    if DIVERGED in trial.user_attrs:
        return "diverged"
    states: Mapping[str, State] = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    return states.get(trial.state.name, "running")


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a search's folder: trials that run when a search begins are those of one that was killed.

    Raises:
        HeldError: another search is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HeldError(
                f"another search is at work in {folder}; wait for its end, or take another --out"
            ) from error
        yield


def study_url(folder: Path) -> str:
    """Of the study below a folder."""
    return f"sqlite:///{folder.absolute() / STUDY_FILE}"


def open_study(folder: Path, direction: Direction, made_of: Mapping[str, Any]) -> Study:
    """Make a study, or take one up again.

    Args:
        folder: of the search.
        made_of: what the trials of a study have in common: JSON, name → content.

    Raises:
        ConfError: the study that is there is of something else.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=STUDY, storage=open_storage(study_url(folder)), direction=direction, load_if_exists=True
    )
    known = study.user_attrs.get(MADE_OF, made_of)
    other = [name for name in made_of if known.get(name) != made_of[name]]
    if other and study.get_trials(deepcopy=False):
        raise ConfError(
            f"{folder} holds a search of another {' and '.join(other)}; its trials cannot be compared with new ones. "
            "Take another --out, or remove that folder"
        )
    if other and study.direction.name.lower() != direction:
        optuna.delete_study(study_name=STUDY, storage=study_url(folder))
        return open_study(folder, direction, made_of)
    study.set_user_attr(MADE_OF, dict(made_of))
    return study


def next_seed(seed: int, trials: list[SearchedTrial]) -> int:
    """Of the next trial's draw. Trials that were cut off do not count: they are drawn again, with the same values.

    One generator for all trials would begin anew whenever the command does, and repeat its first draws.
    """
    return seed * SEEDS_APART + sum(trial.state != "cut off" for trial in trials)


def cut_off(study: Study) -> list[int]:
    """Close the trials that a search left running; → their numbers."""
    from optuna.trial import Trial, TrialState

    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in running:
        Trial(study, trial._trial_id).set_user_attr(CUT_OFF, True)
        study.tell(trial.number, state=TrialState.FAIL)
    return [trial.number for trial in running]


def importance(study: Study) -> dict[str, float]:
    """Key → share in what makes trials good or bad, by PED-ANOVA over complete trials; {} where they are few.

    Watanabe, Bansal, Hutter: "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces",
    IJCAI 2023.
    """
    from optuna.importance import get_param_importances
    from optuna.trial import TrialState

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < MIN_FOR_IMPORTANCE or len({trial.value for trial in complete}) < 2:
        return {}
    return dict(get_param_importances(study))


__all__ = ["PRUNED", "SearchedTrial", "alone_in", "cut_off", "importance", "next_seed", "open_study", "study_url"]
