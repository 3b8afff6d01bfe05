"""Job `plan`: its arguments are training's, its sums are right, its search finds what fits."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from configs import llava_mistral_7b
from tests import tiny
from tests.jobs.inputs import arguments
from tga_jax.config import base_config
from tga_jax.errors import UserError
from tga_jax.jobs.bench import random_state
from tga_jax.jobs.plan import Choice, search
from tga_jax.main import main
from tga_jax.models.llava import Llava
from tga_jax.parallel.mesh import make_mesh
from tga_jax.planning import architectures
from tga_jax.planning.abstract import abstract_stage, model_shapes, start_state
from tga_jax.planning.compile import _needed, program_text
from tga_jax.planning.synthetic import BatchShape, batch_structs, made_up_batch
from tga_jax.training.state import abstract_state

# Wide enough that the compiler does not choose other collectives than for a real model.
WIDE = dataclasses.replace(
    tiny.CONFIG,
    decoder=dataclasses.replace(tiny.CONFIG.decoder, width=256, ffn=512, heads=4, head_dim=64),
)


@pytest.fixture(autouse=True)
def _tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(architectures.MODELS, "tiny", tiny.CONFIG)
    monkeypatch.setitem(architectures.MODELS, "wide", WIDE)


def _plan(folder: Path, *more: str) -> int:
    sizes = ["--config.plan.length=24", "--config.plan.caption_length=8"]
    sizes += ["--config.plan.model=tiny", "--config.finetune.accumulate=1"]
    return main(arguments(folder, folder / "run", *sizes, *more, job="plan"))


def _result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run" / "plan" / "plan.json").read_text())


@pytest.mark.parametrize("center", ["none", "running"])
def test_abstract_state_is_the_one_that_training_starts_from(center: str, tmp_path: Path) -> None:
    config = base_config()
    config.plan.model, config.dtype, config.guide.center = "tiny", "bfloat16", center
    mesh = make_mesh(data=1, fsdp=-1, tensor=1)
    stage = abstract_stage(
        config, "finetune", 10, workdir=tmp_path, mesh=mesh, remat="none", platform="cpu"
    )
    ours, real = start_state(stage, config), abstract_state(random_state(stage, config))
    assert jax.tree.structure(ours) == jax.tree.structure(real)
    for (path, a), b in zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(real), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), path
        assert a.sharding.is_equivalent_to(b.sharding, a.ndim), path


@pytest.mark.parametrize(
    ("name", "billions"),  # as the models' pages on the hub have it
    [("llava_1.5_7b", 7.06), ("llava_1.5_13b", 13.35), ("llava_smollm2_135m", 0.22)],
)
def test_known_models_have_their_published_size(name: str, billions: float) -> None:
    model = Llava(architectures.MODELS[name], tiny.NORM)
    leaves = jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0)))
    assert sum(leaf.size for leaf in leaves) / 1e9 == pytest.approx(billions, abs=0.005)


def test_the_papers_config_has_known_shapes() -> None:
    config = llava_mistral_7b.get_config()
    assert model_shapes(config) == architectures.MODELS["llava_mistral_7b"]


def test_batch_shapes_are_those_of_a_batch() -> None:
    shape = BatchShape(4, 2, tiny.LENGTH, tiny.CAPTION_LENGTH)
    structs = batch_structs(shape, tiny.CONFIG, None)
    batch = made_up_batch(shape, tiny.CONFIG, seed=0)
    assert {k: (s.shape, s.dtype) for k, s in structs.items()} == {
        k: (v.shape, v.dtype) for k, v in batch.items()
    }


def test_analytic_plan_of_gpus(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert _plan(tmp_path, "--config.plan.topology=h100:1") == 0
    one = _result(tmp_path)
    table = capfd.readouterr().err
    assert f"{one['bytes_per_device'] / 1024**3:.1f} of 80 GiB a device: fits" in table
    assert _plan(tmp_path, "--config.plan.topology=h100:2") == 0
    two = _result(tmp_path)
    assert (one["method"], one["devices"], one["fits"]) == ("analytic", 1, True)
    assert one["flops_per_step"] == two["flops_per_step"] > one["model_flops_per_step"]
    frozen = sum(x.size for p, x in tiny.flat_params().items() if p.startswith("vision/"))
    trained = sum(x.size for p, x in tiny.flat_params().items()) - frozen
    # Parameters and two moments in float32, and the step's and the optimizer's counters.
    assert one["state_bytes_per_device"] == 4 * (3 * trained + frozen) + 4 * 3
    assert one["state_bytes_per_device"] / 2 < two["state_bytes_per_device"]
    assert one["state_bytes_per_device"] < one["bytes_per_device"] < 4e6
    assert one["collective_bytes"] == 0
    every = 4 * (trained + frozen)
    assert two["collectives"]["all-gather"] == 3 * every / 2
    assert two["collectives"]["reduce-scatter"] == 4 * trained / 2
    seconds = one["flops_per_step"] / 989e12
    np.testing.assert_allclose(one["roofline_seconds"], seconds)
    np.testing.assert_allclose(
        one["roofline_mfu"], one["model_flops_per_step"] / one["flops_per_step"]
    )


def test_the_caption_pass_gathers_the_weights_up_to_the_last_guided_layer(tmp_path: Path) -> None:
    flags = ["--config.plan.topology=h100:2", "--config.guide.layers=1"]
    every = 4 * sum(x.size for x in tiny.flat_params().values())
    third = 1 / tiny.CONFIG.decoder.layers
    for more, passes in (
        ([], 2 + third),
        # A micro-batch each, and the mean over the step wants a caption pass of its own before.
        (["--config.finetune.accumulate=2", "--config.guide.center=batch"], 2 * (2 + 2 * third)),
    ):
        assert _plan(tmp_path, *flags, *more) == 0
        gathered = _result(tmp_path)["collectives"]["all-gather"]
        np.testing.assert_allclose(gathered, passes * every / 2)


def test_the_mesh_planned_need_not_fit_this_machine(tmp_path: Path) -> None:
    flags = ["--config.plan.topology=h100:8", "--config.mesh.tensor=2", "--config.mesh.data=4"]
    assert _plan(tmp_path, *flags, "--config.plan.batch_size=8") == 0
    assert _result(tmp_path)["mesh"] == {"data": 4, "fsdp": 1, "tensor": 2}


def test_packed_rows_need_their_number_of_samples(tmp_path: Path) -> None:
    flags = ["--config.plan.topology=h100:1", "--config.data.packing=2"]
    assert _plan(tmp_path, "--config.plan.topology=h100:1") == 0
    alone = _result(tmp_path)
    assert _plan(tmp_path, *flags, "--config.plan.length=48") == 0
    packed = _result(tmp_path)
    assert (packed["packing"], packed["batch_size"]) == (2, alone["batch_size"])
    # The same samples: only attention's masked half is counted between them too.
    parts = "projector", "vision"
    for part in (key for key in alone["model_flops_by_part"] if key.startswith(parts)):
        assert packed["model_flops_by_part"][part] == alone["model_flops_by_part"][part]
    assert 1 <= packed["model_flops_per_step"] / alone["model_flops_per_step"] < 1.2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--config.plan.topology=h100:1", "--config.data.packing=3"], "3 a row"),
        (["--config.plan.topology=h100:1", "--config.data.packing=0"], "config.data.packing"),
        (["--config.plan.topology=v9:2x2"], "config.plan.topology"),
        (["--config.plan.topology=h100:2x2"], "config.plan.topology"),
        (["--config.plan.topology=h100:8 x2"], "config.plan.topology"),
        (["--config.plan.topology=h100:8"], "config.plan.batch_size"),
        (["--config.plan.topology=h100:2", "--config.plan.mesh=1,2"], "config.plan.mesh"),
        (["--config.plan.topology=h100:2", "--config.plan.stage=x"], "config.plan.stage"),
        (["--config.plan.topology=h100:2", "--config.plan.model=gpt"], "llava_mistral_7b"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _plan(tmp_path, *flags) == 2
    assert said in capsys.readouterr().err


def _fake(capacity: float, costs: dict[str, float]) -> Any:
    """Bytes are rows of a micro-batch times what a row costs with a remat."""

    def plan(choice: Choice) -> dict[str, Any]:
        needed = choice.shape.rows * costs[choice.remat]
        shape = dataclasses.asdict(choice.shape)
        found = {"bytes_per_device": needed, "fits": needed <= capacity, "topology": "x"}
        return found | shape | {"remat": choice.remat}

    return plan


COSTS = {"none": 8.0, "dots": 4.0, "qkv": 3.0, "attention": 2.0, "full": 1.0}


@pytest.mark.parametrize(
    ("capacity", "remat", "batch_size", "accumulate"),
    [
        (33, "dots", 16, 2),  # 8 rows of the 16 at once already fit with the dearer one
        (64, "none", 16, 2),
        (150, "none", 16, 1),
        (300, "none", 32, 1),
        (5, "full", 16, 4),
        (8, "full", 16, 2),
    ],
)
def test_search_takes_the_cheapest_remat_and_then_the_largest_batch(
    capacity: float, remat: str, batch_size: int, accumulate: int
) -> None:
    first = Choice("finetune", "none", BatchShape(16, 2, 24, 8), (1, 4, 1))
    found = search(_fake(capacity, COSTS), first)
    assert found["fits"]
    assert (found["remat"], found["batch_size"], found["accumulate"]) == (
        remat,
        batch_size,
        accumulate,
    )
    assert not found["tried"][-1]["fits"]


def test_search_says_when_not_even_a_row_fits() -> None:
    first = Choice("finetune", "none", BatchShape(16, 2, 24, 8), (1, 4, 1))
    with pytest.raises(UserError, match="one row"):
        search(_fake(3, COSTS), first)


def test_the_compilers_complaint_about_memory_is_read() -> None:
    text = "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space "
    assert _needed(text + "hbm. Used 17.25G of 15.75G hbm.") == 17.25 * 1024**3
    text = "CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
    text += "temporaries (112.48G) exceeds available HBM (15.75G). HLO module: jit_step."
    assert _needed(text) == int(112.48 * 1024**3)
    assert _needed("something else") is None


@pytest.mark.tpu_compile
def test_the_step_compiles_for_a_slice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--config.plan.topology=v5e:2x2", "--config.plan.model=wide"]
    flags += ["--config.dtype=bfloat16", "--config.model.remat=full"]
    assert _plan(tmp_path, *flags) == 0
    found = _result(tmp_path)
    assert (found["method"], found["devices"], found["fits"]) == ("compiled", 4, True)
    assert found["state_bytes_per_device"] < found["bytes_per_device"] < 1e8
    _check_collectives(found)
    seconds = found["compile_seconds"]
    assert _plan(tmp_path, *flags) == 0  # nothing is compiled again
    assert _result(tmp_path)["compile_seconds"] == seconds


def _check_collectives(found: dict[str, Any]) -> None:
    """Block weights are gathered in bfloat16 for the forward, caption and backward pass."""
    d = WIDE.decoder
    block = d.width * d.head_dim * 2 * (d.heads + d.kv_heads) + 3 * d.width * d.ffn
    gathered = 3 * d.layers * 2 * block * 3 / 4
    assert gathered <= found["collectives"]["all-gather"] < 1.6 * gathered
    scattered = d.layers * 2 * block * 3 / 4
    assert scattered <= found["collectives"]["all-reduce-scatter"] < 1.6 * scattered


@pytest.mark.tpu_compile
def test_slices_share_the_batch_and_gather_inside(tmp_path: Path) -> None:
    assert _plan(tmp_path, "--config.plan.topology=v5e:2x2 x2", "--config.plan.batch_size=8") == 0
    found = _result(tmp_path)
    assert (found["devices"], found["slices"], found["mesh"]["data"]) == (8, 2, 2)
    # Every trained gradient crosses: 2 (g - 1) / g of its bytes, whole or the slice's share of it.
    trained = sum(x.size for p, x in tiny.flat_params().items() if not p.startswith("vision/"))
    assert trained * 4 / 4 <= found["network_bytes"] <= trained * 4 * 1.1
    assert found["seconds_at_peak"]["network"] == found["network_bytes"] / 3.125e9


@pytest.mark.tpu_compile
def test_a_shape_that_no_slice_has_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--config.plan.topology=v5e:3x5", "--config.plan.batch_size=15"]
    assert _plan(tmp_path, *flags) == 2
    assert "config.plan.topology" in capsys.readouterr().err


def test_a_program_that_jax_cannot_read_back_is_read_as_the_compiler_wrote_it(
    tmp_path: Path,
) -> None:
    class Unreadable:
        def as_text(self) -> str:
            raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure")

    compiled = jax.jit(lambda x: x @ x).lower(np.ones((8, 8), np.float32)).compile()
    (tmp_path / "module_0000.jit_step.after_codegen.txt").write_text(compiled.as_text())
    assert program_text(Unreadable(), tmp_path) == program_text(compiled, tmp_path)
