"""What a training left, disturbed or not: is anything visible in part, and is the end that of an undisturbed one?"""

from __future__ import annotations

import hashlib
import json
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from features.errors import LimelightError
from features.manifest import Frozen
from tests.chaos.training_process import CONTEXT, RUN
from tests.chaos.training_world import PUBLISHED_MODEL
from training.published import GRAPH_FILE, verify
from training.registry import Registry
from training.result import CHECKPOINTS, CURVES_FILE, RESULT_FILE, load_model, read_result
from training.storage import Folder
from training.verdict import VERDICT_FILE, read_verdict

LASTING = (
    "model.safetensors",
    "optimiser.safetensors",
    "metrics.json",
    "predictions-valid.parquet",
    "predictions-gate.parquet",
)
"""Files that must not depend on what happened on the way."""


class Looked(Frozen):
    """What was seen.

    Attributes:
        partial: what is visible and not whole.
        contents: all that must be equal at the end; what is not there is null.
    """

    partial: list[str]
    contents: dict[str, Any]


def look(folder: str, registry: str | None, artifacts: str | None, *, damaged_checkpoints: bool = False) -> Looked:
    """At a training's folder and its registry, from a process of its own: MLflow keeps databases open.

    Args:
        registry, artifacts: as of `Registry.open`; None: nothing was to be published.
        damaged_checkpoints: they were damaged on purpose: not looked at.
    """
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_look, args=(theirs, Path(folder), registry, artifacts, damaged_checkpoints))
    process.start()
    theirs.close()
    with ours:
        seen = Looked.model_validate_json(ours.recv())
    process.join()
    return seen


def _look(answer: Connection, folder: Path, uri: str | None, artifacts: str | None, damaged_checkpoints: bool) -> None:
    registry = None if uri is None else Registry.open(uri, artifacts)
    partial = _partial(folder, registry, damaged_checkpoints=damaged_checkpoints)
    answer.send(Looked(partial=partial, contents=_contents(folder, registry)).model_dump_json())


def _partial(folder: Path, registry: Registry | None, *, damaged_checkpoints: bool) -> list[str]:
    run = folder / RUN
    found = [] if damaged_checkpoints else _checkpoints(run / CHECKPOINTS)
    for look in (_result, _verdict, _published):
        found += look(run)
    if registry is not None:
        try:
            registry.champion(PUBLISHED_MODEL)
        except LimelightError as error:
            found.append(f"the champion: {error}")
    return found


def _checkpoints(folder: Path) -> list[str]:
    """Every checkpoint that is named, against its files; read without the code that wrote them."""
    found = []
    for pointer in sorted(folder.glob("checkpoint.????????.json")):
        try:
            files = json.loads(pointer.read_text(encoding="utf-8"))["files"].values()
            broken = [
                file["path"]
                for file in files
                if hashlib.sha256((folder / file["path"]).read_bytes()).hexdigest() != file["sha256"]
            ]
        except (OSError, ValueError) as error:
            broken = [str(error)]
        # The newest alone is read; those before it may be on their way out.
        found += [f"{pointer.name}: {', '.join(broken)}"] if broken else []
    return found[-1:] if found and found[-1].startswith(_newest(folder)) else []


def _newest(folder: Path) -> str:
    return max(path.name for path in folder.glob("checkpoint.????????.json"))


def _result(run: Path) -> list[str]:
    """A training that says it is complete has all its files, and they load."""
    try:
        if read_result(Folder(str(run))) is None:
            return []
        load_model(str(run))
        return [f"{name} is missing beside {RESULT_FILE}" for name in LASTING if not (run / name).is_file()]
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the next reader would meet
        return [f"{RESULT_FILE} is there, and: {type(error).__name__} {str(error)[:300]}"]


def _verdict(run: Path) -> list[str]:
    path = run / VERDICT_FILE
    try:
        return [] if not path.exists() else _nothing(read_verdict(path.read_text(encoding="utf-8"), str(path)))
    except LimelightError as error:
        return [str(error)]


def _published(run: Path) -> list[str]:
    folder = run / "published"
    try:
        return [] if not folder.exists() else _nothing(verify(folder))
    except LimelightError as error:
        return [str(error)]


def _nothing(_: object) -> list[str]:
    return []


def _contents(folder: Path, registry: Registry | None) -> dict[str, Any]:
    """Digests of files, the candidate's figures, the champion's graph."""
    run = folder / RUN
    found: dict[str, Any] = {
        name: hashlib.sha256((run / name).read_bytes()).hexdigest() if (run / name).exists() else None
        for name in LASTING
    }
    found["curves"] = _curves(run / CURVES_FILE)
    if registry is not None:
        found["figures"] = _figures(run / VERDICT_FILE)
        found["champion"] = _champion(registry)
    return found


def _champion(registry: Registry) -> str | None:
    """Digest of its graph."""
    try:
        champion = registry.champion(PUBLISHED_MODEL)
    except LimelightError:
        return None
    return None if champion is None else hashlib.sha256((champion[1] / GRAPH_FILE).read_bytes()).hexdigest()


def _curves(path: Path) -> Any:
    """Losses and figures of every epoch; how fast they were is another in every run."""
    if not path.exists():
        return None
    return [{name: epoch[name] for name in ("train_loss", "valid")} for epoch in json.loads(path.read_text())]


def _figures(path: Path) -> dict[str, Any] | None:
    """The candidate's, of every task."""
    try:
        verdict = read_verdict(path.read_text(encoding="utf-8"), str(path))
    except (LimelightError, OSError):
        return None
    return {task.task: task.candidate.model_dump() for task in verdict.tasks}


def differences(found: dict[str, Any], undisturbed: dict[str, Any]) -> list[str]:
    """Names of what differs."""
    names = sorted(found.keys() | undisturbed.keys())
    return [f"{name} differs from the undisturbed run's" for name in names if found.get(name) != undisturbed.get(name)]
