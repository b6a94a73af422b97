"""Checkpoints come back bit for bit, damaged ones are passed over by name, old ones go."""

from __future__ import annotations

import json
import logging
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from features import storage
from features.errors import DataError
from tests.training.stores import STORES, open_store
from training.checkpoint import Checkpoint, RandomState, latest, save
from training.storage import Folder


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder that does not exist yet."""
    return f"{open_store(request.param, tmp_path, monkeypatch)}/run"


def _trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)).double()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1, betas=(0.8, 0.9))
    _train(model, optimiser, steps=3)
    return model, optimiser


def _train(model: torch.nn.Module, optimiser: torch.optim.Optimizer, *, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        loss = model(torch.randn(8, 3, dtype=torch.float64)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def _checkpoint(step: int = 3, **changes: Any) -> Checkpoint:
    model, optimiser = _trained()
    values: dict[str, Any] = {
        "step": step,
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "feed": {"epoch": 1, "step": 7, "seed": 5},
        "random_states": [RandomState.capture(), RandomState.capture()],
        "history": [{"epoch": 0, "auc": {"enter": 0.7, "gift": None}}],
        "extra": {"best": -math.inf},
    }
    return Checkpoint(**(values | changes))


def test_training_goes_on_as_if_it_had_not_stopped(url: str) -> None:
    model, optimiser = _trained()
    states = [RandomState.capture()]
    save(url, _checkpoint(model=model.state_dict(), optimiser=optimiser.state_dict(), random_states=states), keep=2)
    uninterrupted = _train(model, optimiser, steps=5)
    resumed_model, resumed_optimiser = _trained()
    _train(resumed_model, resumed_optimiser, steps=1)  # anything else, to be overwritten
    loaded = latest(url)
    assert loaded is not None
    resumed_model.load_state_dict(dict(loaded.model))
    resumed_optimiser.load_state_dict(dict(loaded.optimiser))
    loaded.random_states[0].restore()
    assert _train(resumed_model, resumed_optimiser, steps=5) == uninterrupted


def test_plain_values_come_back_with_their_types(url: str) -> None:
    optimiser = {
        "state": {0: {"exp": torch.arange(3)}},
        "param_groups": [{"betas": (0.8, 0.9), "lr": 1e-3}],
        "empty": {},
    }
    saved = _checkpoint(optimiser=optimiser)
    save(url, saved, keep=1)
    loaded = latest(url)
    assert loaded is not None
    assert loaded.optimiser["state"][0]["exp"].tolist() == [0, 1, 2]
    assert loaded.optimiser["param_groups"] == optimiser["param_groups"]
    assert loaded.optimiser["empty"] == {}
    assert (loaded.step, loaded.feed, loaded.history, loaded.extra) == (
        saved.step,
        saved.feed,
        saved.history,
        saved.extra,
    )


def test_random_states_of_all_three_sources_are_restored() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002

    state = RandomState.capture()
    first = draw()
    assert draw() != first
    state.restore()
    assert draw() == first


def test_tied_weights_and_views_are_saved_whole(url: str) -> None:
    table = torch.arange(6.0).reshape(2, 3)
    save(url, _checkpoint(model={"a": table, "b": table, "column": table[:, 1]}), keep=1)
    loaded = latest(url)
    assert loaded is not None
    assert loaded.model["a"].equal(table)
    assert loaded.model["b"].equal(table)
    assert loaded.model["column"].tolist() == [1.0, 4.0]


def test_the_last_are_kept_and_sizes_are_logged(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "training.checkpoint"):
        sizes = [save(url, _checkpoint(step), keep=2) for step in range(4)]
    names = Folder(url).names()
    assert [name for name in names if name.startswith("checkpoint.")] == [
        "checkpoint.00000002.json",
        "checkpoint.00000003.json",
    ]
    assert len(names) == 4
    assert f"checkpoint 3 at step 3: {sizes[3]:,} bytes" in caplog.text
    files = [file for file in storage.list_files(url, recursive=True) if "00000003" in file.name]
    assert sizes[3] == sum(file.size for file in files)


def _damage(url: str, generation: int, how: str) -> str:
    """Harm the newest checkpoint the way crashes and disks do; what the warning must name."""
    root = Folder(url)
    attempt = next(name for name in root.names() if name.startswith(f"attempt.{generation:08d}"))
    weights, pointer = f"{attempt}/weights.safetensors", f"checkpoint.{generation:08d}.json"
    data = root.read(weights)
    if how == "cut off":
        root.write(weights, data[:-8])
    elif how == "flipped":
        root.write(weights, data[:-1] + bytes([data[-1] ^ 1]))
    elif how == "gone":
        root.delete(weights)
    else:
        root.delete(pointer)
        root.write(pointer, b'{"generation": 1,')
    return pointer


@pytest.mark.parametrize("how", ["cut off", "flipped", "gone", "pointer cut off"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    url: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(url, _checkpoint(10), keep=3)
    save(url, _checkpoint(20), keep=3)
    name = _damage(url, 1, how)
    loaded = latest(url)
    assert loaded is not None
    assert loaded.step == 10
    assert name in caplog.text
    save(url, _checkpoint(30), keep=3)
    after = latest(url)
    assert after is not None
    assert after.step == 30


def test_only_damaged_checkpoints_is_an_error_not_a_fresh_start(url: str) -> None:
    save(url, _checkpoint(), keep=1)
    _damage(url, 0, "cut off")
    with pytest.raises(DataError, match=r"no whole checkpoint.*checkpoint\.00000000\.json.*Start without --resume"):
        latest(url)


def test_no_checkpoint_at_all_is_none(url: str) -> None:
    assert latest(url) is None


def test_files_of_a_save_that_was_killed_are_invisible_and_removed_by_the_next(url: str) -> None:
    save(url, _checkpoint(1), keep=2)
    Folder(url).write("attempt.00000001.killed/weights.safetensors", b"half")
    loaded = latest(url)
    assert loaded is not None
    assert loaded.step == 1
    save(url, _checkpoint(2), keep=2)
    assert not any(name.endswith("killed") for name in Folder(url).names())


def test_values_that_are_not_plain_are_refused_before_anything_is_written(url: str) -> None:
    with pytest.raises(ValueError, match=r"optimiser\.when is a object"):
        save(url, _checkpoint(optimiser={"when": object()}), keep=1)
    assert Folder(url).names() == []


def test_keep_must_be_positive(url: str) -> None:
    with pytest.raises(ValueError, match="keep=0"):
        save(url, _checkpoint(), keep=0)


@pytest.mark.parametrize("path", ["../elsewhere/weights.safetensors", "/etc/hostname", "attempt/../../x"])
def test_a_checkpoint_that_names_a_file_elsewhere_is_refused(tmp_path: Path, path: str) -> None:
    url = str(tmp_path / "run")
    save(url, _checkpoint(), keep=1)
    (pointer,) = Path(url).glob("checkpoint.*.json")
    document = json.loads(pointer.read_text())
    document["files"]["weights"]["path"] = path
    pointer.write_text(json.dumps(document))
    with pytest.raises(DataError, match="the path"):
        latest(url)
