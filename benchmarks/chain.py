"""From raw JSON to training batches: `python -m benchmarks.chain --records 3000`.

Draws images of the miniature world, writes them as a user has them (LLaVA JSON, an image folder,
a corpus), and times every job from there to data with captions and retrieved texts, from the
command line, then loading the batches of an epoch. CLIP and language model are those of the
miniature experiment; two steps of `pretrain` make a projector, because a new one writes no
captions. One sample in a hundred lacks a caption, so that job `caption` has work. Prints a JSON
line a phase: seconds by the clock and of CPU time, and records a second of CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tga_jax.miniature.concepts import concepts_of
from tga_jax.miniature.draw import DrawSettings, draw
from tga_jax.miniature.language import caption
from tga_jax.miniature.rows import chat_exchanges, image_row
from tga_jax.miniature.scene import random_scene

MODELS = Path(__file__).parents[1] / "assets" / "miniature"
WITHOUT_CAPTION = 100  # every how many samples
JOBS = ("prepare", "pretrain", "caption", "index", "retrieve", "prepare", "inspect")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=3000)
    parser.add_argument("--texts", type=int, default=4000, help="of the corpus")
    parser.add_argument("--pixels", type=int, default=48, help="height and width of an image")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        inputs, workdir = Path(name) / "inputs", Path(name) / "run"
        make_inputs(inputs, args.records, texts=args.texts, pixels=args.pixels)
        for job in JOBS:
            before, began = os.times(), time.monotonic()
            subprocess.run([sys.executable, "-m", *command(inputs, workdir, job=job)], check=True)
            tell(job, args.records, time.monotonic() - began, before)
        before, began = os.times(), time.monotonic()
        load_epoch(command(inputs, workdir, "--config.pretrain.steps=-1", job="pretrain"))
        tell("load an epoch", args.records, time.monotonic() - began, before)


def make_inputs(folder: Path, records: int, *, texts: int, pixels: int = 48) -> None:
    """samples.json, images/ and corpus.txt; the same from run to run."""
    (folder / "images").mkdir(parents=True)
    rng, settings = np.random.default_rng(0), DrawSettings(side_pixels=pixels)
    concepts, rows = concepts_of(), []
    for number in range(records):
        scene, image = random_scene(rng, concepts), f"{number}.png"
        Image.fromarray(draw(scene, number, settings)).save(folder / "images" / image)
        row = image_row(
            f"p{number}", image, scene, chat_exchanges(scene, rng), rng=rng, caption_form="full",
            retrieved=False,
        )  # fmt: skip
        if number % WITHOUT_CAPTION == 0:
            del row["image_caption"]
        rows.append(row)
    (folder / "samples.json").write_text(json.dumps(rows))
    corpus = [caption(random_scene(rng, concepts), rng) for _ in range(texts)]
    (folder / "corpus.txt").write_text("\n".join(corpus) + "\n")


def command(inputs: Path, workdir: Path, *more: str, job: str) -> list[str]:
    """The command line, without the interpreter."""
    return [
        "tga_jax.main", "--config=configs/from_hf.py", f"--workdir={workdir}", f"--job={job}",
        f"--config.model.vision={MODELS / 'clip'}", f"--config.model.llm={MODELS / 'llm'}",
        f"--config.retrieval.clip={MODELS / 'clip'}", "--config.prompt.template=tokenizer",
        f"--config.retrieval.corpus={inputs / 'corpus.txt'}", "--config.caption.max_new_tokens=12",
        f"--config.data.path={inputs / 'samples.json'}", "--config.inspect.show=1",
        f"--config.data.image_dir={inputs / 'images'}", "--config.data.max_length=256",
        "--config.pretrain.steps=2", *more,
    ]  # fmt: skip


def load_epoch(arguments: list[str]) -> int:
    """Every batch of an epoch, as training takes it; returns the samples."""
    from tga_jax.data.loader import make_loader
    from tga_jax.flags import parse_flags
    from tga_jax.main import device_scope
    from tga_jax.parallel.mesh import mesh_of
    from tga_jax.run.job import Job
    from tga_jax.run.model import open_model
    from tga_jax.run.sample_files import find_samples
    from tga_jax.run.stage_data import stage_samples

    flags = parse_flags(arguments)
    config = flags.config
    with device_scope(config, mesh=True):
        job = Job(config, Path(flags.workdir), "pretrain")
        model = open_model(job, mesh_of(config.mesh))
        files = find_samples(config, job.workdir, job.name)
        _, source, _ = stage_samples(job, model, files)
        return sum(len(batch.ids) for batch in make_loader(source))


def tell(what: str, records: int, seconds: float, before: os.times_result) -> None:
    """A JSON line of a phase."""
    now = os.times()
    cpu = sum(now[:4]) - sum(before[:4])  # of this process and of those that it waited for
    line = {"what": what, "records": records, "seconds": round(seconds, 1)}
    line |= {"cpu_seconds": round(cpu, 1), "records_per_cpu_second": round(records / cpu, 1)}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
