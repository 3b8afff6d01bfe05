"""Rows for the safety training and the alignment of a real language model.

    python -m examples.real_llm.data prompts --workdir=runs/real
    python -m examples.real_llm.data rows --workdir=runs/real

`prompts` writes real/harmless.jsonl, questions that job `generate` has the untrained model answer,
and the text benchmarks real/texts_dev.jsonl and texts_test.jsonl. `rows` writes real/safety.json,
where harmless texts have the model's own answers and harmful ones a refusal, and
real/finetune.json, the world's questions about images with such texts among them; without these
they are real/finetune_images.json. In two more forms of these, images have their captions and no
answers: the harmful ones (finetune_captioned.json) or all of them (finetune_guide_only.json).
finetune_named.json and finetune_named_captioned.json have captions that only name the thing, and
finetune_bare_captioned.json has the captions without their opening words ("a photo of"). It also
writes real/kept.json, the untrained model's answers to harmless texts of the benchmark: how likely
they still are says whether the training left the rest alone. Both steps want the world that job
`miniature` wrote into the workdir.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import numpy as np

from examples.real_llm import texts
from examples.real_llm.texts import REFUSALS, Text
from tga_jax.files import read_json, read_jsonl, write_jsonl
from tga_jax.miniature.concepts import CONCEPTS, concepts_of
from tga_jax.miniature.language import noun
from tga_jax.miniature.scene import pick
from tga_jax.miniature.texts import text_item

SEED = 17
# How many training texts of each kind; a harmful and a harmless one in turn where both exist.
COUNTS = {"thing": 800, "world": 400, "harmless use": 200, "everyday": 300}
EVALUATED = {"thing": 120, "world": 80, "unknown": 60, "harmless use": 24, "everyday": 40}
TEXTS_IN_FINETUNE = 2000


def make(kind: str, rng: np.random.Generator, harmful: bool, split: str) -> Text:
    """A text of that kind; `harmful` counts for the two that exist in both ways."""
    measuring = split != "train"
    if kind == "unknown":
        return texts.unknown_text(rng)
    if kind == "harmless use":
        return texts.harmless_use(rng, measuring=measuring)
    if kind == "everyday":
        return texts.everyday_text(rng, measuring=measuring)
    if kind == "thing":
        concept = texts.random_concept(rng, harmful=harmful)
        return texts.thing_text(rng, concept, measuring=measuring)
    pool = [c for c in concepts_of() if c.harmful is harmful]
    item = text_item(rng, pool, split=split)
    return Text(item.prompt, harmful, "world", item.concept.group)


def all_texts(counts: dict[str, int], split: str, number: int) -> Iterator[Text]:
    """Texts of all kinds; each prompt once, but where there are fewer than are wanted."""
    rng, seen = np.random.default_rng([SEED, number]), set()
    for kind, count in counts.items():
        for index in range(count):
            for _ in range(20):
                text = make(kind, rng, index % 2 == 0, split)
                if text.prompt not in seen:
                    break
            else:
                continue
            seen.add(text.prompt)
            yield text


def write_prompts(folder: Path) -> None:
    """The harmless training texts as questions, and the texts to measure with."""
    harmless = [text for text in all_texts(COUNTS, "train", 0) if not text.harmful]
    rows = [{"question_id": i, "text": text.prompt} for i, text in enumerate(harmless)]
    write_jsonl(folder / "harmless.jsonl", rows)
    for number, split in enumerate(("dev", "test"), 1):
        found = all_texts(EVALUATED, split, number)
        rows = [
            {
                "id": f"{split}-{i}",
                "prompt": text.prompt,
                "label": "unsafe" if text.harmful else "safe",
                "kind": text.kind,
                "group": text.group,
            }
            for i, text in enumerate(found)
        ]
        write_jsonl(folder / f"texts_{split}.jsonl", rows)


def write_rows(workdir: Path) -> None:
    """The rows that the two trainings read."""
    folder, rng = workdir / "real", np.random.default_rng([SEED, 9])
    answers = own_answers(workdir / "generate/answers.jsonl")
    rows = []
    for i, text in enumerate(all_texts(COUNTS, "train", 0)):
        answer = pick(rng, REFUSALS) if text.harmful else answers.get(text.prompt)
        if answer:
            rows.append(text_row(f"safety-{i}", text.prompt, answer))
    rows = [rows[i] for i in rng.permutation(len(rows))]
    write_json(folder / "safety.json", rows)
    world = read_json(workdir / "world/finetune.json")
    mixed = [row for row in world if "image" in row] + rows[:TEXTS_IN_FINETUNE]
    mixed = [mixed[i] for i in rng.permutation(len(mixed))]
    write_json(folder / "finetune.json", mixed)
    shown = [row for row in mixed if "image" in row]
    write_json(folder / "finetune_images.json", shown)
    write_forms(workdir, shown)
    measured = read_jsonl(folder / "texts_dev.jsonl")
    harmless = [text["prompt"] for text in measured if text["label"] == "safe"]
    answers = own_answers(workdir / "evaluate/texts/answers.jsonl")
    kept = [text_row(f"kept-{i}", p, answers[p]) for i, p in enumerate(harmless) if answers.get(p)]
    write_json(folder / "kept.json", kept)


def write_forms(workdir: Path, rows: list[dict[str, Any]]) -> None:
    """The rows with other captions, and with harmful images, or all, that have no answers."""
    harmless = {row["id"] for row in read_json(workdir / "world/finetune_harmless.json")}
    named = [row | {"image_caption": named_only(row["image_caption"])} for row in rows]
    bare = [row | {"image_caption": without_opening(row["image_caption"])} for row in rows]
    forms = {
        "captioned": unanswered(rows, but=harmless),
        "guide_only": unanswered(rows),
        "named": named,
        "named_captioned": unanswered(named, but=harmless),
        "bare_captioned": unanswered(bare, but=harmless),
    }
    for name, form in forms.items():
        write_json(workdir / f"real/finetune_{name}.json", form)


def unanswered(rows: list[dict[str, Any]], but: Set[str] = frozenset()) -> list[dict[str, Any]]:
    """The rows as captioned images without answers, except those of these ids."""
    return [row if row["id"] in but else row | {"guide_only": 1} for row in rows]


def named_only(caption: str) -> str:
    """Of a caption the first thing that it names, as in "a knife".

    Raises:
        ValueError: it names none.
    """
    return noun(_first_thing(caption)[0])


def opening_of(caption: str) -> str:
    """A caption's words before the thing, its adjectives and its article; "" where it has none.

    Raises:
        ValueError: it names no thing.
    """
    found = re.match(r"(.*)\b(an?|some) ", caption[: _first_thing(caption)[1]])
    return found[1] if found else ""


def _first_thing(caption: str) -> tuple[str, int]:
    """The first thing that a caption names, and where its name begins."""
    names = "|".join(sorted((c.name for c in CONCEPTS), key=len, reverse=True))
    found = re.search(rf"\b({names})\b", caption)
    if found is None:
        raise ValueError(f"the caption {caption!r} names no thing of the world")
    return found[1], found.start()


def without_opening(caption: str) -> str:
    """The caption from the thing on."""
    return caption.removeprefix(opening_of(caption))


def own_answers(path: Path) -> dict[str, str]:
    """Prompt -> the untrained model's answer, but where it refused what may be harmless."""
    return {
        line["prompt"]: first_sentence(line["text"])
        for line in read_jsonl(path)
        if "sorry" not in line["text"].lower()
    }


def text_row(name: str, question: str, answer: str) -> dict[str, Any]:
    """A LLaVA row without an image."""
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": name, "conversations": turns}


def first_sentence(answer: str) -> str:
    """Of an answer; "" where the limit of new tokens cut it. Whether to refuse is decided there."""
    found = re.match(r".+?[.!?](?=\s|$)", answer.strip(), re.DOTALL)
    return found[0] if found else ""


def write_json(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows as LLaVA's JSON."""
    path.write_text(json.dumps(rows, indent=1) + "\n")


def main() -> None:
    """Write the files of one of the two steps."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("step", choices=("prompts", "rows"))
    parser.add_argument("--workdir", type=Path, required=True)
    chosen = parser.parse_args()
    (chosen.workdir / "real").mkdir(parents=True, exist_ok=True)
    if chosen.step == "prompts":
        write_prompts(chosen.workdir / "real")
    else:
        write_rows(chosen.workdir)


if __name__ == "__main__":
    main()
