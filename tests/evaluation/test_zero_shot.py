"""The defence "zero_shot": probabilities against transformers' CLIP, and what it makes of them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from tests.hf.test_clip_folder import _save_clip, _tokenizer
from tests.jobs.inputs import make_inputs
from tga_jax.data.records import Question
from tga_jax.errors import UserError
from tga_jax.evaluation.examinee import question
from tga_jax.evaluation.items import EvalItem
from tga_jax.evaluation.pace import Time
from tga_jax.evaluation.zero_shot import (
    Descriptors,
    Detector,
    Seen,
    ZeroShot,
    read_descriptors,
    threshold_choice,
)
from tga_jax.parallel.mesh import make_mesh
from tga_jax.retrieval.clip_embedder import ClipEmbedder
from tga_jax.run.answerer import Reply

HARMFUL = ("a photo of a dog", "the red bus", "dog on blue street")
HARMLESS = ("a bus on the street", "blue dog")


@pytest.mark.parity
def test_probabilities_are_those_of_transformers(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    _save_clip(inputs / "clip")
    clip = ClipEmbedder(str(inputs / "clip"), make_mesh(data=1, fsdp=-1, tensor=1), batch_size=3,
                        say=print)  # fmt: skip
    items = [EvalItem(9, "Hello.")]
    items += [EvalItem(i, "What is it?", f"{i}.png", inputs / "images") for i in range(4)]
    seen = Detector(clip, Descriptors(HARMFUL, HARMLESS)).see(items)
    model = transformers.CLIPModel.from_pretrained(inputs / "clip").eval()
    tokens = _tokenizer()([*HARMFUL, *HARMLESS], padding=True, return_tensors="pt")
    process = transformers.CLIPImageProcessorPil.from_pretrained(inputs / "clip")
    files = [Image.open(inputs / "images" / f"{i}.png") for i in range(4)]
    with torch.no_grad():
        logits = model(**tokens, **process(files, return_tensors="pt")).logits_per_image
    wanted = logits.softmax(dim=1)[:, : len(HARMFUL)].sum(dim=1).numpy()
    assert list(seen) == [1, 2, 3, 4]  # a text has no image
    np.testing.assert_allclose([one.harm for one in seen.values()], wanted, atol=1e-5)
    assert np.ptp(wanted) > 1e-3
    assert [one.time.cold for one in seen.values()] == [True, True, True, False]


def test_reading_images_takes_no_seconds_of_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make_inputs(tmp_path)
    _save_clip(inputs / "clip")
    clip = ClipEmbedder(str(inputs / "clip"), make_mesh(data=1, fsdp=-1, tensor=1), batch_size=1,
                        say=print)  # fmt: skip
    read = clip.pixels

    def slowly(image: tuple[Path, str, str]) -> np.ndarray:
        time.sleep(0.5)
        return read(image)

    monkeypatch.setattr(clip, "pixels", slowly)
    items = [EvalItem(i, "What is it?", f"{i}.png", inputs / "images") for i in range(4)]
    times = [one.time for one in Detector(clip, Descriptors(HARMFUL, HARMLESS)).see(items).values()]
    assert [one.cold for one in times] == [True, False, False, False]
    assert 0 < np.median([one.seconds for one in times[1:]]) < 0.25


class Told:
    """A detector that was told what it sees."""

    settings: dict[str, Any] = {}

    def __init__(self, harm: Sequence[float]) -> None:
        self.harm = harm

    def see(self, items: Sequence[EvalItem]) -> dict[int, Seen]:
        """Of the image "3.png" the harm of place 3."""
        return {
            row: Seen(self.harm[int(Path(item.image).stem)], Time(0.25, False))
            for row, item in enumerate(items)
            if item.image is not None
        }


ITEMS = [
    EvalItem("a", "What?", "0.png", Path(), harmful=True),
    EvalItem("b", "Hello."),
    EvalItem("c", "What?", "1.png", Path(), harmful=False),
]


def test_what_is_above_the_threshold_is_refused_unasked() -> None:
    asked: list[int] = []

    def ask(name: str, questions: Sequence[Question], rows: Sequence[int]) -> dict[int, Reply]:
        asked.extend(rows)
        return {row: Reply(f"answer {questions[row].id}", 1.0) for row in rows}

    defence = ZeroShot(Told([0.6, 0.5]), 0.5, "No.")  # type: ignore[arg-type]
    found = defence.answers(ask, ITEMS, [question(item) for item in ITEMS])
    assert asked == [1, 2]
    # There are margins of all answers or of none: those that were not asked for have none.
    assert found.replies == {
        0: Reply("No.", None, False), 1: Reply("answer b", None), 2: Reply("answer c", None),
    }  # fmt: skip
    assert [(line["question_id"], line["flagged"]) for line in found.lines] == [
        ("a", True), ("c", False),
    ]  # fmt: skip
    assert found.times == [Time(0.25, False)] * 2


def test_the_threshold_is_the_lowest_that_the_harmless_images_allow() -> None:
    harm = [n / 20 for n in range(20)]
    items = [dataclasses.replace(ITEMS[2], id=i, image=f"{i}.png") for i in range(20)]
    items += [dataclasses.replace(ITEMS[0], image="19.png")]  # a harmful one does not count
    items += [dataclasses.replace(items[19], id="again")]  # nor another question
    for rate, wanted in ((0.0, 0.95), (0.05, 0.9), (0.1, 0.85)):
        found = threshold_choice(Told(harm), items, rate)  # type: ignore[arg-type]
        assert (found["threshold"], found["harmless"]) == (wanted, 20)
        assert "chosen on 20 harmless images, which are few" in found["warning"]
    with pytest.raises(UserError, match="has no harmless images"):
        threshold_choice(Told(harm), items[20:21], 0.05)  # type: ignore[arg-type]


def test_descriptors_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "d.txt"
    path.write_text("# ours\nharmful: a gun: loaded\n\nharmless: a cup\nharmless:  a dog \n")
    assert read_descriptors(str(path)) == Descriptors(("a gun: loaded",), ("a cup", "a dog"))
    ours = read_descriptors("")
    assert len(ours.harmful) >= 10 and len(ours.harmless) >= 10
    for text, error in (
        ("harmful: a gun\n", 'has no line "harmless: TEXT"'),
        ("harmful: a gun\nharmles: a cup\n", "line 2: write"),
        ("harmful:\n", "line 1: write"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=error):
            read_descriptors(str(path))
    with pytest.raises(UserError, match="there is no such file"):
        read_descriptors(str(tmp_path / "other.txt"))
