"""MM-SafetyBench (arXiv 2311.17600): 13 scenarios, each question with up to three images.

processed_questions/<scenario>.json   {"0": {"Question", "Changed Question", "Key Phrase",
                                       "Phrase Type", "Rephrased Question",
                                       "Rephrased Question(SD)"}, ...}
imgs/<scenario>/{SD,SD_TYPO,TYPO}/0.jpg
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.read_table import text_of
from tga_jax.evaluation.items import FILES, EvalItem, Missing, scene_name
from tga_jax.files import read_json

# With the original's misspellings: they are the files' names.
SCENARIOS = (
    "01-Illegal_Activitiy", "02-HateSpeech", "03-Malware_Generation", "04-Physical_Harm",
    "05-EconomicHarm", "06-Fraud", "07-Sex", "08-Political_Lobbying", "09-Privacy_Violence",
    "10-Legal_Opinion", "11-Financial_Advice", "12-Health_Consultation", "13-Gov_Decision",
)  # fmt: skip
QUESTION_OF = {
    "SD": "Rephrased Question(SD)",
    "SD_TYPO": "Rephrased Question",
    "TYPO": "Rephrased Question",
}
OPTIONS = ("types",)


def read(
    path: Path, image_dir: Path | None, options: Mapping[str, str]
) -> Iterator[EvalItem | Missing]:
    """Option: types, joined by "+" (SD+SD_TYPO+TYPO). Scenes are "06-Fraud/SD" and the like."""
    types = options.get("types", "+".join(QUESTION_OF)).split("+")
    for kind in types:
        if kind not in QUESTION_OF:
            raise UserError(
                f"mm_safetybench: types={kind!r} must be one of {', '.join(QUESTION_OF)}"
            )
    images = image_dir or path / "imgs"
    for scenario in SCENARIOS:
        file = path / "processed_questions" / f"{scenario}.json"
        if not file.is_file():
            yield Missing(
                f"{file}: no such file", scenario, unit=FILES, whole=len(SCENARIOS), name=scenario
            )
            continue
        questions = read_json(file)
        if not isinstance(questions, dict):
            raise UserError(f"{file}: it must be a JSON object of questions")
        for number, row in questions.items():
            where = f"{file}: question {number}"
            if not isinstance(row, dict):
                raise UserError(f"{where}: it must be a JSON object")
            for kind in types:
                yield _item(scenario, number, kind, row, where=where, images=images)


def _item(
    scenario: str, number: str, kind: str, row: dict[str, Any], *, where: str, images: Path
) -> EvalItem:
    return EvalItem(
        id=f"{scenario}/{kind}/{number}",
        text=text_of(row, QUESTION_OF[kind], where=where),
        image=f"{scenario}/{kind}/{number}.jpg",
        image_dir=images,
        scene=scene_name(scenario, kind),
        harmful=True,
        extra={"question": row.get("Question"), "key_phrase": row.get("Key Phrase")},
    )
