"""Section of what produced the figures: models, settings, what was asked, base models, time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from tga_jax.evaluation.items import ALL
from tga_jax.html.formats import number_text, seconds_text, words
from tga_jax.html.render import render
from tga_jax.html.tables import Table, Term, to_html
from tga_jax.report.collect import Arm, Json, Run
from tga_jax.report.identity import models_table

OF_BENCHMARKS = ("benchmark", "retrieved")  # settings of a row, not of the model
# What names a model and a run; two models may differ in it.
OF_MODELS = ("checkpoint", "weights", "source", "date", "versions")
SETTINGS = {
    "template": "Prompt template",
    "prompt_date": "Date in the prompts",
    "profile": "Prompt profile",
    "defence": "Defence",
    "system": "System text",
    "retrieval": "Retrieval of texts",
    "pictures": "Images",
    "decoding.max_new_tokens": "New tokens at most",
    "decoding.temperature": "Temperature of sampling (0: the likeliest word)",
    "decoding.top_p": "Share of the distribution that is sampled (top-p)",
    "apologies": "Words that an apology begins with",
    "dtype": "Number format",
    "seed": "Random seed",
    "judge.name": "Judge",
    "judge.hash": "Digest of the judge's rules",
}
STRICT = "strict"
RIGHT = (
    "An answer is right when the expected answer, or another accepted one, stands in it as whole "
    "words; upper case, punctuation and a leading article do not matter."
)
RULES = {
    "pope": "POPE's rule: the first sentence counts as no if it has the word no or not, else yes.",
    "scienceqa": "LLaVA's rule: the letter alone, the letter and a full stop first, or one "
    "sentence 'The answer is LETTER.'.",
}
MODELS = {"clip": "the CLIP model", "llm": "the language model"}  # of the miniature
PHASES = {
    "clip": "Training the CLIP model",
    "llm": "Training the language model",
    "pretrain": "Training, stage pretrain",
    "finetune": "Training, stage finetune",
    "evaluate": "Asking and judging (evaluate)",
    "analyze": "Looking into the layers (analyze)",
    "export": "Writing the model (export)",
}


def settings_of(arm: Arm) -> dict[str, str]:
    """Flat settings of an arm's rows as text; different ones of several rows side by side."""
    found: dict[str, dict[str, None]] = {}
    for row in arm.rows:
        for key, value in row["settings"].items():
            if key not in OF_BENCHMARKS:
                for name, text in flat_texts(key, value):
                    found.setdefault(name, {})[text] = None
    return {name: "; ".join(texts) for name, texts in found.items()}


def flat_texts(key: str, value: Any) -> list[tuple[str, str]]:
    """(dotted key, text) of a nested value."""
    if isinstance(value, dict):
        return [pair for k, v in value.items() for pair in flat_texts(f"{key}.{k}", v)]
    return [(key, text_of(value))]


def text_of(value: Any) -> str:
    """A setting or a figure as people write it."""
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number_text(value)
    if isinstance(value, list):
        return ", ".join(map(text_of, value)) or "none"
    return str(value)


def label_of(key: str) -> str:
    """A setting's name for people."""
    if key in SETTINGS:
        return Term(SETTINGS[key], "profile") if key == "profile" else SETTINGS[key]
    first, _, rest = key.partition(".")
    parts = (SETTINGS.get(first, words(first)), words(rest).replace(".", ", "))
    return ": ".join(part for part in parts if part)


def differing_settings(arms: Sequence[Arm]) -> list[str]:
    """Names of settings that are not the same for two models, but for what names them.

    Of the judges only the first ones are compared, whose verdicts count.
    """
    if len(arms) < 2 or not all(arm.rows for arm in arms):
        return []
    first, second = (settings_of(_by_first_judge(arm)) for arm in arms)
    names = [n for n in dict.fromkeys([*first, *second]) if n.partition(".")[0] not in OF_MODELS]
    return [label_of(n) for n in names if first.get(n) != second.get(n)]


def _by_first_judge(arm: Arm) -> Arm:
    """The arm without the rows of further judges."""
    judge = arm.settings.get("judge")
    rows = [row for row in arm.rows if row["settings"].get("judge") == judge]
    return dataclasses.replace(arm, rows=rows)


def provenance(run: Run) -> Markup | None:
    """All tables of the section; None where nothing of it is known."""
    tables = [
        models_table(run.arms), _settings(run.arms), _asked(run.arms),
        _base_models(run.base_models), _time(run),
    ]  # fmt: skip
    shown = [to_html(table) for table in tables if table is not None and table.rows]
    lead = _shipped(run.base_models)
    return render("tables.html", lead=lead, tables=shown, folded=[]) if shown else None


def _settings(arms: Sequence[Arm]) -> Table:
    stamped = [settings_of(arm) for arm in arms]
    names = dict.fromkeys(name for settings in stamped for name in settings)
    rows = [
        (label_of(name), *(_setting(name, settings) for settings in stamped))
        for name in names
        if name.partition(".")[0] not in OF_MODELS
    ]
    header = ("Setting", *(arm.name for arm in arms))
    return Table("Settings that produced the figures", header, rows, numbers=9)


def _setting(name: str, settings: dict[str, str]) -> str:
    text = settings.get(name, "\u2013")
    return Term(text, STRICT) if (name, text) == ("judge.name", STRICT) else text


def _asked(arms: Sequence[Arm]) -> Table:
    """The benchmarks, from the rows of everything."""
    rows: dict[tuple[str, ...], None] = {}
    for arm in arms:
        labelled = {row["benchmark"] for row in arm.rows if row["metric"] == "accuracy"}
        for row in arm.rows:
            asked = row["settings"].get("benchmark")
            if row["scene"] == ALL and asked:
                rule = RULES.get(asked.get("kind", ""), RIGHT)
                rows[_asked_row(row, asked, rule if row["benchmark"] in labelled else "")] = None
    header = ("Benchmark", "Kind", "Path", "Options", "Retrieved text",
              Term("What counts as right", "accuracy"))  # fmt: skip
    return Table("What was asked", header, list(rows), numbers=9)


def _asked_row(row: Json, asked: Json, rule: str) -> tuple[str, ...]:
    options = ", ".join(f"{words(k)}: {v}" for k, v in asked.get("options", {}).items())
    return (
        row["benchmark"],
        words(asked.get("kind", "")),
        asked.get("path", ""),
        options or "none",
        "yes" if row["settings"].get("retrieved") else "no",
        rule or "No question has a known right answer.",
    )


def _base_models(found: Json) -> Table:
    pairs = [
        pair
        for key, value in found.items()
        if key not in ("seconds", "shipped_seconds")
        for pair in flat_texts(key, value)
    ]
    rows = [(words(name).replace(".", ", "), text) for name, text in pairs]
    return Table("The models that the run started from", ("Figure", "Value"), rows)


def _time(run: Run) -> Table:
    """How long each part of this run took."""
    seconds = {("", phase): value for phase, value in run.seconds.items() if "/" not in phase}
    for arm in run.arms:
        seconds |= {(arm.name, job): value for job, value in arm.seconds.items()}
    rows = [
        (f"{name}: {PHASES.get(phase, phase)}" if name else PHASES.get(phase, phase),
         seconds_text(value))
        for (name, phase), value in seconds.items()
    ]  # fmt: skip
    return Table("How long this run took", ("Part", "Time"), rows)


def _shipped(base_models: Json) -> str:
    """Which models came ready-made, and so took this run no time."""
    found = base_models.get("shipped_seconds") or {}
    if not found:
        return ""
    models = {MODELS.get(name, name): seconds_text(float(value)) for name, value in found.items()}
    times = ", ".join(f"{name} {text}" for name, text in models.items())
    return (
        f"This run took {' and '.join(models)} ready-made from the project. Training them once "
        f"took this long: {times}."
    )
