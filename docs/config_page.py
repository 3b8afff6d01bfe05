"""docs/config.md, the reference of every configuration key: `python -m docs.config_page`.

Keys, types and defaults are those of tga_jax/config.py; the meanings are in docs/config_keys.toml.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from tga_jax.config import STAGES, base_config

FOLDER = Path(__file__).parent
PAGE, MEANINGS = FOLDER / "config.md", FOLDER / "config_keys.toml"
TYPES = {bool: "true or false", int: "whole number", float: "number", str: "text", tuple: "list"}
HEAD = """# Every configuration key

Set a key with `--config.KEY=VALUE`, as in `--config.finetune.learning_rate=1e-5`. A list is written
like `--config.data.buckets="(128,256)"`. `--print_config` shows the configuration that a command
results in. A file in `configs/` holds what differs from these defaults. `{workdir}` in a value
stands for the workdir.

`python -m docs.config_page` makes this page from `tga_jax/config.py`.
"""


def keys(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Key with its sections -> default; a table without keys is a value."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        inner = isinstance(value, dict) and value
        found |= keys(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return found


def meanings() -> dict[str, dict[str, str]]:
    """Section -> its keys' meanings and "about", as the file has them."""
    return tomllib.loads(MEANINGS.read_text(encoding="utf-8"))


def places(section: str) -> tuple[str, ...]:
    """The beginnings of the keys of a section: "stage" is both stages."""
    if section == "stage":
        return tuple(f"{stage}." for stage in STAGES)
    return (f"{section}." if section else "",)


def page() -> str:
    """The whole page.

    Raises:
        KeyError: a key has no meaning in the file.
    """
    defaults, lines = keys(base_config().to_dict()), [HEAD]
    for section, told in meanings().items():
        title = {"": "The run", "stage": "pretrain and finetune"}.get(section, section)
        lines += [f"## {title}\n", f"{told['about']}\n", "| key | type | default | meaning |"]
        lines.append("|---|---|---|---|")
        lines += [
            _row(section, name, text, defaults) for name, text in told.items() if name != "about"
        ]
        lines.append("")
    return "\n".join(lines)


def _row(section: str, name: str, text: str, defaults: dict[str, Any]) -> str:
    values = [defaults[place + name] for place in places(section)]
    kind = TYPES.get(type(values[0]), "table" if values[0] == {} else "text or None")
    shown = " / ".join(dict.fromkeys(f"`{_cell(repr(value))}`" for value in values))
    key = f"{section}.{name}" if section not in ("", "stage") else name
    return f"| `{key}` | {kind} | {shown} | {_cell(text)} |"


def _cell(text: str) -> str:
    """A text that does not end its cell."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
