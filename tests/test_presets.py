"""The variants of configs/from_hf.py: recipes and presets, and whether the presets fit."""

from __future__ import annotations

import pytest

from benchmarks import presets
from configs import from_hf
from tga_jax.config import ANSWER_GUIDE, PAPER_GUIDE, PROJECTOR_ONLY, STAGES
from tga_jax.jobs.plan import first_choice
from tga_jax.parallel.devices import GIB
from tga_jax.planning.abstract import model_shapes
from tga_jax.planning.architectures import MODELS
from tga_jax.planning.topology import parse_topology

# JAX takes three quarters of a GPU where it is not told otherwise.
SHARES = {"gpu80": 0.75, "gpu8x80": 0.75, "gpu24": 0.75, "v5e16": 0.95, "v5p8": 0.95, "laptop": 1.0}


def test_every_preset_has_its_hardware_in_the_table() -> None:
    assert from_hf.PRESETS.keys() == presets.HARDWARE.keys() == SHARES.keys()
    page = presets.PAGE.read_text()
    for name in from_hf.PRESETS:
        assert f"| `{name}` |" in page and f"| `{presets.ALONE}+{name}` |" in page


@pytest.mark.parametrize("name", from_hf.PRESETS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_preset_divides_over_its_hardware(name: str, stage: str) -> None:
    config = presets.preset_config(name, stage)
    topology = parse_topology(config.plan.topology)
    choice = first_choice(config, topology)
    assert choice.shape.length >= (config[stage].max_length or config.data.max_length)
    # LLaVA's batches, whatever is in memory at once.
    assert config[stage].batch_size == (8 if name == "laptop" else [256, 128][stage == "finetune"])


@pytest.mark.slow
@pytest.mark.parametrize("name", from_hf.PRESETS)
def test_a_preset_is_within_its_devices_memory(name: str) -> None:
    room = SHARES[name] * presets.memory_of(name)
    for variant in (name, f"{presets.ALONE}+{name}"):
        needed = presets.planned(presets.preset_config(variant, "finetune"))["bytes_per_device"]
        assert needed < room, f"{variant}: {needed / GIB:.1f} GiB of {room / GIB:.1f}"


@pytest.mark.parametrize("preset", from_hf.PRESETS)
def test_recipes_and_presets_combine_in_any_order(preset: str) -> None:
    alone = from_hf.get_config(preset)
    assert {key: alone.guide[key] for key in ANSWER_GUIDE} == ANSWER_GUIDE
    paper = from_hf.get_config(f"{preset}+tga")
    assert paper.to_dict() == from_hf.get_config(f"tga+{preset}").to_dict()
    assert {key: paper.guide[key] for key in PAPER_GUIDE} == PAPER_GUIDE
    assert (paper.dtype, paper.lora.rank) == (alone.dtype, alone.lora.rank)


@pytest.mark.parametrize("preset", from_hf.PRESETS)
def test_the_projector_alone_is_trained_at_its_rate_of_stage_1(preset: str) -> None:
    config = from_hf.get_config(f"{presets.ALONE}+{preset}")
    assert {key: config.guide[key] for key in ANSWER_GUIDE} == ANSWER_GUIDE
    assert config.finetune.trainable == PROJECTOR_ONLY and config.lora.rank == 0
    assert config.finetune.learning_rate == config.pretrain.learning_rate == 1e-3
    assert config.to_dict() == from_hf.get_config(f"{preset}+{presets.ALONE}").to_dict()


@pytest.mark.parametrize("variant", ["tga+tga_answer", "gpu80+laptop"])
def test_two_of_a_kind_are_refused(variant: str) -> None:
    with pytest.raises(ValueError, match="one recipe and one preset at most"):
        from_hf.get_config(variant)


def test_the_laptops_parts_have_known_shapes() -> None:
    config = from_hf.get_config("laptop")
    assert model_shapes(config) == MODELS["llava_smollm2_135m"]
    assert config.model.checkpoint == ""  # one that the user names goes first
