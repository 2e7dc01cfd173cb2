"""Moments as specs, records and statements write them, in UTC to the second; and lengths of time as people do."""

from __future__ import annotations

import datetime

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def moment_text(moment: datetime.datetime) -> str:
    """Like `2026-11-20T03:00:00Z`, of a moment in UTC."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def now_text() -> str:
    return moment_text(datetime.datetime.now(datetime.UTC))


def span_of(count: str, unit: str) -> datetime.timedelta:
    """Of a count and `s`, `m`, `h`, `d` or `w`."""
    return datetime.timedelta(seconds=float(count) * _UNITS_S[unit])
