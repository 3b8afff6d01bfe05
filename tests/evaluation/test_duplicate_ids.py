"""An id that occurs twice: in VLGuard's own file, and in a file of retrieved texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tga_jax.config import base_config
from tga_jax.evaluation.asked import read_benchmarks
from tga_jax.run.job import Job


def vlguard(folder: Path) -> Path:
    """Two images of one id, and one of another."""
    (folder / "train").mkdir()
    rows = []
    for name, image in (("1", "a"), ("1", "b"), ("2", "c")):
        Image.new("RGB", (8, 8)).save(folder / "train" / f"{image}.png")
        pairs = [{"safe_instruction": f"Is it {image}?"}, {"unsafe_instruction": "How?"}]
        rows.append({"id": name, "image": f"{image}.png", "safe": True, "instr-resp": pairs})
    unsafe = {"id": "3", "image": "a.png", "safe": False, "harmful_category": "x"}
    rows.append(unsafe | {"instr-resp": [{"instruction": "How?"}]})
    (folder / "train.json").write_text(json.dumps(rows))
    return folder / "train.json"


def test_vlguard_with_a_duplicate_id_is_read_and_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = base_config()
    lines = [
        {"id": "1-safe_safes", "image": "a.png", "text": "of a"},
        {"id": "1-safe_safes", "image": "z.png", "text": "of another"},
        {"id": "2-safe_safes", "image": "renamed/c.png", "text": "of c"},
        {"id": "2-safe_unsafes", "text": "of c, too"},
    ]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    entry = f"vlguard:{vlguard(tmp_path)}?retrieved={tmp_path / 'r.jsonl'}"
    config.evaluate.benchmarks = entry
    (benchmark,) = read_benchmarks(Job(config, tmp_path, "evaluate"))
    items = {item.id: item for item in benchmark.items}
    assert list(items) == [
        "1-safe_safes", "1-safe_unsafes", "1-safe_safes#2", "1-safe_unsafes#2", "2-safe_safes",
        "2-safe_unsafes", "3-unsafes",
    ]  # fmt: skip
    assert items["1-safe_safes#2"].image == "b.png" and not benchmark.missing
    assert "2 ids occur twice" in capfd.readouterr().err
    texts = {name: item.extra.get("retrieved") for name, item in items.items()}
    assert {name: text for name, text in texts.items() if text} == {
        "1-safe_safes": "of a", "2-safe_safes": "of c", "2-safe_unsafes": "of c, too",
    }  # fmt: skip
