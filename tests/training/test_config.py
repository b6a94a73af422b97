"""docs/training-options.md lists every key with the default that the code has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import BaseModel

from training.config import Plateau, TrainConf
from training.modeling.base import ModelConf

PAGE = Path(__file__).parents[2] / "docs" / "training-options.md"
ROW = re.compile(r"\| `([a-z_.0-9]+)` \| `([^`]*)` \|")


def defaults(conf: BaseModel, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every key below a conf, by its dotted name."""
    for name, value in conf:
        if isinstance(value, BaseModel):
            yield from defaults(value, f"{prefix}{name}.")
        else:
            yield prefix + name, list(value) if isinstance(value, tuple) else value


def test_every_key_is_listed_with_its_default() -> None:
    listed = {key: yaml.safe_load(value) for key, value in ROW.findall(PAGE.read_text(encoding="utf-8"))}
    listed = {key: float(value) if isinstance(value, str) and "e-" in value else value for key, value in listed.items()}
    conf = TrainConf.of({"model": {"name": "lr"}})
    wanted = dict(defaults(conf)) | dict(defaults(Plateau(), "plateau.")) | dict(defaults(ModelConf(), "model."))
    del wanted["model.name"]
    assert listed == wanted
