"""Records of the made-up world in the formats that users bring: LLaVA JSON and question files."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tga_jax.miniature.concepts import Concept, concepts_of
from tga_jax.miniature.language import QUESTIONS, Exchange, ask, caption
from tga_jax.miniature.scene import Scene, pick, random_scene
from tga_jax.miniature.texts import TextItem, refusal, text_item

Row = dict[str, Any]


def conversation(exchanges: Iterable[Exchange], *, image: bool) -> list[Row]:
    """LLaVA's "conversations": each question and answer a turn, the image in the first one."""
    turns: list[Row] = []
    for exchange in exchanges:
        question = f"<image>\n{exchange.question}" if image and not turns else exchange.question
        turns.append({"from": "human", "value": question})
        turns.append({"from": "gpt", "value": exchange.answer})
    return turns


def image_row(
    identifier: str,
    image: str,
    scene: Scene,
    exchanges: Sequence[Exchange],
    *,
    rng: np.random.Generator,
    caption_form: str,
    retrieved: bool,
) -> Row:
    """A row with an image: the exchanges about it, and its `image_caption` in the given form.

    `retrieved` adds a `retrieved_caption`: that of another scene with the same concept, which is
    what a good retriever would find.
    """
    row = {
        "id": identifier,
        "image": image,
        "conversations": conversation(exchanges, image=True),
        "image_caption": caption(scene, rng, form=caption_form),
    }
    if retrieved:
        row["retrieved_caption"] = _caption_of_another(scene, rng)
    return row


def _caption_of_another(scene: Scene, rng: np.random.Generator) -> str:
    while True:
        other = random_scene(rng, [scene.concept], split="train")
        if other != scene:
            return caption(other, rng)


def caption_exchange(scene: Scene, rng: np.random.Generator) -> Exchange:
    """A bare caption, as stage 1 learns it (the template "plain" drops the question)."""
    return Exchange(pick(rng, QUESTIONS["describe"]), caption(scene, rng), "caption")


def chat_exchanges(scene: Scene, rng: np.random.Generator) -> list[Exchange]:
    """One to three turns of questions about the scene, each of another kind."""
    exchanges: list[Exchange] = []
    for _ in range(int(rng.integers(1, 4))):
        exchange = ask(scene, rng)
        if exchange.kind not in {asked.kind for asked in exchanges}:
            exchanges.append(exchange)
    return exchanges


def text_row(identifier: str, item: TextItem, answer: str) -> Row:
    """A row of the data without an image: a question and its answer."""
    exchange = Exchange(item.prompt, answer, item.task)
    return {"id": identifier, "conversations": conversation([exchange], image=False)}


def text_rows(
    rng: np.random.Generator, count: int, *, prefix: str, harmful_share: float, safe: bool
) -> list[Row]:
    """Text-only rows about all concepts, a share of them harmful ones.

    With `safe`, harmful prompts are refused (safety training); without, everything is answered
    helpfully, as by a model before its safety training.
    """
    benign, harmful = concepts_of("benign"), concepts_of("seen", "new_concept", "new_category")
    rows = []
    for index in range(count):
        pool = harmful if rng.random() < harmful_share else benign
        item = text_item(rng, pool, split="train")
        answer = refusal(rng) if safe and item.concept.harmful else item.answer
        rows.append(text_row(f"{prefix}-{index:06d}", item, answer))
    return rows


def question_row(
    identifier: str, image: str, scene: Scene, exchange: Exchange, *, full_caption: str
) -> Row:
    """A line of a question file.

    "label" is what a right answer has in it: the concept's name (or one of "accept") where the
    object is asked for, else the whole answer. What stands after it is for the judges.
    """
    concept = scene.concept
    named = exchange.kind in ("describe", "what", "name")
    return {
        "question_id": identifier,
        "image": image,
        "text": exchange.question,
        "category": concept.category,
        "label": concept.name if named else exchange.answer,
        "answer": exchange.answer,
        "kind": exchange.kind,
        "group": concept.group,
        "concept": concept.name,
        "accept": [concept.name, *concept.synonyms],
        "harmful": concept.harmful,
        "image_caption": full_caption,
    }


def text_question(identifier: str, item: TextItem) -> Row:
    """A line of a text safety set; "answer" is null where no single answer is right."""
    concept: Concept = item.concept
    known = item.unique and not concept.harmful
    return {
        "id": identifier,
        "prompt": item.prompt,
        "label": "unsafe" if concept.harmful else "safe",
        "answer": item.answer if known else None,
        "task": item.task,
        "group": concept.group,
        "concept": concept.name,
        "category": concept.category,
    }
