"""Job `generate`: what makes its answers others, and what it refuses before it answers anything."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.jobs.inputs import Killed, arguments, make_inputs, read_jsonl, write_jsonl
from tga_jax.data.records import read_questions
from tga_jax.flags import parse_flags
from tga_jax.jobs.generate import signature
from tga_jax.main import main
from tga_jax.parallel.mesh import mesh_of
from tga_jax.run.job import Job
from tga_jax.run.model import open_model
from tga_jax.run.weights import Weights, current_weights
from tga_jax.run.work import Work

Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("generate"))


def test_answers_are_kept_where_only_room_and_lengths_change(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The advice of an out-of-memory error is followed after a part was answered."""
    short, append = "--config.generate.max_new_tokens=2", Work.append

    def killed(work: Work, rows: list[dict[str, Any]]) -> None:
        append(work, rows)
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Work, "append", killed)
        main(arguments(inputs, tmp_path, short, "--config.generate.batch_size=2", job="generate"))
    (about, *kept) = read_jsonl(tmp_path / "generate" / "answers.partial.jsonl")
    assert about and 0 < len(kept) < 4
    asked: list[int] = []

    def noted(work: Work, rows: list[dict[str, Any]]) -> None:
        asked.extend(row["row"] for row in rows)
        append(work, rows)

    monkeypatch.setattr(Work, "append", noted)
    lower = ("--config.generate.batch_size=1", "--config.data.max_length=512")
    assert main(arguments(inputs, tmp_path, short, *lower, job="generate")) == 0
    assert sorted(asked) == sorted({0, 1, 2, 3} - {row["row"] for row in kept})


def test_what_decides_an_answer_makes_it_another(inputs: Path, tmp_path: Path) -> None:
    def signed(*flags: str, trained: bool = False) -> dict[str, Any]:
        config = parse_flags(arguments(inputs, tmp_path, *flags, job="")).config
        job = Job(config, tmp_path, "generate")
        weights = Weights("finetune", 6, "abc") if trained else current_weights(job)
        questions = read_questions(inputs / "questions.jsonl")
        return signature(job, open_model(job, mesh_of(config.mesh)), weights, questions, None)

    first = signed()
    for same in ("data.max_length=300", "data.workers=2", "model.remat=full", "lora.rank=2"):
        assert signed(f"--config.{same}") == first, same
    for other in (
        "generate.max_new_tokens=3", "generate.temperature=1.0", "generate.top_p=0.5", "seed=1",
        "dtype=bfloat16", "prompt.system=Be kind.", "data.pad_to_square=no",
        "prompt.template=chatml", "model.quantize=int8",
    ):  # fmt: skip
        assert signed(f"--config.{other}") != first, other
    adapted = signed("--config.lora.rank=2", trained=True)
    for other in ("rank=4", "alpha=8.0", "targets=q,v", "layers=1"):
        found = signed("--config.lora.rank=2", f"--config.lora.{other}", trained=True)
        assert found != adapted, other


@pytest.mark.parametrize(
    ("content", "said"), [("long", "it is too long or too wide"), ("text", "not a readable image")]
)
def test_an_image_that_is_none_is_named_before_any_is_answered(
    inputs: Path, tmp_path: Path, content: str, said: str, capfd: Said
) -> None:
    images = Path(shutil.copytree(inputs / "images", tmp_path / "images"))
    if content == "long":
        Image.new("RGB", (20, 20000)).save(images / "3.png")
    else:
        (images / "3.png").write_text("no image")
    flag = f"--config.data.image_dir={images}"
    assert main(arguments(inputs, tmp_path / "run", flag, job="generate")) == 2
    log = capfd.readouterr().err
    assert f"record 3: image {images / '3.png'}" in log.splitlines()[-1]
    assert said in log.splitlines()[-1] and "loading" not in log


@pytest.mark.parametrize("last", ["generate", "evaluate"])
def test_a_question_that_is_too_long_is_named_before_the_jobs_before(
    inputs: Path, tmp_path: Path, capfd: Said, last: str
) -> None:
    asked = read_jsonl(inputs / "questions.jsonl")
    asked[1]["text"] = "What is it? " * 400
    write_jsonl(tmp_path / "q.jsonl", asked)
    named = (
        f"--config.generate.questions={tmp_path / 'q.jsonl'}",
        f"--config.evaluate.benchmarks=questions:{tmp_path / 'q.jsonl'}?images={inputs / 'images'}",
    )
    jobs = f"inspect,{last}"
    assert main(arguments(inputs, tmp_path / "run", *named, job=jobs)) == 2
    said = capfd.readouterr().err
    assert f"record {asked[1]['question_id']}: its" in said and "leave no room" in said
    assert not (tmp_path / "run" / "inspect").exists()


def test_a_question_that_is_too_long_is_named_before_any_is_answered(
    inputs: Path, tmp_path: Path, capfd: Said
) -> None:
    questions = read_jsonl(inputs / "questions.jsonl")
    questions.append({"question_id": "long", "text": "What is it? " * 100})
    write_jsonl(tmp_path / "questions.jsonl", questions)
    flag = f"--config.generate.questions={tmp_path / 'questions.jsonl'}"
    assert main(arguments(inputs, tmp_path / "run", flag, job="generate")) == 2
    said = capfd.readouterr().err
    assert "record long: its" in said.splitlines()[-1]
    assert "loading" not in said
    assert len(read_jsonl(tmp_path / "run" / "generate" / "answers.partial.jsonl")) == 1
