"""Pages and charts from the templates in `templates/`; all text that goes in is escaped."""

from __future__ import annotations

import functools
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tga_jax.html.formats import words


@functools.cache
def _environment() -> Environment:
    """A name that a template asks for and that nobody gave is an error."""
    environment = Environment(
        loader=PackageLoader("tga_jax.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.filters |= {"short": short, "words": words}
    return environment


def render(template: str, **values: Any) -> Markup:
    """A template of this room, filled in; `Markup` that is given goes in as it is.

    Args:
        template: the file's name in `templates/`.
        values: what the template asks for by name.
    """
    return Markup(_environment().get_template(template).render(**values))


def source(template: str) -> str:
    """A template's text as it is, without anything filled in."""
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, template)[0]


def short(value: float) -> str:
    """A coordinate with at most two decimals, so that the page stays small."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
