from __future__ import annotations

import math

import pytest

from runner.compare import check_installed, check_rule, extras
from runner.compare.registry import by_suffix, rule_for
from runner.errors import UsageError
from runner.state.spec import NumberTolerance, OutputRule


@pytest.mark.parametrize(
    "rule",
    [
        OutputRule(),
        OutputRule("text"),
        OutputRule("text", normalise=("line-ends", "paths", "timestamps")),
        OutputRule("json", rtol=1e-6, atol=0.5, ignore=("a.*.time", "*", "b.0")),
        OutputRule("yaml", tolerances={"a.*": NumberTolerance(rtol=0.1)}),
        OutputRule("table", key="id", rtol=0.1, ignore=("a..b", "ts")),
        OutputRule("table", key=("id", "day"), tolerances={"a b": NumberTolerance(atol=1)}),
        OutputRule("array", tolerances={"w.0": NumberTolerance(atol=1)}, ignore=("w.1",)),
        OutputRule("image", atol=3, share=0.5),
        OutputRule("model"),
        OutputRule("model", probe="python probe.py {}", rtol=0.1, ignore=("a.b",)),
        OutputRule("model", probe=("python", "probe.py", "{}")),
        OutputRule("auto", rtol=0.1, key="id", share=1, normalise=("paths",)),
    ],
)
def test_accepts(rule: OutputRule) -> None:
    check_rule("out.json", rule)


@pytest.mark.parametrize(
    ("rule", "what", "hint"),
    [
        (OutputRule("jsn"), "no comparator is called 'jsn'", "write `compare: json`"),
        (OutputRule("JSON"), "no comparator is called 'JSON'", "write `compare: json`"),
        (OutputRule("zzz"), "no comparator is called 'zzz'", "name one of these under `compare`"),
        (OutputRule("bytes", rtol=0.1), "the comparator `bytes` takes no `rtol`", "`compare: json`"),
        (OutputRule("text", ignore=("a",)), "the comparator `text` takes no `ignore`", "`compare: json`"),
        (OutputRule("json", normalise=("paths",)), "`json` takes no `normalise`", "`compare: text`"),
        (OutputRule("json", rtol=-1e-6), "`rtol: -1e-06` is no tolerance", "correct `rtol`"),
        (OutputRule("json", atol=math.nan), "`atol: nan` is no tolerance", "correct `atol`"),
        (OutputRule("json", rtol=math.inf), "`rtol: inf` is no tolerance", "correct `rtol`"),
        (OutputRule("json", ignore=("a..b",)), "`ignore` holds 'a..b'", "a.b.*.time"),
        (OutputRule("json", tolerances={"a": NumberTolerance(rtol=-1.0)}), "`rtol: -1.0` is no tolerance", "correct"),
        (OutputRule("json", tolerances={"a..b": NumberTolerance()}), "`tolerances` holds 'a..b'", "a.b.*.time"),
        (OutputRule("table", key=("id", "id")), "`key` is empty or names a column twice", "`key: id`"),
        (OutputRule("table", key=("",)), "`key` is empty or names a column twice", "`key: id`"),
        (OutputRule("table", key="id", ignore=("id",)), "column 'id' is under `key` and under `ignore`", "take it out"),
        (OutputRule("json", key="id"), "the comparator `json` takes no `key`", "`compare: table`"),
        (OutputRule("image", share=1.5), "`share: 1.5` is no part", "correct `share`"),
        (OutputRule("image", share=math.nan), "`share: nan` is no part", "correct `share`"),
        (OutputRule("image", rtol=1), "the comparator `image` takes no `rtol`", "`compare: json`"),
        (OutputRule("auto", rtol=-1.0), "`rtol: -1.0` is no tolerance", "correct `rtol`"),
        (OutputRule("model", rtol=0.1), "`rtol` is for what a probe prints", "add a `probe`"),
        (OutputRule("model", probe=" "), "`probe` holds an empty word", "probe: [python"),
        (OutputRule("model", probe=("python", "")), "`probe` holds an empty word", "probe: [python"),
        (OutputRule("model", probe=("a\0b",)), "`probe` holds an empty word or a NUL", "probe: [python"),
        (OutputRule("model", probe="x", ignore=("a..b",)), "`ignore` holds 'a..b'", "a.b.*.time"),
        (OutputRule("json", probe="x"), "the comparator `json` takes no `probe`", "`compare: model`"),
        (OutputRule("auto", probe="x"), "the comparator `auto` takes no `probe`", "`compare: model`"),
        (OutputRule("json", ignore=("",)), "`ignore` holds ''", "a.b.*.time"),
        (OutputRule("text", normalise=("path",)), "no normaliser is called 'path'", "write `paths`"),
        (OutputRule("text", normalise=("zzz",)), "no normaliser is called 'zzz'", "under `normalise`"),
    ],
)
def test_refuses_and_says_how_to_mend_it(rule: OutputRule, what: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        check_rule("out/a.json", rule)
    assert error.value.what.startswith("output 'out/a.json': ")
    assert what in error.value.what
    assert hint in error.value.next


def test_names_what_is_known() -> None:
    with pytest.raises(UsageError) as error:
        check_rule("out", OutputRule("tex"))
    known = "array, auto, bytes, image, json, model, table, text, toml, yaml"
    assert error.value.why == f"known are {known}, and no installed distribution brings one of this name"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("out/a.JSON", "json"),
        ("a.csv", "table"),
        ("a.csv.gz", "table"),
        ("a.gz", "bytes"),
        ("m/x.npz", "array"),
        ("m/x.safetensors", "array"),
        ("p.png", "image"),
        ("m.pt", "model"),
        ("c.yml", "yaml"),
        ("c.toml", "toml"),
        ("run.log", "text"),
        ("stdout", "text"),
        ("csv", "bytes"),
    ],
)
def test_auto_goes_by_the_suffix(path: str, name: str) -> None:
    assert by_suffix(path) == name
    assert rule_for(path, {path: OutputRule("auto")}).compare == name


def test_auto_takes_along_what_the_comparator_takes() -> None:
    rules = {"out": OutputRule("auto", rtol=0.1, key="id", share=0.5, normalise=("paths",))}
    assert rule_for("out/a.csv", rules) == OutputRule("table", rtol=0.1, key="id")
    assert rule_for("out/a.png", rules) == OutputRule("image", share=0.5)
    assert rule_for("out/a.txt", rules) == OutputRule("text", normalise=("paths",))
    assert rule_for("out/a", rules) == OutputRule("bytes")
    assert rule_for("out/a.pkl", rules) == OutputRule("model")


@pytest.mark.parametrize(
    ("name", "extra", "module"),
    [("table", "tables", "duckdb"), ("array", "arrays", "numpy"), ("image", "images", "PIL")],
)
def test_a_missing_extra_is_named_with_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, name: str, extra: str, module: str
) -> None:
    check_installed(["a"], {"a": OutputRule(name)})
    there = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda wanted: None if wanted == module else there(wanted))
    with pytest.raises(UsageError) as error:
        check_installed(["a"], {"a": OutputRule(name)})
    assert error.value.why == f"{module} is not installed"
    assert error.value.next == f"pip install 'replay-runner[{extra}]'"
