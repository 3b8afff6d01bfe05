"""A user's mistake: one line that names it, exit code 2, no traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.jobs.inputs import arguments, make_inputs
from tga_jax.errors import UserError
from tga_jax.flags import parse_flags
from tga_jax.main import check_jobs, main


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs without a mistake."""
    return make_inputs(tmp_path_factory.mktemp("good"))


@pytest.fixture
def inputs(good: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(good, tmp_path / "inputs"))


def edit_samples(change: Callable[[list], object]) -> Callable[[Path], None]:
    """A spoiler that edits the list of samples."""

    def spoil(inputs: Path) -> None:
        path = inputs / "samples.json"
        samples = json.loads(path.read_text())
        change(samples)
        path.write_text(json.dumps(samples))

    return spoil


def edit_config(key: str, value: object) -> Callable[[Path], None]:
    """A spoiler that edits the checkpoint's config.json."""

    def spoil(inputs: Path) -> None:
        path = inputs / "checkpoint" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    return spoil


def cut(name: str) -> Callable[[Path], None]:
    """A spoiler that keeps half of a file."""

    def spoil(inputs: Path) -> None:
        data = (inputs / name).read_bytes()
        (inputs / name).write_bytes(data[: len(data) // 2])

    return spoil


def write(name: str, text: str) -> Callable[[Path], None]:
    """A spoiler that overwrites a file."""
    return lambda inputs: (inputs / name).write_text(text) and None


def bomb(inputs: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(inputs / "images" / "1.png")


def link_out(inputs: Path) -> None:
    (inputs.parent / "secret.png").write_bytes((inputs / "images" / "1.png").read_bytes())
    (inputs / "images" / "1.png").unlink()
    (inputs / "images" / "1.png").symlink_to(inputs.parent / "secret.png")


def pickle_only(inputs: Path) -> None:
    (inputs / "checkpoint" / "model.safetensors").rename(
        inputs / "checkpoint" / "pytorch_model.bin"
    )


MISTAKES: dict[str, tuple[Callable[[Path], None] | None, list[str], str, list[str]]] = {
    # name: (what is spoiled, flags, job, what the line must hold)
    "no data": (lambda i: (i / "samples.json").unlink(), [], "inspect", ["samples.json"]),
    "not json": (write("samples.json", "[{"), [], "inspect", ["samples.json"]),
    "no conversations": (
        edit_samples(lambda s: s[2].pop("conversations")), [], "inspect", ["p2", "conversations"],
    ),
    "too many marks": (
        edit_samples(lambda s: s[1]["conversations"][0].update(value="<image><image> a")),
        [], "inspect", ["p1", "<image>"],
    ),
    "missing image": (
        lambda i: (i / "images" / "1.png").unlink(), [], "inspect",
        ["samples.json: record number 2 (id p1): image '1.png': no such file"],
    ),
    "missing image of a question": (
        lambda i: (i / "images" / "1.png").unlink(), [], "generate", ["record 1: image '1.png'"],
    ),
    "truncated image": (cut("images/1.png"), [], "inspect", ["1.png", "p1"]),
    "not an image": (write("images/1.png", "hello"), [], "inspect", ["1.png", "p1"]),
    "bomb": (bomb, [], "inspect", ["1.png", "p1"]),
    "dot dot": (
        edit_samples(lambda s: s[1].update(image="../x.png")), [], "inspect", ["../x.png", "p1"],
    ),
    "absolute": (
        edit_samples(lambda s: s[1].update(image="/etc/x.png")), [], "inspect", ["/etc/x.png"],
    ),
    "symlink": (link_out, [], "inspect", ["1.png", "p1"]),
    "unknown key": (None, ["--config.guide.wieght=2"], "inspect", ["wieght"]),
    "bad value": (None, ["--config.guide.form=papre"], "score", ["papre", "paper"]),
    "bad template": (None, ["--config.prompt.template=vicuna"], "inspect", ["vicuna"]),
    "bad mesh": (None, ["--config.mesh.tensor=7"], "score", ["config.mesh.tensor=7"]),
    "bad layer": (None, ["--config.guide.layers=2-9"], "score", ["2-9"]),
    "bad batch": (
        None, ["--config.finetune.batch_size=5", "--config.finetune.accumulate=2"], "finetune",
        ["config.finetune.batch_size=5"],
    ),
    "too long": (None, ["--config.data.max_length=20"], "inspect", ["p0", "20"]),
    "no checkpoint": (None, ["--config.model.checkpoint=/no/such"], "score", ["/no/such"]),
    "cut checkpoint": (cut("checkpoint/model.safetensors"), [], "score", ["model.safetensors"]),
    "pickle only": (pickle_only, [], "score", ["safetensors"]),
    "other architecture": (edit_config("model_type", "blip"), [], "score", ["blip"]),
    "no steps between saves": (
        None, ["--config.finetune.save_every=0"], "finetune", ["config.finetune.save_every=0"],
    ),
    "bad top_p": (None, ["--config.generate.top_p=1.5"], "generate", ["config.generate.top_p"]),
    "no questions": (
        lambda i: (i / "questions.jsonl").unlink(), [], "generate", ["questions.jsonl"],
    ),
    "unknown job": (None, [], "fly", ["fly"]),
    "adapters by peft's names": (
        None, ["--config.lora.rank=2", "--config.lora.targets=q_proj,v_proj"], "finetune",
        ["config.lora.targets", "'q_proj'", "gate"],
    ),
    "no adapters": (
        None, ["--config.lora.rank=2", "--config.lora.targets= ,"], "finetune", ["no matrix"],
    ),
    "alpha of 0": (
        None, ["--config.lora.rank=2", "--config.lora.alpha=0"], "finetune",
        ["config.lora.alpha=0.0 must be more than 0"],
    ),
    "rank below 0": (None, ["--config.lora.rank=-4"], "finetune", ["config.lora.rank=-4"]),
    "weight below 0": (
        None, ["--config.guide.answer_weight=-1.0"], "finetune", ["config.guide.answer_weight=-1"],
    ),
    "decay of 1": (None, ["--config.guide.center_decay=1.0"], "score", ["center_decay=1.0"]),
    "table of one word": (
        None, ["--config.finetune.trainable=all"], "finetune", ["config.finetune.trainable", "all"],
    ),
    "pattern without a parameter": (
        None, ["--config.finetune.trainable=((\"projetor/.*\",1.0),(\".*\",0.1))"], "finetune",
        ["config.finetune.trainable", "projetor"],
    ),
    "all frozen": (
        None, ["--config.finetune.trainable=((\".*\",None),)"], "finetune",
        ["config.finetune.trainable freezes every parameter"],
    ),
    "scored none at a time": (
        None, ["--config.score.batch_size=0"], "score", ["config.score.batch_size=0"],
    ),
    "workers below 0": (None, ["--config.data.workers=-3"], "finetune", ["config.data.workers=-3"]),
    "seed below 0": (None, ["--config.seed=-1"], "finetune", ["config.seed=-1"]),
    "steps below 0": (
        None, ["--config.finetune.steps=-5"], "finetune", ["config.finetune.steps=-5", "-1"],
    ),
    "no arms": (None, [], "experiment", ["config.experiment.arms is empty"]),
    "bad judge": (None, ["--config.evaluate.judges=foo"], "oracle", ["'foo'"]),
    "oracle without benchmarks": (None, [], "oracle", ["set config.oracle.benchmarks"]),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_line(
    name: str, inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil, flags, job, wanted = MISTAKES[name]
    if spoil is not None:
        spoil(inputs)
    assert main(arguments(inputs, tmp_path / "run", *flags, job=job)) == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    for word in wanted:
        assert word in line, line


@pytest.mark.parametrize(
    ("job", "flag", "said"),
    [
        ("score", "--config.guide.center=yes", "config.guide.center='yes'"),
        ("score", "--config.guide.layers=99", "99"),
        ("finetune", "--config.finetune.template=vicunna", "config.finetune.template='vicunna'"),
        ("oracle", "--config.evaluate.judges=foo", "'foo'"),
    ],
)
def test_a_mistake_in_the_last_job_shows_before_the_first_one(
    inputs: Path, tmp_path: Path, job: str, flag: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(arguments(inputs, run, flag, job=f"inspect,{job}")) == 2
    assert said in capfd.readouterr().err.strip().splitlines()[-1]
    assert not (run / "inspect").exists()


# job: what its check refuses, as flags without "--config.", each with what the line must hold.
CHECKED: dict[str, dict[str, str]] = {
    "finetune": {
        "data.max_bad_fraction=5": "config.data.max_bad_fraction=5",
        "data.caption_noise=3": "config.data.caption_noise=3",
        "data.retrieved_share=-1": "config.data.retrieved_share=-1",
        "data.buckets=(0,)": "config.data.buckets=(128, 0)",
        "data.caption_buckets=(0,)": "config.data.caption_buckets=(96, 0)",
        "prompt.date=tomorrow": "config.prompt.date='tomorrow'",
        "prompt.template=mistral_instruct prompt.system=Hi": "mistral_instruct",
        "finetune.template=mistral_instruct prompt.system=Hi": "mistral_instruct",
    },
    "score": {"data.split=validation": "config.data.validation is 0"},
    "prepare": {
        "data.path=": "set config.data.path", "data.path=FOLDER": "job prepare needs a LLaVA JSON",
    },
    "caption": {
        "caption.question=": "config.caption.question is empty",
        "caption.batch_size=0": "config.caption.batch_size=0",
        "caption.max_new_tokens=0": "config.caption.max_new_tokens=0",
        "caption.template=nosuch": "config.caption.template='nosuch'",
        "data.path=FOLDER": "job caption needs a LLaVA JSON file",
    },
    "evaluate": {
        "evaluate.profile=bogus": "config.evaluate.profile='bogus'",
        "evaluate.profile=custom": "needs config.evaluate.system",
        "evaluate.profile=paper prompt.template=mistral_instruct": "mistral_instruct",
        "evaluate.apologies=('I',)": "config.evaluate.apologies=('I',)",
        "prompt.date=bogus": "config.prompt.date='bogus'",
    },
    "analyze": {
        "analyze.profile=bogus": "config.analyze.profile='bogus'",
        "analyze.apologies=('I',)": "config.analyze.apologies=('I',)",
        "analyze.batch_size=0": "config.analyze.batch_size=0 must be 1 or more",
        "analyze.limit=-1": "config.analyze.limit=-1 must be 0 or more",
    },
    "oracle": {
        "generate.temperature=-1": "config.generate.temperature=-1",
        "evaluate.profile=bogus": "config.evaluate.profile='bogus'",
        "oracle.learning_rate=-1": "config.oracle.learning_rate=-1",
        "oracle.near_weight=-0.5": "config.oracle.near_weight=-0.5",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("job", "flags", "said"), [(j, f, s) for j, found in CHECKED.items() for f, s in found.items()]
)
def test_a_job_refuses_its_mistakes_before_any_job_runs(
    good: Path, tmp_path: Path, job: str, flags: str, said: str
) -> None:
    (tmp_path / "texts.jsonl").write_text('{"id": "t", "prompt": "Hello.", "label": "safe"}\n')
    given = [f"--config.evaluate.benchmarks=texts:{tmp_path / 'texts.jsonl'}"]
    given += [f"--config.{flag.replace('FOLDER', str(tmp_path))}" for flag in flags.split(" ")]
    config = parse_flags(arguments(good, tmp_path / "run", *given, job=job)).config
    with pytest.raises(UserError) as caught:
        check_jobs(config, tmp_path / "run", [job])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "job", ["finetune", "score", "prepare", "caption", "evaluate", "analyze", "oracle"]
)
def test_a_job_without_mistakes_passes_its_check(good: Path, tmp_path: Path, job: str) -> None:
    (tmp_path / "texts.jsonl").write_text('{"id": "t", "prompt": "Hello.", "label": "safe"}\n')
    flag = f"--config.evaluate.benchmarks=texts:{tmp_path / 'texts.jsonl'}"
    config = parse_flags(arguments(good, tmp_path / "run", flag, job=job)).config
    check_jobs(config, tmp_path / "run", [job])


def test_a_loss_that_is_not_finite_names_step_and_samples(
    inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = ["--config.finetune.learning_rate=1e30", "--config.finetune.clip_norm=0.0"]
    assert main(arguments(inputs, tmp_path / "run", *flags, job="finetune")) == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert "step" in line and ("p0" in line or "p1" in line or "text" in line)
