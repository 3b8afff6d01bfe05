"""POPE and ScienceQA end to end, against scripts that follow the published evaluation."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from tests.evaluation.test_readers import pope_folder, read, scienceqa_folder
from tga_jax.evaluation.benchmarks.load import Benchmark
from tga_jax.evaluation.summary import Result, summarise

REPLIES = (
    "Yes", "No", "Yes, there is a dog.", "no", "There is not. Yes", "It is hard to say, no?",
    "A", "B. blue", "The answer is A.", "I say: The answer is B", "C", "A.", " A ", "blue",
    "The answer is B. No, The answer is A.", "I say The answer is B, surely", "B\nblue",
)  # fmt: skip


def values(benchmark: Benchmark, texts: list[str]) -> dict[tuple[str, str], float]:
    results = [
        Result(item, text, None, {"strict": False}, benchmark.kind.correct(item, text))
        for item, text in zip(benchmark.items, texts, strict=True)
    ]
    return {(row.scene, row.metric): row.figure.value for row in summarise(benchmark, results)}


def test_pope_over_answers_in_the_order_of_its_label_files(tmp_path: Path) -> None:
    folder, rng = pope_folder(tmp_path), np.random.default_rng(0)
    benchmark = read(f"pope:{folder / 'coco'}?images={folder / 'val2014'}")
    category = {
        question["question_id"]: question["category"]
        for question in map(json.loads, (folder / "llava_pope_test.jsonl").open())
    }
    for _ in range(20):
        texts = [str(rng.choice(REPLIES)) for _ in benchmark.items]
        found = values(benchmark, texts)
        for split in ("random", "popular", "adversarial"):
            file = folder / "coco" / f"coco_pope_{split}.json"
            labels = [json.loads(line)["label"] != "no" for line in file.open()]
            said = []
            for item, text in zip(benchmark.items, texts, strict=True):
                if category[item.id] == split:
                    words = text.partition(".")[0].replace(",", "").split(" ")
                    said.append(not any(word in ("No", "not", "no") for word in words))
            tp = sum(s and y for s, y in zip(said, labels, strict=True))
            precision, recall = tp / sum(said) if any(said) else 0, tp / sum(labels)
            wanted = {
                "accuracy": np.mean(np.equal(said, labels)),
                "precision": precision,
                "recall": recall,
                "f1": 2 * precision * recall / (precision + recall) if tp else 0,
                "yes_ratio": np.mean(said),
            }
            for metric, value in wanted.items():
                assert np.isclose(found[split, metric], value)


def test_scienceqa_over_all_and_over_images(tmp_path: Path) -> None:
    benchmark = read(f"scienceqa:{scienceqa_folder(tmp_path)}")
    problems = json.loads((tmp_path / "problems.json").read_text())
    rng = np.random.default_rng(0)
    for _ in range(40):
        texts = [str(rng.choice(REPLIES)) for _ in benchmark.items]
        right, seen = [], []
        for item, text in zip(benchmark.items, texts, strict=True):
            if text in list("ABCDE"):
                letter = text
            elif len(text) >= 3 and text[0] in "ABCDE" and text[1:3] == ". ":
                letter = text[0]
            else:
                said = re.findall(r"The answer is ([A-Z]).", text)
                letter = said[0] if len(said) == 1 else "FAILED"
            right.append(letter == "AB"[problems[item.id]["answer"]])
            seen.append("<image>" in item.text)
        found = values(benchmark, texts)
        assert found["all", "accuracy"] == np.mean(right)
        assert found["image", "accuracy"] == np.mean(np.array(right)[seen])
        assert found["all", "accuracy_lenient"] >= found["all", "accuracy"]
