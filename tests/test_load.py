"""The model for notebooks says what the jobs write, and what transformers computes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

import tga_jax
from tests.jobs.inputs import CAPTIONS, arguments, make_inputs, read_jsonl
from tga_jax.analysis.loaded import LoadedModel
from tga_jax.errors import UserError
from tga_jax.main import main

SETTINGS = {"data.max_length": 256, "data.buckets": (128,), "data.caption_buckets": (96,)}
QUESTION = "What is it?"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, images, samples and questions."""
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def model(inputs: Path) -> Iterator[LoadedModel]:
    """The checkpoint, loaded as in a notebook."""
    yield tga_jax.load(inputs / "checkpoint", settings=SETTINGS)


@pytest.fixture(scope="module")
def run(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the jobs write about the same checkpoint."""
    workdir = tmp_path_factory.mktemp("run")
    questions = inputs / "questions.jsonl"
    flags = (
        f"--config.evaluate.benchmarks=q=questions:{questions}?images={inputs / 'images'}",
        "--config.generate.max_new_tokens=12", "--config.guide.form=none",
    )  # fmt: skip
    assert main(arguments(inputs, workdir, *flags, job="generate,score,evaluate")) == 0
    return workdir


def images(inputs: Path) -> list[Path]:
    return [inputs / "images" / f"{number}.png" for number in range(len(CAPTIONS))]


def test_answers_are_those_of_job_generate(model: LoadedModel, inputs: Path, run: Path) -> None:
    ours = model.generate([(path, QUESTION) for path in images(inputs)], max_new_tokens=12)
    lines = read_jsonl(run / "generate" / "answers.jsonl")
    assert ours == [line["text"] for line in lines] and len(set(ours)) > 1


def test_margins_are_those_of_job_evaluate(model: LoadedModel, inputs: Path, run: Path) -> None:
    opened = [Image.open(path) for path in images(inputs)]  # of PIL, in memory
    ours = model.refusal_margin([(image, QUESTION) for image in opened])
    lines = read_jsonl(run / "evaluate" / "q" / "answers.jsonl")
    np.testing.assert_allclose(ours, [line["metadata"]["margin"] for line in lines], rtol=1e-5)
    assert ours.dtype == np.float32


def test_scores_are_those_of_job_score(model: LoadedModel, inputs: Path, run: Path) -> None:
    lines = {line["id"]: line for line in read_jsonl(run / "score" / "scores.jsonl")}
    paths = images(inputs)
    ours = model.score([(str(paths[n]), CAPTIONS[n]) for n in (3, 0)], question=QUESTION)
    for score, name in zip(ours, ("p3", "p0"), strict=True):
        line = lines[name]
        np.testing.assert_allclose(score.nll, line["nll"], rtol=1e-5)
        assert score.tokens == line["tokens"] and score.image_caption_cos is not None
        cosines = line["image_caption_cos"]
        np.testing.assert_allclose(score.image_caption_cos, cosines, rtol=1e-4, atol=1e-6)
    (text,) = model.score([(None, "Hello.")], question="Say hello.")
    assert text.image_caption_cos is None and text.nll > 0


def test_states_are_those_of_transformers(model: LoadedModel, inputs: Path) -> None:
    path, folder = images(inputs)[1], inputs / "checkpoint"
    ours = model.hidden_states([(None, "Say hello."), (path, QUESTION)])[1]
    theirs = LlavaForConditionalGeneration.from_pretrained(folder, torch_dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(folder)
    system = "A chat between a curious user and an artificial intelligence assistant. The "
    system += "assistant gives helpful, detailed, and polite answers to the user's questions."
    prompt = f"{system} USER: <image>\n{QUESTION} ASSISTANT:"
    batch = processor(images=Image.open(path), text=prompt, return_tensors="pt")
    with torch.no_grad():
        states = theirs(**batch, output_hidden_states=True).hidden_states
    wanted = np.stack([layer[0, -1].numpy() for layer in states])
    # The last one of transformers is behind the final norm, ours before it.
    np.testing.assert_allclose(ours[:-1], wanted[:-1], rtol=1e-3, atol=1e-4)
    assert ours.shape == wanted.shape


def test_the_order_of_prompts_is_kept(model: LoadedModel, inputs: Path) -> None:
    path = images(inputs)[0]
    prompts = [(path, "What is in the image, in a few words?"), (None, "Hello?"), (path, QUESTION)]
    together = model.hidden_states(prompts)
    for place, prompt in enumerate(prompts):
        alone = model.hidden_states([prompt])[0]
        np.testing.assert_allclose(together[place], alone, rtol=1e-3, atol=1e-4)


def test_mistakes_are_the_users(model: LoadedModel, inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none.png"):
        model.generate([(tmp_path / "none.png", QUESTION)])
    with pytest.raises(UserError, match="temperature"):
        model.generate([(None, QUESTION)], temperature=-1.0)
    for prompts in (["hello"], "hello", [("hello",)], [(QUESTION, None)], [(3, QUESTION)]):
        with pytest.raises(UserError, match=r'is no \(image, text\): write .*\(None, "a question'):
            model.generate(prompts)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="'prompt.tmplate'.*did you mean 'prompt.template'"):
        tga_jax.load(inputs / "checkpoint", settings={"prompt.tmplate": "vicuna_v1"})
    with pytest.raises(UserError, match="did you mean 'generate.batch_size'"):
        tga_jax.load(inputs / "checkpoint", settings={"config.generate.batch_size": 1})
    with pytest.raises(UserError, match="'generate.batch_size'"):
        tga_jax.load(inputs / "checkpoint", settings={"generate.batch_size": "many"})
    with pytest.raises(UserError, match="guide.wieght"):
        tga_jax.load(inputs / "checkpoint", settings={"guide.wieght": 2})
    with pytest.raises(UserError, match="no/such"):
        tga_jax.load("/no/such")


def test_nothing_is_written(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tga_jax.load(inputs / "checkpoint", settings=SETTINGS)
    assert not list(tmp_path.iterdir())
