"""What people declare, as values: params, env, limits, secrets, paths, commands and outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.capture import command_of, contract_outputs, refuse_overlaps
from runner.errors import UsageError
from runner.layers import access, env, params
from runner.state.digest import digest_bytes
from runner.state.job import Job, JobLimits
from runner.state.paths import covers, inside
from runner.state.spec import (
    Access,
    Dependencies,
    DependenciesSeen,
    Image,
    Limits,
    Observed,
    Params,
    RunInfo,
    State,
    StateSpec,
    ToolInfo,
    Wheel,
    state_digest,
)
from runner.state.strict import check_digest, dump_spec, load_spec
from runner.store.store import open_store
from runner.tools import requirements

D = str(digest_bytes(b""))


def job(**declared: Any) -> Job:
    return msgspec.convert({"image": "x"} | declared, Job)


def spec_of(**state: Any) -> StateSpec:
    described: dict[str, Any] = {
        "command": ("true",),
        "code": D,
        "image": Image(platform="linux/amd64", diff_ids=(D,)),
        "access": Access(network="none", determinism="off"),
    }
    made = State(**described | state)
    run = RunInfo(id="j-20260101-aaaaaa", job="j", created="2026-01-01T00:00:00Z", tool=ToolInfo(version="1"))
    return StateSpec(run=run, state=made, digest=state_digest(made))


# --- paths ---------------------------------------------------------------------------------------------------


@given(st.text(max_size=20))
def test_a_path_is_inside_or_an_error_and_normal_forms_are_stable(text: str) -> None:
    try:
        found = inside(text, "data")
    except UsageError as error:
        assert error.what and error.why
        return
    assert inside(found, "data") == found
    assert not found.startswith("/") and ".." not in found.split("/") and "" not in found.split("/")
    assert "\n" not in found and ":" not in found


@pytest.mark.parametrize("path", ["", " ", ".", "/a", "..", "a/../b", "a\nb", "a\0b", "a\x7fb", "a:b", "a\udcffb"])
def test_paths_that_are_refused(path: str) -> None:
    with pytest.raises(UsageError, match="data"):
        inside(path, "data")


@pytest.mark.parametrize(("path", "normal"), [("./a//b/", "a/b"), ("-a", "-a"), ("ü b/😀", "ü b/😀"), ("a/.", "a")])
def test_paths_are_normalised(path: str, normal: str) -> None:
    assert inside(path, "data") == normal


def test_covers() -> None:
    assert covers("a", "a") and covers("a", "a/b") and not covers("a", "ab") and not covers("a/b", "a")


# --- params --------------------------------------------------------------------------------------------------

values = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        # what YAML 1.1 would take for something else
        | st.sampled_from(
            ["no", "012", "1:30", "2026-01-01", "~", "1e3", "", " a ", "a: b", "#x", "\t", "\x1b", "\u2028"]
        )
        | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@given(values)
def test_params_come_back_from_a_spec_as_they_went_in(found: dict[str, Any]) -> None:
    spec = spec_of(params=Params(values=found))
    data = dump_spec(spec)
    again = load_spec(data, "spec")
    check_digest(again, "spec")
    assert dump_spec(again) == data
    assert json.loads(params.environment(again.state.params)["REPLAY_PARAMS"]) == found


@given(values)
def test_the_order_of_keys_does_not_count(found: dict[str, Any]) -> None:
    turned = dict(reversed(found.items()))
    assert params.environment(Params(values=found)) == params.environment(Params(values=turned))
    assert spec_of(params=Params(values=found)).digest == spec_of(params=Params(values=turned)).digest


def test_a_file_and_a_mapping_of_the_same_values_are_two_states(tmp_path: Path) -> None:
    store = open_store(tmp_path / ".replay", create=True)
    (tmp_path / "p.json").write_text('{"a": 1}')
    by_file, by_mapping = (params.observe(store, tmp_path, declared) for declared in ("p.json", {"a": 1}))
    assert by_file and by_mapping and by_file.values == by_mapping.values
    assert spec_of(params=by_file).digest != spec_of(params=by_mapping).digest
    assert params.environment(by_file) == {}
    assert params.observe(store, tmp_path, None) is None


# --- env -----------------------------------------------------------------------------------------------------


def test_only_declared_variables_and_those_of_determinism_enter() -> None:
    assert env.observe({"A": "1"}, {"B": "2"}, "off", None, ()) == {"A": "1"}
    same_host = env.observe({"TZ": "Asia/Tokyo", "B": None}, {"B": "2", "C": "3"}, "same-host", 1.5, ())
    assert (same_host["TZ"], same_host["B"], same_host["OMP_NUM_THREADS"]) == ("Asia/Tokyo", "2", "2")
    assert same_host["PYTHONHASHSEED"] == "0" and "C" not in same_host and "MKL_CBWR" not in same_host
    assert list(same_host) == sorted(same_host)


@pytest.mark.parametrize(("version", "word"), [("2.3.9", "AVX512F"), ("2.4.0", "X86_V4"), ("10.0", "X86_V4")])
def test_portable_caps_follow_the_version_of_numpy(version: str, word: str) -> None:
    numpy = Wheel("numpy", version, "x.whl", D)
    caps = env.observe({}, {}, "portable", None, (numpy,))
    assert word in caps["NPY_DISABLE_CPU_FEATURES"].split()
    assert "NPY_DISABLE_CPU_FEATURES" not in env.observe({}, {}, "portable", None, ())
    assert "-FMA," in caps["GLIBC_TUNABLES"] and "GLIBC_TUNABLES" not in env.observe({}, {}, "same-host", None, ())


@pytest.mark.parametrize("value", ["a\0b", "a\udcff"])
def test_values_that_no_variable_can_hold(value: str) -> None:
    with pytest.raises(UsageError, match="A"):
        env.observe({"A": None}, {"A": value}, "off", None, ())


# --- access --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({"memory": "2g", "shm": "64M", "disk": "1.5k"}, Limits(memory=2 << 30, shm=64 << 20, disk=1536)),
        ({"memory": "512MiB"}, Limits(memory=512 << 20)),
        ({"memory": 8 << 20}, Limits(memory=8 << 20)),
        ({"time": "1h"}, Limits(time=3600)),
        ({"time": "1.5m"}, Limits(time=90)),
        ({"time": 90}, Limits(time=90)),
        ({"gpus": 0, "cpus": 0.5}, Limits(cpus=0.5)),
    ],
)
def test_limits_are_bytes_and_seconds(declared: dict[str, Any], expected: Limits) -> None:
    found = access.limits(msgspec.convert(declared, JobLimits))
    assert found == expected
    spec = spec_of(access=Access(network="none", limits=found, determinism="off"))
    assert load_spec(dump_spec(spec), "spec").state == spec.state
    check_digest(load_spec(dump_spec(spec), "spec"), "spec")


def test_the_same_limit_in_other_words_is_the_same_state() -> None:
    def digest(**declared: Any) -> str:
        limits = access.limits(msgspec.convert(declared, JobLimits))
        return str(spec_of(access=Access(network="none", limits=limits, determinism="off")).digest)

    assert digest(time=60) == digest(time="60") == digest(time="1m") == digest(time=60.0)
    assert digest(memory="1g") == digest(memory=1 << 30) == digest(memory="1024m")
    assert digest(cpus=1) == digest(cpus=1.0)


@pytest.mark.parametrize(
    "declared",
    [
        {"memory": "x"},
        {"memory": "5m"},
        {"memory": -1},
        {"memory": "99999999999t"},
        {"time": "1w"},
        {"time": "-1"},
        {"gpus": -1},
        {"cpus": 0.0},
    ],
)
def test_limits_that_are_refused(declared: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="limits") as caught:
        access.limits(msgspec.convert(declared, JobLimits))
    assert caught.value.why or caught.value.next


def test_secrets_are_read_and_only_fingerprinted(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("line one\nline two\n")
    references = {"A": "env:CALLER", "B": "file:token"}
    found = access.read_secrets(references, tmp_path, {"CALLER": "value"})
    assert found == {"A": b"value", "B": b"line one\nline two"}
    one, other = (access.seen(references, found, key) for key in (b"k1", b"k2"))
    assert one["A"].fingerprint != other["A"].fingerprint != access.fingerprint(b"value2", b"k2")
    assert access.seen(references, found, b"k1") == one and one["A"].source == "env:CALLER"
    assert access.telling(found.values()) == (b"line one\nline two", b"line one", b"line two", b"value")


# --- commands, outputs ---------------------------------------------------------------------------------------


def test_a_string_goes_to_the_shell_and_a_list_does_not() -> None:
    assert command_of(job(command="a | b")) == ("sh", "-c", "a | b")
    assert command_of(job(command=["a", "|", ""])) == ("a", "|", "")
    for bad in (None, "", " \n", [], [""], ["a", "\0"], ["a\udcff"]):
        with pytest.raises(UsageError, match="command"):
            command_of(msgspec.structs.replace(job(), command=tuple(bad) if isinstance(bad, list) else bad))


def test_outputs_in_every_form() -> None:
    assert list(contract_outputs(job(outputs=["./b/", "a", "stdout"]))) == ["a", "b", "stdout"]
    rules = contract_outputs(job(outputs={"a": None, "b": "json", "c": {"compare": "json", "rtol": 0.5}}))
    assert [(rule.compare, rule.rtol) for rule in rules.values()] == [("bytes", 0), ("json", 0), ("json", 0.5)]
    for bad in ({"a": None, "./a": None}, [".git/x"], ["replay.yaml"], ["../a"]):
        with pytest.raises(UsageError, match="outputs"):
            contract_outputs(job(outputs=bad))


@given(st.sampled_from(["a", "a/b", "a/b/c", "ab"]), st.sampled_from(["a", "a/b", "a/b/c", "ab"]))
def test_an_output_never_lies_at_in_or_around_an_input(path: str, output: str) -> None:
    overlap = path == output or path.startswith(output + "/") or output.startswith(path + "/")
    for key, given_path in (("data", [path]), ("model", [path]), ("params", path)):
        declared = job(**{key: given_path}, outputs=[output])
        if overlap:
            with pytest.raises(UsageError, match="declared as an output"):
                refuse_overlaps(declared, contract_outputs(declared))
        else:
            refuse_overlaps(declared, contract_outputs(declared))


# --- the spec as a file --------------------------------------------------------------------------------------


def _wheel(number: int, version: str) -> Wheel:
    """As long as they are in an environment of data science: a third compiled, the rest pure."""
    tags = "py3-none-any" if number % 3 else "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64"
    digest = str(digest_bytes(f"{number} {version}".encode()))
    return Wheel(f"package-{number:03}", version, f"package_{number:03}-{version}-{tags}.whl", digest)


def test_a_spec_of_300_packages_stays_small_and_can_be_reviewed() -> None:
    wheels = tuple(_wheel(number, "1.21.0") for number in range(300))
    before = dump_spec(spec_of(dependencies=Dependencies(python="3.11.2", locked=wheels)))
    asked = DependenciesSeen(
        source="requirements.in", requested=tuple(f"{one.name}=={one.version}" for one in wheels[:60])
    )
    spec = spec_of(dependencies=Dependencies(python="3.11.2", locked=wheels))
    assert len(dump_spec(msgspec.structs.replace(spec, observed=Observed(dependencies=asked)))) < 60_000
    newer = _wheel(7, "2.0.0")
    after = dump_spec(spec_of(dependencies=Dependencies(python="3.11.2", locked=(*wheels[:7], newer, *wheels[8:]))))
    changed = set(after.splitlines()) - set(before.splitlines())
    assert len(changed) <= 3, "a review sees the package, and the digest"
    assert max(map(len, before.splitlines())) < 300


def test_requirements_are_shown_without_credentials(tmp_path: Path) -> None:
    (tmp_path / "r.in").write_text(
        "--index-url https://me:p@ss@host.test/simple\nx @ git+https://me:t@host.test/x@v1\n"
    )
    shown = requirements.read(tmp_path, "r.in").shown()
    assert shown == ("--index-url https://host.test/simple", "x @ git+https://host.test/x@v1")
