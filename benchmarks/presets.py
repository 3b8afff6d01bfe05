"""The table of the presets of configs/from_hf.py by plan: `python -m benchmarks.presets`.

For both stages of each preset, and for a second stage of the projector alone, the real train step
of LLaVA-1.5-7B (of the small LLaVA for `laptop`) is traced and added up, as job `plan` does for
GPUs, and docs/presets.md gets the table. It takes about fifteen minutes and no accelerator;
--only=gpu80,gpu24 shows some of them and writes nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import flax.linen as nn
from ml_collections import ConfigDict

from benchmarks.plans import GIB, SAMPLES, UTILISATION
from configs import from_hf
from tga_jax.config import PROJECTOR_ONLY
from tga_jax.jobs.plan import first_choice
from tga_jax.parallel.devices import BY_NAME
from tga_jax.parallel.sharding import RULES
from tga_jax.planning.analytic import analyse
from tga_jax.planning.topology import parse_topology

PAGE = Path("docs/presets.md")
BEGIN, END = "<!-- table -->\n", "<!-- end of the table -->"
TYPICAL = 768  # tokens of a sample, for the time: an image and 192 of text
HARDWARE = {
    "gpu80": "one GPU of 80 GB",
    "gpu24": "one GPU of 24 GB",
    "gpu8x80": "eight GPUs of 80 GB",
    "v5e16": "16 chips of TPU v5e",
    "v5p8": "8 chips of TPU v5p",
    "laptop": "a CPU with 16 GB",
}
ALONE = "tga_answer_projector"  # the recipe that trains nothing but the projector
HEAD = (
    "preset", "hardware", "stage", "trained", "samples at once", "peak memory of a device",
    "an epoch",
)  # fmt: skip


def preset_config(name: str, stage: str, *, length: int = 0) -> ConfigDict:
    """A preset as job `plan` is given it; `length`: of its rows, 0 for the stage's longest."""
    config = from_hf.get_config(name)
    with config.unlocked():
        config.plan.stage, config.plan.length = stage, length
        if _preset(name) == "laptop":  # a CPU is no topology: one device of any kind
            config.plan.topology = "h100:1"
        else:
            config.plan.model = "llava_1.5_7b"
    return config


def planned(config: ConfigDict) -> dict[str, Any]:
    """The analytic plan of a configuration's stage."""
    topology = parse_topology(config.plan.topology)
    with nn.logical_axis_rules(RULES):
        return analyse(config, topology, first_choice(config, topology), Path("plan"))


def _preset(name: str) -> str:
    """The preset of a variant."""
    return name.rpartition("+")[2]


def memory_of(name: str) -> int:
    """Bytes of a device of the preset's hardware, for a laptop half of its 16 GiB."""
    kind = from_hf.get_config(name).plan.topology.partition(":")[0]
    return 8 * GIB if _preset(name) == "laptop" else BY_NAME[kind].memory_bytes


def hours(name: str, stage: str) -> float:
    """Hours of an epoch of LLaVA-1.5's set at UTILISATION of the peak."""
    config = preset_config(name, stage, length=TYPICAL)
    topology = parse_topology(config.plan.topology)
    flops = planned(config)["flops"]["model"] / config[stage].batch_size * SAMPLES[stage]
    return flops / (topology.count * topology.device.peak_flops * UTILISATION) / 3600


def line(name: str, stage: str) -> str:
    """A row of the table."""
    config = preset_config(name, stage)
    needed = planned(config)["bytes_per_device"] / GIB
    lora = f"adapters of rank {config.lora.rank}, projector"
    if config.model.quantize:
        lora += f"; the rest in {config.model.quantize}"
    decoder = lora if config.lora.rank else "language model, projector"
    cells = (
        f"`{name}`",
        HARDWARE[_preset(name)],
        stage,
        "projector" if config[stage].trainable == PROJECTOR_ONLY else decoder,
        str(config[stage].batch_size // config[stage].accumulate),
        f"{needed:.1f} of {memory_of(name) / GIB:.0f} GiB",
        "-" if _preset(name) == "laptop" else f"{hours(name, stage):.1f} h",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Plan every preset and write the page's table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="some presets, with commas; they are shown")
    only = parser.parse_args().only
    names = only.split(",") if only else list(from_hf.PRESETS)
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for preset in names:
        for name, stage in (
            (preset, "pretrain"),
            (f"{ALONE}+{preset}", "finetune"),
            (preset, "finetune"),
        ):
            lines.append(line(name, stage))
            print(lines[-1], flush=True)
    if not only:
        page = PAGE.read_text()
        before, after = page.partition(BEGIN)[0], page.partition(END)[2]
        PAGE.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after)


if __name__ == "__main__":
    main()
