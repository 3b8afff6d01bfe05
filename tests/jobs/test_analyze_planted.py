"""A model whose refusal arises at a known layer, and what is made of that: guide.layers="auto"."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tests.jobs.analysis import command, make_analysis_inputs, table
from tests.jobs.inputs import read_jsonl, write_jsonl
from tga_jax.config import base_config
from tga_jax.evaluation.profiles import apology_tokens
from tga_jax.main import main
from tga_jax.run.guide import summary_path

pytestmark = pytest.mark.parity
MIDDLE, HARM, SORRY = 2, 0, 1  # the planted layer of three; coordinates of the residual stream


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs with a checkpoint that apologizes from layer MIDDLE on where it read " grass".

    Its blocks write nothing, but for block MIDDLE: there, attention looks everywhere alike and
    moves the mark of " grass" (coordinate HARM) to coordinate SORRY, which the head reads as an
    apology.
    """
    folder = make_analysis_inputs(tmp_path_factory.mktemp("planted"))
    path = folder / "checkpoint" / "model.safetensors"
    tokenizer = AutoTokenizer.from_pretrained(folder / "checkpoint")
    (grass,) = tokenizer(" grass", add_special_tokens=False).input_ids
    sorry = apology_tokens(tokenizer, tuple(base_config().evaluate.apologies))[0]
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    for name, value in tensors.items():
        if "language_model" not in name and "projector" not in name:
            continue
        if any(part in name for part in ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj")):
            value.zero_()
        elif "norm" in name:
            value.fill_(1.0)
        elif "embed_tokens" in name:
            value[:, [HARM, SORRY]] = 0
            value[grass] = 0
            value[grass, HARM] = 1
        elif "linear_2" in name:
            value[[HARM, SORRY]] = 0
        elif "lm_head" in name:
            value[:, [HARM, SORRY]] = 0
            value[sorry] = 0
            value[sorry, SORRY] = 10
        if f"layers.{MIDDLE - 1}." in name and "v_proj" in name:
            value[0, HARM] = 1
        if f"layers.{MIDDLE - 1}." in name and "o_proj" in name:
            value[SORRY, 0] = 300
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def planted_run(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir after the analysis of the planted model, before and after a stage."""
    workdir = tmp_path_factory.mktemp("planted-run")
    assert main(command(planted, workdir, job="analyze,pretrain,analyze")) == 0
    return workdir


@pytest.mark.slow
def test_a_planted_layer_is_found(planted_run: Path) -> None:
    folder = planted_run / "analyze" / "start"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["safety_layers"] == str(MIDDLE) and summary["reason"] is None
    for line in read_jsonl(folder / "samples.jsonl"):
        text = line["set"] in ("harmful_scenes", "harmful_texts")
        assert line["first_layer"] == (MIDDLE if text else -1), line
        assert line["apology_top1"] == [text and layer >= MIDDLE for layer in (1, 2, 3)]
    rows = table(folder)
    for name, value in (("harmful_scenes", 1.0), ("benign_scenes", 0.0)):
        for layer in (2, 3):
            found = float(rows[name, layer, "refusal_direction"]["value"])
            assert found == pytest.approx(value, abs=1e-4)
        # up to layer 1 all prompts with this end are the same
        assert (name, 1, "refusal_direction") not in rows
    assert summary["sets"]["harmful_images"] == {
        "count": 2, "apology_first": 0, "none": 2, "first_layer": {}
    }  # fmt: skip


@pytest.mark.slow
def test_before_and_after_are_kept_apart(planted_run: Path) -> None:
    folder = planted_run / "analyze"
    before, after = table(folder / "start"), table(folder / "pretrain-3")
    assert table(folder) == after and before != after
    key = ("harmful_images", 3, "image_caption_cos")
    assert before[key]["value"] != after[key]["value"]
    assert json.loads((folder / "summary.json").read_text())["settings"]["weights"] == "pretrain-3"


@pytest.mark.slow
def test_auto_layers_are_those_of_the_analysis(
    planted: Path, planted_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scores = {}
    for layers in ("auto", str(MIDDLE), "all"):
        flags = [f"--config.guide.layers={layers}"]
        flags += [f"--config.guide.layers_from={planted_run}/analyze"] if layers == "auto" else []
        assert main(command(planted, tmp_path / layers, *flags, job="score")) == 0
        lines = read_jsonl(tmp_path / layers / "score" / "scores.jsonl")
        scores[layers] = [line["guide"] for line in lines]
    assert scores["auto"] == scores[str(MIDDLE)] != scores["all"]
    shutil.copytree(planted_run / "analyze", tmp_path / "train" / "analyze")
    flags = ["--config.guide.layers=auto", "--config.guide.answer_weight=1"]  # of both terms
    auto = command(planted, tmp_path / "train", *flags, job="pretrain")
    assert main(auto) == 0
    path = tmp_path / "train" / "pretrain" / "settings.json"
    assert json.loads(path.read_text())["guide"]["layers"] == str(MIDDLE)


@pytest.mark.slow
def test_auto_without_an_analysis_is_one_line(
    planted: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = command(planted, tmp_path, "--config.guide.layers=auto", job="score")
    assert main(line) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert "job `analyze`" in error and str(tmp_path / "analyze") in error
    bad = tmp_path / "bad.json"
    bad.write_text("[]")
    assert main([*line, f"--config.guide.layers_from={bad}"]) == 2
    assert str(bad) in capfd.readouterr().err.splitlines()[-1]
    # without a guide no layers are needed
    assert main([*line, "--config.guide.form=none"]) == 0


@pytest.mark.slow
def test_a_model_that_refuses_nothing_has_no_safety_layers(
    planted: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    benign = tmp_path / "texts.jsonl"
    write_jsonl(benign, [{"id": i, "prompt": t, "label": "unsafe"} for i, t in
                         enumerate(("Hello.", "What is it?"))])  # fmt: skip
    flag = f"--config.analyze.benchmarks=texts:{benign}"
    assert main(command(planted, tmp_path, flag)) == 0
    assert "no safety layers" in capfd.readouterr().err
    summary = json.loads((tmp_path / "analyze" / "summary.json").read_text())
    assert summary["safety_layers"] is None and "an apology token" in summary["reason"]
    rows = table(tmp_path / "analyze")
    assert float(rows["harmful_texts", -1, "first_safety_layer_share"]["value"]) == 1
    assert not any(metric == "refusal_direction" for _, _, metric in rows)
    assert main(command(planted, tmp_path, "--config.guide.layers=auto", job="score")) == 2
    assert "an apology token" in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_summary_path_prefers_the_weights_before_training(tmp_path: Path) -> None:
    assert summary_path(tmp_path) is None
    (tmp_path / "summary.json").write_text("{}")
    assert summary_path(tmp_path) == tmp_path / "summary.json"
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "summary.json").write_text("{}")
    assert summary_path(tmp_path) == tmp_path / "start" / "summary.json"
    assert summary_path(tmp_path / "summary.json") == tmp_path / "summary.json"
