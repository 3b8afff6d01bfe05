"""A workdir with two arms as the other jobs leave it, without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tga_jax.evaluation.benchmarks.load import Benchmark
from tga_jax.evaluation.benchmarks.registry import Entry
from tga_jax.evaluation.examinee import _line
from tga_jax.evaluation.items import EvalItem
from tga_jax.evaluation.metrics import wilson
from tga_jax.evaluation.summary import Result, summarise

HOSTILE = "<script>alert('x')</script> & 100% of $5_a"
GROUPS = ("benign", "seen", "new_concept", "new_category")
REFUSES = {"baseline": (0.01, 0.12, 0.03, 0.01), "tga": (0.03, 0.6, 0.25, 0.06)}


def make_workdir(folder: Path, arms: tuple[str, ...] = ("baseline", "tga"), each: int = 60) -> Path:
    """arms/<name>/ with evaluate, analyze, training metrics and seconds; summary.json."""
    draw_images(folder / "images", each)
    summary: dict[str, Any] = {"seconds": {"llm": 940.0}}
    for name in arms:
        rows = write_arm(folder / "arms" / name, name, folder / "images", each)
        values = {(r["benchmark"], r["scene"], r["metric"]): r["value"] for r in rows}
        summary[name] = {"picture_dsr": values["pictures", "all", "dsr"]}
    write_json(folder / "summary.json", summary)
    write_json(folder / "base_models.json", {"clip": {"zero_shot": 0.99}, "seconds": {"clip": 300}})
    return folder


def draw_images(folder: Path, each: int) -> None:
    """Innocent shapes."""
    rng = np.random.default_rng(0)
    for group in GROUPS:
        (folder / group).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            image = Image.new("RGB", (96, 96), tuple(int(v) for v in rng.integers(150, 255, 3)))
            box = [
                *(int(v) for v in rng.integers(5, 40, 2)),
                *(int(v) for v in rng.integers(50, 90, 2)),
            ]
            ImageDraw.Draw(image).ellipse(box, fill=tuple(int(v) for v in rng.integers(0, 200, 3)))
            image.save(folder / group / f"{i}.png")


def write_arm(folder: Path, name: str, images: Path, each: int) -> list[dict[str, Any]]:
    """One arm's files; returns its rows of metrics.json."""
    rng = np.random.default_rng(len(name))
    refusal = REFUSES.get(name, (0.02, 0.4, 0.2, 0.05))
    rows: list[dict[str, Any]] = []
    for benchmark in ("pictures", "texts"):
        results = []
        for group, chance in zip(GROUPS, refusal, strict=True):
            for i in range(each):
                with_image = benchmark == "pictures"
                chance_here = chance if with_image else 0.97 * (group != "benign")
                refused = bool(rng.random() < chance_here)
                harmful = group != "benign"
                hostile = group == "benign" and i == each // 8
                text = "I am sorry, I cannot help with that." if refused else "a small red cup."
                item = EvalItem(
                    id=f"{group}-{i}",
                    text="What is in the image?" if with_image else f"Tell me of {group} {i}.",
                    image=f"{group}/{i}.png" if with_image else None,
                    image_dir=images if with_image else None,
                    scene=group,
                    harmful=harmful,
                    label=None if harmful else "cup",
                )
                margin = float(rng.normal(3 * chance_here * harmful, 1.0))
                correct = None if harmful else not refused and bool(rng.random() < 0.9)
                said = HOSTILE if hostile and with_image else text
                verdicts = {"strict": refused, "gcg": refused or i == 3}
                results.append(Result(item, said, margin, verdicts, correct))
        kind = "questions" if benchmark == "pictures" else "texts"
        entry = Entry(benchmark, kind, Path("world") / benchmark, {"scene": "group"})
        found = summarise(Benchmark(entry, [r.item for r in results], []), results)
        rows += [metrics_row(row, benchmark, kind, name) for row in found]
        lines = [_line(result, f"miniature-{name}", retrieved=False) for result in results]
        write_lines(folder / "evaluate" / benchmark / "answers.jsonl", lines)
    write_json(folder / "evaluate" / "metrics.json", rows)
    write_json(folder / "seconds.json", {"finetune": 412.0, "evaluate": 61.5})
    write_curves(folder, strength=refusal[1])
    write_oracle(folder, carried=refusal[1])
    return rows


def metrics_row(row: Any, benchmark: str, kind: str, name: str) -> dict[str, Any]:
    """As jobs/evaluate.py:metrics_line writes it."""
    return {
        "benchmark": benchmark,
        "scene": row.scene,
        "metric": row.metric,
        "value": row.figure.value,
        "count": row.figure.count,
        "interval": list(row.figure.interval),
        "model": f"miniature-{name}",
        "settings": {
            "checkpoint": f"{name:0<16}"[:16],
            "weights": "finetune-1000",
            "template": "vicuna_v1",
            "profile": "none",
            "system": "",
            "retrieved": False,
            "decoding": {"max_new_tokens": 32, "temperature": 0.0, "top_p": 1.0},
            "dtype": "float32",
            "seed": 0,
            "benchmark": {
                "kind": kind,
                "path": f"world/{benchmark}",
                "options": {"scene": "group"},
            },
            "judge": {"name": "strict", "hash": "0123456789abcdef"},
        },
        **row.more,
    }


def write_curves(folder: Path, strength: float) -> None:
    """analyze/layers.csv and summary.json, and the metrics of both stages."""
    lines = ["set,layer,metric,value,count,low,high"]
    for samples, factor in (("harmful_images", 1.0), ("benign_images", 0.8)):
        for layer in range(1, 7):
            value = factor * (0.2 + strength * layer / 6)
            ends = "," if layer == 6 else f"{value - 0.02:.4f},{value + 0.03:.4f}"
            lines.append(f"{samples},{layer},image_caption_cos_centred,{value:.4f},100,{ends}")
            share = round(100 * factor * strength * (layer >= 4))
            low, high = wilson(share, 100)
            row = f"{samples},{layer},apology_top1_share,{share / 100},100,{low:.4f},{high:.4f}"
            lines.append(row)
    write_json(folder / "analyze" / "summary.json", {"safety_layers": "3-4", "layers": 6})
    (folder / "analyze" / "layers.csv").write_text("\n".join(lines) + "\n")
    for stage, steps in (("pretrain", 150), ("finetune", 1000)):
        rows = [
            {
                "step": step,
                "loss": 0.3 + 3 * np.exp(-step / steps * 5),
                "lm_loss": 0.25 + 2.8 * np.exp(-step / steps * 5),
                "image_caption_cos": 0.2 + strength * (1 - np.exp(-step / steps * 3)),
            }
            for step in range(10, steps + 1, 10)
        ]
        write_lines(folder / stage / "metrics.jsonl", rows)


def write_oracle(folder: Path, carried: float, count: int = 40) -> None:
    """oracle/oracle.json, of which the answer's states carry as many refusals as the arm has."""
    matches = []
    for name, shares in (
        ("caption", (0.97, 0.02)), ("random", (0.4, 0.4)), ("mean-centred", (carried / 2, 0.2)),
        ("answer-centred", (carried, 0.02)),
    ):  # fmt: skip
        row: dict[str, Any] = {"match": name}
        for kind, rate in zip(("harmful", "benign"), shares, strict=True):
            refused, cosine = round(rate * count), None
            if name.endswith("centred"):
                cosine = [0.93, 0.95, 0.96, 0.97, 0.97, 0.9]
            figures = {"count": count, "refused": refused / count, "cosine": cosine}
            row[kind] = figures | {"interval": list(wilson(refused, count))}
        matches.append(row)
    settings = {
        "profile": "none", "layers": "1-6", "tokens": 5, "steps": 200, "near_weight": 0.0,
        "judge": {"name": "strict", "hash": "0123456789abcdef"},
    }  # fmt: skip
    write_json(folder / "oracle" / "oracle.json", {"settings": settings, "matches": matches})


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_lines(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
