"""Memory of a training on Linux: large pages below what is read at random, and no giving back between steps.

A table of 10⁷ rows of 17 numbers lies in 166,000 pages of 4 KiB. A core remembers the addresses of some thousands:
nearly every row that a step reads costs a walk through the page table beside the row itself. Pages of 2 MiB are 325.

What a step has computed it frees. glibc gives large blocks back to the system, which hands them out again as pages to
be zeroed, step after step.
"""

from __future__ import annotations

import ctypes
import logging
import math
import mmap
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

log = logging.getLogger(__name__)

LARGE_PAGE = 2**21
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_… of malloc.h
_LARGEST_MMAP_THRESHOLD = 2**25  # glibc refuses more
_KEPT = 2**30


def row_zeros(shape: Sequence[int], like: Tensor) -> Tensor:
    """Zeros for something that has a value per row of an embedding table, in large pages where the system gives them.

    Args:
        shape: [R, …].
        like: whose dtype and device it has.
    """
    count = math.prod(shape) * like.element_size()
    if like.device.type != "cpu" or count < LARGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(tuple(shape), dtype=like.dtype, device=like.device)
    # Private: a shared mapping would be a file in memory, which has large pages by another setting.
    pages = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        pages.madvise(mmap.MADV_HUGEPAGE)
    except OSError as error:  # a kernel without them
        log.debug("no large pages: %s", error)
    return torch.frombuffer(pages, dtype=like.dtype).view(tuple(shape))


def keep_freed_memory(most: int = _KEPT) -> bool:
    """Let this process keep up to `most` bytes that it has freed; whether its allocator could be told.

    Only glibc's can. Blocks above 32 MiB are given back all the same.
    """
    if not sys.platform.startswith("linux"):
        return False
    tell = getattr(ctypes.CDLL(None), "mallopt", None)
    if tell is None:
        return False
    # The threshold first: once it is set, glibc no longer moves either by itself.
    return bool(tell(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)) and bool(tell(_TRIM_THRESHOLD, most))
