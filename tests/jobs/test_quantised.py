"""A finetune of adapters over kernels in few bits, from the command line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration

from tests.hf_models import import_flat
from tests.jobs.inputs import Killed, arguments, make_inputs, read_jsonl
from tga_jax.config import base_config
from tga_jax.main import main
from tga_jax.models.quantised import is_quantised, quantise
from tga_jax.parallel.mesh import make_mesh
from tga_jax.run.model import as_configured
from tga_jax.training.checkpoints import Checkpoints
from tga_jax.training.state import param_leaves

pytestmark = pytest.mark.parity
CONFIG = """
from configs.from_hf import get_config as from_hf
from tga_jax.config import PROJECTOR_AND_LORA
def get_config():
    config = from_hf()
    with config.unlocked():
        config.model.quantize = "nf4"
        config.lora.rank = 4
        config.finetune.trainable = PROJECTOR_AND_LORA
        config.finetune.guide = False
    return config
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, samples, and a configuration."""
    folder = make_inputs(tmp_path_factory.mktemp("inputs"))
    (folder / "nf4.py").write_text(CONFIG)
    return folder


def _flags(inputs: Path, workdir: Path, *more: str, job: str) -> list[str]:
    flags = arguments(inputs, workdir, "--config.finetune.steps=4", *more, job=job)
    flags[1] = f"--config={inputs / 'nf4.py'}"
    return flags


@pytest.fixture(scope="module")
def run(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run's workdir."""
    workdir = tmp_path_factory.mktemp("run")
    assert main(_flags(inputs, workdir, job="finetune,generate,export")) == 0
    return workdir


def _trained(inputs: Path, workdir: Path) -> dict[str, np.ndarray]:
    """The parameters of the last checkpoint, by path."""
    config = base_config()
    config.lora.rank, config.model.quantize = 4, "nf4"
    model = import_flat(inputs / "checkpoint")[0]
    shapes = as_configured(model.config, config)
    mesh = make_mesh(data=1, fsdp=1, tensor=1)
    leaves = param_leaves(dataclasses.replace(model, config=shapes), mesh, dtype="float32")
    checkpoints = Checkpoints(workdir / "finetune" / "checkpoints")
    params = checkpoints.restore_params(4, leaves)
    checkpoints.close()
    return {path: np.asarray(x) for path, x in params.items()}


def test_frozen_kernels_stay_and_adapters_move(inputs: Path, run: Path) -> None:
    base, trained = import_flat(inputs / "checkpoint")[1], _trained(inputs, run)
    for path, before in base.items():
        if path in trained:
            moved = not np.array_equal(trained[path], before)
            assert moved == path.startswith("projector/"), path
            continue
        codes, scale = zip(*(quantise(kernel, "nf4") for kernel in before), strict=True)
        np.testing.assert_array_equal(trained[f"{path}_q"], np.stack(codes))
        np.testing.assert_allclose(trained[f"{path}_scale"], np.stack(scale), rtol=1e-6)
    assert sum(map(is_quantised, trained)) == 14
    assert all(np.any(x) for path, x in trained.items() if path.endswith("lora_b"))
    lines = read_jsonl(run / "finetune" / "metrics.jsonl")
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert len(read_jsonl(run / "generate" / "answers.jsonl")) == 4


def test_the_export_is_the_checkpoint_with_adapters_merged(inputs: Path, run: Path) -> None:
    before = load_file(inputs / "checkpoint" / "model.safetensors")
    after = load_file(run / "export" / "model.safetensors")
    trained, modules = _trained(inputs, run), {"self_attn": "qkvo", "mlp": ("gate", "up", "down")}
    merged: dict[str, Any] = {}
    for module, targets in modules.items():
        for target in targets:
            stem = f"decoder/blocks/{target}/"
            products = trained[stem + "lora_a"] @ trained[stem + "lora_b"] * (16.0 / 4)
            for layer, product in enumerate(products):
                merged[f"layers.{layer}.{module}.{target}_proj.weight"] = product.T
    found = 0
    for name, old in before.items():
        new = after[name].numpy()
        key = name[name.find("layers.") :]
        if "language_model" in name and key in merged:
            np.testing.assert_allclose(new, old.numpy() + merged[key], atol=1e-6, err_msg=name)
            assert np.any(new != old.numpy())
            found += 1
        elif "projector" not in name:
            np.testing.assert_array_equal(new, old.numpy(), err_msg=name)
    assert found == len(merged) and before.keys() == after.keys()
    _, info = LlavaForConditionalGeneration.from_pretrained(
        run / "export", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert (run / "export-peft" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_a_killed_stage_goes_on_to_the_same_weights(
    inputs: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Checkpoints.save

    def save_and_die(self: Checkpoints, step: int, *rest: Any) -> None:
        save(self, step, *rest)
        if step == 2:
            self.wait()
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Checkpoints, "save", save_and_die)
        main(_flags(inputs, tmp_path, job="finetune"))
    assert main(_flags(inputs, tmp_path, job="finetune")) == 0
    resumed = _trained(inputs, tmp_path)
    for path, value in _trained(inputs, run).items():
        np.testing.assert_array_equal(resumed[path], value, err_msg=path)


def test_export_refuses_a_checkpoint_that_has_changed(
    inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mine = make_inputs(tmp_path / "inputs")
    (mine / "nf4.py").write_text(CONFIG)
    assert main(_flags(mine, tmp_path / "run", job="finetune")) == 0
    file = mine / "checkpoint" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    assert main(_flags(mine, tmp_path / "run", job="export")) == 2
    assert "export needs the same checkpoint" in capfd.readouterr().err
    assert not (tmp_path / "run" / "export").exists()


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--config.lora.train_decoder=true", "config.lora.rank to train adapters"),
        ("--config.model.quantize=int3", "'', 'int8', 'nf4'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    inputs: Path, tmp_path: Path, flag: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    table = "--config.finetune.trainable=(('.*', 1.0),)"
    assert main(_flags(inputs, tmp_path, flag, table, job="finetune")) == 2
    (line,) = [x for x in capfd.readouterr().err.splitlines() if "config.model.quantize" in x]
    assert said in line


def test_without_adapters_the_decoder_is_refused_and_the_projector_alone_is_not(
    inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = ["--config.model.quantize=int8", "--config.pretrain.steps=1"]
    jobs = arguments(inputs, tmp_path, *flags, job="pretrain,finetune")
    assert main(jobs) == 2
    assert "decoder/blocks/" in capfd.readouterr().err
    assert main(arguments(inputs, tmp_path, *flags, job="pretrain")) == 0
