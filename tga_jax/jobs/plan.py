"""Job `plan`: what a stage's step needs on hardware that is not here; nothing is run.

For a TPU topology the real train step is compiled and the compiler is asked; for GPUs the traced
step is added up. `plan/plan.json` has, of one step:

    flops_per_step, model_flops_per_step    on all devices together; `training/flops.py`
    bytes_per_device                        arguments + results + temporaries - aliases, + code
    collective_bytes, collectives           that one device sends; `parallel/traffic.py`
    network_bytes                           that one device sends to other slices
    memory_traffic_bytes                    that one device reads and writes (null: not known)
    roofline_seconds                        the largest of what compute, memory, links and the
                                            network between slices take at published peaks
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tga_jax.config import STAGES
from tga_jax.data.batches import default_buckets
from tga_jax.errors import UserError
from tga_jax.files import write_json
from tga_jax.html.formats import aligned
from tga_jax.models.layers import REMAT_POLICIES
from tga_jax.parallel.devices import GIB
from tga_jax.planning.analytic import analyse
from tga_jax.planning.compile import Choice, compile_choice, read_program
from tga_jax.planning.hlo import parse_program
from tga_jax.planning.synthetic import BatchShape
from tga_jax.planning.topology import Topology, parse_topology, slice_sizes
from tga_jax.planning.traffic import collective_bytes, memory_traffic, network_bytes
from tga_jax.run.job import Job
from tga_jax.run.stage_data import packing_of

Plan = dict[str, Any]
REMATS = tuple(REMAT_POLICIES)  # the one that computes least again first


def check(job: Job, before: Sequence[str]) -> None:
    """Refuse a topology that is not known, and a batch that does not divide over it."""
    first_choice(job.config, parse_topology(job.config.plan.topology))


def run(job: Job) -> None:
    """Plan the step of config.plan.stage on config.plan.topology, and write plan/."""
    config, folder = job.config, job.workdir / "plan"
    topology = parse_topology(config.plan.topology)
    choice = first_choice(config, topology)

    def plan(choice: Choice) -> Plan:
        job.say(f"{config.plan.topology}: {describe(choice)}")
        found = plan_choice(config, topology, choice, folder)
        verdict = "fits" if found["fits"] else "does not fit"
        needed = found["bytes_per_device"]
        job.say(verdict + ("" if needed is None else f": {needed / GIB:.1f} GiB a device"))
        return found

    result = search(plan, choice) if config.plan.search else plan(choice)
    write_json(folder / "plan.json", result)
    job.say(f"the plan:\n{plan_table(result)}")


def plan_table(found: Plan) -> str:
    """What a person asks of a plan, as lines for the terminal."""
    needed, capacity = found["bytes_per_device"], found["device_capacity_bytes"] / GIB
    verdict = "fits" if found["fits"] else "does not fit"
    seconds = found["seconds_at_peak"]
    slowest = max(seconds, key=seconds.__getitem__)
    rows = found["batch_size"] // found["packing"]
    work = found["flops_per_step"] / 1e12
    known = "unknown" if needed is None else f"{needed / GIB:.1f}"
    return aligned(
        [
            ("  hardware", f"{found['devices']} x {found['device']} ({found['topology']})"),
            ("  stage", f"{found['stage']}, remat {found['remat']}"),
            ("  a step", f"{rows} rows of {found['length']} in {found['accumulate']} parts"),
            ("  memory", f"{known} of {capacity:.0f} GiB a device: {verdict}"),
            ("  work", f"{work:,.0f} TFLOP a step" if work >= 10 else f"{work:.3g} TFLOP a step"),
            ("  time", f"{found['roofline_seconds']:.3g} s a step at best, bound by {slowest}"),
            ("  method", found["method"]),
        ]
    )


def first_choice(config: ConfigDict, topology: Topology) -> Choice:
    """The run that the configuration describes.

    Raises:
        UserError: the batch does not divide over the mesh, or a key has no such value.
    """
    plan = config.plan
    if plan.stage not in STAGES:
        raise UserError(f"config.plan.stage={plan.stage!r} must be one of {', '.join(STAGES)}")
    if config.model.remat not in REMATS:
        raise UserError(
            f"config.model.remat={config.model.remat!r} must be one of {', '.join(REMATS)}"
        )
    stage, packing = config[plan.stage], packing_of(config)
    longest = packing * (stage.max_length or config.data.max_length)
    shape = BatchShape(
        batch_size=plan.batch_size or stage.batch_size,
        accumulate=plan.accumulate or stage.accumulate,
        length=plan.length or default_buckets(longest)[-1],
        caption_length=plan.caption_length,
        packing=packing,
    )
    mesh = slice_sizes(topology, _mesh_sizes(config))
    if not shape.divides(mesh[0] * mesh[1]):
        packed = f" and {packing} a row" if packing > 1 else ""
        raise UserError(
            f"a batch of {shape.batch_size} in {shape.accumulate} parts{packed} does not divide "
            f"over {mesh[0] * mesh[1]} batch shards: set config.plan.batch_size and "
            "config.plan.accumulate, or config.plan.mesh"
        )
    return Choice(plan.stage, config.model.remat, shape, mesh)


def plan_choice(config: ConfigDict, topology: Topology, choice: Choice, folder: Path) -> Plan:
    """One way to run the stage, planned."""
    device = topology.device
    if topology.is_tpu:
        found = _compiled(config, topology, choice, folder)
    else:
        found = analyse(config, topology, choice, folder)
    flops = found.pop("flops")
    needed, collectives = found["bytes_per_device"], found["collectives"]
    seconds = {
        "compute": flops["hardware"] / topology.count / device.peak_flops,
        "memory": (found["memory_traffic_bytes"] or 0) / device.memory_bandwidth,
        "links": sum((collectives or {}).values()) / device.link_bandwidth,
        "network": (found["network_bytes"] or 0) / (device.network_bandwidth or 1),
    }
    bound = max(seconds.values())
    return {
        "topology": config.plan.topology,
        "device": device.name,
        "devices": topology.count,
        "slices": topology.slices,
        **dataclasses.asdict(choice.shape),
        "stage": choice.stage,
        "remat": choice.remat,
        "mesh": dict(zip(("data", "fsdp", "tensor"), choice.mesh, strict=True)),
        "device_capacity_bytes": device.memory_bytes,
        "fits": found["error"] is None and needed is not None and needed <= device.memory_bytes,
        "flops_per_step": flops["hardware"],
        "model_flops_per_step": flops["model"],
        "model_flops_by_part": flops["parts"],
        "collective_bytes": None if collectives is None else sum(collectives.values()),
        **found,
        "seconds_at_peak": seconds,
        "roofline_seconds": bound,
        "roofline_mfu": flops["model"] / topology.count / device.peak_flops / bound,
    }


def search(plan: Callable[[Choice], Plan], first: Choice) -> Plan:
    """The cheapest remat that fits, then the largest batch that fits with it.

    A micro-batch that does not fit even with remat "full" is cut into more parts. One that fits
    is doubled: with fewer parts as long as there are several, then with a larger batch.

    Raises:
        UserError: a single row a batch shard does not fit.
    """
    tried: list[Plan] = []

    def fits(choice: Choice) -> bool:
        tried.append(plan(choice))
        return tried[-1]["fits"]

    remats = [dataclasses.replace(first, remat=remat) for remat in REMATS]
    best = next((choice for choice in remats if fits(choice)), None)
    smaller = remats[-1]
    while best is None:
        halved = _halved(smaller)
        if halved is None:
            raise UserError(
                "config.plan: even one row for each batch shard does not fit "
                f"{tried[-1]['topology']} with remat 'full': take more devices, another mesh or "
                "shorter rows"
            )
        smaller, best = halved, (halved if fits(halved) else None)
    result = tried[-1]
    while best is not None and tried[-1]["fits"]:
        result, best = tried[-1], _doubled(best)
        fits(best)
    keys = ("remat", "batch_size", "accumulate", "bytes_per_device", "fits")
    return result | {"tried": [{key: t[key] for key in keys} for t in tried]}


def describe(choice: Choice) -> str:
    """What a plan has chosen, as a line for the log."""
    shape = choice.shape
    packed = f", {shape.packing} samples each," if shape.packing > 1 else ""
    rows = shape.rows * shape.accumulate
    return (
        f"{choice.stage}, remat {choice.remat}, {rows} rows of {shape.length}{packed} in "
        f"{shape.accumulate} parts, mesh {'x'.join(map(str, choice.mesh))}"
    )


def _compiled(config: ConfigDict, topology: Topology, choice: Choice, folder: Path) -> Plan:
    compiled = compile_choice(config, topology, choice, folder)
    found: Plan = {
        "method": "compiled",
        "bytes_per_device": compiled["needed_bytes"],
        "state_bytes_per_device": None,
        "collectives": None,
        "network_bytes": None,
        "memory_traffic_bytes": None,
        "flops": compiled["flops"],
        "error": compiled["error"],
        "compile_seconds": compiled["compile_seconds"],
    }
    memory = compiled["memory"]
    if memory is not None:
        program = parse_program(read_program(compiled))
        held = sum(memory[k] for k in ("argument", "output", "temp", "generated_code"))
        found |= {
            "bytes_per_device": held - memory["alias"],
            "state_bytes_per_device": memory["argument"],
            "collectives": collective_bytes(program, devices=topology.count),
            "network_bytes": network_bytes(program),
            "memory_traffic_bytes": memory_traffic(program),
        }
    return found


def _mesh_sizes(config: ConfigDict) -> tuple[int, int, int]:
    if not config.plan.mesh:
        return config.mesh.data, config.mesh.fsdp, config.mesh.tensor
    try:
        data, fsdp, tensor = map(int, config.plan.mesh.split(","))
    except ValueError:
        raise UserError(
            f"config.plan.mesh={config.plan.mesh!r}: write 'data,fsdp,tensor' in numbers, "
            "like '1,-1,1'"
        ) from None
    return data, fsdp, tensor


def _doubled(choice: Choice) -> Choice:
    """Twice the rows in a micro-batch."""
    shape = choice.shape
    if shape.accumulate % 2 == 0:
        shape = dataclasses.replace(shape, accumulate=shape.accumulate // 2)
    else:
        shape = dataclasses.replace(shape, batch_size=shape.batch_size * 2)
    return dataclasses.replace(choice, shape=shape)


def _halved(choice: Choice) -> Choice | None:
    """Half the rows in a micro-batch; None where they do not divide over the batch shards."""
    shape, shards = choice.shape, choice.mesh[0] * choice.mesh[1]
    if shape.rows % (2 * shards):
        return None
    shape = dataclasses.replace(shape, accumulate=shape.accumulate * 2)
    return dataclasses.replace(choice, shape=shape)
