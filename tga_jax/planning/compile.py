"""A stage's step compiled for a topology, and what the compiler said, kept in files.

Compiling takes minutes: `plan/<key>/` holds its result, and is read where it exists.
"""

from __future__ import annotations

import dataclasses
import gzip
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from tga_jax.files import digest, read_json, write_json
from tga_jax.models.llava import Llava
from tga_jax.parallel.mesh import AXES
from tga_jax.parallel.sharding import RULES, batch_sharding
from tga_jax.planning.abstract import abstract_stage, start_state
from tga_jax.planning.synthetic import BatchShape, batch_structs
from tga_jax.planning.topology import Topology, flags_of_libtpu, topology_mesh
from tga_jax.run.fingerprint import code_digest
from tga_jax.run.stage import Stage
from tga_jax.training.flops import count_flops

STEPS = 1000  # of the schedule; no part of the program's cost
STEP_ROOMS = ("models", "alignment", "training", "parallel", "planning")  # whose code the step is
DUMP = {"xla_dump_hlo_as_text": True}


@dataclasses.dataclass(frozen=True)
class Choice:
    """What is planned: how the stage is run."""

    stage: str
    remat: str
    shape: BatchShape
    mesh: tuple[int, int, int]  # data, fsdp, tensor; all known


def compile_choice(
    config: ConfigDict, topology: Topology, choice: Choice, folder: Path
) -> dict[str, Any]:
    """The compiler's findings, from `folder` or anew; its program is beside as text.

    Returns:
        {"flops": {"hardware", "model", "parts"}, "memory": {...} bytes a device or None,
        "error": text where the program needs more memory than there is, "needed_bytes",
        "compile_seconds", "folder"}
    """
    stage = abstract_stage(
        config,
        choice.stage,
        STEPS,
        workdir=folder.parent,
        mesh=topology_mesh(topology, choice.mesh),
        remat=choice.remat,
        platform="tpu",
    )
    target = folder / digest(_settings(config, stage.llava, topology, choice))
    if not (target / "compiled.json").exists():
        write_json(target / "compiled.json", _compile(config, stage, choice, target))
    return read_json(target / "compiled.json") | {"folder": str(target)}


def read_program(result: dict[str, Any]) -> str:
    """The text of a compiled program, which `hlo` reads."""
    with gzip.open(Path(result["folder"]) / "step.hlo.gz", "rt") as file:
        return file.read()


def program_text(compiled: Any, dump: Path) -> str:
    """A compiled program, as JAX reads it back or else as the compiler wrote it down.

    What libtpu makes for a v5p has asynchronous instructions that this JAX cannot read back.
    """
    try:
        return compiled.as_text()
    except jax.errors.JaxRuntimeError:
        (file,) = dump.glob("*.after_codegen.txt")
        return file.read_text()


def traced_step(config: ConfigDict, stage: Stage, shape: BatchShape) -> Any:
    """The stage's real step, traced on shapes."""
    batch = batch_structs(shape, stage.llava.config, batch_sharding(stage.mesh, leading=1))
    state = start_state(stage, config)
    with jax.set_mesh(stage.mesh):
        return stage.jitted(state).trace(state, batch)


def _compile(config: ConfigDict, stage: Stage, choice: Choice, target: Path) -> dict[str, Any]:
    began = time.monotonic()
    traced = traced_step(config, stage, choice.shape)
    result: dict[str, Any] = {
        "flops": dataclasses.asdict(count_flops(traced.jaxpr)),
        "memory": None,
        "error": None,
        "needed_bytes": None,
    }
    with tempfile.TemporaryDirectory() as dump:
        try:
            with jax.set_mesh(stage.mesh), flags_of_libtpu():
                compiled = traced.lower().compile(compiler_options=DUMP | {"xla_dump_to": dump})
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            result["error"] = str(error).splitlines()[0]
            result["needed_bytes"] = _needed(str(error))
        else:
            result["memory"] = _memory(compiled.memory_analysis())
            target.mkdir(parents=True, exist_ok=True)
            with gzip.open(target / "step.hlo.gz", "wt") as file:
                file.write(program_text(compiled, Path(dump)))
    return result | {"compile_seconds": time.monotonic() - began}


def _settings(
    config: ConfigDict, llava: Llava, topology: Topology, choice: Choice
) -> dict[str, Any]:
    """All that the program depends on."""
    stage = {k: config[choice.stage][k] for k in ("trainable", "guide", "ce_chunk", "clip_norm")}
    return {
        "jax": jax.__version__,
        "code": code_digest(*STEP_ROOMS),
        "topology": [topology.device.name, topology.shape, topology.slices],
        "choice": dataclasses.asdict(choice),
        "model": dataclasses.asdict(llava.config),
        "compute": dataclasses.asdict(llava.compute),
        "dtypes": [config.trained_dtype, config.moments],
        "guide": config.guide.to_dict(),
        "stage": stage | {"weight_decay": config[choice.stage].weight_decay},
        "mesh": dict(zip(AXES, choice.mesh, strict=True)),
        "rules": RULES,
        "options": config.compiler_options,
    }


def _memory(stats: Any) -> dict[str, int]:
    names = ("argument", "output", "temp", "alias", "generated_code")
    return {name: getattr(stats, f"{name}_size_in_bytes") for name in names}


def _needed(message: str) -> int | None:
    """The compiler's "Used 17.2G of 15.75G hbm", in bytes; or, which is less than is needed, the
    "temporaries (112.48G)" that it gives up at sooner."""
    match = re.search(r"Used ([\d.]+)([KMGT]) of", message)
    match = match or re.search(r"temporaries \(([\d.]+)([KMGT])\) exceed", message)
    return None if match is None else int(float(match[1]) * 1024 ** (" KMGT".index(match[2])))
