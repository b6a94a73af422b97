"""The splits of a train set as one rank reads, scores and judges them, and fits calibration on one of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from features.manifest import SplitName, TrainSet
from training.calibration import CALIBRATION_FILE, CalibrationLayer, fit, fitted_on
from training.config import TrainConf
from training.evaluation import Figures, Scored, gathered, judge, score, write_predictions
from training.exchange import Exchange
from training.feed import Feed
from training.models import RankingModel
from training.storage import Folder


@dataclass(frozen=True, kw_only=True)
class Splits:
    """A train set below `url`, on the rank of `exchange`; batches are scored on `device` in `dtype`."""

    conf: TrainConf
    trainset: TrainSet
    url: str
    exchange: Exchange
    device: torch.device
    dtype: torch.dtype

    def feed(self, split: SplitName, batch_size: int) -> Feed:
        """This rank's batches of a split."""
        return Feed(
            self.trainset,
            self.url,
            split=split,
            batch_size=batch_size,
            world=self.exchange.world,
            seed=self.conf.seed,
            threads=self.conf.feed_threads,
            row_groups=self.conf.feed_row_groups,
            prefetch=self.conf.feed_prefetch,
            device=self.device,
        )

    def judged(self, model: RankingModel, split: SplitName, keep_in: Folder | None = None) -> Figures:
        """Figures of a split by the model as it is, none for a split without rows; a collective call.

        Args:
            keep_in: where predictions are written down, if anywhere.
        """
        if split not in self.trainset.splits or self.trainset.splits[split].rows == 0:
            return {}
        scored = self._scored(model, split)
        if split == "valid" and model.calibration is not None:
            scored = scored.where(~fitted_on(scored.row_id))
        if keep_in is not None:
            write_predictions(keep_in, f"predictions-{split}.parquet", scored, model.tasks, self.exchange)
        return judge(scored, model.tasks, self.exchange)

    def calibrate(self, model: RankingModel, out: Folder) -> None:
        """Fit curves on one half of the valid split, and put them into the model; the other half stays for judging."""
        kind = self.conf.calibration.kind
        if kind is None or self.trainset.splits["valid"].rows == 0:
            return
        scored = self._scored(model, "valid")
        chosen = fitted_on(scored.row_id)
        before = judge(scored.where(~chosen), model.tasks, self.exchange)
        rows, found = gathered(scored.where(chosen), self.exchange), None
        if self.exchange.world.is_first:
            found = fit(kind, model.targets_of, rows.scores.numpy(), rows.labels.numpy(), rows.weights.numpy())
            found = found.model_copy(update={"uncalibrated": {task: f.as_dict() for task, f in before.items()}})
            out.write(CALIBRATION_FILE, found.model_dump_json(indent=1).encode())
        found = self.exchange.broadcast_object(found)
        assert found is not None
        model.calibration = CalibrationLayer(found).to(self.device)

    def _scored(self, model: RankingModel, split: SplitName) -> Scored:
        feed, sampled = self.feed(split, self.conf.evaluation_batch_size), split in self.conf.sampled_splits
        return score(model, feed, self.device, self.dtype, sampled=sampled)
