"""A variable is as it was before, whatever happens while it is set."""

import os

import pytest

from tga_jax.environment import variable


@pytest.mark.parametrize("before", [None, "", "given"])
def test_a_variable_is_set_for_a_moment(monkeypatch, before):
    if before is None:
        monkeypatch.delenv("TGA_TEST", raising=False)
    else:
        monkeypatch.setenv("TGA_TEST", before)
    with pytest.raises(ZeroDivisionError), variable("TGA_TEST", "new"):
        assert os.environ["TGA_TEST"] == "new"
        _ = 1 / 0
    assert os.environ.get("TGA_TEST") == before
