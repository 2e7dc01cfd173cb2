"""Drift: profile × profile → breaks of the schema, and columns whose distribution moved. Pure.

A move is told when it is significant *and* of some size: the first keeps small tables from crying wolf, the second
large ones. Significance is Holm's over all columns of a table, at 1 in 100: of a hundred pairs of tables from one
source, one is expected to be called moved at most. Size is of the distribution itself: the largest distance of the
distribution functions (Kolmogorov–Smirnov) for numbers, times and lengths of texts; for categories the part of the rows
that moved.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from runner.profile import statistics
from runner.profile.values import ColumnProfile, Profile
from runner.shown import shown

LEVEL = 0.01
LEAST_DISTANCE = 0.05
NULL_POINTS = 0.05
_COMMON = 5
_UNLIKELY = 0.05
_DENSE = 10
_NAMED = 3
_SHOWN = 40
_RENAMES = 200
_KEY = re.compile(r"(^|.*[_\W])(id|key|uuid)|[a-z0-9]+I[dD]", re.ASCII)

Statistic = Literal["KS", "χ²"]


class Break(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is no longer as it was in the schema. `column` is empty for what is the table's; `a` or `b` is absent where
    the column itself is."""

    column: str
    a: str | None
    b: str | None
    detail: str = ""

    def __str__(self) -> str:
        name = shown(self.column, _SHOWN)
        if self.detail:
            return f"{name}: {self.detail}" if name else self.detail
        if self.a is None or self.b is None:
            return f"{name} {'added' if self.a is None else 'removed'}"
        return f"{name}: {self.a} → {self.b}"


class Moved(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A column whose values are distributed otherwise. `size` is the distance, 0 to 1; `p` of this column alone; `psi`
    and `js` say the same on other scales."""

    column: str
    statistic: Statistic
    value: float
    size: float
    p: float
    psi: float
    js: float
    detail: str = ""

    def __str__(self) -> str:
        p = f"p {self.p:.1g}" if self.p >= 1e-12 else "p < 1e-12"
        name = shown(self.column, _SHOWN)
        return f"{name} moved by {self.size:.2f} ({self.detail}; {self.statistic} {self.value:.3g}, {p})"


class Found(msgspec.Struct, frozen=True):
    breaks: tuple[Break, ...] = ()
    moved: tuple[Moved, ...] = ()


def compare(a: Profile, b: Profile) -> Found:
    """Breaks in the order of columns, moved columns by size. A column that broke is not said to have moved, too."""
    if a == b:
        return Found()
    if not a.rows or not b.rows:
        rows = () if a.rows == b.rows else (Break("", _rows(a), _rows(b), f"{_rows(a)} → {_rows(b)}"),)
        return Found((*_columns(a, b), *rows))
    before = {one.name: one for one in a.columns}
    common = [(before[one.name], one) for one in b.columns if one.name in before]
    breaks = [*_columns(a, b)]
    level = LEVEL / max(1, len(common))
    for pair in common:
        breaks += _of_column(*pair, a, b, level)
    broken = {one.column for one in breaks}
    whole = [pair for pair in common if pair[0].name not in broken]
    return Found(tuple(breaks), tuple(sorted(_moved(whole), key=lambda one: (-one.size, one.column))))


# --- schema -----------------------------------------------------------------------------------------------


def _columns(a: Profile, b: Profile) -> Iterator[Break]:
    before, after = ({one.name: one for one in side.columns} for side in (a, b))
    removed = [one for one in a.columns if one.name not in after]
    added = [one for one in b.columns if one.name not in before]
    renamed = dict(_renamed(removed, added))
    for one in removed:
        if other := renamed.get(one.name):
            names = shown(one.name, _SHOWN), shown(other, _SHOWN)
            yield Break(one.name, *names, f"looks renamed to {names[1]}")
        else:
            yield Break(one.name, one.type, None)
    taken = {*renamed.values()}
    yield from (Break(one.name, None, one.type) for one in added if one.name not in taken)
    orders = [[one.name for one in side.columns if one.name in before and one.name in after] for side in (a, b)]
    if orders[0] != orders[1] and "JSON" not in a.format:
        place = next(place for place, names in enumerate(zip(*orders, strict=True)) if names[0] != names[1])
        first, second = (shown(order[place], _SHOWN) for order in orders)
        yield Break("", first, second, f"columns come in another order, from {second} on, where {first} was")


def _renamed(removed: Sequence[ColumnProfile], added: Sequence[ColumnProfile]) -> Iterator[tuple[str, str]]:
    """Each with the nearest of those that hold the like of it."""
    if len(removed) * len(added) > _RENAMES:
        return
    left = list(added)
    for one in removed:
        near = [(_distance(one, other), place) for place, other in enumerate(left) if one.type == other.type]
        distance, place = min(near, default=(1.0, 0))
        if distance < 2 * LEAST_DISTANCE:
            yield one.name, left.pop(place).name


def _distance(a: ColumnProfile, b: ColumnProfile) -> float:
    if a.complete and b.complete:
        return statistics.total_variation(*_paired(a.categories, b.categories))
    if a.complete == b.complete and a.quantiles and b.quantiles:
        return statistics.kolmogorov_smirnov(a.quantiles, b.quantiles)
    return 1.0


def _of_column(a: ColumnProfile, b: ColumnProfile, of_a: Profile, of_b: Profile, level: float) -> Iterator[Break]:
    filled = a.nulls < of_a.rows and b.nulls < of_b.rows
    if filled and a.type != b.type:
        yield Break(a.name, a.type, b.type)
    for name, one, other in (("null", a.nulls, b.nulls), ("infinite", a.infinite, b.infinite)):
        shares = one / of_a.rows, other / of_b.rows
        if abs(shares[0] - shares[1]) > NULL_POINTS and (
            statistics.proportions_p(one, of_a.rows, other, of_b.rows) <= level
        ):
            yield Break(a.name, *(f"{share:.1%} {name}" for share in shares))
    if filled and a.kind == b.kind:
        yield from _categories(a, b, level)
        yield from _key(a, b, of_a.rows)


def _categories(a: ColumnProfile, b: ColumnProfile, level: float) -> Iterator[Break]:
    if not (_is_vocabulary(a) or _is_vocabulary(b)):
        return
    if not (a.complete and b.complete):
        counts = [f"{one.distinct} categories" if one.complete else f"some {one.distinct:,} values" for one in (a, b)]
        yield Break(a.name, counts[0], counts[1])
        return
    added, removed = (list(_absent(*sides, level)) for sides in ((b, a), (a, b)))
    if added or removed:
        words = [*_listed("added", added), *_listed("gone", removed)]
        noun = "category" if len(added) + len(removed) == 1 else "categories"
        yield Break(a.name, f"{a.distinct} categories", f"{b.distinct} categories", f"{noun} {', '.join(words)}")


def _is_vocabulary(column: ColumnProfile) -> bool:
    """Whether its categories look like all that there can be: none is rare."""
    return column.complete and all(count >= _COMMON for _, count in column.categories)


def _absent(there: ColumnProfile, absent: ColumnProfile, level: float) -> Iterator[tuple[str, int]]:
    """Categories that are absent for a reason: chance would hardly miss so many, the less so where none is rare."""
    known = {word for word, _ in absent.categories}
    rows = [sum(count for _, count in one.categories) for one in (there, absent)]
    bound = max(level, _UNLIKELY) if _is_vocabulary(absent) else level
    for word, count in there.categories:
        if word not in known and statistics.absence_p(count, *rows) <= bound:
            yield word, count


def _listed(verb: str, found: Sequence[tuple[str, int]]) -> Iterator[str]:
    for word, count in found[:_NAMED]:
        yield f"{verb}: {shown(word, _SHOWN)} ({count:,} row{'s' * (count != 1)})"
    if len(found) > _NAMED:
        yield f"{len(found) - _NAMED} more {verb}"


def _key(a: ColumnProfile, b: ColumnProfile, rows: int) -> Iterator[Break]:
    if a.unique and b.unique is False and not b.nulls and _is_key(a, rows):
        yield Break(a.name, "unique", "with repeats", "was unique, now holds values twice")


def _is_key(column: ColumnProfile, rows: int) -> bool:
    """Unique by intent: by its name, or because numbers drawn from so narrow a range would have met."""
    if _KEY.fullmatch(column.name.strip()) or column.name.lower() in ("id", "key", "uuid"):
        return True
    if column.kind != "number":
        return False
    return rows * rows >= 2 * _DENSE * (int(column.high or 0) - int(column.low or 0) + 1)


# --- distributions ------------------------------------------------------------------------------------------


def _moved(pairs: Iterable[tuple[ColumnProfile, ColumnProfile]]) -> Iterator[Moved]:
    tested = [found for one, other in pairs if one.kind == other.kind and (found := _tested(one, other))]
    significant = statistics.holm([one.p for one in tested], LEVEL)
    for one, is_significant in zip(tested, significant, strict=True):
        if is_significant and one.size >= LEAST_DISTANCE:
            yield one


def _tested(a: ColumnProfile, b: ColumnProfile) -> Moved | None:
    if a.complete and b.complete:
        return _by_categories(a, b)
    if a.quantiles and b.quantiles:
        return _by_quantiles(a, b)
    return None


def _by_quantiles(a: ColumnProfile, b: ColumnProfile) -> Moved:
    distance = statistics.kolmogorov_smirnov(a.quantiles, b.quantiles)
    shares = statistics.shares_in_bins(a.quantiles, b.quantiles, min(a.counted, b.counted))
    middles = (one.quantiles[len(one.quantiles) // 2] for one in (a, b))
    median = " → ".join(_moment(middle) if a.kind == "time" else f"{middle:.6g}" for middle in middles)
    what = "median length" if a.kind == "text" else "median"
    return Moved(
        column=a.name,
        statistic="KS",
        value=distance,
        size=distance,
        p=statistics.kolmogorov_p(distance, a.counted, b.counted),
        psi=statistics.population_stability(*shares),
        js=statistics.jensen_shannon(*shares),
        detail=f"{what} {median}",
    )


def _moment(seconds: float) -> str:
    """Beyond the years that Python knows, seconds since 1970."""
    try:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.6g} s"
    return moment.strftime("%Y-%m-%d" if seconds % 86400 == 0 else "%Y-%m-%d %H:%M")


def _by_categories(a: ColumnProfile, b: ColumnProfile) -> Moved:
    counts = _paired(a.categories, b.categories)
    value, freedom = statistics.chi_square(*counts)
    shares = statistics.smoothed(counts[0]), statistics.smoothed(counts[1])
    return Moved(
        column=a.name,
        statistic="χ²",
        value=value,
        size=statistics.total_variation(*counts),
        p=statistics.chi_square_p(value, freedom),
        psi=statistics.population_stability(*shares),
        js=statistics.jensen_shannon(*shares),
        detail=_most_moved(dict(a.categories), dict(b.categories)),
    )


def _most_moved(a: Mapping[str, int], b: Mapping[str, int]) -> str:
    of_a, of_b = sum(a.values()) or 1, sum(b.values()) or 1
    word = max(sorted({*a, *b}), key=lambda one: abs(a.get(one, 0) / of_a - b.get(one, 0) / of_b), default="")
    return f"{shown(word, _SHOWN)} {a.get(word, 0) / of_a:.1%} → {b.get(word, 0) / of_b:.1%}"


def _paired(a: Sequence[tuple[str, int]], b: Sequence[tuple[str, int]]) -> tuple[list[int], list[int]]:
    before, after = dict(a), dict(b)
    words = sorted({*before, *after})
    return [before.get(word, 0) for word in words], [after.get(word, 0) for word in words]


def _rows(profile: Profile) -> str:
    return f"{profile.rows:,} row{'s' * (profile.rows != 1)}"
