"""The loss of a step, exact for any world size.

L = Σ_t λ_t · Σ_i w_it · bce(z_it, y_it) / W_t, with W_t = Σ_i w_it over ALL ranks' rows. Each rank computes
its part with the global W, so that the parts, and their gradients, simply add up; a mean of per-rank means
would weigh a row by how many others its rank happens to have unmasked.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def weighted_bce(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """This rank's sums Σ_i w_it · bce(z_it, y_it).

    Args:
        logits, labels, weights: [n, T]; weight 0 = masked, whatever the logit.

    Returns:
        [T].
    """
    losses = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (losses * weights).sum(dim=0)


def total_loss(loss_sums: Tensor, weight_sums: Tensor, task_weights: Tensor) -> Tensor:
    """This rank's part of the loss: Σ_t λ_t · sum_t / W_t; a task without a weight anywhere adds 0.

    Args:
        loss_sums: [T] of this rank.
        weight_sums: [T] of all ranks.
        task_weights: [T], 0 = the task is not trained.

    Returns:
        scalar.
    """
    judged = weight_sums > 0
    means = loss_sums / weight_sums.where(judged, weight_sums.new_ones(()))
    return (task_weights * means * judged).sum()
