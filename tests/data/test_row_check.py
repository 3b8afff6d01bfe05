"""Every row is checked before the first step, against what encoding and decoding it would say."""

from __future__ import annotations

import dataclasses
import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tga_jax.data.images import ImageTransform, load_image
from tga_jax.data.lazy_records import has_flags, known_of
from tga_jax.data.mixture import Mixture
from tga_jax.data.prompts import Prompter, TooLong
from tga_jax.data.records import BadRow, Record, Turn
from tga_jax.data.row_check import Checked, check_set, check_texts
from tga_jax.data.sample_sets import SampleSet, read_json_sets
from tga_jax.data.side_texts import read_side_files
from tga_jax.data.tokenise import most_tokens
from tga_jax.data.usable import Usable, usable
from tga_jax.errors import UserError

MAX_LENGTH = 90
TRANSFORM = ImageTransform(
    shortest_edge=8, resize=None, crop=(8, 8), resample=3, pad_to_square=True,
    mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), rescale=1 / 255,
)  # fmt: skip


def make_prompter(tokenizer: Any, **changes: Any) -> Prompter:
    settings = dict(
        template="vicuna_v1", image_token="<image>", image_tokens=4, max_length=MAX_LENGTH,
        use_retrieved=True, system="",
    )  # fmt: skip
    return Prompter(tokenizer, **(settings | changes))


def record(name: str, question: str = "What?", answer: str = "A cup.", **more: Any) -> Record:
    images = more.pop("images", ())
    turns = more.pop("turns", (Turn(question, answer),))
    caption, tox = more.pop("caption", None), more.pop("tox", False)
    return Record(name, images, turns, caption, None, tox, **more)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Good images, one without its end, one that is none, one of 16 bits."""
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for name in ("good.png", "whole.jpg"):
        Image.fromarray(pixels).save(tmp_path / name)
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "truncated.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "notes.jpg").write_text("no image")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    return tmp_path


GOOD = [
    record("good", images=("good.png",)),
    record("text"),
    record("deep", images=("deep.png", "good.png", "deep.png")),
    record("greeting", left_out_turn=True),
    record("tox", images=("gone.png",), tox=True),
    record("long answer", answer="cup " * 300),
    record("long talk", turns=(Turn("What?", "A cup."), Turn("And " * 200, "So."))),
    record("long caption", images=("good.png",), caption="a cup " * 100),
    record("tox caption", images=("gone.png",), caption="a cup " * 100, tox=True),
]
BAD = [
    (record("gone", images=("gone.png",)), "no such file"),
    (record("truncated", images=("truncated.jpg",)), "not a readable image"),
    (record("notes", images=("notes.jpg",)), "not a readable image"),
    (record("out", images=("../x.png",)), "inside the image folder"),
    (record("empty", answer=" "), "no answer"),
    (record("mark in text", "Write <image> here."), "1 <image> marks for 0 images"),
]
LONG = record("long question", "What is this, and why? " * 60)


def check(records: list[Record], images: Path, tokenizer: Any, **more: Any) -> Checked:
    placed = [dataclasses.replace(one, number=n) for n, one in enumerate(records)]
    settings = dict(max_bad_fraction=1.0, workers=0, prompter=make_prompter(tokenizer))
    settings["transform"] = TRANSFORM
    settings |= {"image_dir": images} | more
    return check_set(SampleSet(placed, settings.pop("unread", ())), **settings)


def test_what_is_found(images: Path, named_tokenizer: Any) -> None:
    records = [*GOOD, *(one for one, _ in BAD), LONG]
    done: list[int] = []
    found = check(records, images, named_tokenizer("byte"), progress=done.append)
    assert found.keep.tolist() == list(range(len(GOOD)))
    reasons = {bad.id: bad.reason for bad in found.skipped}
    assert list(reasons) == [one.id for one, _ in BAD] + ["long question"]
    for one, reason in BAD:
        assert reason in reasons[one.id] and one.id in reasons[one.id], reasons[one.id]
    assert "leave no room for an answer within 90 (max_length" in reasons["long question"]
    counts = {k: v for k, v in found.report().items() if k != "skipped"}
    assert counts == {
        "samples": 16, "used": 9, "bad": 6, "too_long": 1, "truncated": 2, "held_out": 0,
        "left_out_turns": 1, "image_marks_removed": 0, "scaled_pictures": 2,
        "truncated_captions": 1,
    }  # fmt: skip
    assert found.report()["skipped"][-1] == {
        "id": "long question", "record": 16, "reason": reasons["long question"]
    }  # fmt: skip
    assert done == list(range(1, 17))
    assert "9 of 16 samples are usable, 6 skipped as bad, 1 skipped with a first" in found.say()


@pytest.mark.parametrize(
    "changes",
    [
        {"turns": (Turn("What?", "A <image>cup."),)},
        {"caption": "<image>a cup"},
        {"retrieved": "<image>"},
    ],
)
def test_marks_that_are_no_images_are_counted(
    images: Path, named_tokenizer: Any, changes: dict[str, Any]
) -> None:
    records = [record("a", images=("good.png",)), record("b", images=("good.png",))]
    records.append(dataclasses.replace(records[0], id="marked", **changes))
    found = check(records, images, named_tokenizer("byte"))
    assert found.report()["image_marks_removed"] == 1 and len(found.keep) == 3
    assert "1 with <image> in an answer, a caption or a retrieved text, removed" in found.say()


def test_a_captioned_image_needs_no_answer(images: Path, named_tokenizer: Any) -> None:
    unanswered = record("open", images=("good.png",), turns=(Turn("What?", None),))
    captioned = dataclasses.replace(unanswered, id="captioned", caption="a ball")
    found = check([unanswered, captioned], images, named_tokenizer("byte"))
    assert found.keep.tolist() == [1]
    assert "guide alone and has no caption: write one (job caption)" in found.skipped[0].reason


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "it trains the guide alone and has no caption: write one (job caption)"),
        ({"tox": True}, "it has no answer, so there is nothing to learn"),
        ({"images": ()}, "it has no answer, so there is nothing to learn"),
        ({"turns": (Turn("What?", " "),)}, "it has no answer, so there is nothing to learn"),
    ],
)
def test_a_row_without_an_answer_is_told_what_it_lacks(changes: dict[str, Any], said: str) -> None:
    one = record("open", images=("good.png",), turns=(Turn("What?", None),))
    with pytest.raises(UserError) as caught:
        check_texts(dataclasses.replace(one, **changes))
    assert str(caught.value) == f"record open: {said}"


@pytest.mark.parametrize("prepared", [False, True])
def test_an_image_that_would_grow_too_much_is_bad(
    images: Path, named_tokenizer: Any, prepared: bool
) -> None:
    """A screenshot of 400 x 10,001 pixels is read well, and is too long only in a square."""
    Image.new("1", (400, 10_001)).save(images / "long.png")
    contents = ((images / "long.png").read_bytes(),) if prepared else ()
    long = record("long", images=("long.png",), contents=contents)
    padded = check([GOOD[1], long], images, named_tokenizer("byte"))
    assert padded.keep.tolist() == [0] and padded.bad == 1
    assert "long.png: it is too long or too wide: it would become 10001 x 10001" in (
        padded.skipped[0].reason
    )
    plain = dataclasses.replace(TRANSFORM, pad_to_square=False)
    found = check([GOOD[1], long], images, named_tokenizer("byte"), transform=plain)
    assert found.keep.tolist() == [0, 1]


def test_processes_find_the_same(images: Path, named_tokenizer: Any) -> None:
    records = [*GOOD, *(one for one, _ in BAD), LONG] * 3
    placed = [dataclasses.replace(one, number=n) for n, one in enumerate(records)]
    lazy = Usable(placed, np.arange(len(placed)))  # is read in the processes
    here, there = (
        check_set(
            SampleSet(samples), max_bad_fraction=1.0, image_dir=images, workers=workers,
            transform=TRANSFORM, prompter=make_prompter(named_tokenizer("byte")),
        )
        for samples, workers in ((placed, 0), (lazy, 2))
    )  # fmt: skip
    assert here.report() == there.report() and here.keep.tolist() == there.keep.tolist()
    again = Checked.from_json(json.loads(json.dumps(here.to_json())))
    assert again.report() == here.report() and again.keep.tolist() == here.keep.tolist()


def test_bad_rows_are_counted_against_the_budget_and_long_ones_are_not(
    images: Path, named_tokenizer: Any
) -> None:
    tokenizer, gone = named_tokenizer("byte"), BAD[0][0]
    unread = (BadRow(9, "x", "x.json: record number 10: no"),)
    records = [*GOOD[:2], gone, LONG, LONG]
    found = check(records, images, tokenizer, unread=unread, max_bad_fraction=2 / 6)
    assert (found.bad, found.too_long, found.total) == (2, 2, 6)
    with pytest.raises(UserError, match=r"record gone.* \(2 bad records.* allows 1 of 6\)"):
        check(records, images, tokenizer, unread=unread, max_bad_fraction=1.9 / 6)
    with pytest.raises(UserError, match="record number 10: no .* allows 0 of 6"):
        check(records, images, tokenizer, unread=unread, max_bad_fraction=0.0)
    with pytest.raises(UserError, match="none of 2 samples is usable, .*within 90 .max_length"):
        check([LONG, LONG], images, tokenizer, max_bad_fraction=0.0)


def test_rows_that_job_prepare_left_out_were_accepted(images: Path, named_tokenizer: Any) -> None:
    prompter = make_prompter(named_tokenizer("byte"))
    samples = SampleSet(GOOD[:2], (BadRow(7, "x", "no"),), accepted=True)
    more = dict(image_dir=images, prompter=prompter, transform=TRANSFORM, workers=0)
    found = check_set(samples, max_bad_fraction=0.0, **more)
    assert (found.total, found.bad, len(found.keep)) == (3, 1, 2)
    spoilt = dataclasses.replace(samples, records=[*GOOD, BAD[0][0]])
    with pytest.raises(UserError, match="record gone"):
        check_set(spoilt, max_bad_fraction=0.0, **more)


def test_a_bad_row_names_its_file_and_its_place(images: Path, named_tokenizer: Any) -> None:
    gone = dataclasses.replace(BAD[0][0], number=6)
    samples = SampleSet([*GOOD[:2], gone], source="all.json")
    with pytest.raises(UserError, match=r"^all.json: record number 7 \(id gone\): image "):
        check_set(
            samples, max_bad_fraction=0.0, image_dir=images, workers=0,
            transform=TRANSFORM, prompter=make_prompter(named_tokenizer("byte")),
        )  # fmt: skip


def test_a_forgotten_image_folder_is_named(
    images: Path, named_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images / "..")
    with pytest.raises(UserError, match="record good.*set config.data.image_dir to the folder"):
        check([GOOD[0]], Path(), named_tokenizer("byte"), max_bad_fraction=0.0)


ALPHABET = string.printable + "é“”中文ﷺ﷽½ǆ️🇨🇭\u2028\u200b<image></s>▁"


def random_record(rng: np.random.Generator) -> Record:
    def text() -> str:
        plain = ALPHABET if rng.random() < 0.5 else string.ascii_lowercase + " "
        words = rng.choice(list(plain), int(rng.choice([0, 3, 40, 90])))
        return "".join(words)

    turns = tuple(Turn(text(), text()) for _ in range(rng.integers(1, 4)))
    images = ("good.png",) * int(rng.integers(0, 2))
    if images:
        turns = (Turn("<image>\n" + turns[0].question, turns[0].answer), *turns[1:])
    retrieved = text() if rng.random() < 0.3 else None
    caption = text() if rng.random() < 0.5 else None
    return Record("r", images, turns, caption, retrieved, False)


@pytest.mark.parametrize("template", ["vicuna_v1", "tokenizer"])
def test_the_quick_check_says_what_encoding_says(tokenizer: Any, template: str) -> None:
    prompter = make_prompter(tokenizer, template=template, answer_states=True)
    rng, seen, captions = np.random.default_rng(0), set(), set()
    for _ in range(40):
        one, wanted, got = random_record(rng), None, None
        try:
            example = prompter.encode(one)
            wanted = example.truncated_tokens, example.truncated_caption_tokens
            captions.add(wanted[1] > 0)
        except UserError as error:
            wanted = type(error), str(error)
        try:
            got = prompter.check(one)
        except UserError as error:
            got = type(error), str(error)
        assert got == wanted, one
        seen.add(wanted[0] if isinstance(wanted[0], type) else wanted[0] > 0)
    assert {True, False} <= seen and seen & {TooLong, UserError} and captions == {True, False}


def test_no_tokenizer_makes_more_tokens_than_the_bound(tokenizer: Any) -> None:
    rng = np.random.default_rng(1)
    texts = ["ﷺ" * 9, "½" * 9, "", *("".join(rng.choice(list(ALPHABET), 50)) for _ in range(40))]
    for text in texts:
        assert len(tokenizer(text)["input_ids"]) <= most_tokens(text), text


def test_the_view_of_usable_records(images: Path) -> None:
    records, keep = [record(str(n), "q" * n, images=("a",) * (n % 2)) for n in range(9)], [1, 4, 7]
    records[4] = dataclasses.replace(records[4], turns=(Turn("<image>", None),))
    view = usable(records, np.array(keep))
    assert list(view) == [records[n] for n in keep] and view[-1] is records[7]
    known = known_of(view)
    assert known.lengths.tolist() == [7, 7, 13]
    assert known.images.tolist() == [1, 0, 1]
    assert known.answered.tolist() == [True, False, True]
    assert has_flags(view).tolist() == has_flags(records)[keep].tolist()
    assert usable(records, np.arange(9)) is records
    mixed = Mixture([view, records], [1.0, 2.0])
    assert len(mixed) == 12 and mixed[2] is records[7] and mixed[3] is records[0]


def test_sets_that_are_joined_know_of_each_other(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    for name in "ab":
        rows = [{"id": 0, "image": f"{name}.png", "conversations": talk}, {"id": name}]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    (tmp_path / "c.jsonl").write_text('{"id": 0, "caption": "whose?"}\n')
    texts = read_side_files({"captions": tmp_path / "c.jsonl"})
    sets, about = read_json_sets([tmp_path / "a.json", tmp_path / "b.json"], texts)
    assert [[r.caption for r in s.records] for s in sets] == [[None], [None]]
    assert about["captions"]["unclear_samples"] == 2 and [len(s.unread) for s in sets] == [1, 1]
    (alone,), about = read_json_sets([tmp_path / "a.json"], texts)
    assert alone.records[0].caption == "whose?" and about["captions"]["unclear_samples"] == 0


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [True, False])
def test_a_jpeg_is_found_truncated_as_decoding_it_finds_it(
    tmp_path: Path, named_tokenizer: Any, mode: str, progressive: bool
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(tmp_path / "w.jpg", progressive=progressive)
    whole, seen = (tmp_path / "w.jpg").read_bytes(), set()
    for lost in (0, 1, 2, 3, 30, 300, 3000):
        name = f"{lost}.jpg"
        (tmp_path / name).write_bytes(whole[: len(whole) - lost])
        try:
            load_image(tmp_path / name, record_id="x")
            wanted = True
        except UserError:
            wanted = False
        found = check([record("a", images=(name,)), record("b")], tmp_path, named_tokenizer("byte"))
        assert (len(found.keep) == 2) == wanted, lost
        seen.add(wanted)
    assert seen == {True, False}
