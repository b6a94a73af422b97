"""What ties a training to its trial of a search: after each epoch rank 0 reports, and asks whether to go on.

The study is a file that the command and rank 0 of its training both have open; a training in this process, one in a
process of its own and one on several ranks therefore do the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from features.manifest import Frozen

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from optuna.trial import Trial

LOCK_TIMEOUT_S = 60  # SQLite's, while the other process writes
DIVERGED, PRUNED = "diverged", "pruned"


class TrialLink(Frozen):
    """trial.json.

    Attributes:
        storage: URL of the study's database.
        study: its name.
        trial_id: in the storage.
        task, metric: the figure of the validation split that trials are judged by.
        unpruned: trials that are complete before one is given up.
    """

    storage: str
    study: str
    trial_id: int
    task: str
    metric: str
    unpruned: int

    def gives_up(self, record: Mapping[str, Any]) -> bool:
        """Report an epoch; true if its best figure so far is worse than the median of complete trials there."""
        value: float | None = record["valid"][self.task][self.metric]
        if value is None:
            return False
        trial = _trial_of(self)
        trial.report(value, record["epoch"])
        if not trial.should_prune():
            return False
        trial.set_user_attr(PRUNED, record["epoch"])
        return True

    def diverged(self, why: str) -> None:
        """Note where a loss was no number."""
        _trial_of(self).set_user_attr(DIVERGED, why)


@lru_cache(maxsize=1)
def _trial_of(link: TrialLink) -> Trial:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(
        study_name=link.study,
        storage=open_storage(link.storage, exists=True),
        sampler=optuna.samplers.RandomSampler(),  # draws nothing here
        pruner=optuna.pruners.MedianPruner(n_startup_trials=link.unpruned),
    )
    return optuna.trial.Trial(study, link.trial_id)


def open_storage(url: str, *, exists: bool = False) -> RDBStorage:
    """A study's database; waits while another process writes. One that exists is neither made nor checked."""
    from optuna.storages import RDBStorage

    waits = {"connect_args": {"timeout": LOCK_TIMEOUT_S}}
    return RDBStorage(url, waits, skip_compatibility_check=exists, skip_table_creation=exists)
