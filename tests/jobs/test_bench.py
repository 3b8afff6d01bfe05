"""Job `bench` on a tiny model: what it writes agrees with itself and with the counted step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from tests.jobs.inputs import arguments
from tga_jax.jobs.bench import bench_table
from tga_jax.main import main
from tga_jax.planning import architectures
from tga_jax.planning.synthetic import BatchShape, made_up_batch


@pytest.fixture(scope="module", autouse=True)
def _tiny_model() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(architectures.MODELS, "tiny", tiny.CONFIG)
        yield


def _bench(folder: Path, *more: str) -> int:
    sizes = ["--config.bench.length=24", "--config.bench.caption_length=8"]
    sizes += ["--config.bench.steps=3", "--config.bench.warmup=1"]
    sizes += ["--config.bench.model=tiny", "--config.guide.layers=1,3"]
    return main(arguments(folder, folder / "run", *sizes, *more, job="bench"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run with the guide's running centre leaves."""
    folder = tmp_path_factory.mktemp("measured")
    assert _bench(folder, "--config.guide.center=running") == 0
    return folder / "run" / "bench" / "bench.json"


def test_figures_agree_with_each_other(measured: Path) -> None:
    found = json.loads(measured.read_text())
    for name in ("guide", "lm_only"):
        kind = found[name]
        assert kind["recompilations"] == 0
        assert kind["step_seconds_min"] <= kind["step_seconds"] <= kind["step_seconds_max"]
        np.testing.assert_allclose(kind["tokens_per_second"] * kind["step_seconds"], 4 * 24)
        np.testing.assert_allclose(
            kind["model_flops_per_second"] * kind["step_seconds"], kind["model_flops_per_step"]
        )
        assert kind["mfu"] is None  # no peak is known of a CPU
    # The caption pass is the guide's share: three forward passes' worth, a third as long.
    assert 1.05 < found["guide_over_lm_only_flops"] < 1.33
    assert found["peak_memory_bytes"] > 0


def test_the_table_has_both_kinds_side_by_side(measured: Path) -> None:
    found = json.loads(measured.read_text())
    lines = [line.split() for line in bench_table(found).splitlines()]
    (seconds,) = [line[1:] for line in lines if line[0] == "seconds"]
    assert seconds == [f"{found[kind]['step_seconds']:.3f}" for kind in ("guide", "lm_only")]
    assert ["MFU", "unknown", "unknown"] in lines


def test_the_same_command_again_measures_nothing(measured: Path) -> None:
    written = measured.stat().st_mtime_ns
    assert _bench(measured.parents[2], "--config.guide.center=running") == 0
    assert measured.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--config.bench.steps=0", "config.bench.steps"),
        ("--config.bench.stage=both", "config.bench.stage"),
        ("--config.bench.batch_size=3", "config.bench.batch_size"),
        ("--config.bench.length=5", "too short"),
        ("--config.bench.model=gpt", "config.bench.model"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path, flag: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _bench(tmp_path, flag) == 2
    assert said in capsys.readouterr().err


def test_a_made_up_row_has_everything_in_its_place() -> None:
    shape = BatchShape(4, 2, tiny.LENGTH, tiny.CAPTION_LENGTH)
    batch = made_up_batch(shape, tiny.CONFIG, seed=0)
    example = tiny.micro_batches(tiny.batch(), 2)
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
        k: (v.shape, v.dtype) for k, v in example.items()
    }
    tokens, (start, end) = batch["tokens"], batch["image_span"][0, 0]
    assert end - start == tiny.PATCHES
    assert np.all(np.sum(tokens == tiny.IMAGE_TOKEN, axis=-1) == tiny.PATCHES)
    assert np.all(tokens[..., start:end] == tiny.IMAGE_TOKEN)
    assert 0 <= tokens.min() and tokens.max() < tiny.VOCAB
    answers = batch["labels"] != -100
    assert answers.any() and np.array_equal(batch["labels"][answers], tokens[answers])
    assert not np.any(answers & (tokens == tiny.IMAGE_TOKEN))


def test_packed_rows_hold_whole_samples() -> None:
    shape = BatchShape(8, 2, 2 * tiny.LENGTH + 1, tiny.CAPTION_LENGTH, packing=2)
    batch = made_up_batch(shape, tiny.CONFIG, seed=0)
    assert batch["tokens"].shape == (2, 2, 2 * tiny.LENGTH + 1)
    assert batch["caption_tokens"].shape == (2, 4, tiny.CAPTION_LENGTH)
    assert batch["images"].shape[:3] == (2, 2, 2)
    row = [1] * tiny.LENGTH + [2] * tiny.LENGTH + [0]  # one token is left over
    assert np.all(batch["segments"] == row)
    assert batch["positions"][1, 1].tolist() == [*range(tiny.LENGTH)] * 2 + [0]
    for name in ("image_span", "retrieved_span", "answer_span"):
        first, second = batch[name][:, 0::2], batch[name][:, 1::2]
        assert np.all(second - first == tiny.LENGTH), name
    start, end = batch["image_span"][1, 3]  # the second sample of the second row
    assert np.all(batch["tokens"][1, 1, start:end] == tiny.IMAGE_TOKEN)
    assert np.sum(batch["tokens"] == tiny.IMAGE_TOKEN) == 8 * tiny.PATCHES
    assert np.all(batch["caption_span"] == batch["caption_span"][0, 0])
    assert shape.tokens == batch["tokens"].size


def test_other_settings_are_measured_again_here_packed_rows(measured: Path, tmp_path: Path) -> None:
    shutil.copytree(measured.parents[1], tmp_path / "run")
    length = 2 * 24
    assert _bench(tmp_path, "--config.data.packing=2", f"--config.bench.length={length}") == 0
    found = json.loads((tmp_path / "run" / "bench" / "bench.json").read_text())
    assert (found["packing"], found["length"]) == (2, length)
    tokens = found["batch_size"] // 2 * length
    assert found["guide"]["tokens_per_second"] * found["guide"]["step_seconds"] == pytest.approx(
        tokens
    )
