"""FLOPs counted in the traced step against sums by hand, and against an unrolled program."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from flax.traverse_util import flatten_dict

from tests.training.hand_flops import step_flops
from tga_jax.alignment.guide import GuideConfig
from tga_jax.models.attention import attend
from tga_jax.models.config import Compute, DecoderConfig, LlavaConfig, LoraConfig, VisionConfig
from tga_jax.models.layers import REMAT_POLICIES
from tga_jax.models.llava import Llava, PixelNorm
from tga_jax.models.splash_attention import attend_splash
from tga_jax.models.visibility import Visibility
from tga_jax.training.flops import Flops, count_flops
from tga_jax.training.objective import Objective
from tga_jax.training.step import TrainState, make_train_step

CONFIG = LlavaConfig(
    VisionConfig(image_size=48, patch_size=4, width=64, layers=5, heads=4, ffn=256),
    DecoderConfig(vocab=512, width=128, layers=4, heads=8, kv_heads=2, head_dim=16, ffn=384),
    image_token=5,
)
LORA = dataclasses.replace(
    CONFIG, decoder=dataclasses.replace(CONFIG.decoder, lora=LoraConfig(4, 8.0))
)
ROWS, LENGTH, CAPTION = 2, 256, 64
GUIDED = (0, 1)


def _shapes(accumulate: int, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    integers = {"tokens": LENGTH, "labels": LENGTH, "segments": LENGTH, "positions": LENGTH}
    integers |= {"caption_tokens": CAPTION, "caption_segments": CAPTION}
    integers |= {"image_span": 2, "retrieved_span": 2, "caption_span": 2}
    lead = (accumulate, rows)
    batch = {k: jax.ShapeDtypeStruct((*lead, n), jnp.int32) for k, n in integers.items()}
    side = CONFIG.vision.image_size
    batch["images"] = jax.ShapeDtypeStruct((*lead, 1, side, side, 3), jnp.uint8)
    return batch


def _counted(
    config: LlavaConfig,
    trained: tuple[str, ...] = ("projector", "decoder"),
    *,
    guided: bool = True,
    remat: str = "none",
    ce_chunk: int = 0,
    accumulate: int = 1,
    rows: int = ROWS,
) -> Flops:
    """Of the real train step."""
    model = Llava(config, PixelNorm((0.5,) * 3, (0.5,) * 3), Compute(remat=remat))
    boxed = jax.eval_shape(model.init, jax.random.key(0))
    flat = flatten_dict(nn.meta.unbox(boxed), sep="/")

    def is_trained(path: str) -> bool:
        return path.startswith(trained) or ("lora" in trained and "lora" in path)

    learned = {p: x for p, x in flat.items() if is_trained(p)}
    frozen = {p: x for p, x in flat.items() if not is_trained(p)}
    optimizer = optax.adam(1e-3)
    guide = GuideConfig("paper" if guided else "none", GUIDED)
    step = make_train_step(
        model, Objective(guide, ce_chunk=ce_chunk), optimizer, learning_rate=lambda _: 0.0, steps=8
    )
    moments = jax.eval_shape(optimizer.init, learned)
    number = jax.ShapeDtypeStruct((), jnp.int32)
    state = TrainState(number, learned, frozen, moments, None)
    return count_flops(jax.jit(step).trace(state, _shapes(accumulate, rows)).jaxpr)


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize(
    ("config", "trained"),
    [
        (CONFIG, ("vision", "projector", "decoder")),
        (CONFIG, ("projector", "decoder")),
        (CONFIG, ("decoder",)),
        (CONFIG, ("projector",)),
        (LORA, ("projector", "lora")),
    ],
    ids=["all", "finetune", "decoder", "pretrain", "lora"],
)
def test_count_is_the_sum_by_hand(
    config: LlavaConfig, trained: tuple[str, ...], guided: bool
) -> None:
    by_hand = step_flops(
        config,
        ("vision" in trained, "projector" in trained, trained[-1] in ("decoder", "lora")),
        guided,
        rows=ROWS,
        length=LENGTH,
        caption_length=CAPTION,
        guided_blocks=max(GUIDED) + 1,
    )
    assert _counted(config, trained, guided=guided).model == pytest.approx(by_hand, rel=1e-3)


def test_what_families_of_decoders_add_costs_no_products() -> None:
    """Norms, softcaps and windows: the sum by hand is that of the plain block."""
    decoder = dataclasses.replace(
        CONFIG.decoder, qk_norm=True, post_norms=True, attention_softcap=50.0, window=4,
        window_layers=(0,), window_rope_theta=1e4, activation="gelu_pytorch_tanh",
    )  # fmt: skip
    rich = _counted(dataclasses.replace(CONFIG, decoder=decoder))
    assert (rich.model, rich.hardware) == (_counted(CONFIG).model, _counted(CONFIG).hardware)


def test_causal_half_is_the_only_thing_that_the_model_is_spared_without_remat() -> None:
    flops, d = _counted(CONFIG), CONFIG.decoder
    square = d.layers * 3 * LENGTH**2 + (max(GUIDED) + 1) * CAPTION**2
    half = 2 * d.heads * d.head_dim * ROWS * square
    assert flops.hardware - flops.model == half
    assert sum(flops.parts.values()) == flops.model
    assert set(flops.parts) == {"vision", "projector", "decoder", "head and loss"}


@pytest.mark.parametrize(
    ("remat", "ce_chunk"), [("full", 0), ("dots", 64), ("none", 64), ("qkv", 0), ("attention", 0)]
)
def test_model_flops_do_not_depend_on_remat(remat: str, ce_chunk: int) -> None:
    plain, again = _counted(CONFIG), _counted(CONFIG, remat=remat, ce_chunk=ce_chunk)
    assert again.model == plain.model
    assert again.hardware > plain.hardware


def test_each_policy_computes_more_again_than_the_one_before() -> None:
    hardware = [_counted(CONFIG, remat=remat).hardware for remat in REMAT_POLICIES]
    assert list(REMAT_POLICIES) == ["none", "dots", "qkv", "attention", "full"]
    assert hardware == sorted(hardware) and len(set(hardware[1:])) == 4


def test_full_remat_runs_all_but_the_last_product_of_a_block_again() -> None:
    d, plain, again = CONFIG.decoder, _counted(CONFIG), _counted(CONFIG, remat="full")
    kernels = d.width * d.head_dim * 2 * (d.heads + d.kv_heads) + 2 * d.width * d.ffn
    attention = 4 * LENGTH**2 * d.heads * d.head_dim
    extra = ROWS * d.layers * (2 * LENGTH * kernels + attention)
    assert again.hardware - plain.hardware == extra


def test_splash_counts_as_much_of_the_model_as_plain_products() -> None:
    """At whole tiles; the hardware is spared the upper half, and computes scores again."""
    length, heads, width = 1024, 4, 32  # two tiles along each side
    rows = jnp.ones((2, length), jnp.int32)
    visible = Visibility(rows, rows, rows, rows)
    q = jnp.zeros((2, length, heads, width))
    square = 2 * 2 * heads * length**2 * width

    def flops(run: Any) -> Any:
        def total(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            with jax.named_scope("Decoder"):
                return jnp.sum(jnp.square(run(q, k, v, visible)))

        return count_flops(jax.jit(jax.grad(total, (0, 1, 2))).trace(q, q, q).jaxpr)

    plain = flops(functools.partial(attend, backend="xla"))
    splash = flops(attend_splash)
    assert plain.model == 3 * square and plain.hardware == 6 * square
    # Beside the kernels only the sums of gradient x output, of one element a place and head.
    assert splash.model == pytest.approx(plain.model, rel=2e-3)
    assert splash.hardware == pytest.approx(9 * square * 3 / 4, rel=2e-3)


def test_accumulation_counts_every_micro_batch() -> None:
    assert _counted(CONFIG, accumulate=2, rows=ROWS // 2).hardware == pytest.approx(
        _counted(CONFIG).hardware,
        rel=1e-3,  # centring's sums are taken a micro-batch at a time
    )


def _mlp(unroll: bool) -> Any:
    """Loss and gradient of a stack of layers, as a scan or written out; remat in both."""

    @jax.checkpoint
    def layer(x: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.tanh(jnp.tanh(x @ w) @ w)

    def loss(ws: jax.Array, x: jax.Array) -> jax.Array:
        if unroll:
            for i in range(5):
                x = layer(x, ws[i])
        else:
            x, _ = jax.lax.scan(lambda x, w: (layer(x, w), None), x, ws)
        return jnp.sum(x)

    return jax.jit(jax.value_and_grad(loss)).trace(jnp.zeros((5, 8, 8)), jnp.zeros((3, 8))).jaxpr


def test_a_scan_counts_like_its_unrolled_program() -> None:
    scanned, unrolled = count_flops(_mlp(False)), count_flops(_mlp(True))
    product = 2 * 3 * 8 * 8
    assert scanned.model == 5 * 6 * product
    assert scanned.hardware == 5 * 8 * product  # remat computes both products again
    # Written out, the gradient of the first layer's input is needed by nobody.
    assert (unrolled.model, unrolled.hardware) == (29 * product, 39 * product)


def test_convolution_counts_its_taps() -> None:
    x, kernel = jnp.zeros((2, 8, 8, 6)), jnp.zeros((3, 3, 3, 10))

    def conv(x: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            "VALID",
            feature_group_count=2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    assert count_flops(jax.make_jaxpr(conv)(x)).hardware == 2 * (2 * 6 * 6 * 10) * (3 * 3 * 3)


def test_branches_count_the_dearer_and_loops_of_unknown_length_are_refused() -> None:
    x = jnp.zeros((4, 4))

    def branch(x: jax.Array) -> jax.Array:
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert count_flops(jax.make_jaxpr(branch)(x)).hardware == 2 * 2 * 4**3

    def loop(x: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda x: x[0, 0] < 1, lambda x: x @ x, x)

    with pytest.raises(ValueError, match="unknown length"):
        count_flops(jax.make_jaxpr(loop)(x))


def test_a_custom_gradient_counts_what_its_rules_compute() -> None:
    @jax.custom_vjp
    def f(x: jax.Array) -> jax.Array:
        return x @ x

    f.defvjp(lambda x: (x @ x, x), lambda x, g: ((g @ x) @ x,))
    x = jnp.zeros((4, 4))
    assert count_flops(jax.make_jaxpr(f)(x)).hardware == 2 * 4**3
    grad = jax.make_jaxpr(jax.value_and_grad(lambda x: jnp.sum(f(x))))(x)
    assert count_flops(grad).hardware == 3 * 2 * 4**3


def test_a_sharded_program_counts_all_its_shards() -> None:
    mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec()
    f = jax.shard_map(lambda x: x @ x, mesh=mesh, in_specs=spec, out_specs=spec)
    assert count_flops(jax.make_jaxpr(f)(jnp.zeros((4, 4)))).hardware == 2 * 4**3


def test_dead_code_is_not_counted() -> None:
    def f(x: jax.Array) -> jax.Array:
        _ = x @ x @ x
        return x @ x

    assert count_flops(jax.make_jaxpr(f)(jnp.zeros((4, 4)))).hardware == 2 * 4**3


def test_cudnn_attention_is_counted_as_the_same_products(monkeypatch: pytest.MonkeyPatch) -> None:
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda _: True)
    q, k = jnp.zeros((2, 64, 4, 64), jnp.bfloat16), jnp.zeros((2, 64, 4, 64), jnp.bfloat16)
    places = jnp.broadcast_to(jnp.arange(64), (2, 64))
    visible = Visibility(places, places, jnp.ones_like(places), jnp.ones_like(places), True, None)

    def counted(backend: str) -> Flops:
        def total(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            with jax.named_scope("Decoder"):
                return jnp.sum(attend(q, k, v, visible, backend=backend).astype(jnp.float32))

        return count_flops(jax.jit(jax.value_and_grad(total, (0, 1, 2))).trace(q, k, k).jaxpr)

    kernel, plain = counted("cudnn"), counted("xla")
    assert kernel.model == pytest.approx(plain.model)
    assert kernel.hardware == pytest.approx(plain.hardware * 7 / 6)
