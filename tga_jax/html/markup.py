"""HTML and SVG as text that is escaped unless it says that it is markup already."""

from __future__ import annotations

import html
from collections.abc import Iterable

VOID = ("br", "img", "input", "meta", "hr")


class Markup(str):
    """Text that goes into the page as it is; any other `str` is escaped."""


Child = str | Iterable["Child"] | None


def tag(name: str, /, *children: Child, **attributes: object) -> Markup:
    """An element.

    Args:
        name: of the element.
        children: texts, elements, or iterables of them; None is nothing.
        attributes: a trailing underscore is dropped and others become dashes, so `class_` is
            "class" and `stroke_width` "stroke-width"; None leaves one out, True has no value.
    """
    head = "".join(
        f" {_name(key)}" if value is True else f' {_name(key)}="{html.escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Markup(f"<{name}{head}>")
    return Markup(f"<{name}{head}>{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Children one after the other, escaped where they are no markup."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(html.escape(child))
        else:
            parts.append(join(child))
    return Markup("".join(parts))


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _value(value: object) -> str:
    """Coordinates with at most two decimals: the page stays small."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
