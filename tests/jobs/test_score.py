"""Job `score`: its figures of states do not hang on whether the guide is on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.jobs.inputs import arguments, make_inputs, read_jsonl
from tga_jax.main import main


def test_captions_are_centred_also_where_the_guide_is_off(tmp_path: Path) -> None:
    inputs, lines = make_inputs(tmp_path / "inputs"), {}
    for form in ("none", "paper"):
        flags = (f"--config.guide.form={form}", "--config.guide.center=batch")
        assert main(arguments(inputs, tmp_path / form, *flags, job="score")) == 0
        lines[form] = read_jsonl(tmp_path / form / "score" / "scores.jsonl")
    for off, on in zip(lines["none"], lines["paper"], strict=True):
        assert off["image_caption_cos_centred"] == on["image_caption_cos_centred"]
        if off["image_caption_cos"]:
            centred, raw = off["image_caption_cos_centred"], off["image_caption_cos"]
            assert np.abs(np.subtract(centred, raw)).max() > 1e-3
