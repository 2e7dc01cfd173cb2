from __future__ import annotations

import math

import pytest

from runner.compare import check_rule
from runner.errors import UsageError
from runner.state.spec import OutputRule


@pytest.mark.parametrize(
    "rule",
    [
        OutputRule(),
        OutputRule("text"),
        OutputRule("text", normalise=("line-ends", "paths", "timestamps")),
        OutputRule("json", rtol=1e-6, atol=0.5, ignore=("a.*.time", "*", "b.0")),
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
    assert error.value.why == "known are bytes, json, text"
