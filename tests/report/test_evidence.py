"""What is taken along of a log."""

from __future__ import annotations

from pathlib import Path

from runner.evidence import LARGEST, _log


def test_of_a_large_log_the_end_is_taken_even_where_the_other_stream_was_erased(tmp_path: Path) -> None:
    assert _log(tmp_path) == b""
    (tmp_path / "stdout").write_bytes(b"x" * LARGEST + b"\nthe last words\n")
    found = _log(tmp_path)
    assert found.startswith("… the end of stdout:".encode()) and found.endswith(b"the last words\n")
