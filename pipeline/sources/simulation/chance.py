"""Randomness as a function of (seed, stream, key): the same for every partitioning, order and retry.

No generator has a state. A draw is the 64-bit hash of its key, so a row draws the same numbers wherever and whenever
it is computed, and a further day can be appended without replaying the days before.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from pyspark.sql import Column
from pyspark.sql import functions as F

ID_BITS = 60
_HALF_BITS = ID_BITS // 2
_HALF_MASK = (1 << _HALF_BITS) - 1
_FEISTEL_ROUNDS = 4


@dataclass(frozen=True, kw_only=True)
class Chance:
    """Draws keyed by (seed, stream, key columns). Key columns must be bigint: int and bigint hash differently."""

    seed: int

    def bits(self, stream: str, *keys: Column) -> Column:
        """64 hashed bits as a bigint."""
        digest = hashlib.blake2b(f"{self.seed}/{stream}".encode(), digest_size=8).digest()
        return F.xxhash64(F.lit(int.from_bytes(digest, "big", signed=True)).cast("bigint"), *keys)

    def uniform(self, stream: str, *keys: Column) -> Column:
        """A double in the open interval (0, 1), with 53 bits."""
        return (F.shiftrightunsigned(self.bits(stream, *keys), 11).cast("double") + 0.5) * 2.0**-53

    def normal(self, stream: str, *keys: Column) -> Column:
        """A standard normal double by Box-Muller (1958) on the two 32-bit halves of one hash."""
        bits = self.bits(stream, *keys)
        radius = (F.shiftrightunsigned(bits, 32).cast("double") + 0.5) * 2.0**-32
        angle = bits.bitwiseAND(F.lit((1 << 32) - 1)).cast("double") * (2.0 * math.pi * 2.0**-32)
        return F.sqrt(F.log(radius) * -2.0) * F.cos(angle)

    def below(self, stream: str, bound: int | Column, *keys: Column) -> Column:
        """A bigint in [0, bound)."""
        return F.floor(self.uniform(stream, *keys) * bound)

    def happens(self, stream: str, probability: float | Column, *keys: Column) -> Column:
        """True with the given probability."""
        return self.uniform(stream, *keys) < probability

    def permuted_id(self, kind: str, number: Column) -> Column:
        """A bijection of [0, 2^60): ids in no order, most of them beyond what a float64 holds exactly (2^53).

        A Feistel network (Luby and Rackoff 1988): (left, right) → (right, left xor hash(right)) can be undone whatever
        the hash is, so that distinct numbers get distinct ids.
        """
        left = F.shiftright(number, _HALF_BITS)
        right = number.bitwiseAND(F.lit(_HALF_MASK))
        for turn in range(_FEISTEL_ROUNDS):
            scramble = self.bits(f"id/{kind}/{turn}", right).bitwiseAND(F.lit(_HALF_MASK))
            left, right = right, left.bitwiseXOR(scramble)
        return F.shiftleft(left, _HALF_BITS).bitwiseOR(right)


def logistic(logit: Column) -> Column:
    """1 / (1 + exp(-logit))."""
    return F.lit(1.0) / (F.exp(-logit) + 1.0)
