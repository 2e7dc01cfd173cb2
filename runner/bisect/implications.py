"""What must come along with what, read from the packages' own metadata.

Both ends install. So a `Requires-Dist` or `Requires-Python` of one change against another says which of the two can go
first: if the new p rejects the old q, p needs q; if the old p rejects the new q, q needs p. Sets of changes that keep
this install as far as anything is declared. Clauses that hold for one of two Pythons only are taken to hold for both,
which leaves out sets that might have served, and lets none in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from runner.bisect.model import Items

Need = tuple[int, int]
"""The first needs the second."""


class Release(msgspec.Struct, frozen=True):
    """One version of a package, with what its METADATA declares."""

    version: str
    requires: tuple[str, ...] = ()
    requires_python: str | None = None


class PackageChange(msgspec.Struct, frozen=True):
    """A package that changes, as change number `item`; `old` or `new` is absent where it is added or removed."""

    item: int
    name: str
    old: Release | None
    new: Release | None


class PythonChange(msgspec.Struct, frozen=True):
    """Python's version on both sides. Where they differ, `item` is the change that brings the new one."""

    old: str
    new: str
    machine: str = "x86_64"
    item: int | None = None


def needs(packages: Sequence[PackageChange], python: PythonChange) -> Iterator[Need]:
    """All that the clauses between changes imply."""
    by_name = {package.name: package for package in packages}
    for package in packages:
        for old_side, release in ((True, package.old), (False, package.new)):
            if release:
                yield from _by_packages(package, release, old_side, by_name, python)
                yield from _by_python(package, release, old_side, python)


def _by_packages(
    package: PackageChange, release: Release, old_side: bool, by_name: Mapping[str, PackageChange], python: PythonChange
) -> Iterator[Need]:
    for requirement in _requirements(release, python):
        other = by_name.get(canonicalize_name(requirement.name))
        if other is None or other is package:
            continue
        there = other.new if old_side else other.old
        if there is None or not _admits(requirement.specifier, there.version):
            yield (other.item, package.item) if old_side else (package.item, other.item)


def _by_python(package: PackageChange, release: Release, old_side: bool, python: PythonChange) -> Iterator[Need]:
    if python.item is None or release.requires_python is None:
        return
    try:
        wanted = SpecifierSet(release.requires_python)
    except InvalidSpecifier:
        return
    if not _admits(wanted, python.new if old_side else python.old):
        yield (python.item, package.item) if old_side else (package.item, python.item)


def _requirements(release: Release, python: PythonChange) -> Iterator[Requirement]:
    """Those that hold in either environment, no extra being asked for; what cannot be read declares nothing."""
    environments = [_environment(version, python.machine) for version in {python.old, python.new}]
    for text in release.requires:
        try:
            found = Requirement(text)
            holds = found.marker is None or any(found.marker.evaluate(one) for one in environments)
        except (InvalidRequirement, InvalidVersion, ValueError):
            continue
        if holds:
            yield found


def _environment(version: str, machine: str) -> dict[str, str]:
    return {
        "extra": "",
        "implementation_name": "cpython",
        "implementation_version": version,
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": version,
        "python_version": ".".join(version.split(".")[:2]),
        "sys_platform": "linux",
    }


def _admits(wanted: SpecifierSet, version: str) -> bool:
    try:
        return wanted.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False


class Blocks(msgspec.Struct, frozen=True):
    """Changes that need each other in a circle, put together; `needs` are those among the blocks, without a circle."""

    members: tuple[Items, ...]
    needs: tuple[Items, ...]


def blocks(size: int, found: Iterable[Need], together: Iterable[Items] = ()) -> Blocks:
    """The blocks of so many changes, in the order of their first members; `together` are sets known to be one."""
    reach = [1 << item for item in range(size)]
    for one, other in _with_circles(found, together):
        reach[one] |= 1 << other
    for middle in range(size):
        for item in range(size):
            if reach[item] >> middle & 1:
                reach[item] |= reach[middle]
    block_of: dict[int, int] = {}
    members: list[list[int]] = []
    for item in range(size):
        first = next((one for one in range(item) if reach[item] >> one & 1 and reach[one] >> item & 1), None)
        if first is None:
            members.append([])
        block_of[item] = len(members) - 1 if first is None else block_of[first]
        members[block_of[item]].append(item)
    needed: list[set[int]] = [set() for _ in members]
    for item in range(size):
        below = {block_of[other] for other in range(size) if reach[item] >> other & 1}
        needed[block_of[item]] |= below - {block_of[item]}
    return Blocks(tuple(map(frozenset, members)), tuple(map(frozenset, needed)))


def _with_circles(found: Iterable[Need], together: Iterable[Items]) -> Iterator[Need]:
    yield from found
    for items in together:
        for item in items:
            yield item, min(items)
            yield min(items), item
