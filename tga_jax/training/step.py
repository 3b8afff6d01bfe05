"""One optimizer step: (state, batch) -> (state, metrics), pure.

Letters: A micro-batches, B samples a micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import unflatten_dict

from tga_jax.alignment.guide import RunningMean
from tga_jax.models.llava import Llava, Params
from tga_jax.training.objective import (
    Batch,
    Objective,
    Sums,
    count_terms,
    loss_metrics,
    loss_sums,
    step_captions,
    total_loss,
)

Array = jax.Array
Flat = dict[str, Array]


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes, and the frozen parameters that it reads."""

    step: Array  # int32[], steps done
    trained: Flat  # float32
    frozen: Flat  # the compute dtype
    opt_state: Any
    running: RunningMean | None  # of `guide.center = "running"`

    @property
    def flat_params(self) -> Flat:
        """All parameters of the state by their paths, trained and frozen."""
        return {**self.trained, **self.frozen}


def nested(*flat: Flat) -> Params:
    """Flat dicts of parameters as the one nested dict that the model takes."""
    return unflatten_dict({k: v for part in flat for k, v in part.items()}, sep="/")


def make_train_step(
    model: Llava,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    learning_rate: optax.Schedule,
    steps: int,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """The step function, to be jitted with the state donated.

    Its batch has arrays of [A, B, ...]; losses and gradients are means over the answer tokens
    (and over the samples that have a guide term) of all A * B samples, and states are centred by
    the mean over all of them, so they do not depend on A.
    """
    cfg = objective.guide

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        progress = state.step / steps
        counts = count_terms(batch, objective, state.running)
        captions = step_captions(model, nested(state.trained, state.frozen), batch, cfg)

        def loss(trained: Flat, micro: Batch) -> tuple[Array, Sums]:
            sums = loss_sums(
                model,
                nested(trained, state.frozen),
                micro,
                objective=objective,
                progress=progress,
                running=state.running,
                captions=captions,
            )
            return total_loss(sums, counts, cfg), sums

        grads, sums = accumulate(jax.grad(loss, has_aux=True), state.trained, batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        running = state.running
        if running is not None:
            seen = sums.captions.pair
            running = running.update(seen.total, seen.count, cfg.center_decay)
        metrics = loss_metrics(sums, counts, cfg) | {
            "grad_norm": optax.global_norm(grads),
            "learning_rate": learning_rate(state.step),
        }
        return TrainState(state.step + 1, trained, state.frozen, opt_state, running), metrics

    return step


def jit_step(
    step: Callable[..., Any],
    state: TrainState,
    *,
    compiler_options: Mapping[str, bool | int | str] | None = None,
) -> Any:
    """The step compiled for this state's shardings, which it keeps; the old state is donated."""
    return jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda x: x.sharding, state), None),
        compiler_options=dict(compiler_options or {}),
    )


def accumulate(
    grad: Callable[[Flat, Batch], tuple[Flat, Sums]], trained: Flat, batch: Batch
) -> tuple[Flat, Sums]:
    """Sum gradients, and the sums and counts beside them, over the micro-batches of a batch.

    Args:
        grad: gives the gradients of one micro-batch, and its sums.
        trained: the parameters that it takes.
        batch: arrays of [A, B, ...].
    """
    if batch["tokens"].shape[0] == 1:
        return grad(trained, {k: v[0] for k, v in batch.items()})
    first = jax.eval_shape(grad, trained, {k: v[0] for k, v in batch.items()})
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), first)

    def body(total: Any, micro: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, grad(trained, micro)), None

    total, _ = jax.lax.scan(body, zeros, batch)
    return total
