"""What export writes, and what its card says, is what was trained, whatever later flags say."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import load_file

from tests.jobs.inputs import arguments, make_inputs
from tga_jax.main import main

Capture = pytest.CaptureFixture[str]
ADAPTERS = ("--config.lora.rank=2", "--config.lora.alpha=64.0", "--config.dtype=bfloat16")
TRAINED = (
    *ADAPTERS,
    "--config.finetune.steps=2",
    "--config.finetune.learning_rate=0.01",
    "--config.finetune.template=chatml",
    "--config.guide.center=batch",
    "--config.data.buckets=(160,)",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs, and `run/` with a finished second stage that trained adapters."""
    folder = make_inputs(tmp_path_factory.mktemp("trained"))
    assert main(arguments(folder, folder / "run", *TRAINED, job="finetune")) == 0
    return folder


def test_the_card_and_the_template_are_those_of_the_training(
    trained: Path, capsys: Capture
) -> None:
    others = ("--config.prompt.template=llama_2", "--config.guide.form=none")
    assert main(arguments(trained, trained / "run", *ADAPTERS, *others, job="export")) == 0
    said = capsys.readouterr().err
    assert "as in training, not as config says now: " in said
    assert "guide.form='paper'" in said and "finetune.template='chatml'" in said
    card = (trained / "run" / "export" / "README.md").read_text()
    assert 'the training template "chatml"' in card
    assert "parameters, rank 2, alpha 64)" in card
    assert 'form "paper"' in card and 'centring of the states "batch"' in card
    assert "<|im_start|>" in (trained / "run" / "export" / "chat_template.jinja").read_text()


def test_another_template_than_that_of_the_training_is_warned_of(
    trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = tmp_path / "run"
    run.symlink_to(trained / "run")
    asked = (*ADAPTERS, "--config.generate.max_new_tokens=1", "--config.data.buckets=()")
    for template in ("llama_2", "chatml"):
        flag = f"--config.prompt.template={template}"
        assert main(arguments(trained, run, *asked, flag, job="generate")) == 0
        said = f'written in template "{template}", and the model was trained with "chatml"'
        assert (said in capsys.readouterr().err) is (template != "chatml")


@pytest.mark.parametrize("job", ["score", "export", "generate"])
def test_adapters_of_another_strength_are_refused(trained: Path, job: str, capsys: Capture) -> None:
    weaker = ("--config.lora.rank=2", f"--config.generate.questions={trained}/questions.jsonl")
    assert main(arguments(trained, trained / "run", *weaker, job=job)) == 2
    assert "was trained with config.lora.alpha=64.0, now it is 16.0" in capsys.readouterr().err


def test_an_export_in_float32_has_adapters_that_were_never_rounded(
    trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.symlink_to(trained / "run")
    whole = ("--config.export.dtype=float32", "--config.finetune.template=chatml")
    assert main(arguments(trained, run, *ADAPTERS, *whole, job="export")) == 0
    exported = load_file(run / "export" / "model.safetensors")
    before = load_file(trained / "checkpoint" / "model.safetensors")
    name = next(n for n in before if n.endswith("layers.1.self_attn.v_proj.weight"))
    step = json.loads((run / "finetune" / "done.json").read_text())["step"]
    params = ocp.StandardCheckpointer().restore(run / "finetune" / "checkpoints" / f"{step}/params")
    a, b = (
        np.asarray(next(v for k, v in params.items() if k.endswith(f"/v/{part}")))
        for part in ("lora_a", "lora_b")
    )
    assert a.dtype == b.dtype == np.float32 and np.abs(b).max() > 0
    kernel = np.float32(np.asarray(before[name], jax.numpy.bfloat16))  # frozen, and kept so
    expected = kernel + np.float32(64 / 2) * (a[1] @ b[1]).T
    np.testing.assert_allclose(exported[name], expected, atol=1e-6)
