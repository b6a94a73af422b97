"""What users do after an impression: enter, watch, and the conversions, each with its true probability."""

from __future__ import annotations

import math

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipeline.sources.simulation import world
from pipeline.sources.simulation.chance import Chance, logistic
from pipeline.sources.simulation.conf import SimulationConf
from pipeline.sources.simulation.rooms import MICROS

_NUMBER_OF_ACTION = {"enter": 0, "watch": 1, "gift": 2, "follow": 3, "comment": 4, "like": 5, "share": 6}
_ACTION_BITS = 3


def with_outcomes(impressions: DataFrame, conf: SimulationConf) -> DataFrame:
    """Impressions gain p_watch and p_<conversion> (each given the enter), `enters_at` and `watch` (both in micros).

    A visit either bounces within two seconds, or its length is log-logistic, whose distribution function is closed:
    P(stay >= x) = 1 / (1 + (x / median)^(1/scale)). The end of the room cuts it off.
    """
    chance = Chance(seed=conf.seed)
    number, interest = F.col("number"), F.col("logit_user_interest")
    left = (F.col("ended") - F.col("enters_at")) / MICROS
    log_median = interest * world.STAY_SLOPE + math.log(world.STAY_MEDIAN_SECONDS)
    odds = chance.uniform("stay", number)
    stay = F.exp(F.col("log_median") + F.log(odds / (1.0 - odds)) * world.STAY_SCALE)
    bounce = chance.uniform("bounce length", number) * 1.7 + 0.3
    seconds = F.when(chance.happens("bounce", F.col("p_bounce"), number), bounce).otherwise(stay)
    conversions = {
        f"p_{action}": logistic(interest * slope + chance.normal(f"user {action}", F.col("user")) * spread + intercept)
        for action, (intercept, slope, spread) in world.CONVERSIONS.items()
    }
    return (
        impressions.withColumn("enters_at", F.col("at") + 500_000 + chance.below("enter delay", 2_500_000, number))
        .withColumn("p_bounce", logistic(interest * world.BOUNCE[1] + world.BOUNCE[0]))
        .withColumn("log_median", log_median)
        .withColumn("p_watch", _long_given_judged(left))
        .withColumn("watch", F.floor(F.least(seconds, left) * MICROS))
        .withColumns(conversions)
        .drop("p_bounce", "log_median")
    )


def action_rows(outcomes: DataFrame, conf: SimulationConf) -> DataFrame:
    """One row per action that HAPPENS after these impressions, with `day` and `late` still to be turned into `dt`."""
    chance = Chance(seed=conf.seed)
    entered = outcomes.where("entered")
    happening = F.filter(F.array(*_candidates(chance)), lambda action: action["happens"])
    action_number = F.shiftleft("number", _ACTION_BITS) + F.col("code")
    is_orphan = chance.happens("orphan", conf.orphan_share, F.col("action_number"))
    return (
        entered.select("*", F.inline(happening))
        .withColumn("action_number", action_number)
        .select(
            chance.permuted_id("action", F.col("action_number")).alias("action_id"),
            F.when(~is_orphan, F.col("impression_id")).alias("impression_id"),
            *("user_id", "anchor_id", "room_id"),
            F.timestamp_micros("acts_at").alias("ts"),
            *("action", "value"),
            (F.col("day") + (F.col("acts_at") >= F.col("day_ends")).cast("bigint")).alias("happened"),
            lateness(chance, "late action", conf, F.col("action_number")),
        )
    )


def lateness(chance: Chance, stream: str, conf: SimulationConf, key: Column) -> Column:
    """0 for most rows, else 1 or 2 days."""
    draw = chance.uniform(stream, key)
    one_or_two = F.when(draw < conf.late_share * 0.7, 1).otherwise(2)
    return F.when(draw < conf.late_share, one_or_two).otherwise(0).cast("bigint").alias("late")


def _long_given_judged(left: Column) -> Column:
    """P(watch >= 30 s | enter, not masked); masked are watches between 2 and 30 s, and those cut off before 30 s."""

    def survives(seconds: float) -> Column:
        return logistic((F.col("log_median") - math.log(seconds)) / world.STAY_SCALE)

    stays = 1.0 - F.col("p_bounce")
    long = F.when(left >= world.WATCH_POSITIVE_SECONDS, stays * survives(world.WATCH_POSITIVE_SECONDS)).otherwise(0.0)
    short = F.col("p_bounce") + stays * (1.0 - survives(world.WATCH_NEGATIVE_SECONDS))
    return long / (long + short)


def _candidates(chance: Chance) -> list[Column]:
    number = F.col("number")
    happens = {"enter": F.lit(True), "watch": F.lit(True)}
    acts_at = {"enter": F.col("enters_at"), "watch": F.col("enters_at") + F.col("watch")}
    value = {"watch": F.col("watch") / MICROS, "gift": _coins(chance)}
    for action in world.CONVERSIONS:
        happens[action] = chance.happens(action, F.col(f"p_{action}"), number)
        # Most conversions come early in a watch, and none after its end.
        share = chance.uniform(f"{action} instant", number) * chance.uniform(f"{action} instant 2", number)
        acts_at[action] = F.col("enters_at") + F.ceil(share * F.col("watch"))
    return [
        F.struct(
            F.lit(code).cast("bigint").alias("code"),
            F.lit(action).alias("action"),
            acts_at[action].alias("acts_at"),
            value.get(action, F.lit(1.0)).alias("value"),
            happens[action].alias("happens"),
        )
        for action, code in _NUMBER_OF_ACTION.items()
    ]


def _coins(chance: Chance) -> Column:
    """Whole coins, log-logistic: the tail is a power law of exponent 1 / COINS_SCALE."""
    odds = chance.uniform("coins", F.col("number"))
    coins = F.exp(F.log(odds / (1.0 - odds)) * world.COINS_SCALE + math.log(world.COINS_MEDIAN))
    return F.ceil(F.least(coins, F.lit(float(world.MAX_COINS)))).cast("double")
