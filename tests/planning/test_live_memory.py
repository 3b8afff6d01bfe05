"""What a traced program holds at once, on programs small enough to do by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tga_jax.planning.live_memory import peak_bytes

A = jnp.ones((16, 16))
SIZE = 16 * 16 * 4


def test_a_chain_holds_two_values() -> None:
    assert peak_bytes(jax.make_jaxpr(lambda x: x @ x @ x)(A)) == 3 * SIZE
    # The argument is freed with its last use.
    assert peak_bytes(jax.make_jaxpr(lambda x: jnp.sort(jnp.sort(jnp.sort(x))))(A)) == 2 * SIZE


def test_elementwise_results_used_once_take_no_room() -> None:
    assert peak_bytes(jax.make_jaxpr(lambda x: jnp.tanh(x * 2 + 1) @ x)(A)) == 2 * SIZE


def test_what_is_kept_for_later_counts_until_then() -> None:
    def f(x: jax.Array) -> jax.Array:
        kept = jnp.sort(x)
        y = jnp.sort(jnp.sort(kept))
        return y @ kept

    assert peak_bytes(jax.make_jaxpr(f)(A)) == 3 * SIZE


def test_a_scan_holds_what_it_stacks_and_one_turn() -> None:
    def f(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda x, _: (jnp.sort(x), jnp.sort(x)), x, length=10)[1]

    peak = peak_bytes(jax.make_jaxpr(f)(A))
    assert (1 + 1 + 10) * SIZE < peak <= (1 + 1 + 10 + 3) * SIZE
