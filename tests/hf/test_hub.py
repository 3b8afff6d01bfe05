"""What a checkpoint is called for people who read about it."""

from __future__ import annotations

from pathlib import Path

from tga_jax.hf.hub import origin_of


def test_a_checkpoint_of_the_hub_is_named_with_its_revision() -> None:
    folder = Path("/cache/hub/models--llava-hf--llava-1.5-7b-hf/snapshots/b234b80")
    assert origin_of(folder) == "llava-hf/llava-1.5-7b-hf at revision b234b80"


def test_a_folder_is_named_by_its_path() -> None:
    assert origin_of(Path("/models/mine")) == "/models/mine"
    assert origin_of(Path("/models/snapshots/mine")) == "/models/snapshots/mine"
