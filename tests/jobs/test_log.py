"""What a run says to the person who watches: its start, its stages, its end, its tables."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.jobs.inputs import arguments, make_inputs, row
from tga_jax.config import base_config
from tga_jax.jobs.closing import next_command
from tga_jax.jobs.registry import JOBS
from tga_jax.main import main
from tga_jax.run.config_text import config_text, differences
from tga_jax.run.start import devices_text
from tga_jax.training.metric_table import progress_note

NAN = float("nan")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[str], Path, str]]:
    """The command line, the workdir and the log of a run with a stage."""
    folder = tmp_path_factory.mktemp("ran")
    argv = arguments(
        make_inputs(folder), folder / "run", "--config.pretrain.log_every=1", job="inspect,pretrain"
    )
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("tga_jax.cluster.hosts.log", lines.append)
        assert main(argv) == 0
    yield argv, folder / "run", "\n".join(lines)


def test_a_run_begins_with_versions_devices_and_jobs(ran: tuple[list[str], Path, str]) -> None:
    _, workdir, said = ran
    versions, devices, configuration, jobs = said.splitlines()[:4]
    assert versions.startswith("tga_jax 0.") and "jax 0." in versions
    assert "1 x cpu (number 0)" in devices and "GiB of memory" in devices
    assert " keys differ from the defaults" in configuration
    assert jobs == f"jobs: inspect, pretrain; everything is written to {workdir}"


def test_a_stage_says_what_is_to_come_and_what_became_of_it(
    ran: tuple[list[str], Path, str],
) -> None:
    _, workdir, said = ran
    (come,) = [line for line in said.splitlines() if "[pretrain] to come:" in line]
    assert "3 steps, 6 samples (1.00 epochs of 6), about " in come
    tokens = int(come.split("about ")[1].split()[0].replace(",", ""))
    assert tokens > 0
    logged = [json.loads(line) for line in (workdir / "pretrain" / "metrics.jsonl").open()]
    ends = f"language loss {logged[0]['lm_loss']:.4f} -> {logged[-1]['lm_loss']:.4f}"
    assert any("[pretrain] trained 3 steps in" in li and ends in li for li in said.splitlines())
    last = logged[-1]
    parts = f"language {last['lm_loss']:.4f} + guide {last['loss'] - last['lm_loss']:.4f}"
    (step,) = [line for line in said.splitlines() if line.startswith("pretrain 3/3 ")]
    assert parts in step and "left" in step and "tokens/s" in step


def test_a_device_too_small_for_the_weights_is_refused_before_they_are_loaded(
    ran: tuple[list[str], Path, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    argv, _, said = ran
    state = re.search(r"weights and optimizer take ([\d.]+) GiB", said)
    assert state is not None and float(state[1]) == 0.0  # 348 KB
    monkeypatch.setattr("tga_jax.jobs.train.device_memory", lambda devices: 100_000)
    again = [arg for arg in argv if not arg.startswith(("--workdir", "--job"))]
    assert main([*again, f"--workdir={tmp_path}", "--job=pretrain"]) == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert "of the 0.00 GiB that JAX may use" in line and "config.lora.rank" in line
    assert not (tmp_path / "pretrain").exists()  # other settings may begin there


def test_a_run_ends_with_what_was_done_and_what_to_type(
    ran: tuple[list[str], Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv, workdir, said = ran
    *_, done, inspect, pretrain, following = said.splitlines()
    assert done.startswith("done in ")
    assert inspect.split()[0] == "inspect" and inspect.endswith("inspect/samples.jsonl")
    assert pretrain.endswith("/pretrain")
    typed = shlex.split(following.removeprefix("next: "))
    assert typed[:3] == ["python", "-m", "tga_jax.main"]
    assert typed[3:-1] == [arg for arg in argv[1:] if not arg.startswith("--job=")]
    assert typed[-1] == "--job=finetune,score,export"


@pytest.mark.parametrize(
    ("argv", "last", "typed"),
    [
        (["bin/tga", "--config=x", "--job", "score", "--workdir=w"], "score",
         "tga --config=x --workdir=w --job=pretrain,finetune,export"),
        (["tga", "--config.model.checkpoint=F"], "inspect",
         "tga --config.model.checkpoint=F --job=finetune,export"),
        (["tga", "--config.finetune.path=F"], "finetune",
         "tga --config.finetune.path=F --job=export"),
        (["tga", "--config.data.path=F"], "finetune",
         "tga --config.data.path=F --job=score,export"),
        (["m", "--job=a", "-a"], "index", "python -m tga_jax.main -a --job=retrieve"),
        (["tga", "--config=x", "--config.a=1", "-config.b", "2", "--config.a", "3", "--config.b=4"],
         "index", "tga --config=x --config.a 3 --config.b=4 --job=retrieve"),
        (["tga", "--config=x"], "judge", "tga --config=x --job=report"),
        (["tga", "--config.experiment.only=baseline"], "experiment", ""),
    ],
)  # fmt: skip
def test_the_next_command(argv: list[str], last: str, typed: str, tmp_path: Path) -> None:
    assert next_command(argv, tmp_path, last) == typed


def test_after_training_scores_lead_to_the_export_and_that_to_an_audit(tmp_path: Path) -> None:
    (tmp_path / "finetune").mkdir()
    (tmp_path / "finetune" / "done.json").write_text("{}")
    assert next_command(["tga"], tmp_path, "score") == "tga --job=export"
    assert f"--config.model.checkpoint={tmp_path}/export" in next_command(
        ["tga"], tmp_path, "export"
    )


@pytest.mark.parametrize("name", JOBS)
def test_jobs_that_follow_exist(name: str) -> None:
    assert {job for job in JOBS[name].next.split(",") if job} <= JOBS.keys()


def test_devices_are_told_by_kind_number_and_memory() -> None:
    def gpu(number: int, process: int = 0) -> Any:
        return SimpleNamespace(
            id=number, device_kind="NVIDIA H100", process_index=process,
            memory_stats=lambda: {"bytes_limit": 60 * 1024**3 + number},
        )  # fmt: skip

    assert devices_text([gpu(0)]) == "1 x NVIDIA H100 (number 0, JAX may use 60.0 GiB of each)"
    many = devices_text([gpu(n, n // 4) for n in range(8)])
    assert many.startswith("8 x NVIDIA H100 (numbers 0 to 7, ") and many.endswith("in 2 processes")


def test_the_progress_line_tells_language_from_guide() -> None:
    values = {"loss": 2.5, "lm_loss": 2.0, "guide_pair": 0.5, "guide_hinge": NAN}
    assert progress_note(values, 1234.5) == (
        "loss 2.5000 = language 2.0000 + guide 0.5000 (unweighted: pair 0.5000)  1,234 tokens/s"
    )
    alone = {"loss": 2.0, "lm_loss": 2.0, "guide_pair": NAN, "guide_hinge": NAN}
    assert progress_note(alone, None) == "loss 2.0000"
    captions = {"loss": 0.5, "lm_loss": NAN, "guide_pair": 0.5}
    assert progress_note(captions, None).startswith("loss 0.5000 = language 0.0000 + guide 0.5000")


def test_print_config_shows_all_and_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["tga", "--config=from_hf:tga_answer", "--config.dtype=bfloat16", "--print_config"]
    assert main(argv) == 0
    said = capsys.readouterr().out
    every, _, changed = said.partition("\n\n")
    assert "config.dtype = 'bfloat16'" in every.splitlines()
    assert "config.finetune.learning_rate = 2e-06" in every.splitlines()
    assert "--config.dtype='bfloat16'  (default: 'float32')" in changed
    assert "--config.guide.answer_weight=0.25  (default: 0.0)" in changed
    assert "learning_rate" not in changed


def test_the_defaults_differ_in_nothing() -> None:
    config = base_config()
    assert differences(config) == {}
    with config.unlocked():
        config.experiment.arms = {"a": {"seed": 3}}
    assert differences(config) == {"experiment.arms.a.seed": (3, None)}
    assert "1 of " in config_text(config)


def test_an_export_of_nothing_trained_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr("tga_jax.cluster.hosts.log", lines.append)
    assert main(arguments(make_inputs(tmp_path), tmp_path / "run", job="export")) == 0
    assert any("[export] WARNING: no stage has finished in" in line for line in lines)


def test_samples_that_all_lose_their_image_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here their questions with an image are longer than max_length; a text is left to train on."""
    lines: list[str] = []
    monkeypatch.setattr("tga_jax.cluster.hosts.log", lines.append)
    rows = [
        row("image", [("human", "<image>\n" + "What is it? " * 40), ("gpt", "A.")], image="0.png"),
        row("text", [("human", "Hello?"), ("gpt", "Hello.")]),
    ]
    inputs = make_inputs(tmp_path)
    (inputs / "samples.json").write_text(json.dumps(rows))
    assert main(arguments(inputs, tmp_path / "run", job="inspect")) == 0
    assert any("WARNING: no usable sample has an image, though 1 of" in line for line in lines)


def test_parts_beside_a_checkpoint_are_said_not_to_count(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    inputs = make_inputs(tmp_path / "inputs")
    said = "config.model.checkpoint is given, so config.model.vision and .llm do not count"
    for name, flags in (("alone", []), ("beside", ["--config.model.vision=another/tower"])):
        assert main(arguments(inputs, tmp_path / name, *flags, job="inspect")) == 0
        assert (said in capfd.readouterr().err) is bool(flags)
