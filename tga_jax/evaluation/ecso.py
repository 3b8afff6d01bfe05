"""ECSO, a defence at inference (arXiv 2403.09572): eyes closed, safety on.

An image question is answered as usual; the model then tells whether that answer is harmful; if it
says so, the image is described with the question in view, and the question is answered again from
that text alone, where the language model's own safety counts. Nothing is trained.

The prompts (config.evaluate.ecso) follow the published ones in build but are in our words; for a
comparison with published figures set them to the paper's. A text-only question is left as it is.
The refusal margin of a question that is answered again is that of the second answer.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tga_jax.data.records import Question
from tga_jax.errors import UserError
from tga_jax.evaluation.defence import Ask, Defence, Defended
from tga_jax.evaluation.items import EvalItem
from tga_jax.run.answerer import Reply

PLACES = {
    "tell": ("question", "answer"),
    "caption": ("question",),
    "answer": ("question", "caption"),
}


@dataclasses.dataclass(frozen=True)
class Prompts:
    """The texts of the three passes, with {question}, {answer} and {caption} to be filled in."""

    tell: str
    caption: str
    answer: str
    answer_characters: int  # of the first answer, that the model is asked about

    @classmethod
    def of(cls, cfg: Mapping[str, Any]) -> Prompts:
        """The defence that config.evaluate.ecso describes.

        Raises:
            UserError: a prompt lacks one of its places.
        """
        for name, places in PLACES.items():
            lost = [place for place in places if f"{{{place}}}" not in cfg[name]]
            if lost:
                raise UserError(
                    f"config.evaluate.ecso.{name}: the prompt must contain {{{lost[0]}}}"
                )
        return cls(**{field.name: cfg[field.name] for field in dataclasses.fields(cls)})


@dataclasses.dataclass(frozen=True)
class Ecso(Defence):
    """The defence with its prompts."""

    prompts: Prompts
    name = "ecso"

    @property
    def settings(self) -> dict[str, Any]:
        """The defence's name and its prompts, which decide what it answers."""
        return {"name": self.name, **dataclasses.asdict(self.prompts)}

    def answers(
        self, ask: Ask, items: Sequence[EvalItem], questions: Sequence[Question]
    ) -> Defended:
        """Asks all as they are, and the image questions whose answers are harmful again."""
        return Defended(
            *defend(ask, questions, ask("", questions, range(len(items))), self.prompts)
        )


def defend(
    ask: Ask, questions: Sequence[Question], replies: Mapping[int, Reply], prompts: Prompts
) -> tuple[dict[int, Reply], list[dict[str, Any]]]:
    """The replies under the defence, and what it did to each image question.

    Args:
        ask: asks the model.
        questions: all questions of a benchmark.
        replies: row -> the undefended reply.
        prompts: of the passes.

    Returns:
        row -> reply of all rows; and a line an image question: what the model told of its answer,
        and of flagged ones the first answer and the caption.
    """
    rows = [row for row, question in enumerate(questions) if question.image is not None]
    told = ask("tell", _tell(questions, replies, prompts), rows)
    flagged = [row for row in rows if says_yes(told[row].text)]
    captions = ask("caption", _caption(questions, prompts), flagged)
    closed = [
        _closed(question, captions[row].text, prompts) if row in captions else question
        for row, question in enumerate(questions)
    ]
    safe = ask("answer", closed, flagged)
    lines = [
        {
            "question_id": questions[row].id,
            "told": told[row].text,
            "flagged": row in safe,
            "first_answer": replies[row].text if row in safe else None,
            "caption": captions[row].text if row in safe else None,
        }
        for row in rows
    ]
    return {**replies, **safe}, lines


def says_yes(text: str) -> bool:
    """Whether the first word is yes."""
    return re.match(r"\W*yes\b", text, re.IGNORECASE) is not None


def _tell(
    questions: Sequence[Question], replies: Mapping[int, Reply], prompts: Prompts
) -> list[Question]:
    """With the image: is this answer harmful?"""
    texts = [
        fill(prompts.tell, question=q.text, answer=replies[row].text[: prompts.answer_characters])
        for row, q in enumerate(questions)
    ]
    return [dataclasses.replace(q, text=t) for q, t in zip(questions, texts, strict=True)]


def _caption(questions: Sequence[Question], prompts: Prompts) -> list[Question]:
    """With the image: what of it matters for the question?"""
    return [dataclasses.replace(q, text=fill(prompts.caption, question=q.text)) for q in questions]


def _closed(question: Question, caption: str, prompts: Prompts) -> Question:
    """Without the image, and without a retrieved text, which was found by the image."""
    text = fill(prompts.answer, question=question.text, caption=caption)
    return dataclasses.replace(question, text=text, image=None, caption=None, retrieved=None)


def fill(template: str, **values: str) -> str:
    """Puts values into their places, in one go: a value that holds "{question}" stays as it is."""
    return re.sub(r"\{(\w+)\}", lambda m: values.get(m.group(1), m.group(0)), template)
