"""One contender of benchmarks/gpu.py, in a process of its own, which makes a step when asked.

    python -m benchmarks.gpu_arm NAME SETTINGS FOLDER

It answers every line on its standard input with a line of JSON. Own processes keep the two
libraries' CUDA libraries and memory apart. What anything else prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RATE = 1e-4
RANK, SCALE = 64, 2.0
TABLES: dict[str, tuple[tuple[str, float | None], ...]] = {
    "full": (("vision/.*", None), (".*", 1.0)),
    "lora": (("projector/.*", 1.0), ("decoder/.*/lora_.*", 1.0), (".*", None)),
    "projector": (("projector/.*", 1.0), (".*", None)),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all contenders of a run have in common, and what ours may be given."""

    mode: str  # a key of `TABLES`
    dtype: str  # of arithmetic and frozen weights; trained ones are float32
    device: str  # "gpu" or "cpu"
    remat: str
    attention: str
    ce_chunk: int


def main() -> None:
    name, settings, folder = sys.argv[1], Settings(**json.loads(sys.argv[2])), Path(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    if name == "make":
        make(settings, json.loads((folder / "shape.json").read_text()), folder)
        return
    arm: Any = OurArm(settings, folder) if name == "tga_jax" else TorchArm(name, settings, folder)
    print(json.dumps(arm.described()), file=answers)
    for line in sys.stdin:
        print(json.dumps(arm.report() if line.strip() == "report" else timed(arm)), file=answers)


def timed(arm: Any) -> dict[str, float]:
    """One step, waited for."""
    began = time.perf_counter()
    loss = arm.step()
    return {"seconds": time.perf_counter() - began, "loss": loss}


class OurArm:
    """tga_jax."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        os.environ["JAX_PLATFORMS"] = "cuda" if settings.device == "gpu" else "cpu"
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the others need room too
        from benchmarks.our_step import OurStep, compute_of
        from tga_jax.models.config import LoraConfig

        lora = LoraConfig(RANK, RANK * SCALE) if settings.mode == "lora" else None
        self._step = OurStep(
            folder,
            dict(np.load(folder / "batch.npz")),
            compute_of(settings.dtype, settings.remat, settings.attention),
            learning_rate=RATE,
            ce_chunk=settings.ce_chunk,
            table=TABLES[settings.mode],
            lora=lora,
        )

    def described(self) -> dict[str, Any]:
        """Device, its peak and the step's FLOPs."""
        import jax

        from tga_jax.training.throughput import peak_flops

        device, flops = jax.devices()[0], self._step.flops()
        return {
            "device": device.device_kind,
            "peak_flops": peak_flops(device),
            "model_flops": flops.model,
            "parts": flops.parts,
        }

    def step(self) -> float:
        """The loss."""
        return self._step.step()

    def report(self) -> dict[str, Any]:
        """Peak memory."""
        from tga_jax.training.throughput import peak_memory_bytes

        return {"peak_bytes": peak_memory_bytes()}


class TorchArm:
    """transformers with SDPA, logits where a label is: "torch", and more in its name.

    "torch"             trained weights in float32, autocast to the dtype, as transformers' trainer
    "torch_low"         trained weights and moments in the dtype too: less exact, less work
    "..._compile"       the decoder's layers through torch.compile
    """

    def __init__(self, name: str, settings: Settings, folder: Path) -> None:
        import torch

        from benchmarks.torch_step import TorchStep

        self._gpu = settings.device == "gpu"
        dtype = getattr(torch, settings.dtype)
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        model = torch_model(settings, folder, masters="low" not in name.split("_"))
        if "compile" in name.split("_"):
            for layer in model.model.language_model.layers:
                layer.forward = torch.compile(layer.forward, dynamic=False)
        rows = {key: value[0] for key, value in np.load(folder / "batch.npz").items()}
        self._step = TorchStep(model, rows, "selected", learning_rate=RATE)
        mixed = settings.dtype != "float32"
        place = "cuda" if self._gpu else "cpu"
        self._cast: Callable[[], Any] = (
            (lambda: torch.autocast(place, dtype)) if mixed else contextlib.nullcontext
        )

    def described(self) -> dict[str, Any]:
        """The library's version."""
        import torch
        import transformers

        return {"torch": torch.__version__, "transformers": transformers.__version__}

    def step(self) -> float:
        """The loss; reading it waits for the forward pass, `synchronize` for the update."""
        with self._cast():
            loss = self._step.step()
        if self._gpu:
            import torch

            torch.cuda.synchronize()
        return loss

    def report(self) -> dict[str, Any]:
        """Peak memory."""
        import torch

        if self._gpu:
            return {"peak_bytes": torch.cuda.max_memory_allocated()}
        return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def torch_model(settings: Settings, folder: Path, *, masters: bool) -> Any:
    """Weights in the dtype, trained ones in float32 where `masters`, only they with gradients."""
    import torch
    import transformers

    from benchmarks.torch_lora import add_adapters

    model: Any = transformers.LlavaForConditionalGeneration.from_pretrained(
        folder, attn_implementation="sdpa", dtype=getattr(torch, settings.dtype)
    )
    model.to("cuda" if settings.device == "gpu" else "cpu")
    model.train()
    model.requires_grad_(settings.mode == "full")
    model.model.vision_tower.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)
    if settings.mode == "lora":
        add_adapters(model, rank=RANK, scale=SCALE)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32 if masters else model.dtype)
    return model


def make(settings: Settings, shape: dict[str, Any], folder: Path) -> None:
    """Write a model of random weights and a batch of rows without padding."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    import torch
    import transformers

    from benchmarks.gpu import SHAPES
    from benchmarks.reference import their_config
    from tga_jax.planning.synthetic import BatchShape, made_up_batch

    config = SHAPES[shape["size"]]()
    torch.manual_seed(0)
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, settings.dtype))
    with torch.device("cuda" if settings.device == "gpu" else "cpu"):
        model = transformers.LlavaForConditionalGeneration(their_config(config))
    torch.set_default_dtype(dtype)
    model.to(getattr(torch, settings.dtype)).save_pretrained(folder)
    rows = BatchShape(shape["batch"], 1, shape["length"], shape["caption"])
    batch: dict[str, Any] = {**made_up_batch(rows, config, seed=0)}
    np.savez(folder / "batch.npz", **batch)


if __name__ == "__main__":
    main()
