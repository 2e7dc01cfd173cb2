"""YAML by the rules of 1.2 and within bounds; what is written reads the same under 1.1 and 1.2."""

from __future__ import annotations

import math
import struct
import time
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import UsageError
from runner.state import yaml_reader
from runner.state.strict import load_yaml
from runner.state.yaml_reader import MAX_EXPANDED, locate, read_yaml
from runner.state.yaml_writer import write_yaml

AWKWARD = [
    *["", " ", "no", "Yes", "on", "OFF", "y", "N", "true", "TRUE", "null", "Null", "~", "=", "<<", "-", "--", "---"],
    *[
        "...",
        "... x",
        "?",
        "? x",
        ":",
        ": x",
        "a: b",
        "a:",
        "#",
        "a #b",
        "a#b",
        "!x",
        "&a",
        "*a",
        "%x",
        "@x",
        "`x",
        "|",
    ],
    *["012", "0o14", "0x1f", "0b11", "1_000", "1:30", "190:20:30", "1e3", "1E-3", "1.", ".5", "-.5", "+1", "-0.0"],
    *[".inf", "-.INF", ".nan", "2020-01-01", "2020-1-1", "2020-01-01T00:00:00Z", "3.4", "3.11.2", "1e10f", "0"],
    *[
        "[a]",
        "{a: b}",
        "a, b",
        "'",
        '"',
        "it's",
        'say "x"',
        "\\",
        "\\n",
        "\n",
        "a\nb",
        "a\n",
        "\na",
        "\r\n",
        "\t",
        "a\tb",
    ],
    *[
        "\0",
        "\x07",
        "\x7f",
        "\x85",
        "\xa0",
        "\u2028",
        "\u2029",
        "\ufeff",
        "\ufeffx",
        "\u202e",
        "\ue000",
        "\ufffe",
        "😀",
    ],
    *[
        "größe",
        "日本語",
        " leading",
        "trailing ",
        "two  spaces",
        "x" * 2000,
        "x y" * 1000,
        "-c",
        "- c",
        "a:b",
        "::",
        "a::",
    ],
]

text = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(AWKWARD)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | text
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(text, inner, max_size=5), max_leaves=20
)
mappings = st.dictionaries(text, values, max_size=6)


def exact(value: Any) -> Any:
    """Told apart by type and bits: `0.0` from `-0.0`, `1` from `True` and `1.0`; NaN equals itself."""
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [exact(item) for item in value]
    if isinstance(value, float):
        return ("float", "nan" if math.isnan(value) else struct.pack(">d", value))
    return (type(value).__name__, value)


def why(data: str | bytes) -> str:
    with pytest.raises(UsageError) as caught:
        load_yaml(data.encode() if isinstance(data, str) else data, "f.yaml")
    assert caught.value.what == "cannot read f.yaml"
    assert "\n" not in caught.value.why
    return caught.value.why


# --- there and back ------------------------------------------------------------------------------------------


@given(mappings)
def test_what_is_written_is_read_again(value: dict[str, Any]) -> None:
    data = write_yaml(value) if value else b"{}"
    found = read_yaml(data.decode())
    assert exact(found) == exact(value)
    assert list(found) == list(value)


@given(mappings.filter(bool))
def test_a_stock_parser_of_yaml_1_1_reads_the_same(value: dict[str, Any]) -> None:
    assert exact(yaml.safe_load(write_yaml(value))) == exact(value)


@pytest.mark.parametrize("string", AWKWARD)
def test_an_awkward_string_stays_itself_everywhere(string: str) -> None:
    value = {"value": string, "list": [string, [string]], "rows": [{string: string}], string or "e": {string: 1}}
    data = write_yaml(value)
    assert read_yaml(data.decode()) == value
    assert yaml.load(data, yaml.SafeLoader) == value
    assert yaml.load(data, yaml.CSafeLoader) == value


@given(st.dictionaries(text, text, min_size=1))
def test_what_an_eye_cannot_see_is_escaped(value: dict[str, str]) -> None:
    written = write_yaml(value).decode()
    assert not set(written) & {*"\t\r\0\x7f\x85\xa0\xad\u200b\u2028\u202e\ufeff\U000e0001"}


def test_the_style_is_made_for_review() -> None:
    value = {
        "command": ["sh", "-c", "python train.py && " + "x" * 100],
        "short": ["a", "b"],
        "long": ["a" * 60, "b" * 60],
        "rows": [{"name": "idna", "version": "3.4", "sha256": "sha256:00"}],
        "nothing": {"map": {}, "list": [], "null": None},
        "numbers": [1, -0.0, 1e-06, 1e22, math.inf, True],
    }
    assert write_yaml(value).decode().splitlines() == [
        "command: [sh, -c, python train.py && " + "x" * 100 + "]",
        "short: [a, b]",
        "long:",
        "- " + "a" * 60,
        "- " + "b" * 60,
        "rows:",
        "- {name: idna, version: '3.4', sha256: sha256:00}",
        "nothing:",
        "  map: {}",
        "  list: []",
        "  'null': null",
        "numbers: [1, -0.0, 1.0e-06, 1.0e+22, .inf, true]",
    ]


# --- YAML 1.2 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("012", 12),
        ("0o14", 12),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("+7", 7),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("2020-01-01 10:00:00", "2020-01-01 10:00:00"),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("True", True),
        ("tRUE", "tRUE"),
        ("~", None),
        ("", None),
        ("=", "="),
        ("<<", "<<"),
        ("'12'", "12"),
        ('""', ""),
        ("1٣", "1٣"),
        ("9" * 100, int("9" * 100)),
    ],
)
def test_scalars_are_resolved_by_the_core_schema(written: str, value: Any) -> None:
    assert exact(load_yaml(f"a: {written}\n".encode(), "f")) == exact({"a": value})


def test_a_machine_without_libyaml_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_yaml({"awkward": AWKWARD, "rows": [{"a": 1.5}], "x" * 2000: None})
    quick = read_yaml(data.decode())
    monkeypatch.setattr(yaml_reader, "_LOADER", yaml.SafeLoader)
    assert read_yaml(data.decode()) == quick
    assert 'line 2: the key "a" is given twice; it stands in line 1 already' in why("a: 1\na: 2\n")
    assert "nested deeper" in why("[" * 1000)


def test_a_file_without_a_document_is_none() -> None:
    assert load_yaml(b"", "f") is None
    assert load_yaml(b"# nothing yet\n", "f") is None


def test_aliases_are_read() -> None:
    assert load_yaml(b"a: &x {k: 1}\nb: [*x, *x]\n", "f") == {"a": {"k": 1}, "b": [{"k": 1}, {"k": 1}]}


# --- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", 'line 3: the key "a" is given twice; it stands in line 1 already'),
        ("x: {a: 1,\n 'a': 3}\n", 'line 2: the key "a" is given twice; it stands in line 1 already'),
        ("a: 1\n1: x\n", "line 2: the key 1 is no string; put it in quotes"),
        ("null: x\n", "line 1: the key null is no string; put it in quotes"),
        ("?\n: x\n", "line 1: the key (nothing) is no string; put it in quotes"),
        ("? [a]\n: x\n", "line 1: the key that starts here is no string; put it in quotes"),
        ("a: 1\n---\nb: 1\n", "line 2: a second document starts; one file holds one"),
        ("a: !!python/object:os.system x\n", 'the tag "tag:yaml.org,2002:python/object:os.system"'),
        ("a: !x [1]\n", 'line 1: the tag "!x"'),
        ("a: *b\n", "line 1: the alias *b is not defined above"),
        ("a: &x [*x]\n", "line 1: the alias *x holds itself"),
        ("a:\n\t- 1\n", "line 2: a tab cannot stand here; indent with spaces"),
        ("a: größe\nb: @x\n", 'line 2: "@" cannot stand here; put the text in quotes'),
        ("a: b: c\n", "line 1: a `:` that starts no value here"),
        ("a: [1\n", "line 2: did not find expected ',' or ']'"),
        ("a: 1\nb: \x07\n", "line 2: the character U+0007"),
        ("a: \0\n", "line 1: the character U+0000"),
        ("a: 'x\x85y'\n", "line 1: the character U+0085"),
        ("a: x\u2028y\n", "line 1: the character U+2028"),
        ("\ufeffa: 1\n", "line 1: it starts with a byte order mark"),
        (b"a: 1\nb: \xff\n", "line 2: the byte 0xff is not UTF-8"),
        ("a: 1\n".encode("utf-16"), "line 1: the byte 0xff is not UTF-8"),
        ("a: " + "1" * 5000, "line 1: a number of too many digits"),
    ],
)
def test_what_is_refused_is_named_with_its_line(data: str | bytes, expected: str) -> None:
    assert expected in why(data)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "[{a: "])
def test_depth_is_bounded_before_it_costs_anything(opening: str) -> None:
    started = time.process_time()
    assert why(opening * 100_000) == "line 1: nested deeper than 100 levels"
    assert time.process_time() - started < 5


def test_a_hundred_levels_are_read() -> None:
    assert load_yaml(b"[" * 100 + b"]" * 100, "f")
    assert "nested deeper" in why("[" * 101 + "]" * 101)


def laughs(levels: int) -> str:
    lines = ["l0: &l0 [ha, ha]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


def test_aliases_may_not_expand_without_bound() -> None:
    assert load_yaml(laughs(4).encode(), "f")
    assert f"aliases expand to more than {MAX_EXPANDED:,} values" in why(laughs(200))


def test_the_size_is_bounded() -> None:
    with pytest.raises(UsageError, match=r"f is too large"):
        load_yaml(b"a: " + b"x" * (16 << 20), "f")
    with pytest.raises(UsageError, match=r"f is too large"):
        load_yaml(b"a: xxx", "f", limit=5)


@given(st.binary(max_size=200) | text.map(str.encode) | st.text("-:[]{}#&*!|>'\"%@,?. \n\tab01~<").map(str.encode))
def test_any_bytes_give_a_value_or_a_usage_error(data: bytes) -> None:
    try:
        load_yaml(data, "f")
    except UsageError as error:
        assert "\n" not in error.why and error.next


# --- where things stand --------------------------------------------------------------------------------------


def test_every_key_and_item_has_its_line() -> None:
    assert locate("a:\n  b: 1\n  c:\n  - x\n  - {d: 2}\n") == {
        (): 1,
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 3,
        ("a", "c", 0): 4,
        ("a", "c", 1): 5,
        ("a", "c", 1, "d"): 5,
    }


def test_a_text_that_is_no_yaml_has_no_lines() -> None:
    assert locate("a: [") == {}
