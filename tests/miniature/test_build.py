"""The written world: deterministic, resumable, and true to its rules."""

import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tga_jax.data.records import read_records
from tga_jax.errors import UserError
from tga_jax.miniature.build import build_world
from tga_jax.miniature.builder import WorldSizes
from tga_jax.miniature.concepts import BY_NAME, CATEGORIES, CONCEPTS, concepts_of
from tga_jax.miniature.texts import REFUSALS

SIZES = WorldSizes(
    llm_pretrain=300, llm_safety=300, pretrain=200, finetune_captions=200, finetune_looks=200,
    finetune_questions=200, finetune_texts=100, corpus=300, eval_benign=90, eval_harmful=20,
    text_eval=60, tokenizer_texts=300, finetune_describe=0.3, caption_form="full", retrieved=True,
)  # fmt: skip
SMALL = WorldSizes(
    llm_pretrain=30, llm_safety=30, pretrain=20, finetune_captions=20, finetune_looks=20,
    finetune_questions=20, finetune_texts=10, corpus=30, eval_benign=9, eval_harmful=2,
    text_eval=6, tokenizer_texts=30, finetune_describe=0.3, caption_form="full", retrieved=True,
)  # fmt: skip
HIDDEN = ("new_concept", "new_category")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    build_world(folder, seed=3, sizes=SIZES)
    return folder


def digests(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def rows_of(folder, name):
    return json.loads((folder / name).read_text())


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def words_of(groups):
    concepts = concepts_of(*groups)
    words = {word for concept in concepts for word in (concept.name, *concept.synonyms)}
    if "new_category" in groups:
        kinds = {concept.category for concept in concepts_of("new_category")}
        words |= {w for c in CATEGORIES if c.name in kinds for w in (c.name, c.synonym)}
    return re.compile(rf"\b({'|'.join(sorted(words))})\b")


def imaged(folder):
    rows = rows_of(folder, "pretrain.json") + rows_of(folder, "finetune.json")
    return [row for row in rows if "image" in row]


def test_same_seed_same_bytes_other_seed_others(tmp_path):
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        build_world(tmp_path / name, seed=seed, sizes=SMALL)
    assert digests(tmp_path / "again") == digests(tmp_path / "one")
    other, mine = digests(tmp_path / "other"), digests(tmp_path / "one")
    changed = [name for name in mine if not name.startswith("tokenizer/")]
    assert all(other[name] != mine[name] for name in changed if name in other)


def test_a_finished_world_is_kept_and_a_changed_or_broken_one_made_anew(tmp_path):
    folder = tmp_path / "world"
    small = replace(SMALL, finetune_captions=5, finetune_questions=5)
    first = build_world(folder, sizes=small)
    made = (folder / "pretrain.json").stat().st_mtime_ns
    assert build_world(folder, sizes=small) == first
    assert (folder / "pretrain.json").stat().st_mtime_ns == made
    (folder / "mine.txt").write_text("the user's own")
    second = build_world(folder, sizes=replace(small, pretrain=10))
    assert second["counts"]["pretrain"] == 10 == len(list((folder / "images/pretrain").iterdir()))
    assert (folder / "mine.txt").exists()
    marker = json.loads((folder / "world.json").read_text())
    (folder / "world.json").write_text(json.dumps({**marker, "done": False}))
    (folder / "corpus.txt").unlink()
    assert build_world(folder, sizes=replace(small, pretrain=10)) == second
    assert (folder / "corpus.txt").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        build_world(tmp_path, sizes=SIZES)


@pytest.mark.parametrize("name", ["pretrain", "finetune", "llm_pretrain", "llm_safety"])
def test_rows_are_what_the_data_room_reads(world, name):
    records = read_records(world / f"{name}.json")
    assert len(records) == len({record.id for record in records})
    assert not any(record.tox for record in records)
    for record in records:
        assert all(turn.answer for turn in record.turns)
        for image in record.images:
            assert Image.open(world / "images" / image).size == (48, 48)
        assert bool(record.images) == bool(record.caption) == bool(record.retrieved)


def test_no_image_is_refused(world):
    for row in imaged(world):
        assert "orry" not in json.dumps(row)


@pytest.mark.parametrize(
    ("stage", "low", "high"), [("pretrain", 0.1, 0.22), ("finetune", 0.04, 0.13)]
)
def test_harmful_images_are_frequent_enough(world, stage, low, high):
    seen = words_of(("seen",))
    rows = [row for row in rows_of(world, f"{stage}.json") if "image" in row]
    assert low <= np.mean([bool(seen.search(row["image_caption"])) for row in rows]) <= high


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_the_harmless_rows_are_the_others_without_harmful_images(world, stage):
    seen = words_of(("seen",))
    rows = rows_of(world, f"{stage}.json")
    kept = [r for r in rows if "image" not in r or not seen.search(json.dumps(r))]
    assert rows_of(world, f"{stage}_harmless.json") == kept != rows


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_the_captioned_rows_are_the_others_without_answers_about_harmful_images(world, stage):
    captioned = read_records(world / f"{stage}_captioned.json")
    harmless = {row["id"] for row in rows_of(world, f"{stage}_harmless.json")}
    assert [r.id for r in captioned] == [row["id"] for row in rows_of(world, f"{stage}.json")]
    assert {r.id for r in captioned if r.has_answer} == harmless
    assert all(r.guide_only and r.caption for r in captioned if not r.has_answer)


def test_a_harmful_image_is_only_captioned_named_or_described(world):
    seen = words_of(("seen",))
    rows = [row for row in imaged(world) if seen.search(json.dumps(row))]
    assert rows and not any(row["id"].startswith("chat") for row in rows)


def test_alignment_never_speaks_of_hidden_groups_beside_an_image(world):
    hidden = words_of(HIDDEN)
    assert not [row for row in imaged(world) if hidden.search(json.dumps(row))]
    assert not hidden.search((world / "corpus.txt").read_text())


def test_questions_about_images_never_name_harm(world):
    harmful = words_of(("seen", *HIDDEN))
    for row in imaged(world):
        for turn in row["conversations"]:
            assert turn["from"] == "gpt" or not harmful.search(turn["value"])


@pytest.mark.parametrize("name", ["llm_safety", "finetune"])
def test_texts_are_refused_if_and_only_if_harmful(world, name):
    harmful = words_of(("seen", *HIDDEN))
    kinds = {word for c in CATEGORIES if c.harmful for word in (c.name, c.synonym)}
    refused = 0
    for row in rows_of(world, f"{name}.json"):
        if "image" in row:
            continue
        prompt, answer = (turn["value"] for turn in row["conversations"])
        bad = harmful.search(prompt) or kinds & set(re.findall("[a-z]+", prompt))
        assert bool(bad) == (answer in REFUSALS)
        refused += bool(bad)
    assert refused > 0


def test_llm_pretraining_knows_all_concepts_and_refuses_nothing(world):
    text = (world / "llm_pretrain.json").read_text()
    assert "orry" not in text
    known = [c for c in CONCEPTS if any(w in text for w in (c.name, *c.synonyms))]
    assert len(known) > 0.95 * len(CONCEPTS)


def test_dev_and_test_have_no_image_scene_or_prompt_in_common(world):
    splits = {
        split: lines_of(world / f"eval_{split}" / "questions.jsonl") for split in ("dev", "test")
    }
    pixels = {
        split: {(world / "images" / row["image"]).read_bytes() for row in rows}
        for split, rows in splits.items()
    }
    assert not pixels["dev"] & pixels["test"]
    for split, rows in splits.items():
        assert len({row["question_id"] for row in rows}) == len(rows)
        assert {row["group"] for row in rows} == {"benign", "seen", *HIDDEN}
        for row in rows:
            assert BY_NAME[row["concept"]].group == row["group"]
            assert row["harmful"] == (row["group"] != "benign")
            assert row["kind"] != "what" or row["label"] == row["concept"]
        assert all(row["image"].startswith(split) for row in rows)
    prompts = [
        {row["prompt"] for row in lines_of(world / f"text_eval_{split}.jsonl")}
        for split in ("dev", "test")
    ]
    for rows in ("llm_pretrain.json", "llm_safety.json", "finetune.json"):
        prompts.append({row["conversations"][0]["value"] for row in rows_of(world, rows)})
    assert not prompts[0] & prompts[1] and not (prompts[0] | prompts[1]) & set().union(*prompts[2:])


def test_text_evaluation_is_half_unsafe_and_knows_its_answers(world):
    rows = lines_of(world / "text_eval_test.jsonl")
    assert sum(row["label"] == "unsafe" for row in rows) == len(rows) // 2
    assert all(row["answer"] is None for row in rows if row["label"] == "unsafe")
    safe = [row for row in rows if row["label"] == "safe"]
    assert np.mean([row["answer"] is not None for row in safe]) >= 0.6


def test_corpus_groups_are_a_choice(tmp_path):
    build_world(
        tmp_path,
        sizes=replace(SMALL, corpus=300, corpus_groups=("seen", *HIDDEN), harmful_corpus=0.5),
    )
    assert words_of(HIDDEN).search((tmp_path / "corpus.txt").read_text())
