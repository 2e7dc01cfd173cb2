"""From what a store holds to what is wrong with it and what rests on that: a decision on values alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar

import msgspec

from runner.environment.farm import Recipe
from runner.environment.layout import Entry, Interpreter, folders_of
from runner.environment.seal import DIGEST, MANIFEST, STAMPS
from runner.environment.tree import tree_key
from runner.fsck.facts import FOLDERS, SMALL, Facts, FolderFacts, Hashed, Listings
from runner.fsck.runs import JudgedRun, problem_of
from runner.layers import data, dependencies, image, schema
from runner.layers.image import Archive
from runner.state.checked import without_check
from runner.state.digest import Digest, digest_bytes, hex_of, is_digest
from runner.state.health import FileProblem, Finding, Need
from runner.state.record import Record
from runner.state.spec import DvcPin, State, StateSpec, Wheel
from runner.store.store import GITIGNORE, FingerprintKey, read_info
from runner.tools import probe

_Parsed = TypeVar("_Parsed")
Role = Literal["code", "code list", "params", "wheel", "image", "data", "model", "profile", "output"]
Problem = tuple[str, FileProblem, str]
_DIGEST_LENGTH = 71
_KEY_FILE = 36
_REMADE = "it is made anew when it is next needed"
_COPY = "bring it back from a copy of the store"


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """That a run, or a lock, needs a blob, and what is known to get it again by: `path` is where the live file lies in
    the workspace, `size` what its length must be."""

    role: Role
    need: Need
    spec: StateSpec | None = None
    path: str | None = None
    size: int | None = None
    wheel: Wheel | None = None
    pin: DvcPin | None = None


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """A finding and what mending needs: the uses of a blob, the good copy of a spec or record, the spec whose image an
    archive keeps."""

    finding: Finding
    digest: Digest | None = None
    uses: tuple[Use, ...] = ()
    copy: str | None = None
    spec: StateSpec | None = None


class Judgement(msgspec.Struct, frozen=True):
    damages: tuple[Damage, ...]
    unneeded: int


def judge(facts: Facts, runs: Iterable[JudgedRun], listings: Listings) -> Judgement:
    """Everything that is wrong with the store, sorted by path."""
    runs = list(runs)
    archives = _archives(facts)
    bad = {digest for digest, found in facts.blobs.items() if found.sha256 != digest}
    uses: dict[Digest, list[Use]] = {}
    needed: set[Digest] = set()
    for digest, use in _all_uses(facts, runs, listings, archives):
        needed.add(digest)
        if digest in bad or not (digest in facts.blobs or digest in facts.erased):
            uses.setdefault(digest, []).append(use)
    damages = [
        *(_of_blob(digest, facts.blobs.get(digest), uses.get(digest, [])) for digest in bad | uses.keys()),
        *(Damage(finding=one, copy=run.copies.get(one.path)) for run in runs for one in run.findings),
        *_of_archives(facts, runs, archives),
        *_of_folders(facts, runs),
        *_of_small(facts, runs),
        *(_stray(path, why) for path, why in facts.strays.items()),
    ]
    return Judgement(
        tuple(sorted(damages, key=lambda damage: damage.finding.path)), len((facts.blobs.keys() - needed) - bad)
    )


# --- blobs ---------------------------------------------------------------------------------------------------


def blob_path(digest: Digest) -> str:
    digits = hex_of(digest)
    return f"blobs/{digits[:2]}/{digits[2:]}"


def _of_blob(digest: Digest, found: Hashed | None, uses: list[Use]) -> Damage:
    size = next((use.size for use in uses if use.size is not None), None)
    problem: FileProblem = problem_of(found, size) if found else "missing"
    detail = (found.why or f"it holds {found.sha256}") if found else "it was recorded and is not there"
    hint = _hint_of_blob(uses)
    needs = tuple(dict.fromkeys(use.need for use in uses))
    finding = Finding(
        path=blob_path(digest),
        kind="blob",
        problem=problem,
        detail=detail,
        needed_by=needs,
        hint=hint,
    )
    return Damage(finding=finding, digest=digest, uses=tuple(uses))


def _hint_of_blob(uses: list[Use]) -> str:
    roles = {use.role for use in uses}
    runs = sorted({use.need.run_id for use in uses if use.role == "output" and use.need.run_id})
    if not uses:
        return "no run needs it; `replay gc` removes it"
    if roles == {"output"}:
        return f"`replay replay {runs[0]}` keeps it again if the job still gives the same; else {_COPY}"
    if roles == {"profile"}:
        return "`replay fsck --repair` makes it anew of the data"
    return _COPY + ("; or replay where DVC's remote has it" if roles & {"data", "model"} else "")


def _all_uses(
    facts: Facts, runs: Iterable[JudgedRun], listings: Listings, archives: Mapping[str, Archive]
) -> Iterator[tuple[Digest, Use]]:
    for run in runs:
        if run.spec:
            yield from _of_state(run.spec, listings, archives)
        if run.record:
            yield from _of_record(run.record, run.spec)
    for path, kept in facts.small.items():
        if path.startswith("locks/") and kept is not None and (lock := _parsed(kept, dependencies.read_lock)):
            for wheel in lock.wheels:
                need = Need(lock=path, through=f"wheel of {wheel.name} {wheel.version}")
                yield Digest(wheel.sha256), Use(role="wheel", need=need, wheel=wheel)


def _of_state(spec: StateSpec, listings: Listings, archives: Mapping[str, Archive]) -> Iterator[tuple[Digest, Use]]:
    state, seen = spec.state, spec.observed

    def need(through: str) -> Need:
        return Need(run_id=spec.run.id, job=spec.run.job, through=through)

    yield Digest(state.code), Use(role="code list", need=need("list of the code"), spec=spec)
    for file in listings.code.get(Digest(state.code), ()):
        yield Digest(file.sha256), Use(role="code", need=need(f"code {file.path}"), spec=spec, path=file.path)
    if state.params and state.params.sha256:
        use = Use(role="params", need=need(f"params {state.params.file}"), spec=spec, path=state.params.file)
        yield Digest(state.params.sha256), use
    for wheel in state.dependencies.locked or ():
        through = f"wheel of {wheel.name} {wheel.version}"
        yield Digest(wheel.sha256), Use(role="wheel", need=need(through), spec=spec, wheel=wheel)
    archive = archives.get(image.archive_name(state.image))
    if archive or seen.image.archived:
        for number, layer in enumerate(state.image.diff_ids, 1):
            through = f"layer {number} of the image {seen.image.reference}"
            yield Digest(layer), Use(role="image", need=need(through), spec=spec)
    if archive:
        through = f"configuration of the image {seen.image.reference}"
        yield Digest(archive.config), Use(role="image", need=need(through), spec=spec)
    for path, profiled in seen.schema.items():
        if profiled.profile:
            yield Digest(profiled.profile), Use(role="profile", need=need(f"profile of {path}"), spec=spec)
    for check in spec.contract.checks:
        if check.drift:
            yield Digest(check.drift.profile), Use(role="profile", need=need(f"baseline of {check.on}"), spec=spec)
    yield from _of_versions("data", spec, state.data, listings)
    yield from _of_versions("model", spec, state.model, listings)


def _of_versions(
    role: Role, spec: StateSpec, versions: Mapping[str, str], listings: Listings
) -> Iterator[tuple[Digest, Use]]:
    seen = spec.observed.data | spec.observed.model
    for path, digest in versions.items():
        known = seen.get(path)
        pin = known.dvc if known else None
        files = listings.data.get(Digest(digest))
        single = known is not None and known.nfiles is None

        def use(through: str, live: str | None, size: int | None, pin: DvcPin | None = pin) -> Use:
            need = Need(run_id=spec.run.id, job=spec.run.job, through=f"{role} {through}")
            return Use(role=role, need=need, spec=spec, path=live, size=size, pin=pin)

        through = path if single else f"{path}, the list of its files"
        yield Digest(digest), use(through, path, known.size if known and single else None)
        for file in files or ():
            yield Digest(file.sha256), use(f"{path}/{file.path}", f"{path}/{file.path}", file.size)


def _of_record(record: Record, spec: StateSpec | None) -> Iterator[tuple[Digest, Use]]:
    job = spec.run.job if spec else record.run_id.rsplit("-", 2)[0]
    for output in record.every_output:
        need = Need(run_id=record.run_id, job=job, through=f"output {output.path}")
        live = output.path if output.path != "stdout" else None
        yield Digest(output.sha256), Use(role="output", need=need, spec=spec, path=live, size=output.size)


# --- archives of images ---------------------------------------------------------------------------------------


def _archives(facts: Facts) -> dict[str, Archive]:
    """Those that can be read, by file name."""
    kept = {path.removeprefix("images/"): data for path, data in facts.small.items() if path.startswith("images/")}
    found = {name: _parsed(data, image.read_archive) for name, data in kept.items() if data is not None}
    return {name: archive for name, archive in found.items() if archive}


def _of_archives(facts: Facts, runs: Iterable[JudgedRun], archives: Mapping[str, Archive]) -> Iterator[Damage]:
    users: dict[str, list[StateSpec]] = {}
    for run in runs:
        if run.spec:
            users.setdefault(image.archive_name(run.spec.state.image), []).append(run.spec)
    for name in sorted(
        {path.removeprefix("images/") for path in facts.small if path.startswith("images/")} | users.keys()
    ):
        specs = users.get(name, [])
        archive = archives.get(name)
        if archive and all(spec.state.image.diff_ids == archive.layers for spec in specs):
            continue
        there = facts.small.get(f"images/{name}")
        if there is None and not any(spec.observed.image.archived for spec in specs):
            continue
        needs = tuple(_need(spec, f"archive of the image {spec.observed.image.reference}") for spec in specs)
        finding = Finding(
            path=f"images/{name}",
            kind="image",
            problem="missing" if there is None else _cut(there),
            detail="the image is recorded as archived" if there is None else "it is not what was written",
            needed_by=needs,
            hint="make the engine hold the image again (`docker pull`, or a folder of images/), or " + _COPY,
        )
        yield Damage(finding=finding, spec=specs[0] if specs else None)


# --- sealed folders -------------------------------------------------------------------------------------------


def _of_folders(facts: Facts, runs: Iterable[JudgedRun]) -> Iterator[Damage]:
    found = [(folder, problems) for folder in facts.folders if (problems := list(folder_problems(folder)))]
    if not found:
        return
    specs = [run.spec for run in runs if run.spec]
    interpreters = _interpreters(facts)
    names = {kind: name for name, kind in FOLDERS.items()}
    for folder, problems in found:
        needs = tuple(dict.fromkeys(_needs_of_folder(folder, specs, interpreters)))
        for path, problem, detail in problems:
            finding = Finding(
                path=f"cache/{names[folder.kind]}/{folder.key}/{path}",
                kind=folder.kind,
                problem=problem,
                detail=detail,
                needed_by=needs,
                hint=_REMADE,
            )
            yield Damage(finding=finding)


def folder_problems(folder: FolderFacts) -> Iterator[Problem]:
    """Path in the folder, problem, detail."""
    if folder.manifest is None or folder.digest is None:
        for name, data in ((MANIFEST, folder.manifest), (DIGEST, folder.digest)):
            if data is None:
                yield name, "missing", "a sealed folder has one"
        return
    stated = folder.digest.decode(errors="replace")
    if digest_bytes(folder.manifest) != stated:
        yield from _unsealed(folder, stated)
        return
    if folder.stamps is None:
        yield STAMPS, "missing", "a sealed folder has one"
    elif _parsed(folder.stamps, without_check) is None:
        yield STAMPS, _cut(folder.stamps), "its own check says so"
    if folder.kind == "environment" and (folder.recipe is None or hex_of(digest_bytes(folder.recipe)) != folder.key):
        yield "recipe", "missing" if folder.recipe is None else "damaged", "the environment's name is its digest"
    yield from _of_entries(folder, {entry.path: entry for entry in _entries.decode_lines(folder.manifest)})


def _unsealed(folder: FolderFacts, stated: str) -> Iterator[Problem]:
    """Manifest and digest do not fit: the one that the files bear out is right."""
    try:
        entries = {entry.path: entry for entry in _entries.decode_lines(folder.manifest or b"")}
    except (msgspec.DecodeError, UnicodeDecodeError):
        entries = {}
    if entries and not list(_of_entries(folder, entries)):
        yield DIGEST, "damaged" if is_digest(stated) else _shorter(stated), "it is not that of the manifest"
    else:
        yield MANIFEST, _cut(folder.manifest or b""), f"its digest is not the {stated[:19]} that was sealed"


def _of_entries(folder: FolderFacts, entries: Mapping[str, Entry]) -> Iterator[Problem]:
    for path, entry in entries.items():
        found = folder.files.get(path)
        if found is None:
            yield f"root/{path}", "missing", "the manifest names it"
        elif found.hashed.sha256 != entry.sha256:
            yield f"root/{path}", problem_of(found.hashed, entry.size), found.hashed.why or "it is not what was sealed"
        elif found.mode != entry.mode:
            yield f"root/{path}", "damaged", f"its mode is {found.mode}, not {entry.mode}"
    for path in (folder.files.keys() - entries.keys()) | (folder.folders - folders_of(entries)):
        yield f"root/{path}", "damaged", "nothing was sealed there"


def _interpreters(facts: Facts) -> set[Interpreter]:
    recipes = (_parsed(folder.recipe, _recipes.decode) for folder in facts.folders if folder.recipe is not None)
    probes = (
        _parsed(kept, probe.read_answer)
        for path, kept in facts.small.items()
        if path.startswith("cache/probes/") and kept is not None
    )
    return {one.interpreter for one in (*recipes, *probes) if one}


def _needs_of_folder(folder: FolderFacts, specs: Iterable[StateSpec], interpreters: set[Interpreter]) -> Iterator[Need]:
    recipe = _parsed(folder.recipe, _recipes.decode) if folder.recipe is not None else None
    for spec in specs:
        state = spec.state
        if folder.kind == "view":
            paths = [
                path for path, digest in (state.data | state.model).items() if hex_of(Digest(digest)) == folder.key
            ]
            yield from (_need(spec, f"view of {path}") for path in paths)
        elif folder.kind == "environment" and (_made_of(state, recipe) if recipe else state.dependencies.locked):
            yield _need(spec, f"environment of {len(state.dependencies.locked or ())} wheels")
        elif folder.kind == "tree":
            for wheel in state.dependencies.locked or ():
                if any(tree_key(wheel, one) == folder.key for one in interpreters):
                    yield _need(spec, f"unpacked wheel of {wheel.name} {wheel.version}")


def _made_of(state: State, recipe: Recipe) -> bool:
    locked = state.dependencies
    return frozenset(locked.locked or ()) == frozenset(recipe.wheels) and locked.python == recipe.interpreter.version


# --- the rest -------------------------------------------------------------------------------------------------


def _of_small(facts: Facts, runs: Iterable[JudgedRun]) -> Iterator[Damage]:
    specs = [run.spec for run in runs if run.spec]
    yield from _of_store(facts, specs)
    read: dict[str, Callable[[bytes], Any]] = {
        "lock": dependencies.read_lock,
        "probe": probe.read_answer,
        "version": data.read_version,
        "stat": without_check,
        "profile": schema.read_answer,
    }
    for path, kept in facts.small.items():
        folder, _, name = path.rpartition("/")
        kind = SMALL.get(folder)
        if kind in read and (kept is None or _parsed(kept, read[kind]) is None):
            finding = Finding(
                path=path,
                kind=kind,
                problem="damaged" if kept is None else _cut(kept),
                detail="it is not what was written",
                needed_by=tuple(_needs_of_small(kind, name, specs)),
                hint="the next `replay run` locks anew; recorded runs have their own" if kind == "lock" else _REMADE,
            )
            yield Damage(finding=finding)
    if facts.index:
        yield Damage(
            finding=Finding(path="index.sqlite", kind="index", problem="damaged", detail=facts.index, hint=_REMADE)
        )
    if facts.log:
        path, detail = facts.log
        yield Damage(finding=Finding(path=path, kind="signed-log", problem="damaged", detail=detail, hint=_COPY))
    for flaw in facts.releases:
        hint = "restore it: from git, or from the other copy"
        finding = Finding(path=flaw.path, kind="release", problem=flaw.problem, detail=flaw.detail, hint=hint)
        yield Damage(finding=finding, copy=flaw.copy)
    for path in facts.lockers:
        hint = f"pip-tools' copy for the next locking; {_REMADE}"
        detail = "it is not what is installed here"
        yield Damage(finding=Finding(path=path, kind="locker", problem="damaged", detail=detail, hint=hint))


def _of_store(facts: Facts, specs: Iterable[StateSpec]) -> Iterator[Damage]:
    marker, key = facts.small.get("store.json"), facts.small.get("key")
    if marker is None or read_info(marker) is None:
        problem: FileProblem = "missing" if marker is None else _cut(marker)
        detail = "the store's format and identity" if marker is None else "it is not what was written"
        yield Damage(finding=Finding(path="store.json", kind="store", problem=problem, detail=detail, hint=_COPY))
    keyed = tuple(
        _need(spec, f"fingerprint of the secret {name}") for spec in specs for name in spec.observed.access.secrets
    )
    if (key is None and keyed) or (key is not None and not FingerprintKey(key).whole):
        problem = "missing" if key is None else "truncated" if len(key) < _KEY_FILE else "damaged"
        finding = Finding(
            path="key",
            kind="key",
            problem=problem,
            detail="of secrets' fingerprints",
            needed_by=keyed,
            hint=_COPY,
        )
        yield Damage(finding=finding)
    ignore = facts.small.get(".gitignore")
    if ignore != GITIGNORE.encode():
        problem = "missing" if ignore is None else "damaged"
        detail = "without it git would take the store for code"
        yield Damage(finding=Finding(path=".gitignore", kind="other", problem=problem, detail=detail))


def _needs_of_small(kind: str, name: str, specs: Iterable[StateSpec]) -> Iterator[Need]:
    for spec in specs:
        seen, python = spec.observed, spec.state.dependencies.interpreter or dependencies.DEFAULT_PYTHON
        if kind == "probe" and seen.image.config and name == probe.answer_name(seen.image.config, python):
            yield _need(spec, f"what Python the image {seen.image.reference} has")
        elif kind == "version":
            for path, known in (seen.data | seen.model).items():
                if known.dvc and data.version_name(path, known.dvc) == name:
                    yield _need(spec, f"version of {path}")


def _stray(path: str, why: str) -> Damage:
    hint = "" if "left by" in why else "remove it yourself if nobody needs it"
    return Damage(finding=Finding(path=path, kind="other", problem="stray", detail=why, hint=hint))


def _need(spec: StateSpec, through: str) -> Need:
    return Need(run_id=spec.run.id, job=spec.run.job, through=through)


def _cut(kept: bytes) -> FileProblem:
    """Every file that this is asked of ends with a line's end, or with a brace."""
    return "damaged" if kept.endswith((b"\n", b"}")) else "truncated"


def _shorter(stated: str) -> FileProblem:
    return "truncated" if len(stated) < _DIGEST_LENGTH else "damaged"


def _parsed(kept: bytes, parse: Callable[[bytes], _Parsed]) -> _Parsed | None:
    """None for what cannot be parsed."""
    try:
        return parse(kept)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


_entries = msgspec.json.Decoder(Entry)
_recipes = msgspec.json.Decoder(Recipe)
