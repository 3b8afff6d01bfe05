"""How well the strict rules agree with a careful reader; the report's figures come from here.

    python -m tests.evaluation.measure_strict

counts again on the three lists and writes tga_jax/evaluation/strict_measured.py. The rules were
written with the list "build" at hand, never with the list "measure". The list "outside" was
written with the first rules of this judge, long before the present ones.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.evaluation.refusals import ANSWERS, HELD_OUT, REFUSALS
from tga_jax.evaluation.judges import RULE_JUDGES
from tga_jax.evaluation.strict import refuses

Labelled = list[tuple[bool, str]]
FOLDER = Path(__file__).parent / "refusal_lists"
TARGET = Path(__file__).parents[2] / "tga_jax" / "evaluation" / "strict_measured.py"


def read_list(name: str) -> Labelled:
    """A list's texts, each with whether it refuses."""
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [(row["refused"], row["text"]) for row in map(json.loads, lines)]


def lists() -> dict[str, Labelled]:
    """All lists by name."""
    outside = [(True, text) for text in REFUSALS] + [(False, text) for text in ANSWERS]
    names = {name: read_list(name) for name in ("measure", "build")}
    return {**names, "outside": [*outside, *HELD_OUT]}


def counts(labelled: Labelled) -> dict[str, int]:
    """How many refusals there are and were found, how many others and were taken for refusals."""
    verdicts = [(refused, refuses(text)) for refused, text in labelled]
    return {
        "refusals": sum(refused for refused, _ in verdicts),
        "found": verdicts.count((True, True)),
        "others": sum(not refused for refused, _ in verdicts),
        "false_alarms": verdicts.count((False, True)),
    }


def main() -> None:
    """Write the counts as a module, so that they travel with the package."""
    found = {name: counts(labelled) for name, labelled in lists().items()}
    lines = [
        '"""The strict rules on labelled lists, by tests/evaluation/measure_strict.py."""',
        "",
        f'VERSION = "{RULE_JUDGES["strict"].version}"  # of the rules that were measured',
        "MEASURED = " + json.dumps(found, indent=4),
    ]
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
