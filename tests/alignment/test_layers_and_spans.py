"""Which layers are guided, and which tokens a span holds."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from tga_jax.alignment.layers import layers_text, parse_layers
from tga_jax.alignment.pooling import has_span, span_mask
from tga_jax.errors import UserError
from tga_jax.models.decoder_block import span_means


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", tuple(range(32))),
        (" all ", tuple(range(32))),
        ("10-18", tuple(range(9, 18))),
        ("3,5,7", (2, 4, 6)),
        ("7, 3 ,5", (2, 4, 6)),
        ("1,1,1-2", (0, 1)),
        ("32", (31,)),
        ("4-4", (3,)),
    ],
)
def test_layers(text: str, expected: tuple[int, ...]) -> None:
    assert parse_layers(text, 32) == expected


@pytest.mark.parametrize(
    "text",
    ["", "0", "33", "0-3", "30-33", "5-3", "-3", "3-", "a", "1,,2", "1;2", "auto", "²", "1.5"],
)
def test_bad_layers_are_the_users_mistake(text: str) -> None:
    with pytest.raises(UserError) as error:
        parse_layers(text, 32)
    assert "config.guide.layers" in str(error.value) and "\n" not in str(error.value)


def test_span_mask_and_has_span() -> None:
    spans = np.array([[[0, 3], [2, 2]], [[4, 6], [0, 0]]])
    mask = np.asarray(span_mask(jnp.array(spans), 6))
    assert mask.shape == (2, 2, 6)
    for b, n in np.ndindex(2, 2):
        chosen = list(range(*spans[b, n]))
        assert np.flatnonzero(mask[b, n]).tolist() == chosen
        assert bool(has_span(jnp.array(spans[b, n]))) == bool(chosen)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_span_means(dtype: str) -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(5, 1, (2, 300, 4)), dtype)
    spans = jnp.array([[[3, 290], [7, 8]], [[0, 300], [5, 5]]])
    means = span_means(x, span_mask(spans, 300))
    assert means.dtype == jnp.float32
    for b, n in np.ndindex(2, 2):
        rows = np.asarray(x[b, spans[b, n, 0] : spans[b, n, 1]], np.float64)
        expected = rows.mean(0) if len(rows) else np.zeros(4)
        np.testing.assert_allclose(means[b, n], expected, rtol=1e-5)


@pytest.mark.parametrize("text", ["1", "3-5", "1,3,5-7,9-10", "1-32"])
def test_layers_as_text_are_read_as_they_were(text: str) -> None:
    assert layers_text(parse_layers(text, 32)) == text
