"""Job `miniature` in the smallest size: its files load in transformers, nothing is done twice."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, CLIPModel

from tga_jax.main import main
from tga_jax.miniature import pair_store

pytestmark = [pytest.mark.parity, pytest.mark.slow]

TINY = {
    "world": dict(
        llm_pretrain=60, llm_safety=40, pretrain=4, finetune_captions=4, finetune_questions=4,
        finetune_texts=4, corpus=10, eval_benign=4, eval_harmful=4, text_eval=12,
        tokenizer_texts=200,
    ),
    "clip": dict(
        width=32, layers=1, pairs=40, steps=4, batch_size=8, save_every=2, dev_pictures=120
    ),
    "llm": dict(
        width=32, layers=2, pretrain_steps=2, safety_steps=2, batch_size=4, buckets="(80,)"
    ),
}  # fmt: skip
FILES = ("base_models.json", "clip/model.safetensors", "llm/model.safetensors")


def _run(workdir: Path, other: dict[str, str] | None = None) -> int:
    flags = [f"--config.miniature.{p}.{k}={v}" for p, d in TINY.items() for k, v in d.items()]
    flags += [
        f"--config.{key}={value}"
        for key, value in ({"miniature.shipped": ""} | (other or {})).items()
    ]
    command = ["x", "--config=configs/miniature.py", f"--workdir={workdir}", "--job=miniature"]
    return main([*command, *flags])


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("miniature")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair_store, "CHUNK", 20)
        assert _run(folder) == 0
    return folder


def test_transformers_loads_both_models(workdir):
    clip = CLIPModel.from_pretrained(workdir / "clip")
    processor = AutoProcessor.from_pretrained(workdir / "clip")
    image = np.zeros((48, 48, 3), np.uint8)
    inputs = processor(text=["a dog"], images=[image], return_tensors="pt", padding=True)
    with torch.no_grad():
        assert clip.float()(**inputs).logits_per_image.shape == (1, 1)
    llm = AutoModelForCausalLM.from_pretrained(workdir / "llm").float()
    tokenizer = AutoTokenizer.from_pretrained(workdir / "llm")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "what is a dog?"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt == "USER: what is a dog? ASSISTANT:"
    assert llm.generate(**tokenizer(prompt, return_tensors="pt"), max_new_tokens=3).shape[1] > 3


def test_the_figures_are_written(workdir):
    found = json.loads((workdir / "base_models.json").read_text())
    assert found["clip"]["zero_shot"]["pictures"] > 50
    assert found["llm"]["harmful"] == found["llm"]["benign"] == 6
    for part in ("clip", "llm"):
        stored = AutoModelForCausalLM if part == "llm" else CLIPModel
        model = stored.from_pretrained(workdir / part)
        assert found[part]["parameters"] == sum(p.numel() for p in model.parameters())


def test_a_second_run_does_nothing(workdir, capfd):
    before = {name: (workdir / name).read_bytes() for name in FILES}
    times = {name: (workdir / name).stat().st_mtime_ns for name in FILES[1:]}
    assert _run(workdir) == 0
    assert capfd.readouterr().err.count("finished before") == 2
    assert before == {name: (workdir / name).read_bytes() for name in FILES}
    assert times == {name: (workdir / name).stat().st_mtime_ns for name in FILES[1:]}


def test_a_lost_figure_file_costs_the_measuring_alone_and_gives_the_same(workdir, capfd):
    before = json.loads((workdir / "base_models.json").read_text())
    weights = (workdir / "llm/model.safetensors").read_bytes()
    (workdir / "training" / "llm.json").unlink()
    assert _run(workdir) == 0
    assert "compiling the step" not in capfd.readouterr().err
    after = json.loads((workdir / "base_models.json").read_text())
    assert after["llm"] == before["llm"]
    assert (workdir / "llm/model.safetensors").read_bytes() == weights


def test_shipped_models_are_taken_where_the_settings_are_the_same(workdir, tmp_path, capfd):
    shipped = tmp_path / "shipped"
    for name in ("clip", "llm"):
        shutil.copytree(workdir / name, shipped / name)
        shutil.copyfile(workdir / "training" / f"{name}.json", shipped / f"{name}.json")
    assert _run(tmp_path / "run", {"miniature.shipped": str(shipped)}) == 0
    assert capfd.readouterr().err.count("taken from") == 2
    found, own = (json.loads((folder / "base_models.json").read_text())
                  for folder in (tmp_path / "run", workdir))  # fmt: skip
    assert found["seconds"] == {} == own["shipped_seconds"]  # they took this run no time
    assert found["shipped_seconds"] == own["seconds"] != {}
    for name in FILES[1:]:
        assert (tmp_path / "run" / name).read_bytes() == (workdir / name).read_bytes()
    other = {"miniature.shipped": str(shipped), "miniature.llm.safety_steps": "1"}
    assert _run(tmp_path / "run", other) == 0
    assert "llm.json was made by other settings" in capfd.readouterr().err
    assert (tmp_path / "run" / FILES[2]).read_bytes() != (workdir / FILES[2]).read_bytes()
