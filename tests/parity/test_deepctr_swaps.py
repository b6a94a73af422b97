"""Two weights of equal shape that trade places in the peer are seen, in every pair: no comparison passes by luck."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from features.manifest import TrainSet
from tests.parity import test_deepctr, test_deepctr_sequences, test_deepctr_tasks
from tests.parity.pairs import LOGITS_WITHIN, Pair, small_batch, small_inputs, swapped

SIZES = {"user": 20, "item": 20, "city": 9, "hour": 9}
"""Tables of equal size, so that they can be swapped, and small enough that the batch reads the last rows."""
PAIRS = [
    *test_deepctr.PAIRS,
    *test_deepctr_sequences.PAIRS,
    test_deepctr_sequences.din_dice,
    *test_deepctr_tasks.PAIRS,
]


@pytest.mark.parametrize("make", PAIRS, ids=lambda make: make.__name__)
def test_no_two_weights_of_the_peer_can_be_swapped_unseen(make: Callable[[TrainSet], Pair]) -> None:
    tasks = test_deepctr_tasks.TASKS if make in test_deepctr_tasks.PAIRS else ("click",)
    with_events = (*test_deepctr_sequences.PAIRS, test_deepctr_sequences.din_dice)
    history = test_deepctr_sequences.HISTORY if make in with_events else ()
    inputs = small_inputs(tasks=tasks, history=history, sizes=SIZES)
    apart = swapped(make(inputs), small_batch(inputs))
    assert apart.pop("nothing") <= LOGITS_WITHIN
    assert {name: value for name, value in apart.items() if value <= 1e3 * LOGITS_WITHIN} == {}
    assert sum(" and " in name for name in apart) >= 3
    assert sum("axis" in name for name in apart) >= 8
