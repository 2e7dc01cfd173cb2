"""A profile: columns, types, categories, nulls, ranges and a sketch of each distribution. It depends on
the file alone: not on the number of threads, nor on the machine's memory.

Counts, ranges, categories that are `complete` and `unique` are exact. `distinct` is an estimate. Quantiles are those of
at most `SAMPLED` rows, taken by their place: an error of less than 1 in 100 of a rank, which no finding rests on.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from runner.state.decode import decode_json

VERSION: Final = 1
STEPS: Final = 128

Kind = Literal["number", "time", "text", "boolean", "other"]


class ColumnProfile(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`quantiles` are at 0, 1/128, …, 1 of finite numbers, of times in seconds, of the length of texts; `counted` is
    how many values they stand for. `nulls` includes NaN. `categories` are the most frequent first, of the sample unless
    `complete`. `unique` is None where it was not looked at."""

    name: str
    type: str
    kind: Kind
    nulls: int = 0
    infinite: int = 0
    distinct: int = 0
    unique: bool | None = None
    low: str | None = None
    high: str | None = None
    categories: tuple[tuple[str, int], ...] = ()
    complete: bool = False
    quantiles: tuple[float, ...] = ()
    counted: int = 0


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """`rows` in all; `sampled` is the rows of which quantiles and incomplete categories are."""

    version: Literal[1] = VERSION
    format: str
    rows: int
    sampled: int
    columns: tuple[ColumnProfile, ...]


def encode(profile: Profile) -> bytes:
    return msgspec.json.encode(profile)


def decode(kept: bytes) -> Profile:
    """Raises `msgspec.DecodeError` for what is none."""
    return decode_json(kept, Profile)
