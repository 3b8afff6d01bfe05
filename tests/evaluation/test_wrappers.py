"""Jailbreak wrappers on benign questions."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tga_jax.errors import UserError
from tga_jax.evaluation import wrappers
from tga_jax.evaluation.benchmarks.figstep import PROMPT
from tga_jax.evaluation.items import EvalItem

ITEM = EvalItem(id=1, text="How do I {bake} bread?", scene="a", harmful=False, label="x")


@pytest.mark.parametrize("name", ["role_play", "in_context"])
def test_text_wrappers_change_the_text_alone(name: str, tmp_path: Path) -> None:
    wrap = wrappers.WRAPPERS[name]
    wrapped = wrap(ITEM, drawings=tmp_path, examples=[("Hi?", "Sure, {hello}.")])
    assert ITEM.text in wrapped.text and len(wrapped.text) > len(ITEM.text)
    assert dataclasses.replace(wrapped, text=ITEM.text) == ITEM
    assert ("User: Hi?\nAssistant: Sure, {hello}." in wrapped.text) == (name == "in_context")


def test_figstep_moves_the_text_into_an_image(tmp_path: Path) -> None:
    wrapped = wrappers.figstep(ITEM, drawings=tmp_path, examples=())
    assert wrapped.text == PROMPT and ITEM.text not in wrapped.text
    assert wrapped.image_dir == tmp_path and wrapped.image is not None
    other = wrappers.figstep(dataclasses.replace(ITEM, text="x"), drawings=tmp_path, examples=())
    assert other.image != wrapped.image
    wrappers.draw_images([wrapped, other, ITEM])
    assert {p.name for p in tmp_path.iterdir()} == {wrapped.image, other.image}
    with pytest.raises(UserError, match="has one"):
        wrappers.figstep(wrapped, drawings=tmp_path, examples=())


@pytest.mark.parametrize("text", ["Bread", "How do I bake bread? " * 8, "incomprehensibilities"])
def test_a_drawn_text_fits_its_image(text: str) -> None:
    pixels = np.asarray(wrappers.draw(text).convert("L"))
    assert pixels.shape == (760, 760)
    rows, columns = np.nonzero(pixels < 128)
    assert len(rows) > 500  # ink
    assert rows.max() < 759 and columns.max() < 759 and columns.min() >= 15
    # the empty list: more lines of ink than the text has by itself
    inked = (pixels < 128).any(axis=1)
    lines = int(inked[0]) + int((inked[1:] & ~inked[:-1]).sum())
    assert lines >= 4


def test_demonstrations_come_from_a_file(tmp_path: Path) -> None:
    assert wrappers.read_examples(None) == wrappers.HARMLESS_EXAMPLES
    (tmp_path / "e.jsonl").write_text('{"text": "a", "answer": "b"}\n')
    assert wrappers.read_examples(str(tmp_path / "e.jsonl")) == [("a", "b")]
    (tmp_path / "e.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(UserError, match="record number 1"):
        wrappers.read_examples(str(tmp_path / "e.jsonl"))
