"""Torch with one thread: the tests share few cores, and its threads wait for each other by spinning."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
