"""Settings of one training: what conf/models/<name>.yaml holds. Frozen, and checked when built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from features.errors import ConfError
from features.manifest import SplitName
from features.redaction import SecretUrl
from training.calibration import CalibrationConf
from training.gradients import ExchangeConf
from training.optim import OptimConf
from training.verification import VerifyFiles


class _Conf(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelChoice(BaseModel):
    """Which model; every other key belongs to the model's own conf class, which checks it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @property
    def conf(self) -> Mapping[str, Any]:
        """The model's own keys."""
        return self.model_extra or {}


class Watched(_Conf):
    """A metric of the validation day, and when something follows from it.

    Attributes:
        task: a task that the model predicts; its first one if None.
        metric: auc and gauc are to rise, logloss is to fall.
        patience: epochs in a row without a gain.
        min_gain: a change that is not larger is no gain.
    """

    task: str | None = None
    metric: Literal["auc", "gauc", "logloss"] = "auc"
    patience: int = Field(default=1, ge=1)
    min_gain: float = Field(default=0.0, ge=0)


class EarlyStopping(Watched):
    """Stop after `patience` epochs in a row without a gain on the validation day, and keep the best epoch."""


class Plateau(Watched):
    """Reduce the learning rates after `patience` epochs in a row without a gain, and again after as many more.

    Attributes:
        factor: what both rates are multiplied by.
        min_learning_rate: no rate falls below it.
    """

    factor: float = Field(default=0.1, gt=0, lt=1)
    min_learning_rate: float = Field(default=1e-6, ge=0)


class CheckpointConf(_Conf):
    """A checkpoint after every epoch, and every `every_steps` steps; the last `keep` are kept."""

    every_steps: int | None = Field(default=None, ge=1)
    keep: int = Field(default=2, ge=1)


class RankTimeouts(_Conf):
    """When a rank gives up waiting for the others; the training then ends on all ranks (training.ranks).

    Attributes:
        lost_seconds: without a sign of life of another rank: its process was killed or stopped, its host is gone.
            Also what a rank waits for the others at the start.
    """

    lost_seconds: int = Field(default=60, ge=1)


class TrackingConf(_Conf):
    """MLflow: a URI of a server or a database; None leaves tracking out.

    `artifacts` is where a database's experiment keeps its files; a server knows that itself. A password in `uri` is
    not written down with the rest (docs/safety.md).
    """

    uri: SecretUrl | None = Field(default=None, repr=False)
    experiment: str = "limelight"
    artifacts: str | None = None


class TrainConf(_Conf):
    """One training.

    Attributes:
        batch_size: rows of a step over all ranks.
        accumulate: parts that a step's rows are taken through the model in, one after the other; the gradient is
            that of the whole batch.
        evaluation_batch_size: the same when scoring.
        seed: of initial weights, order of rows and dropout.
        precision: float64 is for exactness tests.
        dense_precision: bfloat16 takes matrix products of the dense part, in training on a GPU; weights, updates, the
            table, sums over rows, logits and the loss stay as they are. On a CPU it changes nothing.
        compile: the dense part by torch.compile; its first steps take a minute, and it needs a C++ compiler.
        device: "auto" takes the GPU of the local rank where there is one.
        threads: torch's threads per rank; torch's own choice if None.
        feed_threads: Petastorm's threads per rank.
        feed_row_groups: the most row groups of a split in a rank's memory at once; None: as many as it reads from at
            once (streams of training.feed_plan), and four per thread.
        feed_prefetch: batches made ahead of the step, by a thread; 0: by the step's own.
        verify_files: compare the files' bytes with the manifest's checksums before the first step: those on this host's
            disks, `always`, or `never`. From an object store every byte would come twice.
        judge_train: score the train split, too, once training is over.
        judge_test: score the test split, where there is one; a search over settings must not see it.
        sampled_splits: splits whose negatives are a sample (`model.negatives_kept`): their figures weigh them back.
        exchange: what of the gradients travels between ranks.
        plateau: None leaves the learning rates as they are.
        calibration: of probabilities, fitted on half of the valid split once training is over (training.calibration).
    """

    model: ModelChoice
    batch_size: int = Field(default=1024, ge=1)
    accumulate: int = Field(default=1, ge=1)
    evaluation_batch_size: int = Field(default=8192, ge=1)
    epochs: int = Field(default=4, ge=1)
    seed: int = 0
    precision: Literal["float32", "float64"] = "float32"
    dense_precision: Literal["full", "bfloat16"] = "full"
    compile: bool = False
    device: Literal["auto", "cpu"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    feed_threads: int = Field(default=2, ge=1)
    feed_row_groups: int | None = Field(default=None, ge=1)
    feed_prefetch: int = Field(default=2, ge=0)
    verify_files: VerifyFiles = "local"
    judge_train: bool = False
    judge_test: bool = True
    sampled_splits: tuple[SplitName, ...] = ("train",)
    calibration: CalibrationConf = CalibrationConf()
    optim: OptimConf = OptimConf()
    exchange: ExchangeConf = ExchangeConf()
    early_stopping: EarlyStopping = EarlyStopping()
    plateau: Plateau | None = None
    checkpoint: CheckpointConf = CheckpointConf()
    ranks: RankTimeouts = RankTimeouts()
    tracking: TrackingConf = TrackingConf()

    @model_validator(mode="after")
    def _parts_have_rows(self) -> Self:
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate={self.accumulate} parts of batch_size={self.batch_size} rows: some are empty")
        return self

    @model_validator(mode="after")
    def _exactness_is_kept(self) -> Self:
        if self.precision == "float64" and (self.dense_precision, self.exchange.values) != ("full", "full"):
            raise ValueError(
                f"precision=float64 is for exactness; dense_precision={self.dense_precision} and "
                f"exchange.values={self.exchange.values} would round it away: leave both at full"
            )
        return self

    @model_validator(mode="after")
    def _a_lower_rate_is_tried(self) -> Self:
        stop, fall = self.early_stopping, self.plateau
        if fall and (fall.task, fall.metric) == (stop.task, stop.metric) and fall.patience >= stop.patience:
            raise ValueError(
                f"plateau.patience={fall.patience} is not below early_stopping.patience={stop.patience}: "
                "the training would end before it tries a lower rate"
            )
        return self

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Check a mapping.

        Raises:
            ConfError: one line per unknown key or value out of range.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfError("training conf: " + "\n".join(map(_line, error.errors()))) from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a YAML file.

        Raises:
            ConfError: no such file, not a mapping, or as in `of`.
        """
        if not path.is_file():
            raise ConfError(f"no training conf at {path}; conf/models/ has one per model.")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ConfError(f"{path} holds a {type(values).__name__}, not a mapping of keys to values.")
        return cls.of(values)


def _line(error: ErrorDetails) -> str:
    """Key, value and what is wrong; where several keys contradict each other, what is wrong says their values."""
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "value_error":
        return f"{key}: {error['ctx']['error']}" if key else str(error["ctx"]["error"])
    return f"{key}={error['input']!r}: {error['msg']}"
