"""The models. A model is one file here, registered by `@register`, and one YAML in conf/models/.

`build` finds it by name: every module of this package is imported once, on first use.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

import torch

from features.errors import ConfError
from features.manifest import TrainSet
from training.modeling.base import ModelConf, RankingModel, registered, validated

__all__ = ["ModelConf", "RankingModel", "build", "check_conf", "names"]


def _discover() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


def names() -> tuple[str, ...]:
    """Names of every model, sorted."""
    _discover()
    return tuple(sorted(registered()))


def check_conf(name: str, conf: Mapping[str, object]) -> ModelConf:
    """Check a model's own settings as far as it can be done without a train set.

    Raises:
        ConfError: if the model is unknown, or its conf has unknown keys or values out of range.
    """
    if name not in names():
        raise ConfError(f"model.name={name!r} is unknown; choose one of {', '.join(names())}")
    return validated(name, registered()[name][1], conf)


def build(name: str, inputs: TrainSet, conf: Mapping[str, object], seed: int) -> RankingModel:
    """Build a model for a train set, initialised as a function of `seed` alone.

    Args:
        name: as registered, e.g. "deepfm".
        inputs: the train set whose columns it reads.
        conf: the model's own settings, checked by its conf class.
        seed: of the initial weights; the caller's random state is left as it was.

    Raises:
        ConfError: if the model is unknown, or its conf has unknown keys or values out of range.
        DataError: if the train set lacks a task that the model needs.
    """
    checked = check_conf(name, conf)
    model_type, _ = registered()[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return model_type(inputs, checked)
