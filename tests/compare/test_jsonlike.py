from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runner.compare import jsonread
from runner.compare.jsonlike import Language
from runner.state.record import Verdict
from runner.state.spec import NumberTolerance, OutputRule

EXACT = "allowed: rtol 0, atol 0"


@pytest.mark.parametrize(
    ("original", "replayed", "options", "detail"),
    [
        ('{"a": 1}', '{"a":1}\n', {}, f"formatting only; {EXACT}"),
        ('["é"]', '["\\u00e9"]', {}, f"formatting only; {EXACT}"),
        ("[1]", "\ufeff[1]", {}, f"formatting only; {EXACT}"),
        ("[0.1]", "[1e-1]", {}, f"formatting only; {EXACT}"),
        ("[NaN, Infinity]", "[NaN,Infinity]", {}, f"formatting only; {EXACT}"),
        ('{"a": 1, "b": {"c": 2}}', '{"b": {"c": 2}, "a": 1}', {}, f"key order; {EXACT}"),
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', {"rtol": 0.5}, "key order; allowed: rtol 0.5, atol 0"),
        ("[1, 2]", "[1.0, 2]", {}, f"1 number equal but integer in one and decimal in the other; {EXACT}"),
        (
            "[100]",
            "[101]",
            {"rtol": 0.01},
            "1 number inside rtol 0.01, atol 0 (largest relative difference 0.01)",
        ),
        ("[0]", "[1e-9]", {"atol": 1e-8}, "1 number inside rtol 0, atol 1e-08"),
        (
            '{"b": 1, "a": [1.0, 2.0]}',
            '{"a": [1.5, 2.5], "b": 1.0}',
            {"rtol": 0.5},
            "2 numbers inside rtol 0.5, atol 0 (largest relative difference 0.5); "
            "1 number equal but integer in one and decimal in the other; key order",
        ),
        ('{"t": 1, "v": 2}', '{"t": 9, "v": 2}', {"ignore": ("t",)}, f"1 ignored difference; {EXACT}"),
        ('{"t": [1]}', '{"t":[1]}', {"ignore": ("t",)}, f"formatting only; {EXACT}"),
        (
            '{"a": [{"time": 1, "v": 1}, {"time": 2, "v": 1}]}',
            '{"a": [{"time": 3, "v": 1}, {"time": 4, "v": 1}]}',
            {"ignore": ("a.*.time",)},
            f"2 ignored differences; {EXACT}",
        ),
        ('{"a": 1}', '{"a": 1, "b": 2}', {"ignore": ("b",)}, f"1 ignored difference; {EXACT}"),
        ("[1, 2, 3]", "[1, 5]", {"ignore": ("1", "2")}, f"2 ignored differences; {EXACT}"),
        ("1", "2", {"ignore": ("*",), "atol": 1}, "1 number inside rtol 0, atol 1 (largest relative difference 1)"),
    ],
)
def test_is_equivalent(compare, original: str, replayed: str, options: dict[str, Any], detail: str) -> None:
    found = compare(original, replayed, "json", **options)
    assert (found.verdict, found.detail) == (Verdict.EQUIVALENT, detail)


@pytest.mark.parametrize(
    ("original", "replayed", "options", "detail"),
    [
        ("1", "2", {}, "1 difference: the top 1 became 2; largest relative difference 1"),
        ('{"a": {"b": ["x"]}}', '{"a": {"b": ["y"]}}', {}, '1 difference: a.b.0 "x" became "y"'),
        ('{"a": 1}', '{"b": 1}', {}, "2 differences: a 1 became absent, b absent became 1"),
        ("[1, 2]", "[1]", {}, "1 difference: the top 2 items became 1 item"),
        ('{"a": [1]}', '{"a": {"0": 1}}', {}, "1 difference: a a list of 1 item became an object of 1 key"),
        ("[1]", "[true]", {}, "1 difference: 0 1 became true"),
        ("[0]", "[false]", {"atol": 5}, "1 difference: 0 0 became false"),
        ("[null]", "[NaN]", {}, "1 difference: 0 null became NaN"),
        ("[1]", "[NaN]", {"atol": 9}, "1 difference: 0 1 became NaN"),
        ("[Infinity]", "[-Infinity]", {"atol": 9}, "1 difference: 0 Infinity became -Infinity"),
        ("[1e300]", "[Infinity]", {"rtol": 1e300}, "1 difference: 0 1e+300 became Infinity"),
        ('["1"]', "[1]", {}, '1 difference: 0 "1" became 1'),
        (
            "[1, 2, 3, 4, 5]",
            "[2, 3, 4, 5, 6]",
            {},
            "5 differences: 0 1 became 2, 1 2 became 3, 2 3 became 4 and 2 more; largest relative difference 1",
        ),
        (
            "[1.0, 100]",
            "[2.0, 101]",
            {"rtol": 0.1},
            "1 difference: 0 1.0 became 2.0; largest relative difference 1; "
            "1 number inside rtol 0.1, atol 0 (largest relative difference 0.01)",
        ),
        (
            '{"t": 1, "v": 1}',
            '{"t": 2, "v": "x"}',
            {"ignore": ("t",)},
            '1 difference: v 1 became "x"; 1 ignored difference',
        ),
        ("[1, 2, 3]", "[1]", {"ignore": ("2",)}, "1 difference: the top 3 items became 1 item; 1 ignored difference"),
        (
            "9007199254740993",
            "9007199254740992.0",
            {},
            "1 difference: the top 9007199254740993 became 9007199254740992.0; largest relative difference 1.11e-16",
        ),
        (
            "1" + "0" * 100,
            "1" + "0" * 99 + "1",
            {},
            f"1 difference: the top 1{'0' * 58}… became 1{'0' * 58}…; largest relative difference 1e-100",
        ),
    ],
)
def test_has_diverged(compare, original: str, replayed: str, options: dict[str, Any], detail: str) -> None:
    found = compare(original, replayed, "json", **options)
    assert (found.verdict, found.detail) == (Verdict.DIVERGED, detail)


def test_great_integers_are_compared_within_the_tolerance_too(compare) -> None:
    great = 10**400
    assert compare(f"[{great}]", f"[{great + 10**390}]", "json", rtol=1e-9).verdict is Verdict.EQUIVALENT
    assert compare(f"[{great}]", f"[{great + 10**392}]", "json", rtol=1e-9).verdict is Verdict.DIVERGED
    assert "relative difference inf" in compare("[1]", f"[{great}]", "json").detail
    assert compare(f"[{great}]", "[1e308]", "json", rtol=0.5).verdict is Verdict.DIVERGED


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "not JSON: line 1 column 1: Expecting value"),
        ('{"a": 1,\n "b": }', "not JSON: line 2 column 7: Expecting value"),
        ('{"a": [1, 2', "not JSON: line 1 column 12: Expecting ',' delimiter"),
        ("{} {}", "not JSON: line 1 column 4: Extra data"),
        (b'["\xff"]', "not UTF-8 at byte 2"),
        ('{"a": 1, "b": 2, "a": 3}', 'key "a" appears twice in one object'),
        ('{"\\u001b": 1, "\\u001b": 3}', 'key "\\x1b" appears twice in one object'),
        ("[" * 501 + "]" * 501, "nested more than 500 levels deep"),
        ("[" * 200_000 + "]" * 200_000, "nested more than 500 levels deep"),
        ('{"a":' * 200_000, "nested more than 500 levels deep"),
        ("9" * 5000, "an integer of 5000 digits, more than the 4300 that are read"),
        ("[1, -1e999]", "the number -1e999 is beyond what a double holds"),
        ("9" * 3_000_000, "an integer of 3000000 digits, more than the 4300 that are read"),
    ],
)
def test_a_malformed_file_has_diverged_and_says_where(compare, content: str | bytes, problem: str) -> None:
    found = compare("[]", content, "json")
    assert (found.verdict, found.detail) == (Verdict.DIVERGED, f"replay: {problem}")
    found = compare(content, "[]", "json")
    assert (found.verdict, found.detail) == (Verdict.DIVERGED, f"original: {problem}")
    assert compare(content, content, "json").verdict is Verdict.IDENTICAL


@pytest.mark.parametrize("limit", [0, 640])
def test_the_limit_of_integers_is_not_the_interpreters(compare, limit: int) -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(limit)
    try:
        found = compare("[]", "9" * 5000, "json")
    finally:
        sys.set_int_max_str_digits(before)
    assert found.detail == "replay: an integer of 5000 digits, more than the 4300 that are read"


@pytest.mark.parametrize(("kind", "text"), [("json", "[{}]"), ("yaml", "- {}"), ("toml", "a = {}")])
def test_numbers_beyond_a_double_are_not_one_infinity(compare, kind: str, text: str) -> None:
    found = compare(text.format("1e999"), text.format("1e998"), kind)
    assert found.verdict is Verdict.DIVERGED and "beyond what a double holds" in found.detail, found


def test_two_malformed_files_are_compared_as_bytes(compare) -> None:
    found = compare("{", "[", "json")
    assert found.verdict is Verdict.DIVERGED
    assert found.detail.startswith("compared as bytes (original: not JSON: line 1 column 2: ")
    assert found.detail.endswith('first difference at byte 0, line 1: original "{", replay "["')


def test_nesting_up_to_the_limit_is_compared(compare) -> None:
    deep = "[" * 500 + "1" + "]" * 500
    assert compare(deep, deep + " ", "json").verdict is Verdict.EQUIVALENT
    assert compare(deep, deep.replace("1", "2"), "json").verdict is Verdict.DIVERGED


def test_a_file_over_the_limit_is_compared_as_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("[]")
    (tmp_path / "b").write_text("[" + "1," * (1 << 19) + "1]")
    found = Language(jsonread.load, 1 << 20).compare(tmp_path / "a", tmp_path / "b", OutputRule("json"))
    assert found.verdict is Verdict.DIVERGED
    assert found.detail.startswith("over 1 MiB, compared as bytes: 2 bytes became ")


def test_details_are_bounded_and_safe(compare) -> None:
    nasty = "\x1b]0;title\x07" * 1000
    found = compare(json.dumps({nasty: nasty}), json.dumps({nasty: 1, "\ud800": 2}), "json")
    assert found.detail.isprintable()
    assert len(found.detail) < 700


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(st.characters(codec=None, exclude_categories=[]), max_size=5)
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(_VALUES)
def test_a_value_is_itself_however_it_is_written(compare, value: Any) -> None:
    text = json.dumps(value)
    assert compare(text, text, "json").verdict is Verdict.IDENTICAL
    found = compare(text, json.dumps(value, indent=1) + "\n", "json")
    assert (found.verdict, found.detail) == (Verdict.EQUIVALENT, f"formatting only; {EXACT}")


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_identical_to_themselves(compare, content: bytes) -> None:
    assert compare(content, content, "json").verdict is Verdict.IDENTICAL


@settings(deadline=None)
@given(_VALUES, _VALUES)
def test_exact_comparison_is_symmetric_and_told_by_python_too(compare, a: Any, b: Any) -> None:
    left, right = json.dumps(a) + " ", json.dumps(b)
    there, back = compare(left, right, "json"), compare(right, left, "json")
    assert there.verdict is back.verdict
    if there.verdict is Verdict.DIVERGED:
        assert json.dumps(a, sort_keys=True) != json.dumps(b, sort_keys=True)
    else:
        assert _spelled(a) == _spelled(b)


def _spelled(value: Any) -> Any:
    """The value with all that may not matter taken out, and NaN made comparable."""
    if isinstance(value, dict):
        return {"object": {key: _spelled(member) for key, member in value.items()}}
    if isinstance(value, list):
        return [_spelled(item) for item in value]
    if isinstance(value, float) and math.isnan(value):
        return "NaN!"
    return ("bool", value) if isinstance(value, bool) else value


_NUMBERS = st.floats() | st.integers(-(2**53), 2**53) | st.sampled_from([0.0, 1.0, 1.5, 1e-9])
_TOLERANCES = st.floats(0, 10) | st.sampled_from([0.0, 1e-9, 1e-6, 0.5])


@st.composite
def _near(draw: st.DrawFn) -> tuple[float, float]:
    """Two numbers, often close to each other."""
    number = draw(_NUMBERS)
    factor = draw(st.sampled_from([0.0, 1e-9, 1e-6, 1e-6 * (1 + 1e-15), 0.5, -0.5]))
    return number, draw(st.just(number + number * factor) | _NUMBERS)


@settings(deadline=None)
@given(st.lists(_near(), min_size=1, max_size=5), _TOLERANCES, _TOLERANCES)
def test_agrees_with_numpy(compare, pairs: list[tuple[float, float]], rtol: float, atol: float) -> None:
    testing = pytest.importorskip("numpy.testing")
    import numpy

    original, replayed = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    with numpy.errstate(all="ignore"):
        try:
            testing.assert_allclose(actual=replayed, desired=original, rtol=rtol, atol=atol)
            close = True
        except AssertionError:
            close = False
    found = compare(json.dumps(original), json.dumps(replayed) + "\n", "json", rtol=rtol, atol=atol)
    assert (found.verdict is Verdict.EQUIVALENT) is close


@settings(deadline=None)
@given(st.lists(_near(), min_size=1, max_size=5), _TOLERANCES, _TOLERANCES, _TOLERANCES, _TOLERANCES)
def test_a_wider_tolerance_never_tells_more_apart(
    compare, pairs: list[tuple[float, float]], rtol: float, atol: float, more: float, wider: float
) -> None:
    original, replayed = (json.dumps([pair[side] for pair in pairs]) for side in (0, 1))
    found = compare(original, replayed + " ", "json", rtol=rtol, atol=atol)
    assume(found.verdict is Verdict.EQUIVALENT)
    found = compare(original, replayed + " ", "json", rtol=rtol + more, atol=atol + wider)
    assert found.verdict is Verdict.EQUIVALENT
    assert f"rtol {rtol + more!r}".removesuffix(".0") in found.detail


# --- tolerances by path, YAML, TOML ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tolerances", "verdict"),
    [
        ({"a.loss": 0.5}, Verdict.EQUIVALENT),
        ({"a": 0.5}, Verdict.EQUIVALENT),
        ({"*.loss": 0.5}, Verdict.EQUIVALENT),
        ({"a": 0.5, "a.loss": 0.0}, Verdict.DIVERGED),
        ({"a": 0.0, "*.loss": 0.5}, Verdict.EQUIVALENT),
        ({"*.loss": 0.5, "a.loss": 0.0}, Verdict.DIVERGED),
        ({"a.loss": 0.0, "*.loss": 0.5}, Verdict.DIVERGED),
        ({"b": 0.5, "a.los": 0.5}, Verdict.DIVERGED),
    ],
)
def test_the_deepest_path_then_the_plainest_gives_the_tolerance(compare, tolerances, verdict: Verdict) -> None:
    given = {path: NumberTolerance(rtol=rtol) for path, rtol in tolerances.items()}
    found = compare('{"a": {"loss": 1.0}}', '{"a": {"loss": 1.2}}', "json", tolerances=given)
    assert found.verdict is verdict


def test_a_tolerance_of_a_path_is_told(compare) -> None:
    given = {"a": NumberTolerance(rtol=0.5)}
    found = compare('{"a": 1, "b": 1}', '{"a": 1.5, "b": 1}', "json", rtol=1e-6, tolerances=given)
    told = "1 number inside rtol 1e-06, atol 0 (a: rtol 0.5, atol 0) (largest relative difference 0.5)"
    assert (found.verdict, found.detail) == (Verdict.EQUIVALENT, told)
    assert compare('{"b": 1}', '{"b": 1.5}', "json", rtol=1e-6, tolerances=given).verdict is Verdict.DIVERGED


@pytest.mark.parametrize(
    ("name", "original", "replayed", "verdict", "detail"),
    [
        ("yaml", "a: 1\nb: [x]\n", "{b: [x], a: 1}", Verdict.EQUIVALENT, f"key order; {EXACT}"),
        ("yaml", "a: no", "a: false", Verdict.DIVERGED, '1 difference: a "no" became false'),
        ("yaml", "a: &x 1\nb: *x\n", "a: 1\nb: 1\n", Verdict.EQUIVALENT, f"formatting only; {EXACT}"),
        ("yaml", "a: 1", "a: [", Verdict.DIVERGED, "replay: not YAML that is read here: line "),
        ("yaml", "a: 1", "a: !!python/object:os.system x", Verdict.DIVERGED, "replay: not YAML that is read here"),
        ("yaml", "a: 1", "a: 1\na: 1", Verdict.DIVERGED, "replay: not YAML that is read here: line 2: the key"),
        ("yaml", "a: 1", b"a: \xff", Verdict.DIVERGED, "replay: not UTF-8 at byte 3"),
        ("yaml", "a: 1", "[" * 5000, Verdict.DIVERGED, "replay: not YAML that is read here"),
        ("toml", "a = 1\nb.c = 2", "b = {c = 2}\na = 1", Verdict.EQUIVALENT, f"key order; {EXACT}"),
        (
            "toml",
            "d = 1979-05-27",
            "d = 1979-05-28",
            Verdict.DIVERGED,
            "1 difference: d 1979-05-27 became 1979-05-28",
        ),
        ("toml", "a = 1", "a = ", Verdict.DIVERGED, "replay: not TOML: "),
        ("toml", "a = 1", f"a = {'9' * 5000}", Verdict.DIVERGED, "replay: not TOML: "),
        ("toml", "a = 1", b"a = '\xff'", Verdict.DIVERGED, "replay: not UTF-8 at byte 5"),
        ("toml", "a = 1", "a." * 2_000_000 + "a = 1", Verdict.DIVERGED, "replay: nested more than 500 levels deep"),
        ("toml", "a = 1", '"a" . ' * 600 + "a = 1", Verdict.DIVERGED, "replay: nested more than 500 levels deep"),
        ("toml", "a = 1", "a = " + "[" * 100_000, Verdict.DIVERGED, "replay: nested more than 500 levels deep"),
    ],
)
def test_other_languages_of_values(
    compare, name: str, original: str, replayed: str | bytes, verdict: Verdict, detail: str
) -> None:
    found = compare(original, replayed, name)
    assert found.verdict is verdict
    assert found.detail.startswith(detail)


def test_aliases_of_yaml_do_not_multiply(compare) -> None:
    laughs = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    found = compare("a: 1", laughs, "yaml")
    assert found.verdict is Verdict.DIVERGED
    assert "aliases expand to more than" in found.detail


@settings(deadline=None)
@given(_VALUES, st.sampled_from(["json", "yaml"]))
def test_the_languages_agree_about_values_that_both_can_hold(compare, value: Any, name: str) -> None:
    text = json.dumps(value).replace("NaN", ".nan").replace("-Infinity", "-.inf").replace("Infinity", ".inf")
    assume(name == "json" or '"' not in text)
    source = json.dumps(value) if name == "json" else text
    assert compare(source, source + "\n", name).verdict is Verdict.EQUIVALENT
