"""Going on from an earlier model on a train set whose vocabularies have grown.

Ids are numbered by (admitted_on, key), so an old id keeps its number. Growth must change no prediction: an old
id keeps its row and optimiser state; a new id starts as a copy of its vocabulary's OOV row, which is what it
was encoded as until now, with zero state.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from features.errors import DataError, Problem
from features.manifest import OOV_ID, TRAINSET_FILE, TrainSet
from training.config import TrainConf
from training.optim import OptimConf
from training.result import MODEL_FILE, OPTIMISER_FILE, TABLE_WEIGHT, WEIGHTS_FILE
from training.step import Learner
from training.storage import Folder

log = logging.getLogger(__name__)

_RETRAIN = "Train in full on this train set (limelight daily)."


@dataclass(frozen=True, kw_only=True)
class Growth:
    """From one train set's table to a later one's.

    Attributes:
        copied: [R_new] bool, whether a row is an old one.
        source: [R_new] the old table's row that each new row starts from.
        added: vocabulary → number of new ids.
    """

    copied: Tensor
    source: Tensor
    added: Mapping[str, int]

    def rows(self, old: Tensor) -> Tensor:
        """Rows of the table, [R_old, C] → [R_new, C]."""
        return old[self.source]

    def state(self, old: Tensor) -> Tensor:
        """Optimiser state of the rows, [R_old, …] → [R_new, …]: zero for new ids."""
        copied = self.copied.view(-1, *[1] * (old.dim() - 1))
        return torch.where(copied, old[self.source], old.new_zeros(()))


def growth(old: TrainSet, new: TrainSet) -> Growth:
    """How the table of `old` becomes that of `new`.

    Raises:
        DataError: if anything but the number of ids differs: then the old weights mean something else.
    """
    if problems := _differences(old, new):
        raise DataError(problems)
    offsets = old.offsets()
    sources, copied, added = [], [], {}
    for vocabulary in new.vocabularies:
        known = old.num_ids(vocabulary.name)
        ids = torch.arange(vocabulary.num_ids)
        copied.append(ids < known)
        sources.append(offsets[vocabulary.name] + torch.where(ids < known, ids, OOV_ID))
        if vocabulary.num_ids > known:
            added[vocabulary.name] = vocabulary.num_ids - known
    return Growth(copied=torch.cat(copied), source=torch.cat(sources), added=added)


def grown_weights(weights: Mapping[str, Tensor], growth: Growth, table: str) -> dict[str, Tensor]:
    """A model's weights for the grown table; `table` names the table's weight among them."""
    return {name: growth.rows(value) if name == table else value for name, value in weights.items()}


def grown_state(state: Mapping[str, Tensor], growth: Growth) -> dict[str, Tensor]:
    """`Optimiser.state_dict` for the grown table."""
    per_row = {name for name in state if name.startswith("rows.") and name != "rows.steps"}
    return {name: growth.state(value) if name in per_row else value for name, value in state.items()}


def _differences(old: TrainSet, new: TrainSet) -> list[Problem]:
    """Everything that forbids a warm start, all at once."""
    problems = []
    if _booster(old) != _booster(new):
        what = f"the booster is {_booster(new)}, the earlier model's leaves are of {_booster(old)}"
        problems.append(Problem(what=what, remedy=_RETRAIN, table=new.name, column="leaves"))
    for part in ("categorical", "sequences", "dense", "vectors", "positions", "tasks"):
        if getattr(old, part) != getattr(new, part):
            what = f"{part} differ from those the earlier model was trained on"
            examples = _changed(getattr(old, part), getattr(new, part))
            problems.append(Problem(what=what, remedy=_RETRAIN, table=new.name, count=len(examples), examples=examples))
    return problems + _changed_meanings(old, new) + _vocabulary_differences(old, new)


def _changed_meanings(old: TrainSet, new: TrainSet) -> list[Problem]:
    """Declarations that changed under a name that stayed: encoded alike, they mean something else.

    What came or went is told by the parts that it is in.
    """
    if old.catalog_fingerprint == new.catalog_fingerprint:
        return []
    if not old.fingerprints or not new.fingerprints:
        what = "the catalog changed, and one of the train sets does not say which features it had"
        return [Problem(what=what, remedy=_RETRAIN, table=new.name, column="catalog_fingerprint")]
    changed = sorted(n for n, was in old.fingerprints.items() if new.fingerprints.get(n, was) != was)
    if not changed:
        return []
    what = "features mean something else than the earlier model learnt"
    return [Problem(what=what, remedy=_RETRAIN, table=new.name, count=len(changed), examples=changed)]


def _vocabulary_differences(old: TrainSet, new: TrainSet) -> list[Problem]:
    before = {vocabulary.name: vocabulary.num_ids for vocabulary in old.vocabularies}
    after = {vocabulary.name: vocabulary.num_ids for vocabulary in new.vocabularies}
    by_rule = sorted(v.name for v in new.vocabularies if v.path is None and v.name in before)
    problems = []
    for what, names in (
        ("vocabularies came or went", sorted(before.keys() ^ after.keys())),
        ("vocabularies have shrunk", [n for n in before if n in after and after[n] < before[n]]),
        (
            "vocabularies that follow from a rule have grown",
            [n for n in by_rule if after[n] > before[n]],
        ),
    ):
        if names:
            problems.append(Problem(what=what, remedy=_RETRAIN, table=new.name, count=len(names), examples=names))
    return problems


def _booster(trainset: TrainSet) -> str | None:
    return trainset.leaves.digest if trainset.leaves else None


def _changed(old: object, new: object) -> list[str]:
    if isinstance(old, tuple) and isinstance(new, tuple):
        before, after = ({item.name: item for item in part} for part in (old, new))
        return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return [f"{old} → {new}"]


def start_warm(url: str, learner: Learner, conf: TrainConf, trainset: TrainSet) -> Mapping[str, int]:
    """Take over an earlier model of the same kind, its table grown to this train set's.

    Args:
        url: `out_url` of the earlier training.

    Returns:
        Vocabulary → ids added.

    Raises:
        DataError: it is of another kind, or its train set forbids it (see `growth`).
    """
    folder = Folder(url)
    earlier = json.loads(folder.read(MODEL_FILE))
    if earlier["conf"]["model"] != conf.model.model_dump(mode="json"):
        what = f"the earlier model in {url} is {earlier['conf']['model']}, the conf asks for another"
        raise DataError([Problem(what=what, remedy="Train in full, or use the earlier model's settings.")])
    grown = growth(TrainSet.model_validate_json(folder.read(TRAINSET_FILE)), trainset)
    weights = load_tensors(folder.read(WEIGHTS_FILE))
    learner.model.load_state_dict(grown_weights(weights, grown, TABLE_WEIGHT))
    if OptimConf.model_validate(earlier["conf"]["optim"]) == conf.optim:
        learner.optimiser.load_state_dict(grown_state(load_tensors(folder.read(OPTIMISER_FILE)), grown))
    log.info("warm start from %s: %d ids added", url, sum(grown.added.values()))
    return grown.added
