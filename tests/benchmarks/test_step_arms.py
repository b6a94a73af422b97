"""The rows that arms learn from: Zipf, permuted, alike in every process; and as files, as batches, as a train set."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.step_arms import EVENTS, FIELDS, FIRST_ID, HISTORY, ITEM, ArmSpec, as_batch, drawn, inputs_of, resident
from benchmarks.step_gemm import GemmStep, flops_of, widths_of
from benchmarks.step_ours import learner
from benchmarks.step_weights import our_model
from benchmarks.train_files import write_trainset
from training.exchange import SingleExchange
from training.feed import Feed
from training.result import read_trainset
from training.world import World

SMALL = ArmSpec(side="ours", variant="adagrad", model="deepfm", rows=40 * 50, batch=32, batches=2)
SIGMAS = 5.0


@pytest.mark.parametrize("skew", [1.05, 0.0])
def test_ids_are_drawn_by_zipf_from_all_but_the_padding(skew: float) -> None:
    spec = replace(SMALL, skew=skew)
    ids = drawn(spec, 20_000).ids
    assert ids.shape == (20_000, FIELDS)
    assert ids.min() == FIRST_ID
    assert ids.max() < spec.rows // FIELDS
    shares = np.arange(1, spec.rows // FIELDS) ** -skew
    expected = 20_000 * shares / shares.sum()
    counts = np.sort(np.bincount(ids[:, 3], minlength=spec.rows // FIELDS)[FIRST_ID:])[::-1]
    assert abs(counts[0] - expected[0]) < SIGMAS * np.sqrt(expected[0]) + SIGMAS * np.sqrt(expected[0]) * (skew == 0)
    assert counts.sum() == 20_000


def test_frequent_ids_do_not_lie_side_by_side_and_are_the_same_for_every_seed() -> None:
    first, other = (drawn(replace(SMALL, seed=seed), 5000).ids for seed in (1, 2))
    assert (first != other).any()
    most = [[np.bincount(ids[:, field]).argmax() for field in range(FIELDS)] for ids in (first, other)]
    assert most[0] == most[1]
    assert len(set(most[0])) > FIELDS // 4


def test_batches_are_the_drawn_rows_cut_up_and_din_has_all_events() -> None:
    spec = replace(SMALL, model="din")
    whole, parts = drawn(spec, 64), resident(spec)
    assert [len(part.labels) for part in parts] == [32, 32]
    assert (np.concatenate([part.ids for part in parts]) == whole.ids).all()
    batch = as_batch(parts[1])
    events = batch.sequences[f"{HISTORY}.{ITEM}"]
    assert events.shape == (32, EVENTS)
    assert int(events.min()) >= FIRST_ID
    assert whole.events is not None
    assert (events.numpy() == whole.events[32:]).all()
    assert inputs_of(spec).table_rows() == spec.rows


def test_the_trainset_on_disk_has_the_drawn_rows(tmp_path: Path) -> None:
    spec = replace(SMALL, model="din")
    write_trainset(spec, 64, tmp_path)
    feed = Feed(read_trainset(str(tmp_path)), str(tmp_path), split="valid", batch_size=64, world=World(), seed=0)
    read = next(feed.evaluation())
    rows = drawn(spec, 64 + feed.rows).part(64, 128)
    assert (read.ids.numpy() == rows.ids).all()
    assert (read.labels.squeeze(1).numpy() == rows.labels).all()
    assert rows.events is not None
    assert (read.sequences[f"{HISTORY}.{ITEM}"].numpy() == rows.events).all()


def test_adagrad_is_element_wise_in_the_whole_model() -> None:
    """The dense oracle: torch's Adagrad over every parameter, the table too, with the mean loss."""
    spec = replace(SMALL, dtype="float64")
    ours, oracle = learner(spec, SingleExchange()), our_model(spec).double().train()
    optimiser = torch.optim.Adagrad(oracle.parameters(), lr=0.01)
    for rows in resident(spec) * 2:
        batch = as_batch(rows).to("cpu", torch.float64)
        losses = ours.step(batch)
        optimiser.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(oracle(batch), batch.labels)
        torch.autograd.backward(loss)
        _make_dense(oracle.table.weight)
        optimiser.step()
        assert float(losses.sums.sum() / losses.weights.sum()) == pytest.approx(float(loss.detach()), abs=1e-12)
    for name, parameter in ours.model.named_parameters():
        torch.testing.assert_close(parameter, oracle.get_parameter(name), rtol=0.0, atol=1e-12)


def _make_dense(weight: torch.nn.Parameter) -> None:
    assert weight.grad is not None
    weight.grad = weight.grad.to_dense()


@pytest.mark.parametrize("model", ["deepfm", "din"])
def test_the_limit_has_the_matrix_products_of_our_networks_and_nothing_else(model: str) -> None:
    spec = ArmSpec(side="gemm", variant="products", model=model, rows=40 * 50, batch=3, batches=1)  # type: ignore[arg-type]
    ours = our_model(spec)
    linear = {(one.in_features, one.out_features) for one in ours.modules() if isinstance(one, torch.nn.Linear)}
    layers = {pair for _, widths in widths_of(spec) for pair in pairwise(widths)}
    assert layers == linear
    with torch.profiler.profile(with_flops=True) as seen:
        arm = GemmStep(spec)
        arm.step(0)
    assert sum(one.flops for one in seen.key_averages() if one.key == "aten::mm") == flops_of(spec)


def test_products_are_those_of_a_backward_pass() -> None:
    spec = ArmSpec(side="gemm", variant="products", model="deepfm", rows=40 * 50, batch=3, batches=1)
    arm = GemmStep(spec)
    arm.step(0)
    for one in arm._layers:
        inputs, weight = one.inputs.clone().requires_grad_(), one.weight.clone().requires_grad_()
        found: Tensor = torch.nn.functional.linear(inputs, weight)
        found.backward(one.gradient)
        torch.testing.assert_close(one.forward, found)
        torch.testing.assert_close(one.of_inputs, inputs.grad)
        torch.testing.assert_close(one.of_weight, weight.grad)
