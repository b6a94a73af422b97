"""What can be known of simulated logs by who is given everything but interests, and must tell these from clicks.

A ceiling by the true probability knows users' interests. No model is told them: after a few hundred impressions of a
user it has them with errors. Two observers show what those errors cost. They know the parts of the logit that are the
user's, the popularity's, the heat's and the context's to the last digit (no model does), and every impression and enter
before the judged day, late ones too:

posterior  P(category is an interest | the user's impressions and enters in it) by Bayes' rule, each user and category
           for itself; p(enter) is the mixture of both cases
booster    boosted trees over that evidence of 1, 2, 4, 8 and all days, the shares of categories among what was shown,
           and the user's evidence on the anchor; they are fitted, five folds by user, on the TRUE probabilities of the
           judged day, which have no noise of drawing

Neither is proven to be the best that can be done with what it knows.

Steps, and the rows after each:
  raw logs and truth → impressions with `rest` (the logit without interest) and whether they were entered       all
  days before the judged one → evidence: Σ log P(entered or not | interest) / P(… | none)           user × category
  judged day joined with its evidence → two scores                                                      judged rows
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from benchmarks.known_truth import Floats, sigmoid
from pipeline.sources.simulation import world

INTEREST = world.INTEREST_IN + sum(world.ACTIVE) / 2
"""Of an interest of which is not known whether it is awake."""
NO_INTEREST = world.INTEREST_OUT
PRIOR = (world.MIN_INTERESTS + world.MAX_INTERESTS) / 2 / len(world.CATEGORIES)
DAYS = (1, 2, 4, 8, 10_000)
"""Windows of the booster's evidence; the last holds everything."""
FOLDS = 5
TREES = 150

_LOGS = """
    WITH shown AS (
        SELECT impression_id, user_id, anchor_id, room_id, ts
        FROM read_parquet('{raw}/impressions/dt=*/*.parquet')
    ), enters AS (
        SELECT impression_id, user_id, room_id, ts
        FROM read_parquet('{raw}/actions/dt=*/*.parquet') WHERE action = 'enter'
    ), entered AS (
        SELECT impression_id FROM enters WHERE impression_id IS NOT NULL
        UNION
        SELECT shown.impression_id FROM enters ASOF JOIN shown
            ON enters.user_id = shown.user_id AND enters.room_id = shown.room_id AND enters.ts >= shown.ts
        WHERE enters.impression_id IS NULL
    ), categories AS (
        SELECT DISTINCT room_id, category FROM read_parquet('{raw}/rooms/dt=*/*.parquet')
    )
    SELECT impression_id, user_id, anchor_id, category, date_diff('day', truth.dt, DATE '{day}') AS ago,
        impression_id IN (FROM entered) AS entered, p_enter_no_position AS p,
        {bias} + logit_user + logit_popularity + logit_heat + logit_context AS rest, logit_position
    FROM read_parquet('{truth}/impressions/dt=*/*.parquet', hive_partitioning = true) AS truth
    JOIN shown USING (impression_id) JOIN categories USING (room_id)
    WHERE truth.dt <= DATE '{day}'
"""


def measure(raw: Path, truth: Path, day: str, trees: int = TREES) -> dict[str, Any]:
    """Shares of the way from 0.5 to the ceiling that the observers go on a day's impressions.

    Args:
        raw: folder of the raw tables.
        truth: the simulator's truth.
        day: the judged day, YYYY-MM-DD; it and every day before are read.
        trees: of the booster, per fold.

    Returns:
        ceiling: AUC of the true probability; posterior, booster: shares of the way; rows: judged ones; history:
        how many impressions a judged row's user had before, the median.
    """
    logs = read_logs(raw, truth, day)
    judged = logs[logs["ago"] == 0].sort_values("impression_id").reset_index(drop=True)
    before = logs[logs["ago"] > 0]
    rest = (before["rest"] + before["logit_position"]).to_numpy()
    before = before.assign(evidence=evidence(rest, before["entered"].to_numpy()))
    known = _known(judged, before)
    label = judged["entered"].to_numpy()
    ceiling = float(roc_auc_score(label, judged["p"]))
    scores = {
        "posterior": mixture(known[f"evidence_{DAYS[-1]}"].to_numpy(), judged["rest"].to_numpy()),
        "booster": _boosted(known, judged, trees),
    }
    return {
        "ceiling": ceiling,
        **{name: (float(roc_auc_score(label, score)) - 0.5) / (ceiling - 0.5) for name, score in scores.items()},
        "rows": len(judged),
        "history": float(known["seen"].median()),
    }


def read_logs(raw: Path, truth: Path, day: str) -> pd.DataFrame:
    """Impressions of a day and before: who, which anchor and category, how many days ago, entered, `p`, `rest`.

    An enter that names no impression is the last one's before it of the same user and room.
    """
    query = _LOGS.format(raw=raw, truth=truth, day=day, bias=world.ENTER_BIAS)
    with duckdb.connect() as connection:
        found: pd.DataFrame = connection.sql(query).df()
    return found


def evidence(rest: Floats, entered: npt.NDArray[np.bool_]) -> Floats:
    """log P(what happened | interest) − log P(what happened | no interest), one value per impression.

    Args:
        rest: logit of an enter without the part of interest.
        entered: whether it was.
    """
    sign = np.where(entered, 1.0, -1.0)
    return np.asarray(_log_sigma(sign * (rest + INTEREST)) - _log_sigma(sign * (rest + NO_INTEREST)))


def mixture(log_ratio: Floats, rest: Floats) -> Floats:
    """p(enter) of an impression: π σ(rest + interest) + (1 − π) σ(rest + none), π the posterior by Bayes' rule."""
    posterior = sigmoid(np.log(PRIOR / (1.0 - PRIOR)) + log_ratio)
    return np.asarray(posterior * sigmoid(rest + INTEREST) + (1.0 - posterior) * sigmoid(rest + NO_INTEREST))


def shown(found: Mapping[str, Any]) -> str:
    """One line."""
    return (
        f"with everything but interests given, {found['history']:.0f} impressions per user before: posterior"
        f" {found['posterior']:.3f}, booster on true probabilities {found['booster']:.3f} of the way"
    )


def _log_sigma(logit: Floats) -> Floats:
    return np.asarray(-np.logaddexp(0.0, -logit))


def _known(judged: pd.DataFrame, before: pd.DataFrame) -> pd.DataFrame:
    """The evidence that each judged row has, one row each in the same order; 0 where there is none."""
    known = judged[["user_id", "category", "anchor_id", "rest"]]
    for days in DAYS:
        window = before[before["ago"] <= days]
        columns = {"evidence": f"evidence_{days}", "entered": f"impressions_{days}"}
        pairs = window.groupby(["user_id", "category"]).agg({"evidence": "sum", "entered": "size"})
        seen = window.groupby("user_id").size().rename(f"seen_{days}")
        known = known.join(pairs.rename(columns=columns), on=["user_id", "category"]).join(seen, on="user_id")
    anchors = before.groupby(["user_id", "anchor_id"])["evidence"].sum().rename("evidence_anchor")
    known = known.join(anchors, on=["user_id", "anchor_id"]).fillna(0.0)
    for days in DAYS:
        known[f"share_{days}"] = known[f"impressions_{days}"] / (known[f"seen_{days}"] + 1.0)
    return known.rename(columns={f"seen_{DAYS[-1]}": "seen"})


def _boosted(known: pd.DataFrame, judged: pd.DataFrame, count: int) -> Floats:
    """Predictions for every judged row by trees that were fitted on the other users' true probabilities."""
    inputs = known.drop(columns=["user_id", "anchor_id"])
    inputs["category"] = inputs["category"].astype("category")
    inputs["mixture"] = mixture(known[f"evidence_{DAYS[-1]}"].to_numpy(), judged["rest"].to_numpy())
    predicted = np.zeros(len(judged))
    for rest, fold in GroupKFold(FOLDS).split(inputs, groups=known["user_id"]):
        trees = HistGradientBoostingRegressor(
            max_iter=count,
            learning_rate=0.1,
            min_samples_leaf=50,
            categorical_features="from_dtype",
            random_state=0,
        )
        trees.fit(inputs.iloc[rest], judged["p"].iloc[rest])
        predicted[fold] = trees.predict(inputs.iloc[fold])
    return predicted
