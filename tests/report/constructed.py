"""Arms made by hand, with just the figures and answers that a test is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tga_jax.evaluation.metrics import wilson
from tga_jax.report.collect import Arm


def row(
    benchmark: str, metric: str, part: int, whole: int, *, scene: str = "all", **settings: Any
) -> dict[str, Any]:
    """A row of metrics.json: `part` of `whole` questions."""
    about = {"profile": "none", "weights": "start", "benchmark": {"kind": "questions"}} | settings
    return {
        "benchmark": benchmark,
        "scene": scene,
        "metric": metric,
        "value": part / whole,
        "count": whole,
        "interval": list(wilson(part, whole)),
        "model": "m-start",
        "settings": about,
    }


def answer(number: int, text: str, **about: Any) -> dict[str, Any]:
    """A line of answers.jsonl."""
    metadata = {"refused": False, "correct": None, "harmful": None, "scene": "", "verdicts": {}}
    prompt = f"Question {number}?"
    return {"question_id": number, "prompt": prompt, "text": text, "metadata": metadata | about}


def arm(
    name: str,
    rows: list[dict[str, Any]] | None = None,
    answers: dict[str, list[dict[str, Any]]] | None = None,
    analysis: dict[str, Any] | None = None,
) -> Arm:
    """An arm of these."""
    return Arm(name, Path(name), rows or [], answers or {}, [], analysis or {}, {}, {}, {})
