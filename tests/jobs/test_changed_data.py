"""A resume never changes what it computes silently, and a mistake is told before any work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.jobs.inputs import arguments, make_inputs, write_jsonl
from tga_jax.main import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs, and `run/` with a finished pretraining of one step."""
    folder = make_inputs(tmp_path_factory.mktemp("good"))
    write_jsonl(folder / "captions.jsonl", [{"id": "p2", "caption": "a grey cat"}])
    assert pretrain(folder) == 0
    return folder


@pytest.fixture
def inputs(begun: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(begun, tmp_path / "inputs"))


def pretrain(inputs: Path, *more: str, job: str = "pretrain") -> int:
    # The copy's own place must not make another run of it.
    flags = (f"--config.data.captions={inputs / 'captions.jsonl'}", "--config.pretrain.steps=1")
    checkpoint = inputs.parent / "checkpoint"
    if not checkpoint.exists():
        checkpoint.symlink_to(inputs / "checkpoint")
    return main(arguments(inputs, inputs / "run", *flags, *more, job=job))


def test_the_same_samples_at_another_place_are_the_same(inputs: Path, capsys: Capture) -> None:
    (inputs / "captions.jsonl").rename(inputs / "texts.jsonl")
    again = f"--config.data.captions={inputs / 'texts.jsonl'}"
    folder = json.loads((inputs / "run" / "pretrain" / "settings.json").read_text())
    where = f"--config.model.checkpoint={folder['model']['checkpoint']}"
    assert pretrain(inputs, again, where) == 0
    assert "finished before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("captions.jsonl", '{"id": "p2", "caption": "a dog"}\n', "the captions (config.data.cap"),
        ("samples.json", None, "the samples (config.data.path)"),
    ],
)
def test_changed_data_is_refused_by_name_and_accepted_deliberately(
    inputs: Path, name: str, content: str | None, said: str, capsys: Capture
) -> None:
    path = inputs / name
    path.write_text(content or json.dumps(json.loads(path.read_text())[:-1]))
    folder = json.loads((inputs / "run" / "pretrain" / "settings.json").read_text())
    where = f"--config.model.checkpoint={folder['model']['checkpoint']}"
    assert pretrain(inputs, where) == 2
    told = capsys.readouterr().err
    assert said in told and "accept_changed_data" in told
    assert "is finished and does not train on them" in told
    assert pretrain(inputs, where, "--config.pretrain.accept_changed_data=true") == 0


def test_a_finished_stage_is_not_told_to_accept_what_is_accepted(
    inputs: Path, capsys: Capture
) -> None:
    settings = json.loads((inputs / "run" / "pretrain" / "settings.json").read_text())
    where = f"--config.model.checkpoint={settings['model']['checkpoint']}"
    more = f"--config.pretrain.steps={settings['pretrain']['steps'] + 1}"
    for accepted in ((), ("--config.pretrain.accept_changed_data=true",)):
        assert pretrain(inputs, where, more, *accepted) == 2
        told = capsys.readouterr().err
        assert "config.pretrain.steps" in told and "another --workdir" in told
        assert "accept_changed_data" not in told.partition("error:")[2]


def test_a_corrected_typo_is_no_other_setting(begun: Path, tmp_path: Path) -> None:
    def run(form: str) -> int:
        flags = (f"--config.guide.form={form}", "--config.pretrain.steps=1")
        return main(arguments(begun, tmp_path, *flags, job="pretrain"))

    assert run("papper") == 2
    assert not (tmp_path / "pretrain").exists()
    assert run("paper") == 0


def test_score_notices_a_image_that_was_replaced(inputs: Path, tmp_path: Path) -> None:
    def scores() -> list[dict]:
        assert main(arguments(inputs, tmp_path / "w", job="score")) == 0
        return [json.loads(line) for line in (tmp_path / "w/score/scores.jsonl").open()]

    before = scores()
    Image.new("RGB", (60, 40), "red").save(inputs / "images" / "0.png")
    after = scores()
    changed = [a["id"] for a, b in zip(before, after, strict=True) if a != b]
    assert changed == ["p0"]


def test_a_mistake_of_a_later_job_is_told_before_the_first(
    begun: Path, tmp_path: Path, capsys: Capture
) -> None:
    jobs = "pretrain,evaluate"
    assert main(arguments(begun, tmp_path, "--config.evaluate.benchmarks=pope:no", job=jobs)) == 2
    assert "no" in capsys.readouterr().err and not (tmp_path / "pretrain").exists()


def test_a_guide_without_captions_is_said_and_not_claimed(
    begun: Path, tmp_path: Path, capsys: Capture
) -> None:
    rows = json.loads((begun / "samples.json").read_text())
    for row in rows:
        row.pop("image_caption", None)
    path = tmp_path / "plain.json"
    path.write_text(json.dumps(rows))
    flags = (f"--config.data.path={path}", "--config.pretrain.steps=1")
    assert main(arguments(begun, tmp_path / "w", *flags, job="pretrain,export")) == 0
    assert "WARNING: the guide is on" in capsys.readouterr().err
    card = (tmp_path / "w" / "export" / "README.md").read_text()
    assert "Alignment: language-model loss only" in card
    assert "No retrieved text was in the prompts of the training" in card  # "plain" has no place


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_card_says_whether_prompts_had_retrieved_texts(
    begun: Path, tmp_path: Path, share: float
) -> None:
    flags = ("--config.finetune.steps=1", f"--config.data.retrieved_share={share}")
    assert main(arguments(begun, tmp_path, *flags, job="finetune,export")) == 0
    card = (tmp_path / "export" / "README.md").read_text()
    assert ("In training a retrieved text stood in front" in card) is bool(share)
    assert ("No retrieved text was in the prompts" in card) is not bool(share)


def test_the_decoder_is_frozen_beside_adapters(
    begun: Path, tmp_path: Path, capsys: Capture
) -> None:
    flags = ("--config.lora.rank=2", "--config.finetune.steps=1")
    assert main(arguments(begun, tmp_path, *flags, job="finetune")) == 0
    done = json.loads((tmp_path / "finetune" / "done.json").read_text())
    assert set(done["trained"]) == {"adapters", "projector"}
    assert "decoder's own weights are frozen" in capsys.readouterr().err


def test_a_chain_that_captions_after_a_stage_can_be_run_again(
    begun: Path, tmp_path: Path, capsys: Capture
) -> None:
    """The captions that it wrote are in the data then, though the finished stage had none."""
    flags = ("--config.pretrain.steps=1", "--config.generate.max_new_tokens=2")

    def run(jobs: str) -> int:
        return main(arguments(begun, tmp_path / "run", *flags, job=jobs))

    chain = "prepare,pretrain,caption,prepare"
    assert run(chain) == 0
    made_from = json.loads((tmp_path / "run" / "data" / "report.json").read_text())["made_from"]
    assert made_from["captions"] is not None
    capsys.readouterr()
    assert run(chain) == 0
    assert "[pretrain] was finished before" in capsys.readouterr().err
    assert run("pretrain") == 2
    assert "the captions (config.data.captions) changed" in capsys.readouterr().err
