"""HTML that is made of values: what is not made by `tag` is text, and is escaped."""

from __future__ import annotations

import html

VOID = frozenset(("input", "meta"))


class Html(str):
    """Markup that was made here."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str | None) -> Html:
    """An element. A trailing underscore of an attribute's name falls away, other underscores become hyphens; one that
    is None is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>" if name in VOID else f"<{name}{written}>{text(*children)}</{name}>")


def text(*children: str) -> Html:
    """One after the other; what is no markup is escaped."""
    return Html("".join(one if isinstance(one, Html) else html.escape(one) for one in children))
