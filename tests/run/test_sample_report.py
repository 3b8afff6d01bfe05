"""What training says of samples that lack a caption or a text, and of ids that nobody has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.inputs import arguments, make_inputs, row, write_jsonl
from tga_jax.data.records import parse_record
from tga_jax.data.stored import TRAIN, split_of
from tga_jax.errors import UserError
from tga_jax.jobs import train
from tga_jax.main import main
from tga_jax.run.sample_report import unlearnt_warning, untrained_warning


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, images, and samples beside which texts lie that fit in part."""
    folder = make_inputs(tmp_path_factory.mktemp("good"))
    write_jsonl(
        folder / "captions.jsonl",
        [{"id": "p2", "caption": "a cat"}, {"id": "x", "caption": "of nobody"}],
    )
    write_jsonl(folder / "texts.jsonl", [{"id": "p0", "text": "a found text"}])
    return folder


def trained(inputs: Path, workdir: Path, *more: str, job: str = "pretrain") -> dict[str, Any]:
    """<stage>/samples.json of a run of one step."""
    flags = (
        f"--config.data.captions={inputs / 'captions.jsonl'}",
        f"--config.data.retrieved={inputs / 'texts.jsonl'}",
        "--config.prepare.workers=0", "--config.pretrain.steps=1", *more,
    )  # fmt: skip
    assert main(arguments(inputs, workdir, *flags, job=job)) == 0
    return json.loads((workdir / "pretrain" / "samples.json").read_text())


@pytest.fixture
def no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training itself is not of interest here."""

    class Trained:
        step = 1

    monkeypatch.setattr(train, "train_stage", lambda *_: 1)


def test_absent_texts_and_unknown_ids_are_counted(
    good: Path, tmp_path: Path, no_steps: None, capfd: pytest.CaptureFixture[str]
) -> None:
    about = trained(good, tmp_path / "files")
    nobody = {"unclear_ids": {"count": 0, "first": []}, "unclear_samples": 0}
    assert about == {
        "samples": 6, "used": 6, "bad": 0, "too_long": 0, "truncated": 0, "left_out_turns": 0,
        "held_out": 0, "image_marks_removed": 0, "truncated_captions": 0,
        "scaled_pictures": 0, "skipped": [], "pictures": 4, "text_only": 1, "tox": 1,
        "pictures_without_caption": {"count": 0, "first": []},
        "pictures_without_retrieved": {"count": 1, "first": ["p3"]},
        "captions": {
            "texts": 2, "known_ids": 1, "unknown_ids": {"count": 1, "first": ["x"]}, **nobody
        },
        "duplicate_ids": {"count": 0, "first": []},
        "retrieved": {
            "texts": 1, "known_ids": 1, "unknown_ids": {"count": 0, "first": []}, **nobody
        },
    }  # fmt: skip
    said = capfd.readouterr().err
    assert "6 samples, 4 with an image: 0 of these without a caption" in said
    assert "WARNING: 1 of 6 samples have no image. They train nothing" in said
    assert "1 without a retrieved text" in said and "captions: 1 unknown ids" in said
    assert trained(good, tmp_path / "kept", job="prepare,pretrain") == about


@pytest.mark.parametrize(
    ("parts", "said"),
    [(("projector",), True), (("vision", "projector"), True), (("adapters",), False),
     (("projector", "decoder"), False)],
)  # fmt: skip
def test_texts_train_nothing_where_the_language_model_is_frozen(
    parts: tuple[str, ...], said: bool
) -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]
    image = [{"from": "human", "value": "<image>\nHi"}, turns[1]]
    rows = [
        {"id": "a", "conversations": turns},
        {"id": "b", "image": "b.png", "conversations": image},
    ]
    records = [parse_record(row, where="") for row in rows]
    assert bool(untrained_warning(records, parts)) is said
    assert untrained_warning(records[1:], parts) == ""


def test_samples_without_answers_train_nothing_where_the_guide_has_no_effect() -> None:
    image = [{"from": "human", "value": "<image>\nHi"}]
    rows = [
        {"id": "a", "image": "a.png", "image_caption": "a cat", "conversations": image},
        {"id": "b", "conversations": [{"from": "human", "value": "Hi"},
                                      {"from": "gpt", "value": "Yo"}]},
    ]  # fmt: skip
    records = [parse_record(row, where="") for row in rows]
    off = {"pair": 0, "hinge": 0, "answer": 0}
    assert unlearnt_warning(records, off).startswith("WARNING: 1 of 2 samples have no answer")
    assert unlearnt_warning(records[1:], off) == unlearnt_warning(records, off | {"pair": 1}) == ""
    with pytest.raises(UserError, match="this stage would train nothing"):
        unlearnt_warning(records[:1], off)


def test_of_a_mixture_and_after_texts_were_left_out(
    good: Path, tmp_path: Path, no_steps: None
) -> None:
    ask = [("human", "<image>\nWhat is it?"), ("gpt", "It.")]
    (tmp_path / "more.json").write_text(json.dumps([row("x", ask, image="0.png")]))
    sets = f"--config.data.mixture={good / 'samples.json'}:2,{tmp_path / 'more.json'}:1"
    about = trained(good, tmp_path / "a", sets)
    assert (about["samples"], about["pictures"]) == (7, 5)
    assert about["captions"]["unknown_ids"]["count"] == 0
    assert about["pictures_without_retrieved"] == {"count": 2, "first": ["p3", "x"]}
    about = trained(good, tmp_path / "b", "--config.data.retrieved_share=0.0")
    assert about["pictures_without_retrieved"]["count"] == 4


def test_held_out_samples_and_removed_marks_are_counted(
    good: Path, tmp_path: Path, no_steps: None, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads((good / "samples.json").read_text())
    used = next(one for one in rows if split_of(parse_record(one, where=""), 0.3) == TRAIN)
    used["conversations"][1]["value"] += "<image>"
    (tmp_path / "samples.json").write_text(json.dumps(rows))
    flags = f"--config.data.path={tmp_path / 'samples.json'}", "--config.data.validation=0.3"
    about = trained(good, tmp_path / "files", *flags)
    assert about["held_out"] + about["samples"] == len(rows) and 0 < about["held_out"] < len(rows)
    assert about["image_marks_removed"] == 1
    said = capfd.readouterr().err
    assert f"{about['held_out']} more in other splits" in said
    assert "1 with <image> in an answer" in said
    kept = trained(good, tmp_path / "kept", *flags, job="prepare,pretrain")
    assert {name: kept[name] for name in ("held_out", "samples", "image_marks_removed")} == {
        name: about[name] for name in ("held_out", "samples", "image_marks_removed")
    }
