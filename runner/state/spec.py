"""The state spec: state, observations and contract of one run.

`State` holds every condition that the result depends on, and nothing else: the state digest covers all
of it. `Observed` explains and helps to find things again; no digest covers it. `Contract` is what the
job promises. The three are written before the job starts and never changed after.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from runner.state.digest import DIGEST_PATTERN, Digest, digest_value

SPEC_VERSION: Final = 1

Sha256 = Annotated[
    str, Meta(pattern=DIGEST_PATTERN, max_length=71, description="`sha256:` and 64 lower-case hex digits")
]
RunId = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$(?!\n)", description="a run-id such as `train-20261120-k3v9xq`"),
]
Network = Literal["none", "open"]
ColumnType = Literal["integer", "number", "boolean", "text", "date", "datetime"]
CheckAction = Literal["halt", "warn"]
CHECK_KINDS = ("schema", "table", "metrics", "drift", "command")
Threshold = Annotated[
    str,
    Meta(
        pattern=r"^ *(>=|<=|==|!=|>|<) *[-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?"
        r"( *, *(>=|<=|==|!=|>|<) *[-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?)* *$(?!\n)",
        description='a comparison like ">= 0.9", or several like "> 0, <= 1"',
    ),
]
Determinism = Literal["off", "same-host", "portable"]
ReleaseName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$(?!\n)",
        description="a release's name: at most 64 letters, digits, `_`, `.` and `-`",
    ),
]
Layer = Literal["code", "params", "image", "dependencies", "env", "data", "model", "access", "contract"]
"""What of a run a release holds fast, part by part."""


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all recorded values: immutable, strict about unknown keys, absent keys left out."""


# --- state: what the digest covers -------------------------------------------------------------------


class Params(Value, frozen=True):
    """A parameter file, kept byte for byte at its path, or a mapping given as JSON in REPLAY_PARAMS."""

    values: dict[str, Any] = {}
    file: str | None = None
    sha256: Sha256 | None = None


class ImageConfig(Value, frozen=True):
    """The part of an image's configuration that reaches the job."""

    env: dict[str, str] = {}
    user: str | None = None
    workdir: str | None = None
    entrypoint: tuple[str, ...] | None = None


class Image(Value, frozen=True):
    """An image by what it is: platform, digests of its unpacked layers, runtime configuration."""

    platform: str
    diff_ids: tuple[Sha256, ...]
    config: ImageConfig = ImageConfig()


class Wheel(Value, frozen=True):
    """One locked package: normalised name, version, wheel file name and digest of the wheel's bytes."""

    name: str
    version: str
    wheel: str
    sha256: Sha256


class Dependencies(Value, frozen=True):
    """`locked` is absent when the job uses what the image holds; `interpreter` when it is `python3`."""

    python: str | None = None
    interpreter: str | None = None
    locked: tuple[Wheel, ...] | None = None
    system_packages: bool = False
    project: bool = False


class Limits(Value, frozen=True):
    """`memory`, `shm`, `disk` in bytes, `time` in seconds, `cpus` in cores, `processes` and `gpus` counted."""

    memory: int | None = None
    cpus: float | None = None
    gpus: int | None = None
    shm: int | None = None
    disk: int | None = None
    processes: int | None = None
    time: float | None = None


class Access(Value, frozen=True, kw_only=True):
    network: Network
    limits: Limits = Limits()
    determinism: Determinism


class Stage(Value, frozen=True, kw_only=True):
    """A step of a job. It finds what `deps` name and nothing else; later stages can be given what `outs` name."""

    name: str
    command: tuple[str, ...]
    deps: tuple[str, ...] = ()
    outs: tuple[str, ...] = ()


class State(Value, frozen=True, kw_only=True):
    """Every condition that the job's result depends on. Equal conditions give an equal digest.

    What is run is either the `command` or the `stages`, one after the other.
    """

    command: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()
    code: Sha256
    params: Params | None = None
    image: Image
    dependencies: Dependencies = Dependencies()
    env: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    data: dict[str, Sha256] = {}
    model: dict[str, Sha256] = {}
    access: Access

    def __post_init__(self) -> None:
        if bool(self.command) == bool(self.stages):
            raise ValueError("state: expected either `command` or `stages`")


# --- observed: facts about where and when it was seen -------------------------------------------------


class CodeSeen(Value, frozen=True):
    commit: str | None = None
    branch: str | None = None
    remote: str | None = None
    dirty: tuple[str, ...] = ()
    submodules: dict[str, str] = {}


class ImageSeen(Value, frozen=True):
    """Names under which the image was found. `archived` says that the store keeps the image itself."""

    reference: str | None = None
    config: str | None = None
    manifest: str | None = None
    repo_digests: tuple[str, ...] = ()
    folder: str | None = None
    archived: bool = False


class DependenciesSeen(Value, frozen=True):
    """`requested` is the requirement text, absent where a hashed file says no more than the lock does;
    `image_packages` maps names to versions found in the image."""

    source: str | None = None
    requested: tuple[str, ...] = ()
    tree: Sha256 | None = None
    image_packages: dict[str, str] = {}
    vcs: dict[str, str] = {}


class DvcPin(Value, frozen=True):
    """What DVC calls this version. `hash` is `md5` or, from DVC 2, `md5-dos2unix`."""

    md5: str
    hash: Literal["md5", "md5-dos2unix"] = "md5"
    size: int | None = None
    nfiles: int | None = None
    remote: str | None = None
    inside: str | None = None


class DataSeen(Value, frozen=True):
    """`reference` is what a registry calls a model: `models:/name/version` or `repo@revision`."""

    dvc: DvcPin | None = None
    size: int | None = None
    nfiles: int | None = None
    reference: str | None = None


class SchemaSeen(Value, frozen=True):
    """How many columns and rows a tabular data file has, and the blob that tells more; or why that is `unknown`."""

    columns: int | None = None
    rows: int | None = None
    profile: Sha256 | None = None
    unknown: str = ""


class SecretSeen(Value, frozen=True, rename={"source": "from"}):
    """Where a secret was taken from, and a keyed fingerprint that only this store can recompute.

    `key` names the key, by nothing that helps to guess it: only fingerprints of one key can be compared.
    """

    source: str
    fingerprint: str
    key: str | None = None


class SourceSeen(Value, frozen=True):
    """A declared source: whether it could be read, and as whom. `status` is its answer, or why there was none;
    `secret` the name of the one that was shown to it."""

    uri: str
    reachable: bool
    identity: str | None = None
    status: str = ""
    secret: str | None = None


class AccessSeen(Value, frozen=True):
    secrets: dict[str, SecretSeen] = {}
    sources: tuple[SourceSeen, ...] = ()


class HostSeen(Value, frozen=True):
    machine: str | None = None
    cpu: str | None = None
    flags: tuple[str, ...] = ()
    cores: int | None = None
    kernel: str | None = None
    engine: str | None = None
    gpu: tuple[str, ...] = ()


class Observed(Value, frozen=True):
    code: CodeSeen = CodeSeen()
    image: ImageSeen = ImageSeen()
    dependencies: DependenciesSeen = DependenciesSeen()
    data: dict[str, DataSeen] = {}
    schema: dict[str, SchemaSeen] = {}
    model: dict[str, DataSeen] = {}
    access: AccessSeen = AccessSeen()
    host: HostSeen = HostSeen()


# --- contract: what the job promises ------------------------------------------------------------------


class NumberTolerance(Value, frozen=True):
    """The tolerance of one place, in the stead of the rule's own."""

    rtol: float = 0.0
    atol: float = 0.0


class OutputRule(Value, frozen=True):
    """How one output is compared.

    `rtol`, `atol`: relative and absolute tolerance of numbers; of an image, `atol` is of 0 to 255.
    `tolerances`: those of a dotted path, a column or an array, by its name. `ignore`: paths, columns or
    arrays left out. `key`: columns that tell rows apart; without it rows are paired by their order.
    `share`: of an image's pixels, the part that may be beyond `atol`. `normalise`: names of text
    normalisers. `probe`: a command that is run in the recorded environment and prints what counts in a model.
    """

    compare: str = "bytes"
    rtol: float = 0.0
    atol: float = 0.0
    tolerances: dict[str, NumberTolerance] = {}
    ignore: tuple[str, ...] = ()
    key: str | tuple[str, ...] = ()
    share: float = 0.0
    normalise: tuple[str, ...] = ()
    probe: str | tuple[str, ...] = ()

    @property
    def key_columns(self) -> tuple[str, ...]:
        return (self.key,) if isinstance(self.key, str) else self.key


Better = Literal["higher", "lower"]


class RowsRule(Value, frozen=True):
    """How many rows a table may have."""

    min: Annotated[int, Meta(ge=0, description="a number of rows")] = 0
    max: Annotated[int, Meta(ge=0, description="a number of rows")] | None = None


class ColumnRule(Value, frozen=True):
    """What the values of a column must be. `nulls` is the largest share of them that may be absent; `min` and `max`
    are numbers, or dates as text; `values` are all that may occur."""

    type: ColumnType | None = None
    nulls: Annotated[float, Meta(ge=0, le=1, description="a share from 0 to 1")] = 1.0
    min: float | str | None = None
    max: float | str | None = None
    values: tuple[str, ...] = ()
    unique: bool = False


class TableRule(Value, frozen=True):
    """What a table must be. Every column named must be there; `others` says whether more may be. `unique` are columns
    of which no two rows have the same values."""

    columns: dict[str, ColumnRule | ColumnType] = {}
    others: bool = True
    rows: RowsRule = RowsRule()
    unique: tuple[str, ...] = ()


class Baseline(Value, frozen=True):
    """What a table is held against: the blob with the profile of what a run had there."""

    run: RunId
    profile: Sha256


class Check(Value, frozen=True, kw_only=True):
    """A boundary: what `on` must meet before the job starts, or after the job, or after the `stage` that writes it.

    Exactly one of `schema` (a JSON Schema), `table`, `metrics`, `drift` and `command` says what. `escalate` is run on
    the host when it is broken.
    """

    name: str
    on: str
    when: Literal["before", "after"]
    stage: str | None = None
    action: CheckAction = "halt"
    escalate: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None
    table: TableRule | None = None
    metrics: dict[str, Threshold] | None = None
    drift: Baseline | None = None
    command: tuple[str, ...] | None = None

    @property
    def kind(self) -> str:
        return next(kind for kind in CHECK_KINDS if getattr(self, kind) is not None)

    def __post_init__(self) -> None:
        if sum(getattr(self, kind) is not None for kind in CHECK_KINDS) != 1:
            raise ValueError(f"check {self.name}: expected exactly one of {', '.join(CHECK_KINDS)}")


class Contract(Value, frozen=True):
    """`metrics`: of an output that is JSON, by dotted key, which way a metric against labels is better. `preprocessing`
    are the code files, by glob or folder, whose change is to be called that."""

    outputs: dict[str, OutputRule] = {}
    metrics: dict[str, dict[str, Better]] = {}
    preprocessing: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()


# --- the spec ------------------------------------------------------------------------------------------


class ToolInfo(Value, frozen=True):
    version: str


OnDeviation = Literal["refuse", "warn"]


class Policy(Value, frozen=True):
    """What becomes of a run whose state is not the release's. `may_move` are layers in which it may be another."""

    deviation: OnDeviation
    may_move: tuple[Layer, ...] = ()


class Deviation(Value, frozen=True):
    """A change from the release's state or contract, as `replay diff` names it."""

    layer: Layer
    name: str
    a: str | None = None
    b: str | None = None


class Binding(Value, frozen=True, kw_only=True):
    """The release that a run was held to before it started: `sha256` is of its statement, `policy` the one that was
    applied. `deviations` has some of each layer that deviates, `unlisted` counts the rest. `refused` says why the run
    was not started."""

    name: ReleaseName
    sha256: Sha256
    policy: Policy
    deviations: tuple[Deviation, ...] = ()
    unlisted: int = 0
    refused: Literal["", "deviates", "revoked"] = ""


class RunInfo(Value, frozen=True, kw_only=True):
    id: RunId
    job: str
    created: str
    tool: ToolInfo
    labels: tuple[str, ...] = ()
    replay_of: RunId | None = None
    release: Binding | None = None


class StateSpec(Value, frozen=True, kw_only=True):
    spec: Literal[1] = SPEC_VERSION
    run: RunInfo
    state: State
    observed: Observed = Observed()
    contract: Contract = Contract()
    digest: Sha256

    def __post_init__(self) -> None:
        if self.spec != SPEC_VERSION:
            raise ValueError(f"spec version {self.spec} is not known")


def state_digest(state: State) -> Digest:
    """The state digest: equal conditions give an equal digest, anywhere, any time."""
    return digest_value(state)


def layer_digests(state: State, contract: Contract) -> dict[str, Digest]:
    """A digest of each part: two runs have equal states and contracts if all of these are equal."""
    parts: dict[str, Any] = {
        "code": (state.command, state.stages, state.code),
        "params": state.params,
        "image": state.image,
        "dependencies": state.dependencies,
        "env": state.env,
        "data": state.data,
        "model": state.model,
        "access": (state.access, state.secrets),
        "contract": contract,
    }
    return {layer: digest_value(part) for layer, part in parts.items()}
