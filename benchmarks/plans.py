"""The paper's stages on TPU slices and H100s, planned: `python -m benchmarks.plans`.

Runs job `plan` for every row and writes docs/plans.md. A TPU row is a compilation of minutes on
one core; --workdir keeps what was compiled, so that a second run only adds what is missing.
--only takes the rows with a word in their name; rows that were never run say so.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

CONFIG = "configs/llava_mistral_7b.py"
SAMPLES = {"pretrain": 558_128, "finetune": 665_298}  # LLaVA-1.5's two sets
# Rows are padded to this length: a caption after an image; the stage's longest.
LENGTHS = {"pretrain": 768, "finetune": 1216}
# Assumptions, not measurements: dollars a chip and hour, and how much of the peak a run reaches.
PRICES = {"v5e": 1.20, "v5p": 4.20, "v6e": 2.70, "h100": 3.00}
UTILISATION = 0.4
GIB = 1024**3


# XLA's option that makes a product with gathered weights one product, not turns over their pieces.
WHOLE = "xla_jf_spmd_threshold_for_windowed_einsum_mib=1000000"
LORA = (
    "--config.lora.rank=128",
    "--config.lora.alpha=256.0",
    "--config.finetune.trainable="
    "(('decoder/.*/lora_.*', 1.0), ('projector/.*', 1.0), ('.*', None))",
)
# LLaVA-1.5-13B, in place of the model that CONFIG joins.
LLAVA_13B = (
    "--config.model.checkpoint=llava-hf/llava-1.5-13b-hf",
    "--config.model.vision=",
    "--config.model.llm=",
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A stage on a topology; the paper's batch in `accumulate` parts."""

    kind: str  # of KINDS: a stage, and what of which model is trained in it
    topology: str
    accumulate: int
    mesh: str = "1,-1,1"
    remat: str = "full"
    attention: str = "auto"
    whole: bool = False  # with the option WHOLE

    @property
    def stage(self) -> str:
        """The stage whose step is planned."""
        return "pretrain" if self.kind == "pretrain" else "finetune"

    @property
    def name(self) -> str:
        """As a file name."""
        place = self.topology.replace(":", "-").replace(" ", "-")
        shape = f"{self.accumulate}-{self.mesh.replace(',', 'x')}"
        more = "-whole" if self.whole else ""
        return f"{self.kind}-{place}-{shape}-{self.remat}-{self.attention}{more}"

    @property
    def flags(self) -> list[str]:
        """Of the command line."""
        return [
            f"--config.plan.topology={self.topology}",
            f"--config.plan.stage={self.stage}",
            f"--config.plan.length={LENGTHS[self.stage]}",
            f"--config.plan.accumulate={self.accumulate}",
            f"--config.plan.mesh={self.mesh}",
            f"--config.model.remat={self.remat}",
            f"--config.model.attention={self.attention}",
            *(LORA if self.kind.startswith("lora") else ()),
            *(LLAVA_13B if self.kind.endswith("13b") else ()),
            *((f"--config.compiler_options=('{WHOLE}',)",) if self.whole else ()),
        ]


# In the order in which they are compiled.
ROWS = (
    Row("finetune", "h100:1", 64),
    Row("finetune", "h100:8", 4),
    Row("lora", "h100:1", 16),
    Row("lora", "h100:8", 2),
    Row("pretrain", "h100:1", 16),
    Row("pretrain", "h100:8", 2),
    Row("finetune", "v5e:4x4", 2),
    Row("finetune", "v6e:4x4", 1),
    Row("lora", "v5e:4x4", 1),
    Row("finetune", "v5e:4x4", 2, attention="xla"),
    Row("pretrain", "v5e:4x4", 1),
    Row("finetune", "v5p:2x2x2", 2, remat="dots"),
    Row("finetune", "v5e:8x8", 1),
    Row("finetune", "v5p:4x4x4", 1, remat="dots"),
    # 128 rows on 256 chips: two chips a row.
    Row("finetune", "v5e:16x16", 1, mesh="1,-1,2"),
    Row("pretrain", "v5p:2x2x2", 1),
    Row("pretrain", "v6e:4x4", 1),
    Row("lora", "v5p:2x2x2", 1),
    Row("lora", "v6e:4x4", 1),
    Row("pretrain", "v5e:8x8", 1),
    Row("pretrain", "v5p:4x4x4", 1),
    Row("pretrain", "v5e:16x16", 1),
    Row("lora", "v5e:8x8", 1),
    Row("finetune", "v6e:4x4", 2, remat="dots"),
    Row("finetune", "v5e:4x4 x2", 1, mesh="2,-1,1"),
    Row("finetune", "v6e:4x4", 1, whole=True),
    Row("lora", "v6e:4x4", 1, whole=True),
    Row("finetune-13b", "v5e:8x8", 1),
    Row("finetune-13b", "v5p:2x2x2", 2),
    Row("lora-13b", "v5e:8x8", 1),
    Row("lora-13b", "v5p:2x2x2", 2),
)

HEAD = (
    "topology", "devices", "parts", "mesh", "remat", "memory a device, GiB", "fits",
    "model TFLOP a step", "executed TFLOP a step", "links, GB a device and step",
    "network between slices, GB a device and step", "HBM traffic, GB a device and step",
    "roofline, s a step", "bound by", "MFU allowed", "MFU without overlap", "hours an epoch",
    "$ an epoch", "method",
)  # fmt: skip
# Published figures read in those repositories: fuji.py of axlearn, configs/v5e and v5p of MaxText.
COMPARED = """
## What the tables say

- **Attention.** Splash attention saves 1.0 GiB a chip (12.9 against 13.9 of 16) and 28% of the
  memory traffic of the finetune on v5e:4x4, compared with plain products.
- **The aim of an allowed MFU of 55%** is reached by the finetune on v5e, v5p and v6e (on v6e with
  remat `dots`, at 70%). Without overlap it is reached too on v5e:4x4, v5p and v6e with products
  whole. It is missed then on v6e otherwise, and on 32 chips of v5e and more, where the batch is
  too small.
- **Pretrain and LoRA on v6e** are bound by memory, at 41% and 33%: a chip has 1.6 TB/s for 918
  TFLOP/s. Most of this traffic comes from the compiler. On one slice it cuts a product with
  gathered weights into turns, and each turn reads and writes the whole result. For two slices of
  v5e it does not: a chip then moves 408 GB and not 1,284, which is a third for half of the rows.
  The rows "products whole" ask it not to, and so does
  `launch/tpu.sh` on v6e. They have less than half of the traffic, and compute bounds the step (at
  79% for the finetune and 73% with LoRA; the pretrain was not planned so). Only hardware can tell
  whether the gathers are still hidden then.
- **LLaVA-1.5-13B** fits on both slices, trained whole or with LoRA, and compute bounds all four
  rows. On 64 chips of v5e two rows a chip leave little to hide the gathers behind.
- **LoRA's adapters** are divided on both of their sides. If the long side of one factor were
  whole on every device, a v5e:4x4 would need 9.8 GiB a chip and not 7.0, with 20% less memory
  traffic.
- **Two slices** halve the step. Each gradient crosses the network once, as its slice's share.
  That is 0.94 GB a chip and step, which takes 0.30 s at 25 Gbit/s a chip, beside 1.40 s of
  compute.

## Beside what others published

| system | model | hardware | measured MFU |
|---|---|---|---|
| axlearn, matrix products kept | Llama 2 7B, text | 1,024 v5e chips | 46% |
| axlearn | Llama 2 7B, text | 256 H100s | 39% |
| MaxText | 16B, text | 256 v5e chips | 61% |
| MaxText | 32B, text | 64 v5p chips | 71% |

These figures are measured, and ours are bounds: they say what peaks, memory and links allow, and
a run reaches less. Two things can be compared: the definition, which does not count remat as
work, and the kind of parallelism. Other things cannot. Their sequences are 2k to 8k long and
fully trained, a step has millions of tokens, and attention's masked half may be counted. Here a
step has 128 rows of 1,216 tokens, the vision tower and a caption pass run forward only, and on
few chips the weights are gathered for few tokens.
"""
KINDS = {
    "pretrain": "pretrain, the projector alone",
    "finetune": "finetune, projector and language model",
    "lora": "finetune with LoRA of rank 128 on all matrices, and the projector",
    "finetune-13b": "LLaVA-1.5-13B: finetune, projector and language model",
    "lora-13b": "LLaVA-1.5-13B: finetune with LoRA of rank 128, and the projector",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs/plans"))
    parser.add_argument("--out", type=Path, default=Path("docs/plans.md"))
    parser.add_argument("--only", default="", help="plan the rows with this word in their name")
    args = parser.parse_args()
    for row in ROWS:
        if args.only in row.name:
            plan(row, args.workdir)
    args.out.write_text(page(args.workdir))


def plan(row: Row, workdir: Path) -> None:
    """Run the job, and keep its result under the row's name."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from tga_jax.main import main as tga_jax

    kept = workdir / "rows" / f"{row.name}.json"
    if kept.exists():
        return
    command = ["tga_jax", f"--config={CONFIG}", f"--workdir={workdir}", "--job=plan", *row.flags]
    if tga_jax(command) != 0:
        sys.exit(1)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text((workdir / "plan" / "plan.json").read_text())


def page(workdir: Path) -> str:
    """docs/plans.md."""
    return (
        "# What the paper's stages need, planned\n\n"
        "`python -m benchmarks.plans` made this page, for Mistral-7B-Instruct-v0.2 and CLIP"
        f" ViT-L/14-336 (`{CONFIG}`), and for LLaVA-1.5-13B where it is named. "
        "Nothing here was run on the hardware that it names. How to read the tables:\n\n"
        "- A *slice* is a group of TPU chips that fast *links* join. Several slices are joined by "
        "a slower network. *HBM* is the main memory of a chip. *Remat* (`config.model.remat`) says "
        "what the backward pass computes again because it was not kept. *Rows* are the samples of "
        "a step.\n"
        "- For TPU rows of the tables, libtpu compiled the real train step for the slice "
        '("compiled"). The memory is the compiler\'s, and links and loops are read from the '
        "compiled program.\n"
        "- For H100 rows of the tables, the traced step was added up without a compiler "
        '("analytic"), so they are estimates.\n'
        "- FLOPs are counted in the traced step, on all devices together. The model's FLOPs"
        " leave out what rematerialisation repeats, and the masked half of causal "
        "attention.\n"
        "- The roofline is the longest of the times that compute, memory and links take at "
        "published peaks (`tga_jax/parallel/devices.py`). The time of memory is an "
        "estimate, and rather too high than too low, because on-chip memory that keeps an "
        "array between two uses is not modelled.\n"
        '- "MFU allowed" is what the model\'s FLOPs are of the peak in that time (model '
        'FLOPs utilisation). "Without overlap" means that the links and the network between'
        " slices wait for the rest. Matrix products do not reach the published peak either.\n"
        "- The mesh is data x fsdp x tensor. Attention is Splash on TPUs where nothing else"
        f" is said. \"Products whole\" means config.compiler_options=('{WHOLE}',).\n"
        f"- Hours and prices assume {UTILISATION:.0%} of the peak in model FLOPs, or the "
        f"roofline where it is slower, and {_prices()} for a chip and hour. Change them in "
        "`benchmarks/plans.py`.\n"
        '- All tokens of a row count, and captions have 64 tokens. "Parts" is the number of parts '
        "from which a step accumulates its batch.\n"
        + "".join(_section(kind, workdir) for kind in KINDS)
        + COMPARED
    )


def _prices() -> str:
    return ", ".join(f"${price:.2f} {name}" for name, price in PRICES.items())


def _section(kind: str, workdir: Path) -> str:
    rows = [row for row in ROWS if row.kind == kind]
    stage = rows[0].stage
    batch = {"pretrain": 256, "finetune": 128}[stage]
    lines = [
        f"\n## {KINDS[kind]}: {batch} rows of {LENGTHS[stage]} tokens a step, "
        f"{SAMPLES[stage]:,} samples an epoch\n",
        "| " + " | ".join(HEAD) + " |",
        "|" + "---|" * len(HEAD),
    ]
    lines += [_line(row, workdir) for row in rows]
    return "\n".join(lines) + "\n"


def _line(row: Row, workdir: Path) -> str:
    kept = workdir / "rows" / f"{row.name}.json"
    if not kept.exists():
        return f"| {place_of(row)} " + "| not run " * (len(HEAD) - 1) + "|"
    cells = cells_of(row, json.loads(kept.read_text()))
    return "| " + " | ".join(cells) + " |"


def place_of(row: Row) -> str:
    """The first cell of a row."""
    attention = f", {row.attention} attention" if row.attention != "auto" else ""
    return row.topology + attention + (", products whole" if row.whole else "")


def cells_of(row: Row, found: dict[str, Any]) -> list[str]:
    """A row of the page, under HEAD, from what job `plan` wrote."""
    seconds, links = found["seconds_at_peak"], found["collective_bytes"]
    moved = seconds["links"] + seconds["network"]
    at_use = found["model_flops_per_step"] / found["flops_per_step"] * seconds["compute"]
    step = max(found["roofline_seconds"], at_use / UTILISATION)
    hours = step * SAMPLES[row.stage] / found["batch_size"] / 3600
    needed, capacity = found["bytes_per_device"], found["device_capacity_bytes"]
    traffic = found["memory_traffic_bytes"]
    return [
        place_of(row),
        str(found["devices"]),
        str(found["accumulate"]),
        "x".join(str(ways) for ways in found["mesh"].values()),
        found["remat"],
        ("?" if needed is None else f"{needed / GIB:.1f}") + f" of {capacity / GIB:.0f}",
        "yes" if found["fits"] else "no",
        f"{found['model_flops_per_step'] / 1e12:,.0f}",
        f"{found['flops_per_step'] / 1e12:,.0f}",
        "?" if links is None else f"{links / 1e9:.1f}",
        "-" if found["slices"] == 1 else f"{found['network_bytes'] / 1e9:.2f}",
        "?" if traffic is None else f"{traffic / 1e9:,.0f}",
        f"{found['roofline_seconds']:.2f}",
        max(seconds, key=seconds.__getitem__),
        f"{at_use / found['roofline_seconds']:.0%}",
        f"{at_use / (max(seconds['compute'], seconds['memory']) + moved):.0%}",
        f"{hours:.1f}" if found["fits"] else "-",
        f"{hours * found['devices'] * PRICES[found['device']]:,.0f}" if found["fits"] else "-",
        found["method"],
    ]


if __name__ == "__main__":
    main()
