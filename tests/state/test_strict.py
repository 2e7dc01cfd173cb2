"""What people and specs may say, what they are told when they may not, and that what is written comes back."""

from __future__ import annotations

import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import TamperedError, UsageError
from runner.state.digest import digest_bytes
from runner.state.plain import to_plain
from runner.state.record import (
    Outcome,
    Output,
    OutputProblem,
    OutputVerdict,
    Record,
    ReplayResult,
    Verdict,
)
from runner.state.spec import (
    Access,
    AccessSeen,
    CodeSeen,
    Contract,
    DataSeen,
    Dependencies,
    DvcPin,
    HostSeen,
    Image,
    ImageConfig,
    Limits,
    NumberTolerance,
    Observed,
    OutputRule,
    Params,
    RunInfo,
    SecretSeen,
    SourceSeen,
    State,
    StateSpec,
    ToolInfo,
    Wheel,
    state_digest,
)
from runner.state.strict import (
    check_digest,
    check_plain,
    dump_record,
    dump_spec,
    load_json,
    load_record,
    load_spec,
    load_toml,
    load_workfile,
)

EXAMPLE = Path(__file__).parent.parent.parent / "state_specs" / "examples" / "python-job.yaml"

# --- values to write -----------------------------------------------------------------------------------------

AWKWARD = ["", "no", "012", "1:30", "1e3", "0o14", "2020-01-01", "~", "=", "<<", "null", "a: b", "\n", "\0", "\u2028"]

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(AWKWARD)
texts = st.lists(text, max_size=4).map(tuple)
named = st.dictionaries(text, text, max_size=4)
digests = st.binary(max_size=4).map(digest_bytes)
pinned = st.dictionaries(text, digests, max_size=3)
counts = st.none() | st.integers(0, 2**63 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
integers = st.integers(-(2**63), 2**63 - 1)
plain_values = st.recursive(
    st.none() | st.booleans() | integers | finite | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
run_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,30}", fullmatch=True)
limits = st.builds(Limits, memory=counts, cpus=st.none() | finite, gpus=counts, time=st.none() | finite)
states = st.builds(
    State,
    command=st.lists(text, min_size=1, max_size=4).map(tuple),
    code=digests,
    params=st.none() | st.builds(Params, st.dictionaries(text, plain_values, max_size=4), st.none() | text),
    image=st.builds(
        Image,
        text,
        st.lists(digests, max_size=3).map(tuple),
        st.builds(ImageConfig, named, st.none() | text, st.none() | text, st.none() | texts),
    ),
    dependencies=st.builds(
        Dependencies,
        python=st.none() | text,
        locked=st.none() | st.lists(st.builds(Wheel, text, text, text, digests), max_size=3).map(tuple),
        system_packages=st.booleans(),
    ),
    env=named,
    secrets=texts,
    data=pinned,
    model=pinned,
    access=st.builds(
        Access,
        network=st.sampled_from(["none", "open"]),
        limits=limits,
        determinism=st.sampled_from(["off", "same-host", "portable"]),
    ),
)
seen = st.dictionaries(
    text, st.builds(DataSeen, st.none() | st.builds(DvcPin, text), counts, counts, st.none() | text), max_size=3
)
sources = st.lists(st.builds(SourceSeen, text, st.booleans(), st.none() | text, text), max_size=2).map(tuple)
secrets = st.dictionaries(text, st.builds(SecretSeen, text, text, st.none() | text), max_size=3)
observations = st.builds(
    Observed,
    code=st.builds(CodeSeen, st.none() | text, dirty=texts, submodules=named),
    data=seen,
    model=seen,
    access=st.builds(AccessSeen, secrets, sources),
    host=st.builds(HostSeen, cpu=st.none() | text, flags=texts, cores=counts),
)
tolerances = st.dictionaries(text, st.builds(NumberTolerance, finite, finite), max_size=2)
rules = st.dictionaries(
    text,
    st.builds(OutputRule, text, finite, finite, tolerances, texts, text | texts, finite, texts, text | texts),
    max_size=3,
)


NOTHING = Observed()


def spec_of(
    state: State, observed: Observed = NOTHING, outputs: dict[str, OutputRule] | None = None, run_id: str = "t-1"
) -> StateSpec:
    run = RunInfo(id=run_id, job="t", created="2026-11-20T03:00:00Z", tool=ToolInfo(version="0.1.0"))
    contract = Contract(outputs or {})
    return StateSpec(run=run, state=state, observed=observed, contract=contract, digest=state_digest(state))


specs = st.builds(spec_of, states, observations, rules, run_ids)
records = st.builds(
    Record,
    run_id=run_ids,
    spec_sha256=digests,
    state_digest=digests,
    started=text,
    outcome=st.builds(Outcome, ending=st.just("exited"), exit_code=st.integers(0, 255), duration_s=finite),
    outputs=st.lists(st.builds(Output, text, digests, st.integers(0, 2**40)), max_size=3).map(tuple),
    problems=st.lists(st.builds(OutputProblem, text, st.just("missing"), text), max_size=2).map(tuple),
    undeclared=texts,
    replay=st.none()
    | st.builds(
        ReplayResult,
        replay_of=run_ids,
        verdict=st.sampled_from(Verdict),
        outputs=st.lists(st.builds(OutputVerdict, text, st.sampled_from(Verdict), text), max_size=2).map(tuple),
    ),
)

SMALL = spec_of(
    State(
        command=("true",),
        code=digest_bytes(b""),
        image=Image("linux/amd64", ()),
        access=Access(network="none", determinism="same-host"),
    )
)
SMALL_WITH_NULL = msgspec.structs.replace(SMALL.state, params=Params({"rate": None}))


def large_spec() -> StateSpec:
    """300 packages with names of 12 letters, every second one compiled for two tags."""
    locked = []
    for number in range(300):
        name = f"some-lib-{number:03}"
        tag = "py3-none-any" if number % 2 == 0 else "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64"
        version = f"{number % 7}.{number % 30}.{number % 4}"
        wheel = f"{name.replace('-', '_')}-{version}-{tag}.whl"
        locked.append(Wheel(name, version, wheel, digest_bytes(wheel.encode())))
    dependencies = Dependencies(python="3.11.2", locked=tuple(locked))
    return spec_of(msgspec.structs.replace(SMALL.state, dependencies=dependencies))


def problems(load: Any, data: str | bytes, source: str = "f.yaml") -> list[str]:
    """The lines of `why`, each without a line break of its own."""
    with pytest.raises(UsageError) as caught:
        load(data.encode() if isinstance(data, str) else data, source)
    assert source in caught.value.what and caught.value.next
    return caught.value.why.split("\n")


def line_of(part: bytes, data: bytes) -> int:
    return data[: data.index(part)].count(b"\n") + 1


# --- there and back ------------------------------------------------------------------------------------------


@given(specs)
@settings(max_examples=200, deadline=None)
def test_a_spec_comes_back_with_its_digest(spec: StateSpec) -> None:
    data = dump_spec(spec)
    found = load_spec(data, "s.yaml")
    assert found == spec
    check_digest(found, "s.yaml")
    assert dump_spec(found) == data


@given(records)
@settings(deadline=None)
def test_a_record_comes_back(record: Record) -> None:
    data = dump_record(record)
    assert load_record(data, "r.json") == record
    assert dump_record(load_record(data, "r.json")) == data
    assert json.loads(data)["record"] == 1


@given(st.dictionaries(text, text, min_size=2))
def test_the_order_of_a_mapping_leaves_no_trace(env: dict[str, str]) -> None:
    there, back = env, dict(reversed(env.items()))
    written = {dump_spec(spec_of(msgspec.structs.replace(SMALL.state, env=one))) for one in (there, back)}
    assert len(written) == 1


def test_a_spec_starts_with_its_version_and_keeps_the_order_of_its_fields() -> None:
    lines = dump_spec(SMALL).decode().splitlines()
    assert lines[0] == "spec: 1"
    assert [line.rstrip(":") for line in lines if line[0] != " "][1:3] == ["run", "state"]


def test_equal_values_are_absent_however_they_were_made() -> None:
    spelt = Observed(code=CodeSeen(dirty=()), host=HostSeen(flags=()))
    assert to_plain(spec_of(SMALL.state, spelt)) == to_plain(SMALL)


def test_a_record_is_json_with_sorted_keys_and_a_line_feed() -> None:
    record = Record(
        run_id="t-1",
        spec_sha256=digest_bytes(b""),
        state_digest=digest_bytes(b""),
        started="2026-11-20T03:00:00Z",
        outcome=Outcome(ending="exited", exit_code=0, duration_s=1.5),
    )
    data = dump_record(record)
    assert data.endswith(b"}\n")
    assert list(json.loads(data)) == sorted(json.loads(data))
    assert b'\n  "run_id": "t-1",\n' in data


def test_three_hundred_packages_stay_small_and_quick() -> None:
    spec = large_spec()
    data = dump_spec(spec)
    assert len(data) < 60_000
    assert max(map(len, data.decode().splitlines())) < 300
    times = []
    for _ in range(5):
        started = time.process_time()
        assert load_spec(data, "s.yaml") == spec
        times.append(time.process_time() - started)
    assert statistics.median(times) < 0.03, "5 ms are usual"


def test_a_state_may_not_hold_what_its_digest_cannot_tell() -> None:
    for value in (math.nan, math.inf):
        state = msgspec.structs.replace(SMALL.state, params=Params({"rate": value}))
        with pytest.raises(UsageError, match=r"the spec of t-1 is not valid"):
            dump_spec(spec_of(state))
    edited = dump_spec(spec_of(SMALL_WITH_NULL)).replace(b"rate: null", b"rate: .nan")
    (problem,) = problems(load_spec, edited)
    expected = "state.params.values.rate: nan has no JSON form; write it as a string"
    assert problem == f"line {line_of(b'rate', edited)}: {expected}"


def test_text_that_is_no_unicode_is_refused_when_written() -> None:
    with pytest.raises(UsageError) as caught:
        dump_spec(spec_of(SMALL.state, Observed(code=CodeSeen(dirty=("a\udcff",)))))
    assert caught.value.why == "observed.code.dirty[0]: holds bytes that are not UTF-8"


def test_a_spec_too_large_to_be_read_is_not_written() -> None:
    state = msgspec.structs.replace(SMALL.state, params=Params({"blob": "x" * (5 << 20)}))
    with pytest.raises(UsageError, match=r"the spec of t-1 is too large"):
        dump_spec(spec_of(state))


# --- the digest ----------------------------------------------------------------------------------------------


def test_a_changed_state_does_not_fit_its_digest() -> None:
    changed = EXAMPLE.read_bytes().replace(b"MODE: prod", b"MODE: test")
    spec = load_spec(changed, "s.yaml")
    with pytest.raises(TamperedError) as caught:
        check_digest(spec, "s.yaml")
    assert "s.yaml" in caught.value.what
    assert spec.digest in caught.value.why and state_digest(spec.state) in caught.value.why


# --- versions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("load", "data", "said"),
    [
        (load_spec, "spec: 2\nnew: {a: .nan}\n", "spec: 2"),
        (load_workfile, "version: 7\nnew: x\n", "version: 7"),
        (load_record, '{"record": 3, "new": 1}', "record: 3"),
    ],
)
def test_a_newer_version_is_told_before_anything_else(load: Any, data: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(data.encode(), "f")
    assert caught.value.what == "f was written by a newer replay"
    assert f"`{said}`" in caught.value.why
    assert caught.value.next == "upgrade replay"


def test_a_spec_and_a_record_state_their_version() -> None:
    unversioned = EXAMPLE.read_bytes().replace(b"spec: 1\n", b"")
    assert problems(load_spec, unversioned) == ["line 1: the top: the key `spec` is missing"]
    assert "line 1: the top: the key `record` is missing" in problems(load_record, "{}")


@pytest.mark.parametrize("version", ["0", "'1'", "true", "null", "[1]", "-1"])
def test_a_version_that_is_none_is_a_mistake(version: str) -> None:
    assert problems(load_workfile, f"version: {version}\njobs: {{}}\n")[0].startswith("line 1: version: expected 1")


@pytest.mark.parametrize("data", ["", "# nothing\n", "[1]", "text", "3"])
def test_a_file_without_a_mapping_says_what_was_expected(data: str) -> None:
    assert problems(load_workfile, data) == ["expected `version: 1` and more keys"]


# --- replay.yaml ---------------------------------------------------------------------------------------------

WORKFILE = """\
version: 1
jobs:
  train:
    comand: python x.py
    imag: python:3.11
    env: {A: 1, B: no, 1X: a, 2Y: b}
    network: opne
    params:
    limits: {cpus: two, memory: true, tim: 4}
    secrets: {KEY: 1234567}
    data: {a: b}
    outputs:
      m.json: {compare: json, rtoll: 1}
      q: 5
      z: {rtol: x}
  -x: {image: a}
foo: 1
"""


def test_all_mistakes_are_listed_in_the_order_of_the_file() -> None:
    assert problems(load_workfile, WORKFILE, "replay.yaml") == [
        "line 3: jobs.train: the key `image` is missing",
        "line 4: jobs.train.comand: unknown key; did you mean `command`?",
        "line 5: jobs.train.imag: unknown key; did you mean `image`?",
        "line 6: jobs.train.env.1X: expected a name of letters, digits and `_` as the key",
        "line 6: jobs.train.env.2Y: expected a name of letters, digits and `_` as the key",
        "line 6: jobs.train.env.A: expected a string or null, found 1; put it in quotes",
        'line 7: jobs.train.network: expected "none" or "open", found "opne"; did you mean `open`?',
        "line 8: jobs.train.params: expected a string or a mapping, found nothing; "
        "give it a value or leave the key out",
        'line 9: jobs.train.limits.cpus: expected a number, found "two"',
        "line 9: jobs.train.limits.memory: expected a string or an integer, found true",
        "line 9: jobs.train.limits.tim: unknown key; did you mean `time`?",
        "line 10: jobs.train.secrets.KEY: expected a string, found an integer; put it in quotes",
        "line 11: jobs.train.data: expected a list, found a mapping",
        'line 13: jobs.train.outputs["m.json"].rtoll: unknown key; did you mean `rtol`?',
        "line 14: jobs.train.outputs.q: expected a string, a mapping or null, found 5",
        'line 15: jobs.train.outputs.z.rtol: expected a number, found "x"',
        "line 16: jobs.-x: expected a name of at most 64 letters, digits, `_`, `.` and single `-` as the key",
        "line 17: foo: unknown key; known are jobs, suites, version",
    ]


def test_the_number_of_mistakes_is_told_and_thousands_are_not_printed() -> None:
    many = "jobs: {}\n" + "".join(f"key{number}: 1\n" for number in range(2000))
    with pytest.raises(UsageError) as caught:
        load_workfile(many.encode(), "replay.yaml")
    assert caught.value.what == "replay.yaml is not valid: 2000 problems"
    assert caught.value.why.splitlines()[-1] == "and 1950 more"


@pytest.mark.parametrize(
    ("outputs", "found"),
    [
        ("[a, stdout]", ("a", "stdout")),
        ("{a: bytes}", {"a": "bytes"}),
        ("{a: }", {"a": None}),
        ("{a: {compare: json, rtol: 1e-6}}", {"a": OutputRule(compare="json", rtol=1e-6)}),
        ("{a: {}, b: text}", {"a": OutputRule(), "b": "text"}),
    ],
)
def test_outputs_have_every_declared_form(outputs: str, found: Any) -> None:
    workfile = load_workfile(f"jobs: {{t: {{image: i, outputs: {outputs}}}}}".encode(), "replay.yaml")
    assert workfile.jobs["t"].outputs == found


def test_null_means_something_in_python_env_params_and_outputs() -> None:
    job = "{image: i, python: null, env: {PASS: null}, params: {a: null, b: [null]}, outputs: {o: null}}"
    found = load_workfile(f"jobs: {{t: {job}}}".encode(), "replay.yaml").jobs["t"]
    assert found.python is None
    assert found.env == {"PASS": None}
    assert found.params == {"a": None, "b": [None]}


@pytest.mark.parametrize("key", ["command", "stage", "dependencies", "params", "data", "limits", "outputs"])
def test_null_stands_for_no_other_key(key: str) -> None:
    (problem,) = problems(load_workfile, f"jobs: {{t: {{image: i, {key}: null}}}}")
    assert problem.startswith(f"line 1: jobs.t.{key}: expected ")
    assert problem.endswith("found nothing; give it a value or leave the key out") or key == "limits"


def test_a_time_in_whole_seconds_is_the_same_time() -> None:
    """A spec says 60.0 when it is read; the digest must have said so before."""
    job = load_workfile(b"jobs: {t: {image: i, limits: {time: 60, cpus: 2}}}", "f").jobs["t"]
    assert (repr(job.limits.time), repr(job.limits.cpus)) == ("60.0", "2.0")


@pytest.mark.parametrize("name", ["a\n", "a\nb", "-a", "a--b", "", "a" * 65, "a b", "a/b"])
def test_a_job_has_a_name_that_a_run_id_can_hold(name: str) -> None:
    (problem,) = problems(load_workfile, json.dumps({"jobs": {name: {"image": "i"}}}))
    assert "expected a name of at most 64 letters" in problem


def test_a_fraction_is_no_count() -> None:
    (problem,) = problems(load_workfile, "jobs: {t: {image: i, limits: {gpus: 1.0}}}")
    assert "Expected `int | null`, got `float`" in problem and "limits.gpus" in problem


def test_an_error_in_what_an_alias_stands_for_has_the_line_of_the_original() -> None:
    data = "jobs:\n  a: &a\n    image: i\n    netwrk: none\n  b: *a\n"
    assert problems(load_workfile, data) == [
        "line 4: jobs.a.netwrk: unknown key; did you mean `network`?",
        "line 4: jobs.b.netwrk: unknown key; did you mean `network`?",
    ]


@given(st.binary(max_size=100) | plain_values.map(lambda value: json.dumps(value).encode()))
@settings(deadline=None)
def test_any_bytes_give_a_value_or_a_usage_error(data: bytes) -> None:
    for load in (load_spec, load_workfile, load_record, load_json, load_toml):
        try:
            load(data, "f")
        except UsageError as error:
            assert error.what and error.why


# --- specs and records ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (b"    folder: images", b"    fold: images", "observed.image.fold: unknown key; did you mean `folder`?"),
        (b"  branch: main", b"  branch: null", "observed.code.branch: expected a string, found nothing"),
        (b"cores: 8", b"cores: many", 'observed.host.cores: expected an integer, found "many"'),
        (b"determinism: same-host", b"determinism: same", 'found "same"; did you mean `same-host`?'),
        (b"id: train-20261120-k3v9xq", b"id: ../../etc", "run.id: expected a run-id such as"),
        (b"version: '2024.2', wheel: pytz", b"version: 2024.2, wheel: pytz", "state.dependencies.locked[4].version"),
    ],
)
def test_a_malformed_spec_is_named_by_key_and_line(before: bytes, after: bytes, expected: str) -> None:
    data = EXAMPLE.read_bytes()
    assert data.count(before) == 1
    (problem,) = problems(load_spec, data.replace(before, after))
    assert expected in problem and problem.startswith(f"line {line_of(before, data)}: ")


@pytest.mark.parametrize("digest", ["sha256:00", "sha256:" + "A" * 64, "sha256:" + "0" * 64 + "\n", "md5:" + "0" * 64])
def test_a_digest_has_one_form(digest: str) -> None:
    data = msgspec.json.encode({"spec": 1, **to_plain(SMALL), "digest": digest})
    assert "digest: expected `sha256:` and 64 lower-case hex digits" in problems(load_spec, data)[0]


def test_null_in_a_record_is_refused_with_its_line() -> None:
    record = Record(
        run_id="t-1",
        spec_sha256=digest_bytes(b""),
        state_digest=digest_bytes(b""),
        started="2026-11-20T03:00:00Z",
        outcome=Outcome(ending="exited", exit_code=0, duration_s=1.5),
    )
    data = dump_record(record).replace(b'"run_id"', b'"replay": null,\n  "run_id"')
    (problem,) = problems(load_record, data)
    assert "replay: expected a mapping, found nothing" in problem
    assert problem.startswith(f"line {line_of(b'replay', data)}: ")


# --- JSON, TOML, plain values --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            b'{"a": 1,\n "b": {"a": 2},\n "a": 3}',
            'the key "a" is given twice in one object; it stands in lines 1, 2, 3',
        ),
        (b'{"a": NaN}', "NaN is no JSON"),
        (b'{"a": -Infinity}', "-Infinity is no JSON"),
        (b'{"a": 1e999}', "a: inf has no JSON form; write it as a string"),
        (b"", "Expecting value: line 1 column 1"),
        (b"{'a': 1}", "line 1 column 2"),
        (b'{"a": "\\ud800"}', "a: holds bytes that are not UTF-8"),
        (b'{"a": ' + b"1" * 5000 + b"}", "it holds a number of too many digits"),
        (b'{"a": 9223372036854775808}', "a: an integer beyond 64 bits; write it as a string"),
        (b"[" * 200 + b"]" * 200, "[0][0][0]: nested deeper than 100 levels"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b"\xef\xbb\xbf{}", "line 1: it starts with a byte order mark"),
        (b'\n{"\xff": 1}', "line 2: the byte 0xff is not UTF-8"),
    ],
)
def test_json_is_strict(data: bytes, expected: str) -> None:
    assert expected in problems(load_json, data)[0]


def test_toml_is_read_with_dates_as_text() -> None:
    data = b"a = 1\nday = 2026-11-20\ntime = 03:00:00\nat = 2026-11-20T03:00:00Z\n[b]\nc = [1.5, 'x']\n"
    assert load_toml(data, "f.toml") == {
        "a": 1,
        "day": "2026-11-20",
        "time": "03:00:00",
        "at": "2026-11-20T03:00:00Z",
        "b": {"c": [1.5, "x"]},
    }


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a = 1\na = 2\n", "Cannot overwrite a value (at line 2, column 6)"),
        (b"a = nan\n", "a: nan has no JSON form"),
        (b"a = \n", "Invalid value (at line 1, column 5)"),
        (b"a = " + b"[" * 5000, "it is nested too deeply"),
    ],
)
def test_toml_is_strict(data: bytes, expected: str) -> None:
    assert expected in problems(load_toml, data)[0]


@given(plain_values)
def test_plain_values_are_those_that_json_keeps(value: Any) -> None:
    check_plain(value, "params")
    assert msgspec.json.decode(msgspec.json.encode(value)) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, math.nan]}, "a[1]: nan has no JSON form; write it as a string"),
        ({"a.b": {"c": -math.inf}}, '["a.b"].c: -inf has no JSON form; write it as a string'),
        ({"a": {1: "x"}}, "a: the key 1 is no string; put it in quotes"),
        ({"a": 2**63}, "a: an integer beyond 64 bits; write it as a string"),
        ({"a": -(2**63) - 1}, "a: an integer beyond 64 bits; write it as a string"),
        ({"a": "x\ud800"}, "a: holds bytes that are not UTF-8"),
        ({"x\ud800": 1}, 'the top: the key "x\\ud800" holds bytes that are not UTF-8'),
        ({"a": {1, 2}}, "a: a set is no plain value"),
    ],
)
def test_what_json_would_lose_is_refused(value: Any, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_plain(value, "params.yaml")
    assert caught.value.what == "params.yaml is not valid"
    assert caught.value.why == expected


def test_the_edges_of_64_bits_are_plain() -> None:
    check_plain({"a": 2**63 - 1, "b": -(2**63)}, "params")
