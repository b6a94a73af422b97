"""A published folder: a model complete in itself, and the proof that nothing in it has changed.

    model.onnx      the graph without the position tower (and model.onnx.data, when weights exceed 2 GB)
    trainset.json   how rows are encoded; its paths are relative to this folder
    vocabularies/   and the booster file, at the paths that trainset.json names
    model.json      what was trained, with which settings
    schema.json     column → type of the sample rows that it scores
    examples.jsonl  sample rows with the scores they must get
    MANIFEST.json   every file with size and SHA-256; written last

Neither torch nor Spark is needed to read it.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pyarrow import fs
from pydantic import Field

from features.errors import DataError, Problem
from features.manifest import Frozen
from features.paths import RelativePath, inside, require_path
from features.storage import list_files, resolve

GRAPH_FILE = "model.onnx"
MODEL_FILE = "model.json"
SCHEMA_FILE = "schema.json"
EXAMPLES_FILE = "examples.jsonl"
MANIFEST_FILE = "MANIFEST.json"

_BLOCK = 1 << 20


class PublishedFile(Frozen):
    """A file of the folder; `path` is relative to it."""

    path: RelativePath
    size: int = Field(ge=0)
    sha256: str


class Output(Frozen):
    """A column of the graph's outputs: the probability that ALL of these labels are 1.

    `calibration` is what `probabilities` went through after the sigmoid of `logits`; see training.calibration.
    """

    name: str
    all_of: tuple[str, ...] = Field(min_length=1)
    calibration: Literal["isotonic", "platt", "product"] | None = None


class Contents(Frozen):
    """MANIFEST.json."""

    format_version: Literal[1] = 1
    model: str
    outputs: tuple[Output, ...] = Field(min_length=1)
    files: tuple[PublishedFile, ...]

    def digest(self) -> str:
        """One digest of the whole folder; what is None counts as absent, as older manifests have it."""
        return hashlib.sha256(self.model_dump_json(exclude_none=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Hex digest of a file, read block by block."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while block := source.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def seal(folder: Path, model: str, outputs: tuple[Output, ...]) -> Contents:
    """List every file of a finished folder in its MANIFEST.json."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_FILE)
    files = tuple(
        PublishedFile(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=sha256(path))
        for path in paths
    )
    contents = Contents(model=model, outputs=outputs, files=files)
    (folder / MANIFEST_FILE).write_text(contents.model_dump_json(indent=1))
    return contents


def verify(folder: Path) -> Contents:
    """Read MANIFEST.json and check every file against it.

    Raises:
        DataError: naming every file that is missing, changed or not listed; or one that a link takes elsewhere.
    """
    manifest = folder / MANIFEST_FILE
    if not manifest.is_file():
        raise DataError(
            [Problem(what=f"{folder} has no {MANIFEST_FILE}", remedy="It was never finished; export the model again")]
        )
    contents = Contents.model_validate_json(manifest.read_text())
    listed = {file.path: file for file in contents.files}
    found_paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    present = {path for path in found_paths if inside(folder, path).is_file()} - {MANIFEST_FILE}
    changed = [
        path
        for path in sorted(listed.keys() & present)
        if (folder / path).stat().st_size != listed[path].size or sha256(folder / path) != listed[path].sha256
    ]
    found = (
        ("missing", sorted(listed.keys() - present)),
        ("changed", changed),
        ("not listed", present - listed.keys()),
    )
    problems = [
        Problem(
            what=f"files of the published model in {folder} are {what}",
            count=len(paths),
            examples=sorted(paths),
            remedy="Fetch the folder again, or publish the model again",
        )
        for what, paths in found
        if paths
    ]
    if problems:
        raise DataError(problems)
    return contents


@contextmanager
def local_copy(url: str) -> Iterator[Path]:
    """The folder itself when it is local, otherwise a temporary copy of it.

    Raises:
        DataError: the store has a name that leads out of the folder.
    """
    filesystem, path = resolve(url)
    if isinstance(filesystem, fs.LocalFileSystem):
        yield Path(path)
        return
    for entry in list_files(url, recursive=True):
        require_path(entry.name)
    with tempfile.TemporaryDirectory(prefix="limelight-published-") as copy:
        fs.copy_files(path, copy, source_filesystem=filesystem, destination_filesystem=fs.LocalFileSystem())
        yield Path(copy)
