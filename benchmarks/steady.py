"""The training loop in its steady state: `taskset -c 1 python -m benchmarks.steady`.

Job `finetune` on the first run's photographs and a LLaVA of the size of `benchmarks.train_step` (8
layers of width 512, a vocabulary of 32,000, 144 tokens an image, float32), as a user starts it.
Printed from finetune/metrics.jsonl, of the windows after the first two: medians of the step's time
and of the share of it that waits for data, and how many programs were compiled.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from examples.first_run.prepare import prepare
from tga_jax.files import read_jsonl

LENGTH, CAPTION, WINDOW = 512, 128, 4
VISION = {
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
}
TEXT = {
    "vocab_size": 32000,
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": 2048,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measured(Path(folder), steps=args.steps, batch=args.batch)
    print(json.dumps(result, indent=1))


def measured(folder: Path, *, steps: int, batch: int) -> dict[str, Any]:
    """Run the job, and read what it wrote."""
    prepare(folder, pixels=168, vision=VISION, text=TEXT)
    flags = [
        "--config=configs/from_hf.py", f"--workdir={folder}/run",
        f"--config.model.checkpoint={folder}/checkpoint",
        f"--config.data.path={folder}/samples.json", f"--config.data.image_dir={folder}/images",
        f"--config.data.max_length={LENGTH}", f"--config.data.buckets=({LENGTH},)",
        f"--config.data.caption_buckets=({CAPTION},)", f"--config.finetune.log_every={WINDOW}",
        f"--config.finetune.steps={steps}", f"--config.finetune.batch_size={batch}",
        "--config.finetune.accumulate=1", f"--config.finetune.save_every={steps}",
    ]  # fmt: skip
    command = [sys.executable, "-m", "tga_jax.main", *flags, "--job=finetune"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    lines = list(read_jsonl(folder / "run/finetune/metrics.jsonl"))
    rows = lines[2:-1]  # the last one ends with a checkpoint
    return {
        "cores": len(os.sched_getaffinity(0)),
        "steps": WINDOW * len(rows),
        "step_seconds": statistics.median(row["step_seconds"] for row in rows),
        "data_wait_fraction": statistics.median(row["data_wait_fraction"] for row in rows),
        "most_data_wait_fraction": max(row["data_wait_fraction"] for row in rows),
        "compilations": sum(row["compilations"] for row in rows),
    }


if __name__ == "__main__":
    main()
