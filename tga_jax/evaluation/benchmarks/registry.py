"""The kinds of benchmarks, and `config.evaluate.benchmarks`, which names those of a run.

A comma list of entries, each `KIND:PATH` with optional name in front and options behind:

    pope:data/pope?images=data/coco/val2014, hod:data/hod,
    new=questions:eval.jsonl?scene=group&limit=50, figstep-benign=texts:benign.csv?wrap=figstep

A comma splits only in front of another `KIND:` or `NAME=KIND:`. In an option's value, write
%26 for an ampersand and %2C for a comma that would split.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

from tga_jax.errors import UserError
from tga_jax.evaluation import answers
from tga_jax.evaluation.benchmarks import (
    figstep,
    folders,
    mm_safetybench,
    pope,
    questions,
    scienceqa,
    texts,
    vlguard,
)
from tga_jax.evaluation.items import EvalItem, Missing

Scorer = Callable[[EvalItem, str], bool | None]

COMMON_OPTIONS = ("images", "wrap", "examples", "limit", "part", "retrieved", "control")


@dataclasses.dataclass(frozen=True)
class Kind:
    """A format: its reader, its own options, and when one of its answers is right."""

    read: Callable[..., Iterator[EvalItem | Missing]]
    options: tuple[str, ...]
    correct: Scorer = answers.label_in_answer
    lenient: Scorer | None = None  # an own rule beside the published one: accuracy_lenient
    yes_no: bool = False  # precision, recall, F1 and yes ratio make sense
    free_answers: bool = False  # exact match makes sense


KINDS: dict[str, Kind] = {
    "scenes": Kind(folders.read_scenes, folders.SCENES_OPTIONS),
    "hod": Kind(folders.read_hod, folders.HOD_OPTIONS),
    "mm_safetybench": Kind(mm_safetybench.read, mm_safetybench.OPTIONS),
    "figstep": Kind(figstep.read, figstep.OPTIONS),
    "vlguard": Kind(vlguard.read, vlguard.OPTIONS),
    "questions": Kind(questions.read, questions.OPTIONS, free_answers=True),
    "texts": Kind(texts.read, texts.OPTIONS, free_answers=True),
    "pope": Kind(pope.read, pope.OPTIONS, answers.pope_correct, yes_no=True),
    "scienceqa": Kind(
        scienceqa.read,
        scienceqa.OPTIONS,
        answers.scienceqa_correct,
        lenient=answers.scienceqa_correct_lenient,
    ),
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One benchmark of a run."""

    name: str
    kind: str
    path: Path
    options: dict[str, str]


_HEAD = r"(?:[\w.+-]+=)?\w+:"
_ENTRY = re.compile(r"(?:(?P<name>[\w.+-]+)=)?(?P<kind>\w+):(?P<path>[^?]+)(?:\?(?P<options>.*))?")


def parse_entries(text: str, *, key: str = "config.evaluate.benchmarks") -> list[Entry]:
    """The entries of a list of benchmarks, as config.evaluate.benchmarks writes it.

    Args:
        text: the list.
        key: where it stands, for an error.

    Raises:
        UserError: an unknown kind, option or control, or two entries of one name.
    """
    parts = re.split(rf"[,\n]\s*(?={_HEAD})", text.strip().rstrip(","))
    entries = [_entry(part.strip().rstrip(","), key) for part in parts if part.strip()]
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"{key}: two benchmarks are called {name!r}; call one of them NAME=KIND:PATH"
            )
    for entry in entries:
        control = entry.options.get("control", entry.name)
        if control not in names:
            raise UserError(
                f"{key}: {entry.name}: control={control!r} is no benchmark of "
                f"this run; there are {', '.join(names)}"
            )
    return entries


def _entry(part: str, key: str) -> Entry:
    where = f"{key}: {part!r}"
    match = _ENTRY.fullmatch(part)
    if match is None:
        raise UserError(f"{where}: write it as KIND:PATH, like pope:data/pope")
    kind = match["kind"]
    if kind not in KINDS:
        raise UserError(f"{where}: there is no kind {kind!r}; there are {', '.join(KINDS)}")
    options: dict[str, str] = {}
    for option in filter(None, (match["options"] or "").split("&")):
        name, _, value = option.partition("=")
        allowed = (*KINDS[kind].options, *COMMON_OPTIONS)
        if name not in allowed:
            raise UserError(f"{where}: there is no option {name!r}; there are {', '.join(allowed)}")
        options[name] = unquote(value)
    wrap = options.get("wrap")
    name = match["name"] or (f"{kind}-{wrap}" if wrap else kind)
    if name in (".", ".."):
        raise UserError(f"{where}: {name!r} is not a valid name")
    return Entry(name, kind, Path(match["path"]), options)
