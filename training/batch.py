"""One step's rows as few large tensors.

n: rows, F: categorical fields, K: dense numbers, L: sequence length, T: tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of one step; column order is that of the train set's manifest.

    Attributes:
        ids: [n, F] int64, ids within each field's own vocabulary (the model adds table offsets).
        dense: [n, K] float32.
        vectors: name → [n, dim] float32.
        sequences: "<sequence>.<field>" → [n, L] int64, newest first, 0 = padding.
        labels: [n, T] float32, 0 or 1.
        label_mask: [n, T] float32, the row's weight in the task; 0 = masked.
        position: [n] int64 display position, or None when it is not known (evaluation, serving).
        group: [n] int64, the user.
        row_id: [n] int64, the impression.
    """

    ids: Tensor
    dense: Tensor
    vectors: Mapping[str, Tensor]
    sequences: Mapping[str, Tensor]
    labels: Tensor
    label_mask: Tensor
    position: Tensor | None
    group: Tensor
    row_id: Tensor

    def __len__(self) -> int:
        return self.ids.shape[0]

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        """Move to a device; `dtype` also casts every floating tensor (float64 in the exactness tests)."""

        def move(value: Tensor) -> Tensor:
            kind = dtype if dtype is not None and value.is_floating_point() else value.dtype
            return value.to(device=device, dtype=kind, non_blocking=True)

        moved: dict[str, object] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                moved[item.name] = move(value)
            elif isinstance(value, Mapping):
                moved[item.name] = {name: move(tensor) for name, tensor in value.items()}
        return replace(self, **moved)  # type: ignore[arg-type]

    def tensors(self) -> list[Tensor]:
        """All tensors there are."""
        values = [getattr(self, item.name) for item in fields(self)]
        groups = [list(value.values()) if isinstance(value, Mapping) else [value] for value in values]
        return [tensor for group in groups for tensor in group if tensor is not None]

    def without_position(self) -> Self:
        """The same rows as they look when serving."""
        return replace(self, position=None)

    def rows(self, start: int, stop: int) -> Self:
        """Rows [start, stop)."""
        if start <= 0 and stop >= len(self):
            return self
        cut: dict[str, object] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                cut[item.name] = value[start:stop]
            elif isinstance(value, Mapping):
                cut[item.name] = {name: tensor[start:stop] for name, tensor in value.items()}
        return replace(self, **cut)  # type: ignore[arg-type]
