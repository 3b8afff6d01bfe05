"""The date that a chat template writes into prompts: one for a workdir, whatever the day is."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

from tga_jax.cluster import hosts
from tga_jax.errors import UserError
from tga_jax.files import write_json

FILE = "prompt_date.json"


def prompt_date(workdir: Path, given: str) -> datetime.date:
    """The date of all prompts of a workdir.

    Args:
        workdir: keeps the date of its first prompts in prompt_date.json; for an arm of an
            experiment the experiment does, so that all arms have the same prompts.
        given: config.prompt.date, like "2026-11-28"; "": the date that is kept, or else today.

    Raises:
        UserError: `given` or what is kept is no date.
    """
    home = workdir.parents[1] if workdir.parent.name == "arms" else workdir
    path = home / FILE
    if given:
        return _date(given, f"config.prompt.date={given!r}")
    return _date(hosts.broadcast_from_first(lambda: _kept(path)), str(path))


def _kept(path: Path) -> str:
    """The date in the file, which is written with today's where there is none."""
    if not path.exists():
        write_json(path, {"date": datetime.date.today().isoformat()})
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["date"])
    except (ValueError, KeyError, TypeError):
        return ""


def _date(text: str, where: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise UserError(f"{where}: it is no date; write it like 2026-11-28") from None
