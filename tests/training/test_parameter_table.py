"""The table of parameters against a state that is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from tga_jax.training.parameter_table import parameter_table
from tga_jax.training.step import TrainState

MESH = AbstractMesh((1, 4, 2), ("data", "fsdp", "tensor"))


def _leaf(shape: tuple[int, ...], dtype: str, *spec: object) -> jax.ShapeDtypeStruct:
    sharding = NamedSharding(MESH, PartitionSpec(*spec))
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=sharding)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_parameter_has_a_line_and_the_totals_add_up() -> None:
    trained = {
        "decoder/blocks/q/kernel": _leaf((3, 2048, 64), "float32", None, "fsdp", "tensor"),
        "decoder/blocks/q/lora_b": _leaf((3, 4, 64), "float32", None, None, ("tensor", "fsdp")),
    }
    frozen = {"vision/class_token": _leaf((5,), "bfloat16")}
    state = TrainState(jnp.int32(0), trained, frozen, (), None)
    _, header, _, *lines, _, totals = parameter_table(state).splitlines()
    assert _cells(header) == ["Name", "Shape", "Dtype", "Size", "Sharding", "State"]
    assert [_cells(line) for line in lines] == [
        ["decoder/blocks/q/kernel", "(3, 2048, 64)", "float32", "393,216", "-, fsdp, tensor",
         "trained"],
        ["decoder/blocks/q/lora_b", "(3, 4, 64)", "float32", "768", "-, -, tensor+fsdp", "trained"],
        ["vision/class_token", "(5,)", "bfloat16", "5", "whole", "frozen"],
    ]  # fmt: skip
    assert totals == (
        "Total: 393,989 parameters, 1,575,946 bytes; "
        "trained: 393,984 parameters, 1,575,936 bytes; frozen: 5 parameters, 10 bytes"
    )
