"""How cost grows with what is asked for: `taskset -c 1 python -m benchmarks.scaling`.

Runs the other benchmarks over growing sizes, one size changed at a time: the train step (length,
batch, layers), the search for texts (how many there are), the jobs on data (how many records) and
the evaluation (how many questions). Writes every figure to docs/scaling.json as it comes, so that a
second run only adds what is missing, and docs/scaling.png with the slopes of log cost over log
size.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

# Sizes of the train step where they are not what is changed.
STEP = "--arms tga_jax --turns 3 --layers 4 --width 256 --ffn 688 --heads 4 --vocab 8000 --batch 4"
Figures = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Growth:
    """A size that is changed, and what is measured at each value."""

    name: str
    values: tuple[int, ...]
    measure: Callable[[int], Figures]


def step(flag: str) -> Callable[[int], Figures]:
    """Seconds and memory of a train step."""

    def measure(value: int) -> Figures:
        (line,) = run("benchmarks.train_step", *STEP.split(), f"--{flag}", str(value), whole=True)
        seconds, peak = line["cpu_seconds"]["tga_jax"], line["peak_gigabytes"]["tga_jax"]
        return {"a step, CPU s": seconds, "peak memory, GB": peak}

    return measure


def search(count: int) -> Figures:
    """Seconds of building and of a thousand queries."""
    flags = f"--count {count} --width 256 --queries 512 --backends exact,scann".split()
    lines = {
        line["backend"]: line for line in run("benchmarks.retrieval", *flags) if "backend" in line
    }
    return {
        "building ScaNN, CPU s": lines["scann"]["build_seconds"],
        "1000 queries, ScaNN, CPU s": 1000 / lines["scann"]["queries_per_second"],
        "1000 queries, exact, CPU s": 1000 / lines["exact"]["queries_per_second"],
    }


def records(count: int) -> Figures:
    """Seconds of every job from raw JSON to batches; the second `prepare` has texts too."""
    figures: Figures = {}
    for line in run("benchmarks.chain", "--records", str(count)):
        name = line["what"]
        name = f"{name} again" if f"{name}, CPU s" in figures else name
        figures[f"{name}, CPU s"] = line["cpu_seconds"]
    return {name: value for name, value in figures.items() if not name.startswith("pretrain")}


def questions(count: int) -> Figures:
    """Cost of job `evaluate`: answers of a small model, and what judges make of them."""
    from examples.first_run.prepare import prepare

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        images = sorted(path.name for path in (folder / "images").iterdir())
        rows = [
            {"question_id": i, "image": images[i % len(images)], "harmful": i % 2 == 0,
             "text": f"What is shown here? Number {i}."}
            for i in range(count)
        ]  # fmt: skip
        (folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        flags = [
            "--config=configs/from_hf.py", f"--workdir={folder}/run", "--job=evaluate",
            f"--config.model.checkpoint={folder}/checkpoint",
            f"--config.evaluate.benchmarks=questions:{folder}/asked.jsonl?images={folder}/images",
            "--config.generate.max_new_tokens=16", "--config.generate.batch_size=32",
        ]  # fmt: skip
        command = [sys.executable, "-m", "tga_jax.main", *flags]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"job evaluate ended with {os.waitstatus_to_exitcode(status)}")
    seconds, peak = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9
    return {"evaluate, CPU s": seconds, "peak memory, GB": peak}


GROWTHS = (
    Growth("row length, tokens", (256, 512, 1024, 2048), step("length")),
    Growth("batch, rows", (2, 4, 8, 16), step("batch")),
    Growth("layers", (2, 4, 8, 16), step("layers")),
    Growth("texts in the index", (10_000, 30_000, 100_000), search),
    Growth("records", (1_000, 3_000, 9_000), records),
    Growth("questions", (1_000, 3_000, 9_000), questions),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/scaling.json"))
    parser.add_argument("--only", help="a growth's name")
    args = parser.parse_args()
    found = json.loads(args.out.read_text()) if args.out.exists() else {}
    for growth in GROWTHS:
        for value in growth.values if args.only in (None, growth.name) else ():
            kept = found.setdefault(growth.name, {})
            if str(value) not in kept:
                kept[str(value)] = growth.measure(value)
                args.out.write_text(json.dumps(found, indent=1) + "\n")
    for name, line in slopes(found):
        print(name, line)
    plot(found, args.out.with_suffix(".png"))


def run(module: str, *flags: str, whole: bool = False) -> list[dict[str, Any]]:
    """The JSON lines that a benchmark prints; `whole`: all it prints is one object."""
    command = [sys.executable, "-m", module, *flags]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    if whole:
        return [json.loads(out)]
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def slopes(found: dict[str, dict[str, Figures]]) -> Iterator[tuple[str, str]]:
    """Of log cost over log size, between the two largest sizes: 1 is in proportion."""
    for name, values in found.items():
        sizes = sorted(values, key=int)[-2:]
        for figure in values[sizes[-1]] if len(sizes) == 2 else ():
            low, high = (values[size][figure] for size in sizes)
            slope = np.log(high / low) / np.log(int(sizes[1]) / int(sizes[0]))
            yield f"{name}: {figure}", f"{low:.3g} -> {high:.3g}, slope {slope:.2f}"


def plot(found: dict[str, dict[str, Figures]], target: Path) -> None:
    """A panel a growth, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(found), figsize=(4.2 * len(found), 3.8), squeeze=False)
    for panel, (name, values) in zip(panels[0], found.items(), strict=True):
        sizes = sorted(values, key=int)
        for kind in values[sizes[0]]:
            panel.loglog(
                [int(size) for size in sizes],
                [values[size][kind] for size in sizes],
                "o-",
                label=kind,
            )
        panel.set_xlabel(name)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main()
