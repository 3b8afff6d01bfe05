"""Where the 7B model's parameters lie on 8, 32 and 256 devices: golden tables, and refusals."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path

import flax.linen as nn
import jax
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from tests import tiny
from tga_jax.errors import UserError
from tga_jax.models.config import LoraConfig
from tga_jax.models.llava import Llava
from tga_jax.parallel.mesh import AXES
from tga_jax.parallel.sharding import LARGE, param_shardings, shapes
from tga_jax.planning.architectures import MODELS

GOLDEN = Path(__file__).parents[1] / "golden" / "shardings"
# devices -> (data, fsdp, tensor)
MESHES = {8: (1, 8, 1), 32: (2, 8, 2), 256: (1, 128, 2)}
MISTRAL = MODELS["llava_mistral_7b"]
LORA = LoraConfig(rank=128, alpha=256.0)  # LLaVA's own, on all matrices: `docs/plans.md`
MODEL_CONFIGS = {
    "llava_mistral_7b": MISTRAL,
    "llava_mistral_7b_lora": dataclasses.replace(
        MISTRAL, decoder=dataclasses.replace(MISTRAL.decoder, lora=LORA)
    ),
}


@functools.cache
def _boxed(name: str) -> dict:
    return jax.eval_shape(Llava(MODEL_CONFIGS[name], tiny.NORM).init, jax.random.key(0))


def table(name: str, sizes: tuple[int, int, int]) -> str:
    """A line a parameter: path, shape, mesh axes, elements a device; and their sum."""
    boxed, mesh = _boxed(name), AbstractMesh(sizes, AXES)
    lines, total = [f"mesh: {dict(zip(AXES, sizes, strict=True))}"], 0
    for path, sharding in sorted(param_shardings(boxed, mesh).items()):
        shape = shapes(boxed)[path]
        held = math.prod(sharding.shard_shape(shape))
        total += held
        lines.append(f"{path} {shape} {tuple(sharding.spec)} {held:,}")
    return "\n".join([*lines, f"elements a device: {total:,}", ""])


@pytest.mark.parametrize("name", MODEL_CONFIGS)
@pytest.mark.parametrize("devices", MESHES)
def test_golden_tables(name: str, devices: int) -> None:
    """A change here is a change of where weights lie: look at it, then write the files anew
    (`python -m tests.parallel.test_shardings`)."""
    golden = (GOLDEN / f"{name}-{devices}.txt").read_text(encoding="utf-8")
    assert table(name, MESHES[devices]) == golden


@pytest.mark.parametrize("name", MODEL_CONFIGS)
@pytest.mark.parametrize("devices", MESHES)
def test_a_device_holds_little_more_than_its_share(name: str, devices: int) -> None:
    sizes = MESHES[devices]
    total = sum(math.prod(shape) for shape in shapes(_boxed(name)).values())
    held = int(table(name, sizes).splitlines()[-1].rsplit(" ", 1)[1].replace(",", ""))
    cut = sizes[1] * sizes[2]  # data axes hold copies
    assert total / cut <= held < 1.03 * total / cut


def _one(names: tuple, shape: tuple) -> dict:
    return {"a": {"kernel": nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, "f4"), names)}}


def test_what_families_of_decoders_add_lies_with_the_norms() -> None:
    """Of the norms over heads, and those behind a block's halves, every device has all."""
    rich = dataclasses.replace(MISTRAL.decoder, qk_norm=True, post_norms=True)
    config = dataclasses.replace(MISTRAL, decoder=rich)
    boxed = jax.eval_shape(Llava(config, tiny.NORM).init, jax.random.key(0))
    mesh = AbstractMesh(MESHES[32], AXES)
    whole, plain = param_shardings(boxed, mesh), param_shardings(_boxed("llava_mistral_7b"), mesh)
    assert {path: whole[path] for path in plain} == plain
    added = {path.split("/")[2] for path in whole.keys() - plain.keys()}
    assert added == {"q_norm", "k_norm", "post_norm1", "post_norm2"}
    assert all(whole[path].is_fully_replicated for path in whole.keys() - plain.keys())


@pytest.mark.parametrize("names", [("embed", "vision_embed"), ("embed", "lora_side")])
def test_colliding_axes_are_an_error(names: tuple[str, str]) -> None:
    mesh = AbstractMesh((1, 2, 2), AXES)
    with pytest.raises(ValueError, match="a/kernel.*collide.*'fsdp'"):
        param_shardings(_one(names, (4, 4)), mesh)


@pytest.mark.parametrize(
    ("side", "cut"), [(8, ("tensor", "fsdp")), (6, ("tensor",)), (3, None), (2048, ("tensor",))]
)
def test_an_adapters_side_is_cut_as_far_as_it_goes(side: int, cut: tuple | None) -> None:
    sizes = (1, 4 if side < 2048 else 3, 2)
    (found,) = param_shardings(
        _one(("lora_rank", "lora_side"), (1024, side)), AbstractMesh(sizes, AXES)
    ).values()
    assert found.spec == PartitionSpec(None, cut)


def test_a_large_parameter_that_stays_whole_is_the_users_mistake() -> None:
    side = math.isqrt(LARGE) + 1  # odd
    with pytest.raises(UserError, match="config.mesh: a/kernel"):
        param_shardings(_one(("embed", "heads"), (side, side)), AbstractMesh((1, 2, 2), AXES))
    for sizes in ((4, 1, 1), (1, 1, 1)):  # nothing is to be cut
        param_shardings(_one(("embed", "heads"), (side, side)), AbstractMesh(sizes, AXES))
    param_shardings(_one(("embed", "heads"), (side + 1, side)), AbstractMesh((1, 2, 2), AXES))


def test_a_large_parameter_that_fsdp_does_not_cut_is_refused() -> None:
    mesh = AbstractMesh((1, 3, 2), AXES)
    with pytest.raises(UserError, match="a/kernel.*all 3 devices of fsdp"):
        param_shardings(_one(("embed", "heads"), (2048, 2048)), mesh)
    param_shardings(_one(("embed", "heads"), (64, 64)), mesh)  # small: allowed


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name in MODEL_CONFIGS:
        for count, sizes in MESHES.items():
            (GOLDEN / f"{name}-{count}.txt").write_text(table(name, sizes), encoding="utf-8")
