"""Every reader on a small hand-made folder in the published layout, whole and in part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.figstep import PROMPT
from tga_jax.evaluation.benchmarks.load import Benchmark, load
from tga_jax.evaluation.benchmarks.mm_safetybench import SCENARIOS
from tga_jax.evaluation.benchmarks.registry import parse_entries


def read(spec: str, *, images: Path | None = None) -> Benchmark:
    (entry,) = parse_entries(spec)
    return load(entry, drawings=Path("drawings"), images=images)


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def write(path: Path, value: Any, *, lines: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(v) + "\n" for v in value) if lines else json.dumps(value)
    path.write_text(text)
    return path


def whats(benchmark: Benchmark) -> list[tuple[str, str]]:
    return [(Path(m.what.split(":")[0]).name, m.scene) for m in benchmark.missing]


def test_scenes(tmp_path: Path) -> None:
    for name in ("cup/1.jpg", "cup/b/2.PNG", "tree/1.webp", "cup/notes.txt"):
        write_image(tmp_path / name) if "txt" not in name else write(tmp_path / name, 0)
    found = read(f"scenes:{tmp_path}?question=What is it?&expect=cup+car&harmful=no")
    assert [(i.id, i.scene, i.text, i.harmful) for i in found.items] == [
        ("cup/1.jpg", "cup", "What is it?", False),
        ("cup/b/2.PNG", "cup", "What is it?", False),
        ("tree/1.webp", "tree", "What is it?", False),
    ]
    assert whats(found) == [("car", "car")]
    paper = read(f"scenes:{tmp_path}?expect=paper")
    assert [scene for _, scene in whats(paper)] == [
        "porn", "bloody", "insulting", "alcohol", "cigarette", "gun", "knife",
    ]  # fmt: skip
    assert paper.items[0].harmful and paper.items[0].text == "Describe this image."


def test_scenes_of_a_file_are_an_error_that_names_it(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.json", [])
    with pytest.raises(UserError, match=r"rows\.json: .*folder"):
        read(f"scenes:{path}")


def test_hod(tmp_path: Path) -> None:
    for name in ("alcohol/normal/jpg/1.jpg", "alcohol/hard/2.jpg", "gun/normal/3.jpg"):
        write_image(tmp_path / name)
    found = read(f"hod:{tmp_path}")
    assert [(i.scene, i.image) for i in found.items] == [
        ("alcohol/normal", "alcohol/normal/jpg/1.jpg"),
        ("alcohol/hard", "alcohol/hard/2.jpg"),
        ("gun/normal", "gun/normal/3.jpg"),
    ]
    assert len(found.missing) == 9 and ("hard", "gun/hard") in whats(found)


def test_hod_as_cloned(tmp_path: Path) -> None:
    root = tmp_path / "dataset" / "class"
    for name in ("alcohol", "insulting_gesture", "blood", "cigarette", "gun", "knife"):
        for degree in ("normal_cases", "hard_cases"):
            write_image(root / name / degree / "img_hod_000001.jpg")
    for path in (tmp_path, root):
        found = read(f"hod:{path}")
        assert not found.missing and len(found.items) == 12
        assert (found.items[0].scene, found.items[0].image) == (
            "alcohol/normal", "alcohol/normal_cases/img_hod_000001.jpg",
        )  # fmt: skip


def test_mm_safetybench(tmp_path: Path) -> None:
    question = {
        "Question": "q", "Changed Question": "c", "Key Phrase": "k", "Phrase Type": "t",
        "Rephrased Question": "The image shows a phrase.",
        "Rephrased Question(SD)": "The image is of k.",
    }  # fmt: skip
    for scenario in SCENARIOS[:-1]:
        write(tmp_path / "processed_questions" / f"{scenario}.json", {"0": question, "7": question})
        for kind in ("SD", "SD_TYPO", "TYPO"):
            for number in ("0", "7"):
                write_image(tmp_path / "imgs" / scenario / kind / f"{number}.jpg")
    (tmp_path / "imgs" / "01-Illegal_Activitiy" / "TYPO" / "7.jpg").unlink()
    found = read(f"mm_safetybench:{tmp_path}")
    assert len(found.items) == 12 * 2 * 3 - 1
    assert whats(found) == [
        ("13-Gov_Decision.json", "13-Gov_Decision"),
        ("7.jpg", "01-Illegal_Activitiy/TYPO"),
    ]
    file = found.missing[0]
    assert (file.unit, file.items, file.whole, file.name) == ("files", 1, 13, "13-Gov_Decision")
    texts = {item.scene: item.text for item in found.items}
    assert texts["09-Privacy_Violence/SD"] == "The image is of k."
    assert texts["09-Privacy_Violence/SD_TYPO"] == "The image shows a phrase."
    assert texts["09-Privacy_Violence/TYPO"] == "The image shows a phrase."
    assert found.items[0].image == "01-Illegal_Activitiy/SD/0.jpg"
    assert len(read(f"mm_safetybench:{tmp_path}?types=SD").items) == 24
    with pytest.raises(UserError, match="types='XL'"):
        read(f"mm_safetybench:{tmp_path}?types=XL")


def test_figstep(tmp_path: Path) -> None:
    (tmp_path / "safebench.csv").write_text(
        "dataset,category_id,task_id,category_name,question,instruction\n"
        'SafeBench,1,1,Garden Work,"How, when do I plant?","Steps to plant\n a tree."\n'
        "SafeBench,10,2,Cooking,How?,Steps to cook.\n"
    )
    write_image(tmp_path / "images" / "query_ForbidQI_1_1_6.png")
    found = read(f"figstep:{tmp_path}?images={tmp_path / 'images'}")
    (item,) = found.items
    assert (item.id, item.scene, item.text, item.harmful) == ("1_1", "Garden Work", PROMPT, True)
    assert item.extra["instruction"] == "Steps to plant\n a tree."
    assert whats(found) == [("safebench.csv", ""), ("query_ForbidQI_10_2_6.png", "Cooking")]
    short = found.missing[0]
    assert "has 2 of the published 500 questions and 2 of the 10 categories" in short.what
    assert (short.items, short.whole, short.unit) == (498, 500, "questions")
    (tmp_path / "safebench.csv").rename(tmp_path / "mine.csv")  # the user's own selection
    found = read(f"figstep:{tmp_path / 'mine.csv'}?images={tmp_path / 'images'}")
    assert whats(found) == [("query_ForbidQI_10_2_6.png", "Cooking")]


def test_the_whole_figstep_lacks_nothing(tmp_path: Path) -> None:
    rows = [f"SafeBench,{c},{t},Scene {c},q,i" for c in range(1, 11) for t in range(1, 51)]
    header = "dataset,category_id,task_id,category_name,question,instruction"
    (tmp_path / "safebench.csv").write_text("\n".join([header, *rows]) + "\n")
    for c in range(1, 11):
        for t in range(1, 51):
            (tmp_path / f"query_ForbidQI_{c}_{t}_6.png").touch()
    found = read(f"figstep:{tmp_path}?limit=2")
    assert not found.missing and len(found.items) == 20


def test_vlguard(tmp_path: Path) -> None:
    both = [
        {"safe_instruction": "What is it?", "response": "A cup."},
        {"unsafe_instruction": "Say something rude.", "response": "No."},
    ]
    unsafe = {
        "safe": False, "harmful_category": "privacy", "harmful_subcategory": "personal data",
        "instr-resp": [{"instruction": "Read it.", "response": "No."}],
    }  # fmt: skip
    rows = [
        {"id": "a", "image": "s/1.png", "safe": True, "instr-resp": both},
        {"id": "b", "image": "u/2.png", **unsafe},
    ]
    write(tmp_path / "test.json", rows)
    write_image(tmp_path / "test" / "s" / "1.png")
    write_image(tmp_path / "test" / "u" / "2.png")
    found = read(f"vlguard:{tmp_path}")
    assert [(i.id, i.scene, i.harmful, i.text) for i in found.items] == [
        ("a-safe_safes", "safe_safes", False, "What is it?"),
        ("a-safe_unsafes", "safe_unsafes", True, "Say something rude."),
        ("b-unsafes", "unsafes/privacy", True, "Read it."),
    ]
    assert not found.missing
    write(tmp_path / "test.json", rows[:1])
    assert whats(read(f"vlguard:{tmp_path}")) == [("test.json", "unsafes")]
    write(tmp_path / "test.json", [{"id": "a", "image": "s/1.png", "instr-resp": both}])
    with pytest.raises(UserError, match=r"test.json: record number 1 \(id a\).*safe"):
        read(f"vlguard:{tmp_path}")


def test_question_files(tmp_path: Path) -> None:
    rows = [
        {"question_id": 1, "image": "1.png", "text": "Hm?", "category": "a/b", "label": "cup",
         "accept": ["cup", "mug"], "harmful": False, "group": "g", "kind": "what",
         "image_caption": "a cup"},
        {"question_id": "x", "image": "2.png", "text": "Hm?", "harmful": True, "kind": "describe"},
        {"question_id": 2, "text": "No image", "kind": "what"},
    ]  # fmt: skip
    file = write(tmp_path / "q.jsonl", rows, lines=True)
    write_image(tmp_path / "images" / "1.png")
    found = read(f"questions:{file}", images=tmp_path / "images")
    assert [(i.id, i.scene, i.harmful, i.label) for i in found.items] == [
        (1, "a-b", False, "cup"), (2, "", None, None),
    ]  # fmt: skip
    assert found.items[0].extra["caption"] == "a cup"
    assert whats(found) == [("2.png", "")]
    by = read(f"questions:{file}?scene=group+kind&only=kind:what&harmful=yes", images=tmp_path)
    assert [(i.id, i.scene, i.harmful) for i in by.items] == [(2, "what", True)]
    write(tmp_path / "q.jsonl", [{"question_id": 1, "text": " "}], lines=True)
    with pytest.raises(UserError, match='question_id 1.*"text"'):
        read(f"questions:{file}")


def test_a_benchmark_of_other_columns_needs_no_code(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png")
    (tmp_path / "q.tsv").write_text(
        "nr\timage\tinquiry\ttruth\ttoxic\tkind\n7\ta.png\tWhat is it?\tcup\t0\tx\n"
        "8\t\tWho?\t\t1\ty\n"
    )
    spec = f"questions:{tmp_path}/q.tsv?images={tmp_path}/images&text=inquiry&image=image"
    found = read(f"{spec}&label=truth&id=nr&harmful=toxic&scene=kind")
    assert [(i.id, i.text, i.image, i.label, i.harmful, i.scene) for i in found.items] == [
        ("7", "What is it?", "a.png", "cup", False, "x"), ("8", "Who?", None, None, True, "y"),
    ]  # fmt: skip
    mapped = read(f"{spec}&id=nr&caption=truth")
    assert [i.extra.get("caption") for i in mapped.items] == ["cup", None]
    (tmp_path / "empty.tsv").write_text("nr\tinquiry\n")
    for option in ("text=inquiry", "harmful=yes"):
        assert whats(read(f"questions:{tmp_path}/empty.tsv?{option}")) == [("empty.tsv", "")]
    with pytest.raises(UserError, match=r"empty.tsv: the file has no rows below its header$"):
        read(f"texts:{tmp_path}/empty.tsv?text=inquiry")
    texts = read(f"texts:{tmp_path}/q.tsv?text=inquiry&label=toxic&answer=truth&id=nr")
    assert [(i.id, i.text, i.label, i.harmful) for i in texts.items] == [
        ("7", "What is it?", "cup", False), ("8", "Who?", None, True),
    ]  # fmt: skip
    for kind, option in (("questions", "text=inquirie"), ("texts", "text=inquiry&label=lable")):
        key, _, name = option.split("&")[-1].partition("=")
        with pytest.raises(
            UserError, match=f"q.tsv: {key}='{name}': .* the file has nr, image, inquiry"
        ):
            read(f"{kind}:{tmp_path}/q.tsv?{option}")
    with pytest.raises(UserError, match="only='knd': there is no such column; the file has nr, im"):
        read(f"{spec}&only=knd:x")
    with pytest.raises(UserError, match="name it with .text=COLUMN, one of nr,"):
        read(f"questions:{tmp_path}/q.tsv")
    with pytest.raises(UserError, match='record number 1.*"inquiry" must be one of safe'):
        read(f"{spec}&harmful=inquiry")


def test_question_files_of_published_sets(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png")
    siuo = {"question_id": 1, "image": "1.png", "question": "Is it good?", "category": "morality"}
    write(tmp_path / "siuo_gen.json", [siuo | {"safety_warning": "w", "reference_answer": "r"}])
    (item,) = read(f"questions:{tmp_path}/siuo_gen.json?images={tmp_path}&harmful=yes").items
    assert (item.id, item.text, item.image, item.harmful, item.scene) == (
        1, "Is it good?", "1.png", True, "morality",
    )  # fmt: skip
    (tmp_path / "or-bench-hard-1k.csv").write_text("prompt,category\nHow?,privacy\nWhy?,self\n")
    items = read(f"texts:{tmp_path}/or-bench-hard-1k.csv?harmful=no").items
    assert [(i.id, i.scene, i.harmful) for i in items] == [
        (1, "privacy", False),
        (2, "self", False),
    ]


def test_text_sets(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text(
        "id,prompt,type,label,focus,note\n1,How do I kill a process?,homonyms,safe,kill,\n"
        '2,"How, then?",contrast_homonyms,unsafe,,\n'
    )
    (tmp_path / "old.csv").write_text(
        "id_v2,type,prompt,note\nv2-1,homonyms,A?,\nv2-2,contrast_x,B?,\n"
    )
    new, old = read(f"texts:{tmp_path / 'new.csv'}"), read(f"texts:{tmp_path / 'old.csv'}")
    assert [(i.id, i.scene, i.harmful) for i in new.items] == [
        ("1", "homonyms", False), ("2", "contrast_homonyms", True),
    ]  # fmt: skip
    assert [(i.id, i.text, i.harmful) for i in old.items] == [
        ("v2-1", "A?", False), ("v2-2", "B?", True),
    ]  # fmt: skip
    (tmp_path / "old.csv").write_text(",type,prompt\n0,homonyms,A?\n1,contrast_x,B?\n")  # pandas
    assert [i.harmful for i in read(f"texts:{tmp_path / 'old.csv'}").items] == [False, True]
    rows = [{"prompt": "2 + 2?", "answer": 4}, {"prompt": "2 - 2?", "answer": 0}, {"prompt": "?"}]
    file = write(tmp_path / "sums.json", rows)
    assert [i.label for i in read(f"texts:{file}?harmful=no").items] == ["4", "0", None]
    file = write(tmp_path / "goals.jsonl", [{"goal": "Do it."}, {"goal": "Do that."}], lines=True)
    assert [i.id for i in read(f"texts:{file}?harmful=yes").items] == [1, 2]
    with pytest.raises(UserError, match="harmful=yes or harmful=no"):
        read(f"texts:{file}")
    with pytest.raises(UserError, match="no known column has the prompts"):
        read(f"texts:{write(tmp_path / 'x.jsonl', [{'a': 1}], lines=True)}")


def pope_folder(folder: Path) -> Path:
    """Two labels a split, and LLaVA's questions."""
    asked, number = [], 100
    for split in ("random", "popular", "adversarial"):
        labels = []
        for i, label in enumerate(("yes", "no"), start=1):
            image, text = f"{split}{i}.jpg", f"Is there a {split} in the image?"
            labels.append({"question_id": i, "image": image, "text": text, "label": label})
            text += "\nAnswer the question using a single word or phrase."
            asked.append({"question_id": number, "image": image, "text": text, "category": split})
            number += 1
            write_image(folder / "val2014" / image)
        write(folder / "coco" / f"coco_pope_{split}.json", labels, lines=True)
    write(folder / "llava_pope_test.jsonl", asked, lines=True)
    return folder


def test_pope(tmp_path: Path) -> None:
    folder = pope_folder(tmp_path)
    spec = f"pope:{folder / 'coco'}?images={folder / 'val2014'}"
    found = read(spec)
    assert [(i.id, i.scene, i.label) for i in found.items] == [
        (104, "adversarial", "yes"), (105, "adversarial", "no"), (102, "popular", "yes"),
        (103, "popular", "no"), (100, "random", "yes"), (101, "random", "no"),
    ]  # fmt: skip
    texts = [item.text for item in found.items]
    (folder / "llava_pope_test.jsonl").unlink()
    own = read(spec)
    assert [item.text for item in own.items] == texts and own.items[0].id == "adversarial-1"
    (folder / "coco" / "coco_pope_popular.json").unlink()
    assert whats(read(spec)) == [("coco_pope_popular.json", "popular")]


def test_pope_with_questions_that_do_not_fit_the_labels(tmp_path: Path) -> None:
    folder = pope_folder(tmp_path)
    spec = f"pope:{folder / 'coco'}?images={folder / 'val2014'}"
    lines = (folder / "llava_pope_test.jsonl").read_text().splitlines()
    (folder / "llava_pope_test.jsonl").write_text("\n".join(lines[1:]))
    with pytest.raises(UserError, match="random2.jpg"):
        read(spec)
    (folder / "llava_pope_test.jsonl").write_text("\n".join(lines[:-1]))
    assert whats(read(spec)) == [("1 questions, 2 labels", "adversarial")]


def scienceqa_folder(folder: Path) -> Path:
    """Three test problems, one with an image, and one that LLaVA's file lacks."""
    problem = {"question": "Which?", "choices": ["red", "blue"], "hint": "", "split": "test"}
    problems = {str(i): {**problem, "answer": i % 2, "image": None} for i in range(1, 6)}
    write(folder / "problems.json", problems)
    write(folder / "pid_splits.json", {"train": ["1"], "test": ["2", "3", "4", "5"]})
    turns = [{"from": "human", "value": "Context: N/A\nWhich?\nA. red\nB. blue"}, {"from": "gpt"}]
    rows: list[dict[str, Any]] = [{"id": i, "conversations": turns} for i in ("2", "3", "4")]
    seen = [{"from": "human", "value": "<image>\nContext: N/A\nWhich?\nA. red\nB. blue"}, {}]
    rows[1] |= {"image": "3/image.png", "conversations": seen}
    write(folder / "llava_test_CQM-A.json", rows)
    write_image(folder / "images" / "test" / "3" / "image.png")
    return folder


def test_scienceqa(tmp_path: Path) -> None:
    found = read(f"scienceqa:{scienceqa_folder(tmp_path)}")
    assert [(i.id, i.scene, i.label, i.image) for i in found.items] == [
        ("2", "text", "A", None), ("3", "image", "B", "3/image.png"), ("4", "text", "A", None),
    ]  # fmt: skip
    assert found.items[1].text == (
        "<image>\nContext: N/A\nWhich?\nA. red\nB. blue\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert len(found.missing) == 1 and "problem 5" in found.missing[0].what
    (tmp_path / "problems.json").unlink()
    assert whats(read(f"scienceqa:{tmp_path}")) == [("problems.json", "")]


@pytest.mark.parametrize("kind", ["scenes", "vlguard", "pope", "texts", "figstep", "scienceqa"])
def test_what_is_not_there_is_missing(tmp_path: Path, kind: str) -> None:
    found = read(f"{kind}:{tmp_path / 'nothing'}")
    assert not found.items and [part.what for part in found.missing] == [
        f"{tmp_path / 'nothing'}: no such file or folder"
    ]
    assert read(f"{kind if kind != 'texts' else 'hod'}:{tmp_path}").missing  # an empty folder


def test_the_miniatures_files_are_benchmarks(tmp_path: Path) -> None:
    from tga_jax.miniature.build import build_world
    from tga_jax.miniature.builder import WorldSizes

    sizes = WorldSizes(
        llm_pretrain=1, llm_safety=1, pretrain=1, finetune_captions=1, finetune_looks=1,
        finetune_describe=0.3, caption_form="full", retrieved=True, finetune_questions=1,
        finetune_texts=1, corpus=1, eval_benign=3, eval_harmful=2, text_eval=6, tokenizer_texts=60,
    )  # fmt: skip
    build_world(tmp_path, sizes=sizes)
    images = tmp_path / "images"
    found = read(f"questions:{tmp_path}/eval_test/questions.jsonl?images={images}&scene=group")
    assert not found.missing and len(found.items) == 3 * 3 + 3 * 2 * 2
    assert {i.scene: i.harmful for i in found.items} == {
        "benign": False, "seen": True, "new_concept": True, "new_category": True,
    }  # fmt: skip
    assert all(item.label and item.extra["caption"] for item in found.items)
    texts = read(f"texts:{tmp_path}/text_eval_test.jsonl?scene=group")
    assert [item.harmful for item in texts.items].count(True) == 3


def test_a_question_file_without_a_folder_of_images_says_how_to_name_one(tmp_path: Path) -> None:
    rows = [{"question_id": 0, "image": "0.png", "text": "What?", "harmful": True}]
    path = write(tmp_path / "q.jsonl", rows, lines=True)
    (lost,) = read(f"mine=questions:{path}").missing
    assert lost.what.startswith("0.png: no such image, as no folder of images is named")
    (lost,) = read(f"mine=questions:{path}", images=tmp_path).missing
    assert lost.what == f"{tmp_path / '0.png'}: no such image"
