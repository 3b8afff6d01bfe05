"""Which prompts the jobs make of a checkpoint's files, and what they say about it."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.hf.official_templates import LLAMA_32, LLAVA_15
from tests.jobs.inputs import arguments, make_inputs, read_jsonl
from tga_jax.captioning.captioner import Captioner
from tga_jax.evaluation.examinee import Examinee
from tga_jax.flags import parse_flags
from tga_jax.hf.tokenizer import load_tokenizer
from tga_jax.jobs import analyze, oracle
from tga_jax.main import main
from tga_jax.parallel.mesh import mesh_of
from tga_jax.run import prompt_date
from tga_jax.run.job import Job
from tga_jax.run.model import open_model
from tga_jax.run.weights import current_weights

Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA checkpoint without a chat template, under a name that tells nothing."""
    return make_inputs(tmp_path_factory.mktemp("prompts"))


def copied(good: Path, folder: Path, **files: str) -> Path:
    """The inputs with files beside the checkpoint's, as name without ".json" -> chat template."""
    inputs = Path(shutil.copytree(good, folder / "inputs"))
    for name, template in files.items():
        path = inputs / "checkpoint" / f"{name}.json"
        path.write_text(json.dumps({"chat_template": template}))
    return inputs


def inspect(inputs: Path, workdir: Path, *flags: str) -> list[str]:
    """The samples' texts, as job inspect has them."""
    flags = ("--config.inspect.show=0", *flags)
    assert main(arguments(inputs, workdir, *flags, job="inspect")) == 0
    tokenizer = load_tokenizer(inputs / "checkpoint").tokenizer
    rows = read_jsonl(workdir / "inspect" / "samples.jsonl")
    return [tokenizer.decode([i for i in row["labels"] if i != -100]) for row in rows]


def test_auto_says_what_it_came_to(good: Path, tmp_path: Path, capfd: Said) -> None:
    inspect(good, tmp_path / "a")
    assert '[inspect] prompt template "vicuna_v1", LLaVA-1.5\'s' in capfd.readouterr().err
    inputs = copied(good, tmp_path, chat_template=LLAVA_15)
    learnt = inspect(inputs, tmp_path / "b")
    said = capfd.readouterr().err
    assert 'prompt template "tokenizer", the checkpoint\'s own chat template, in chat_te' in said
    assert "no special token after an answer; in training </s> closes it" in said
    assert all(text.endswith("</s>") for text in learnt)
    inspect(inputs, tmp_path / "c", "--config.prompt.template=chatml")
    said = capfd.readouterr().err
    assert "[inspect] warning: config.prompt.template='chatml'" in said and "vicuna" in said


def test_the_date_of_a_workdir_is_its_first(
    good: Path, tmp_path: Path, capfd: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Later(datetime.date):
        @classmethod
        def today(cls) -> Later:
            return cls(2031, 5, 6)

    inputs, workdir = copied(good, tmp_path, chat_template=LLAMA_32), tmp_path / "run"
    inspect(inputs, workdir, "--config.data.max_length=400", "--config.data.buckets=(400,)")
    first = (workdir / "inspect" / "samples.jsonl").read_text()
    kept = json.loads((workdir / "prompt_date.json").read_text())["date"]
    assert f"the chat template may write the date: {kept}" in capfd.readouterr().err
    monkeypatch.setattr(prompt_date.datetime, "date", Later)
    long = ("--config.data.max_length=400", "--config.data.buckets=(400,)")
    inspect(inputs, workdir, *long)
    assert (workdir / "inspect" / "samples.jsonl").read_text() == first
    inspect(inputs, tmp_path / "new", *long)
    assert (tmp_path / "new" / "inspect" / "samples.jsonl").read_text() != first
    inspect(inputs, tmp_path / "set", f"--config.prompt.date={kept}", *long)
    assert (tmp_path / "set" / "inspect" / "samples.jsonl").read_text() == first


def test_a_language_model_as_checkpoint_is_told_its_keys(
    good: Path, tmp_path: Path, capfd: Said
) -> None:
    inputs = copied(good, tmp_path)
    path = inputs / "checkpoint" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text())["text_config"]))
    assert main(arguments(inputs, tmp_path / "run", job="inspect")) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "config.model.llm" in line and "config.model.vision" in line and str(path) in line


def test_what_is_kept_belongs_to_the_date_and_the_system_text(good: Path, tmp_path: Path) -> None:
    """Captions, answers and analyses are made anew where the prompts are others."""
    inputs = copied(good, tmp_path, chat_template=LLAMA_32)

    def kept(*flags: str) -> list[dict[str, Any]]:
        config = parse_flags(arguments(inputs, tmp_path / "run", *flags, job="")).config
        job = Job(config, tmp_path / "run", "evaluate")
        model, weights = open_model(job, mesh_of(config.mesh)), current_weights(job)
        return [
            Captioner(job).settings,
            Examinee(job, model).settings,
            analyze.settings_of(config, model, weights, []),
            oracle.settings_of(config, model, weights, [], []),
        ]

    first, later, kind = (
        kept(*more)
        for more in (
            ["--config.prompt.date=2026-11-28"],
            ["--config.prompt.date=2026-11-29"],
            ["--config.prompt.date=2026-11-28", "--config.prompt.system=Be kind."],
        )
    )
    for one, other, third in zip(first, later, kind, strict=True):
        assert {key for key in one if one[key] != other[key]} == {"prompt_date"}
        assert {key for key in one if one[key] != third[key]} == {"system"}
