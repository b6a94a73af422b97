"""Checkpoints on any warehouse URL, without pickle.

    checkpoint.<generation>.json                            created last, exclusively and whole: it exists
    attempt.<generation>.<unique>/weights.safetensors       the model's tensors
    attempt.<generation>.<unique>/optimiser.safetensors     the optimiser's tensors
    attempt.<generation>.<unique>/random.safetensors        random states of the ranks

The JSON holds all that is not a tensor, and size and SHA-256 of each file: a checkpoint that was cut off or
damaged is recognised, named in a warning, and the one before it is taken.
"""

from __future__ import annotations

import hashlib
import logging
import random
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from features.errors import DataError, Problem
from features.paths import RelativePath
from training.storage import Folder

log = logging.getLogger(__name__)

_POINTER = re.compile(r"checkpoint\.(\d{8})\.json")
_ATTEMPT = re.compile(r"attempt\.(\d{8})\..*")
_TENSOR = "$tensor"  # {"$tensor": name}: where a tensor was taken out of a structure
_TUPLE = "$tuple"
_INT_KEYS = "$int_keys"

Json = Any


@dataclass(frozen=True, kw_only=True)
class RandomState:
    """Random states of one rank: Python's, numpy's global one and torch's, on CPU and on the current GPU."""

    python: tuple[Any, ...]
    numpy: tuple[Any, ...]
    torch: Tensor
    cuda: Tensor | None = None

    @classmethod
    def capture(cls) -> RandomState:
        """The states as they are now."""
        name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - it is the global state that we keep
        return cls(
            python=random.getstate(),
            numpy=(name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
            torch=torch.get_rng_state(),
            cuda=torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        )

    def restore(self) -> None:
        """Set them again in this process."""
        random.setstate(self.python)
        name, keys, *rest = self.numpy
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
        torch.set_rng_state(self.torch)
        if self.cuda is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.cuda)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything that a run needs to go on as if it had not stopped.

    Attributes:
        step: steps taken since the run began, over all epochs.
        model: state dict.
        optimiser: state dict; nested mappings, sequences, tensors and plain values.
        feed: state dict of the feed's position.
        random_states: of every rank, in rank order.
        history: metrics so far, one record per evaluation.
        extra: further plain values, e.g. what early stopping has seen.
    """

    step: int
    model: Mapping[str, Tensor]
    optimiser: Mapping[str, Any]
    feed: Mapping[str, Json]
    random_states: Sequence[RandomState]
    history: Sequence[Mapping[str, Json]] = ()
    extra: Mapping[str, Json] = field(default_factory=dict)


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    path: RelativePath
    size: int
    sha256: str


class _Pointer(BaseModel):
    """`checkpoint.<generation>.json`."""

    # constants: a best loss of infinity must not come back as null
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    generation: int
    step: int
    files: Mapping[str, _File]
    optimiser: Json
    random_states: Json
    feed: Mapping[str, Json]
    history: list[Mapping[str, Json]]
    extra: Mapping[str, Json]


def save(url: str, checkpoint: Checkpoint, *, keep: int) -> int:
    """Write a checkpoint and remove all but the last `keep`; called by one rank.

    Returns:
        Its size in bytes, which is logged too.

    Raises:
        FileExistsError: another process writes checkpoints into the same folder.
        ValueError: `keep` below 1, or a value that is neither a tensor nor plain.
    """
    if keep < 1:
        raise ValueError(f"keep={keep} must be at least 1")
    root = Folder(url)
    generations = _generations(root)
    generation = generations[-1] + 1 if generations else 0
    attempt = f"attempt.{generation:08d}.{uuid.uuid4().hex}"
    tensors: dict[str, dict[str, Tensor]] = {"weights": dict(checkpoint.model), "optimiser": {}, "random": {}}
    optimiser = _take_out_tensors(checkpoint.optimiser, tensors["optimiser"], "optimiser")
    states = [vars(state) for state in checkpoint.random_states]
    random_states = _take_out_tensors(states, tensors["random"], "random")
    files = {name: _write_tensors(root, f"{attempt}/{name}.safetensors", found) for name, found in tensors.items()}
    pointer = _Pointer(
        generation=generation,
        step=checkpoint.step,
        files=files,
        optimiser=optimiser,
        random_states=random_states,
        feed=checkpoint.feed,
        history=list(checkpoint.history),
        extra=checkpoint.extra,
    )
    document = pointer.model_dump_json().encode()
    root.create(_pointer_name(generation), document)
    size = len(document) + sum(file.size for file in files.values())
    log.info("checkpoint %d at step %d: %s bytes in %s", generation, checkpoint.step, f"{size:,}", url)
    _prune(root, kept=[*generations, generation][-keep:], attempt=attempt)
    return size


def latest(url: str) -> Checkpoint | None:
    """The newest checkpoint that is whole; None where there is none at all.

    A damaged one is named in a warning and the one before it is taken.

    Raises:
        DataError: there are checkpoints, and all of them are damaged.
    """
    root = Folder(url)
    damaged: list[str] = []
    for generation in reversed(_generations(root)):
        name = _pointer_name(generation)
        try:
            return _load(root, _Pointer.model_validate_json(root.read(name)))
        except (OSError, ValidationError, SafetensorError, _DamagedError) as error:
            reason = str(error).splitlines()[0]
            damaged.append(f"{name}: {reason}")
            log.warning("checkpoint %s in %s is damaged (%s); trying the one before", name, url, reason)
    if damaged:
        what = f"no whole checkpoint in {url}"
        remedy = "Start without --resume, or restore the folder."
        raise DataError([Problem(what=what, count=len(damaged), examples=damaged, remedy=remedy)])
    return None


class _DamagedError(Exception):
    """A file is not what its pointer says."""


def _load(root: Folder, pointer: _Pointer) -> Checkpoint:
    tensors = {name: _read_tensors(root, file) for name, file in pointer.files.items()}
    return Checkpoint(
        step=pointer.step,
        model=tensors["weights"],
        optimiser=_put_back_tensors(pointer.optimiser, tensors["optimiser"]),
        feed=pointer.feed,
        random_states=[RandomState(**s) for s in _put_back_tensors(pointer.random_states, tensors["random"])],
        history=pointer.history,
        extra=pointer.extra,
    )


def _pointer_name(generation: int) -> str:
    return f"checkpoint.{generation:08d}.json"


def _generations(root: Folder) -> list[int]:
    return sorted(int(match.group(1)) for name in root.names() if (match := _POINTER.fullmatch(name)))


def _prune(root: Folder, *, kept: Sequence[int], attempt: str) -> None:
    """Remove what is older than `kept`, and files that a cut-off save of this generation left behind."""
    for name in root.names():
        if pointer := _POINTER.fullmatch(name):
            obsolete = int(pointer.group(1)) < kept[0]
        elif files := _ATTEMPT.fullmatch(name):
            generation = int(files.group(1))
            obsolete = generation < kept[0] or (generation == kept[-1] and name != attempt)
        else:
            continue
        if obsolete:
            root.delete(name)


def _write_tensors(root: Folder, path: str, tensors: Mapping[str, Tensor]) -> _File:
    data = save_tensors(_unshared(tensors))
    root.write(path, data)
    return _File(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors, no two in the same memory: safetensors refuses tied weights."""
    seen: set[int] = set()
    unshared: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        whole = tensor.detach().cpu().contiguous()
        memory = whole.untyped_storage().data_ptr()
        unshared[name] = whole.clone() if memory in seen else whole
        seen.add(memory)
    return unshared


def _read_tensors(root: Folder, file: _File) -> dict[str, Tensor]:
    data = root.read(file.path)
    if len(data) != file.size:
        raise _DamagedError(f"{file.path} has {len(data)} of {file.size} bytes")
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise _DamagedError(f"{file.path} does not have the content that was saved")
    return load_tensors(data)


def _take_out_tensors(value: Any, taken: dict[str, Tensor], name: str) -> Json:
    """A structure as JSON, its tensors moved to `taken` under the path that leads to them."""
    if isinstance(value, Tensor):
        taken[name] = value
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        inner = {str(key): _take_out_tensors(item, taken, f"{name}.{key}") for key, item in value.items()}
        return {_INT_KEYS: inner} if value and all(isinstance(key, int) for key in value) else inner
    if isinstance(value, list | tuple):
        items = [_take_out_tensors(item, taken, f"{name}.{place}") for place, item in enumerate(value)]
        return {_TUPLE: items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{name} is a {type(value).__name__}: a checkpoint holds tensors and plain values only")


def _put_back_tensors(value: Json, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `_take_out_tensors`."""
    if isinstance(value, list):
        return [_put_back_tensors(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _TUPLE in value:
        return tuple(_put_back_tensors(item, tensors) for item in value[_TUPLE])
    if _INT_KEYS in value:
        return {int(key): _put_back_tensors(item, tensors) for key, item in value[_INT_KEYS].items()}
    return {key: _put_back_tensors(item, tensors) for key, item in value.items()}
