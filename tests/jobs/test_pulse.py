"""Every job from the command line, its files held against transformers."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from tests.jobs.inputs import arguments, make_inputs, make_samples, read_jsonl
from tga_jax.main import main

pytestmark = pytest.mark.parity
JOBS = "inspect,score,pretrain,finetune,score,generate,export"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(inputs, workdir) after all jobs."""
    inputs = make_inputs(tmp_path_factory.mktemp("inputs"))
    workdir = tmp_path_factory.mktemp("run")
    assert main(arguments(inputs, workdir, "--config.trackers=tensorboard,csv", job=JOBS)) == 0
    return inputs, workdir


def test_inspect_shows_every_sample_with_its_spans(run: tuple[Path, Path]) -> None:
    inputs, workdir = run
    tokenizer = AutoProcessor.from_pretrained(inputs / "checkpoint").tokenizer
    lines = read_jsonl(workdir / "inspect" / "samples.jsonl")
    for line, sample in zip(lines, make_samples(), strict=True):
        assert line["id"] == sample["id"]
        labelled = [t for t, y in zip(line["input_ids"], line["labels"], strict=True) if y >= 0]
        answers = [t["value"] for t in sample["conversations"] if t["from"] == "gpt"]
        assert tokenizer.decode(labelled).split("</s>")[:-1] == [f" {a}" for a in answers]
        image = tokenizer.convert_tokens_to_ids("<image>")
        if "image" in sample:
            start, end = line["image_span"]
            assert line["input_ids"][start:end] == [image] * 16
            assert line["input_ids"].count(image) == 16
        else:
            assert line["image_span"] is None
        if sample.get("image_caption") and "tox" not in sample["id"]:
            start, end = line["caption_span"]
            span = tokenizer.decode(line["caption_input_ids"][start:end])
            assert span.strip() == sample["image_caption"]
        else:
            assert line["caption_input_ids"] == [] and line["caption_span"] is None
        if "retrieved_caption" in sample:
            start, end = line["retrieved_span"]
            span = tokenizer.decode(line["input_ids"][start:end])
            assert span.strip() == sample["retrieved_caption"]
        else:
            assert line["retrieved_span"] is None


def test_scores_before_training_equal_transformers(run: tuple[Path, Path]) -> None:
    inputs, workdir = run
    model = LlavaForConditionalGeneration.from_pretrained(inputs / "checkpoint").eval()
    processor = AutoProcessor.from_pretrained(inputs / "checkpoint")
    scores = read_jsonl(workdir / "score" / "start.jsonl")
    shown = read_jsonl(workdir / "inspect" / "samples.jsonl")
    for score, line, sample in zip(scores, shown, make_samples(), strict=True):
        assert score["id"] == line["id"]
        tokens, labels = torch.tensor([line["input_ids"]]), torch.tensor([line["labels"]])
        pixels = None
        if "image" in sample:
            shown = Image.open(inputs / "images" / sample["image"]).convert("RGB")
            pixels = processor.image_processor(shown, return_tensors="pt")["pixel_values"]
            if "tox" in sample["id"]:
                pixels = torch.zeros_like(pixels)  # an image of the mean colour
        with torch.no_grad():
            out = model(tokens, pixel_values=pixels, labels=labels, output_hidden_states=True)
        count = int((labels[:, 1:] >= 0).sum())
        assert score["tokens"] == count
        tolerance = 2e-3 if "tox" in sample["id"] else 1e-4  # the mean colour is rounded to a byte
        np.testing.assert_allclose(score["nll"], float(out.loss) * count, rtol=tolerance)
        if line["caption_span"] is None:
            assert score["image_caption_cos"] is None and score["guide"] is None
            continue
        with torch.no_grad():
            caption = model(
                torch.tensor([line["caption_input_ids"]]), output_hidden_states=True
            ).hidden_states
        wanted = layer_cosines(out.hidden_states, line["image_span"], caption, line["caption_span"])
        np.testing.assert_allclose(score["image_caption_cos"][:-1], wanted, atol=1e-4)
        if line["retrieved_span"] is not None:
            span = line["retrieved_span"]
            wanted = layer_cosines(out.hidden_states, span, caption, line["caption_span"])
            np.testing.assert_allclose(score["retrieved_caption_cos"][:-1], wanted, atol=1e-4)
            image, other = map(
                np.array, (score["image_caption_cos"], score["retrieved_caption_cos"])
            )
            guide = np.sum(-image) + np.sum(np.log1p(np.exp(-(image - other))))
            np.testing.assert_allclose(score["guide"], guide, rtol=1e-4)
        else:
            assert score["retrieved_caption_cos"] is None
            np.testing.assert_allclose(score["guide"], -np.sum(score["image_caption_cos"]), 1e-4)


def layer_cosines(first: tuple, span: list[int], second: tuple, other: list[int]) -> list[float]:
    """Cosine of span means after each block; the last has the final norm applied, so not it."""
    out = []
    for a, b in zip(first[1:-1], second[1:-1], strict=True):
        a, b = a[0, span[0] : span[1]].mean(0), b[0, other[0] : other[1]].mean(0)
        out.append(float(torch.cosine_similarity(a, b, dim=0)))
    return out


def test_training_moved_the_weights_and_wrote_its_metrics(run: tuple[Path, Path]) -> None:
    _, workdir = run
    lines = read_jsonl(workdir / "finetune" / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 7))
    keys = {
        "step", "loss", "lm_loss", "guide_pair", "guide_hinge", "image_caption_cos", "grad_norm",
        "learning_rate", "tokens_per_second", "step_seconds", "mfu", "data_wait_fraction",
    }  # fmt: skip
    assert all(keys <= line.keys() for line in lines)
    assert lines[0]["mfu"] is None and lines[0]["tokens_per_second"] > 0
    before = read_jsonl(workdir / "score" / "start.jsonl")
    after = read_jsonl(workdir / "score" / "scores.jsonl")
    assert sum(row["nll"] for row in after) < sum(row["nll"] for row in before)
    assert list((workdir / "finetune" / "tensorboard").glob("events*"))


def test_the_trackers_have_the_metrics_and_the_parameters(run: tuple[Path, Path]) -> None:
    inputs, workdir = run

    def table(name: str) -> list[dict[str, str]]:
        return list(csv.DictReader((workdir / "finetune" / name).open()))

    lines = read_jsonl(workdir / "finetune" / "metrics.jsonl")
    assert [float(line["loss"]) for line in table("metrics.csv")] == [one["loss"] for one in lines]
    model = LlavaForConditionalGeneration.from_pretrained(inputs / "checkpoint")
    weights = {*model.model.language_model.parameters(), *model.lm_head.parameters()}
    decoder = sum(weight.numel() for weight in weights)
    parts = {
        line["part"]: (line["parameters"], line["trained"]) for line in table("parameters.csv")
    }
    assert parts["decoder"] == (str(decoder), str(decoder))
    assert parts["vision"][1] == "0" and int(parts["vision"][0]) > 0
    keys = {line["key"]: line["value"] for line in table("config.csv")}
    assert keys["finetune.learning_rate"] == "0.001"


def test_the_export_answers_as_generate_does(run: tuple[Path, Path]) -> None:
    inputs, workdir = run
    processor = AutoProcessor.from_pretrained(workdir / "export")
    model = LlavaForConditionalGeneration.from_pretrained(workdir / "export").eval()
    for answer in read_jsonl(workdir / "generate" / "answers.jsonl"):
        assert answer.keys() == {
            "question_id", "prompt", "text", "answer_id", "model_id", "metadata"
        }  # fmt: skip
        content = [{"type": "image"}, {"type": "text", "text": answer["prompt"]}]
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        shown = Image.open(inputs / "images" / f"{answer['question_id']}.png")
        fed = processor(text=prompt, images=shown, return_tensors="pt")
        with torch.no_grad():
            out = model.generate(**fed, max_new_tokens=12, do_sample=False)
        text = processor.decode(out[0, fed["input_ids"].shape[1] :], skip_special_tokens=True)
        assert answer["text"] == text.strip()


def test_the_exports_own_chat_template_feeds_the_model_the_same(
    run: tuple[Path, Path], tmp_path: Path
) -> None:
    inputs, workdir = run
    more = [
        f"--config.model.checkpoint={workdir / 'export'}", "--config.prompt.template=tokenizer"
    ]  # fmt: skip
    assert main(arguments(inputs, tmp_path, *more, job="inspect")) == 0
    lines = read_jsonl(workdir / "inspect" / "samples.jsonl")
    assert read_jsonl(tmp_path / "inspect" / "samples.jsonl") == lines


def test_the_same_command_again_does_nothing(
    run: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    inputs, workdir = run
    watched = [p for p in workdir.rglob("*") if p.is_file() and "score" not in str(p)]
    before = {p: p.stat().st_mtime_ns for p in watched if "inspect" not in str(p)}
    assert main(arguments(inputs, workdir, job=JOBS)) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert capfd.readouterr().err.count("finished before") == 4


@pytest.mark.parametrize(
    "setting", ["finetune.learning_rate=1e-4", "guide.pair_weight=0.5", "finetune.steps=7"]
)
def test_another_setting_in_a_finished_workdir_is_refused(
    run: tuple[Path, Path], capfd: pytest.CaptureFixture[str], setting: str
) -> None:
    inputs, workdir = run
    assert main(arguments(inputs, workdir, f"--config.{setting}", job="finetune")) == 2
    said = capfd.readouterr().err
    assert f"config.{setting.split('=')[0]}" in said and "finished before" not in said


def test_settings_that_change_no_weights_leave_a_stage_finished(
    run: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    inputs, workdir = run
    more = ["--config.finetune.save_every=5", "--config.data.workers=1"]
    assert main(arguments(inputs, workdir, *more, job="finetune")) == 0
    assert "finished before" in capfd.readouterr().err


def test_other_weights_in_the_same_folder_are_noticed(
    run: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    inputs, workdir = tmp_path / "inputs", tmp_path / "run"
    shutil.copytree(run[0], inputs)
    assert main(arguments(inputs, workdir, job="score,generate,pretrain")) == 0
    before = (workdir / "score" / "start.jsonl").read_text()
    export = run[1] / "export"  # the same shapes, trained
    for path in export.glob("*.safetensors"):
        shutil.copy(path, inputs / "checkpoint" / path.name)
    capfd.readouterr()
    assert main(arguments(inputs, workdir, job="pretrain")) == 2
    assert "begun from other weights" in capfd.readouterr().err
    shutil.rmtree(workdir / "pretrain")
    assert main(arguments(inputs, workdir, job="score,generate")) == 0
    assert "finished before" not in capfd.readouterr().err
    assert (workdir / "score" / "start.jsonl").read_text() != before


def test_parts_with_a_new_projector_train_and_export(tmp_path: Path) -> None:
    from tests.hf_models import tiny_clip_vision, tiny_llm

    inputs = make_inputs(tmp_path / "inputs")
    vision, llm = tmp_path / "clip", tmp_path / "llm"
    tiny_clip_vision(vision, image_size=56, patch_size=14)
    settings = (inputs / "checkpoint" / "preprocessor_config.json").read_text()
    (vision / "preprocessor_config.json").write_text(
        settings.replace("LlavaImageProcessor", "CLIPImageProcessor")
    )
    tokenizer = AutoProcessor.from_pretrained(inputs / "checkpoint").tokenizer
    tiny_llm(llm, "mistral", vocab=len(tokenizer))
    tokenizer.save_pretrained(llm)
    more = [
        "--config.model.checkpoint=", f"--config.model.vision={vision}",
        f"--config.model.llm={llm}", "--config.prompt.template=mistral_instruct",
        "--config.data.pad_to_square=yes",
    ]  # fmt: skip
    workdir = tmp_path / "run"
    more.append("--config.export.llava_tower=some/clip")
    assert main(arguments(inputs, workdir, *more, job="pretrain,generate,export")) == 0
    original = json.loads((workdir / "export-llava-mistral" / "config.json").read_text())
    assert original["model_type"] == "llava_mistral"
    assert original["mm_vision_tower"] == "some/clip"
    model = LlavaForConditionalGeneration.from_pretrained(workdir / "export")
    assert json.loads((workdir / "export" / "config.json").read_text())["model_type"] == "llava"
    assert model.model.multi_modal_projector.linear_1.weight.shape == (32, 24)
