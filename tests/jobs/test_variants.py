"""Variants of training that a user turns on with a flag: bfloat16, LoRA, running centring."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration

from tests.jobs.inputs import arguments, make_inputs, read_jsonl
from tga_jax.main import main

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint and samples."""
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def test_bfloat16_trains_float32_masters_and_leaves_frozen_parts_alone(
    inputs: Path, tmp_path: Path
) -> None:
    more = ["--config.dtype=bfloat16", "--config.guide.center=running"]
    assert main(arguments(inputs, tmp_path, *more, job="finetune,export")) == 0
    lines = read_jsonl(tmp_path / "finetune" / "metrics.jsonl")
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert lines[0]["guide_pair"] is None and lines[-1]["guide_pair"] is not None
    assert json.loads((tmp_path / "export" / "config.json").read_text())["dtype"] == "bfloat16"
    before = load_file(inputs / "checkpoint" / "model.safetensors")
    after = load_file(tmp_path / "export" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, old in before.items():
        new, old = after[name], old.to(torch.bfloat16)
        assert new.dtype == torch.bfloat16
        if "vision_tower" in name:
            assert torch.equal(new, old), name
    moved = [n for n in before if not torch.equal(after[n], before[n].to(torch.bfloat16))]
    assert any("language_model" in n for n in moved) and any("projector" in n for n in moved)


def test_compiler_options_reach_the_compiler(inputs: Path, tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    options = f"('xla_dump_to={dump}', 'xla_dump_hlo_as_text=true')"
    flags = [f"--config.compiler_options={options}", "--config.finetune.steps=1"]
    assert main(arguments(inputs, tmp_path / "run", *flags, job="finetune")) == 0
    assert any("jit_step" in path.name for path in dump.iterdir())


@pytest.mark.parametrize(
    ("option", "said"),
    [("xla_bogus=1", "xla_bogus"), ("xla_dump_to", "NAME=VALUE"), ("xla_dump_hlo_as_text=7", "7")],
)
def test_a_wrong_compiler_option_is_named(
    inputs: Path, tmp_path: Path, option: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = [f"--config.compiler_options=('{option}',)", "--config.finetune.steps=1"]
    assert main(arguments(inputs, tmp_path, *flags, job="finetune")) == 2
    error = [
        line for line in capfd.readouterr().err.splitlines() if "config.compiler_options" in line
    ]
    assert len(error) == 1 and said in error[0]


def test_lora_trains_its_factors_alone_and_is_merged_at_export(
    inputs: Path, tmp_path: Path
) -> None:
    config = tmp_path / "lora.py"
    config.write_text(
        "from configs.from_hf import get_config as from_hf\n"
        "def get_config():\n"
        "    config = from_hf()\n"
        "    with config.unlocked():\n"
        "        config.lora.rank = 4\n"
        "        config.finetune.trainable = (('.*/lora_.*', 1.0), ('.*', None))\n"
        "    return config\n"
    )
    flags = arguments(inputs, tmp_path / "run", job="finetune,generate,export")
    flags[1] = f"--config={config}"
    assert main(flags) == 0
    before = load_file(inputs / "checkpoint" / "model.safetensors")
    after = load_file(tmp_path / "run" / "export" / "model.safetensors")
    moved = {n for n in before if not torch.equal(after[n], before[n])}
    assert moved and all("_proj.weight" in n and "language_model" in n for n in moved)
    LlavaForConditionalGeneration.from_pretrained(tmp_path / "run" / "export")


def test_a_trained_tower_is_not_left_out_of_llavas_own_layout(
    inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "tower.py"
    config.write_text(
        "from configs.from_hf import get_config as from_hf\n"
        "def get_config():\n"
        "    config = from_hf()\n"
        "    with config.unlocked():\n"
        "        config.finetune.trainable = (('vision/.*', 0.1), ('.*', None))\n"
        "    return config\n"
    )
    tower, run = "--config.export.llava_tower=some/clip", tmp_path / "run"

    def flags(*more: str, job: str, own: bool = True) -> list[str]:
        found = arguments(inputs, run, "--config.finetune.steps=1", *more, job=job)
        return [found[0], f"--config={config}", *found[2:]] if own else found

    assert main(flags(tower, job="finetune,export")) == 2
    assert "finetune trains the vision tower" in capfd.readouterr().err
    assert not (run / "finetune").exists()
    assert main(flags(job="finetune,export")) == 0
    # The stage has trained it, whatever the configuration of the export says.
    assert main(flags(tower, job="export", own=False)) == 2
    assert "finetune trains the vision tower" in capfd.readouterr().err
