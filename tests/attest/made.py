"""Signed runs, made of nothing, for tests that need no engine: a store, its log, and the files beside the record."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from runner.attest.statement import RunFiles
from runner.keys import Keyring
from runner.layers import code
from runner.layers.code import CodeFile
from runner.releases import make
from runner.releases.make import Said
from runner.seal import Sealer, judge_of
from runner.state.digest import digest_bytes
from runner.state.record import Outcome, Output, OutputVerdict, Record, ReplayResult, Verdict
from runner.state.spec import Binding, Check, Layer, Params, Policy, StateSpec, state_digest
from runner.state.strict import dump_record, dump_spec, load_spec
from runner.state.verification import Verification
from runner.store.runs import Run
from runner.store.store import Store
from runner.tools import signing
from runner.verify import verify_run
from runner.workspace import Workspace, open_workspace

EXAMPLE = Path(__file__).parents[2] / "state_specs" / "examples" / "python-job.yaml"
LOGS = {"stdout": b"said\n", "stderr": b"", "order": b"0.1 o 5\n"}


def new_signer() -> signing.Signer:
    return signing.open_private_key(signing.new_private_key(None), None, "a key")


def example() -> StateSpec:
    return load_spec(EXAMPLE.read_bytes(), "example")


def record_for(spec: StateSpec, spec_bytes: bytes, outputs: Mapping[str, bytes], *, replay: bool) -> Record:
    found = tuple(Output(path, digest_bytes(data), len(data)) for path, data in sorted(outputs.items()))
    verdicts = tuple(OutputVerdict(one.path, Verdict.IDENTICAL, "bytes") for one in found)
    return Record(
        run_id=spec.run.id,
        spec_sha256=digest_bytes(spec_bytes),
        state_digest=spec.digest,
        started="2026-11-21T09:00:00Z",
        outcome=Outcome(ending="exited", exit_code=0, duration_s=1.5),
        outputs=found,
        replay=ReplayResult(replay_of="train-20261120-zzzzzz", verdict=Verdict.IDENTICAL, outputs=verdicts)
        if replay
        else None,
    )


def run_files(run_id: str = "train-20261121-aaaaaa", *, replay: bool = False, outputs: int = 2) -> RunFiles:
    """A run of the example, as its files alone."""
    spec = msgspec.structs.replace(example(), run=msgspec.structs.replace(example().run, id=run_id))
    spec_bytes = dump_spec(spec)
    contents = {f"out/{number}.json": b"%d" % number for number in range(outputs)}
    record = record_for(spec, spec_bytes, contents, replay=replay)
    logs = {name: digest_bytes(data) for name, data in LOGS.items()}
    return RunFiles(spec, record, spec_bytes, dump_record(record), logs)


class Signed:
    """A workspace whose runs were signed without any engine; what verifies them is the code that users call."""

    def __init__(self, root: Path, signer: signing.Signer | None = None) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        (root / "replay.yaml").write_text("version: 1\njobs: {}\n")
        self.workspace: Workspace = open_workspace(root, root / ".replay", create=True)
        self.store: Store = self.workspace.store
        self.signer = signer or new_signer()
        self.sealer = Sealer(self.signer, ())
        self._runs: dict[str, Run] = {}

    def run(
        self,
        run_id: str,
        *,
        replay: bool = False,
        outputs: Mapping[str, bytes] | None = None,
        bind: Callable[[StateSpec], Binding] | None = None,
        params: Mapping[str, Any] | None = None,
        checks: tuple[Check, ...] = (),
    ) -> Run:
        contents = outputs or {"out.txt": f"of {run_id}".encode(), "stdout": LOGS["stdout"]}
        run = self.workspace.run(run_id)
        run.begin()
        spec = self._spec(run_id)
        if params or checks:
            state = msgspec.structs.replace(spec.state, params=Params(values=dict(params or {})))
            contract = msgspec.structs.replace(spec.contract, checks=checks)
            spec = msgspec.structs.replace(spec, state=state, digest=state_digest(state), contract=contract)
        if bind:
            info = msgspec.structs.replace(spec.run, release=bind(spec))
            spec = msgspec.structs.replace(spec, run=info)
        spec_bytes = run.write_spec(spec)
        for name, data in LOGS.items():
            (run.folder / name).write_bytes(data)
        for data in contents.values():
            self.store.blobs.put_bytes(data)
        record = record_for(spec, spec_bytes, contents, replay=replay)
        record_bytes = run.write_record(record)
        self.sealer.seal(self.store, run, spec, spec_bytes, record, record_bytes)
        run.end()
        return run

    def _spec(self, run_id: str) -> StateSpec:
        """Of the example what the store can hold: code and parameters that are there, no wheels, data or layers."""
        put = self.store.blobs.put_bytes
        files = (CodeFile("train.py", "file", put(f"print('{run_id}')".encode())),)
        made = example()
        state = msgspec.structs.replace(
            made.state,
            code=put(code.listing(files)),
            params=Params(file="params.yaml", sha256=put(b"alpha: 1\n")),
            dependencies=msgspec.structs.replace(made.state.dependencies, locked=()),
            data={},
            model={},
        )
        observed = msgspec.structs.replace(
            made.observed, image=msgspec.structs.replace(made.observed.image, archived=False), data={}, model={}
        )
        info = msgspec.structs.replace(made.run, id=run_id)
        return msgspec.structs.replace(made, run=info, state=state, observed=observed, digest=state_digest(state))

    def release(self, name: str, run_id: str, *may_move: Layer) -> None:
        said = Said("Ada", f"{name} is right")
        make.create(self.workspace, name, run_id, said, Policy("refuse", may_move), self.sealer)
        self._runs[name] = self.workspace.run(run_id)

    def revoke(self, name: str) -> None:
        make.withdraw(self.workspace, "revoked", name, Said("Bob", "it is wrong"), None, self.sealer)

    def supersede(self, name: str, by: str) -> None:
        make.withdraw(self.workspace, "superseded", name, Said("Bob", "it is old"), by, self.sealer)

    def verify_release(self, name: str) -> Verification:
        """Of the run that the release was made of, whatever its files say now."""
        return verify_run(self.workspace, self._runs[name], judge_of([self.signer.key]), {}, name)

    def release_files(self, name: str, file: str) -> list[Path]:
        """Both copies."""
        return [place / "releases" / name / file for place in (self.root / "state_specs", self.store.folder)]

    def verify(self, run_id: str, *, earlier: Mapping[str, bytes] | None = None) -> Verification:
        return verify_run(self.workspace, self.workspace.run(run_id), judge_of([self.signer.key]), earlier or {})

    def files(self, run_id: str, name: str) -> list[Path]:
        """Both copies of a file of the run."""
        in_store = {"yaml": "spec.yaml"}.get(name, name)
        return [self.root / "state_specs" / f"{run_id}.{name}", self.store.runs / run_id / in_store]

    def read(self, run_id: str, name: str) -> bytes:
        return self.files(run_id, name)[0].read_bytes()

    def write(self, run_id: str, name: str, data: bytes | None) -> None:
        """Put other bytes into both copies, or remove them; the run's sums go along, as an attacker would see to it."""
        for file in self.files(run_id, name):
            if data is None:
                file.unlink(missing_ok=True)
            else:
                file.write_bytes(data)


def reasons(found: Verification) -> dict[str, str]:
    """What failed, and why."""
    return {check.name: check.reason for check in found.checks if check.result == "fail"}


def payload_of(bundle: bytes) -> Any:
    return json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))


def keyring_in(folder: Path) -> Keyring:
    os.makedirs(folder, exist_ok=True)
    return Keyring(folder)
