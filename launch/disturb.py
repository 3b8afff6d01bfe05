"""Disturb a rehearsed pod at random times and compare its end with an undisturbed run's.

    python -m launch.disturb --folder=/tmp/disturbed --times=20 -- --config=... (no --workdir)

One process is killed with -9, or SIGTERM is sent to one or to all; every process must then end
within --patience seconds, and the pod is started again, until it has been disturbed --times times.
Whenever a run ends, its losses and exported bytes must be those of the undisturbed run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from launch.rehearse import Pod, Started
from tga_jax.files import read_jsonl

EARLIEST = 0.5  # seconds after the start: Python has not imported everything
FIGURES = ("loss", "lm_loss", "grad_norm", "learning_rate")


def main(argv: Sequence[str]) -> int:
    """The command line; 0 when nothing differed and nothing hung."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--patience", type=float, default=60.0)
    parser.add_argument("flags", nargs="+")
    given = parser.parse_args(argv[1:])
    shutil.rmtree(given.folder, ignore_errors=True)
    given.folder.mkdir(parents=True)

    def pod(name: str) -> Pod:
        # One that dies before it has come is missed when the others have waited so long.
        start = f"--config.distributed.start_seconds={given.patience / 3:g}"
        flags = [*given.flags, start, f"--workdir={given.folder / name}"]
        return Pod(given.processes, given.processes, flags)

    seconds = undisturbed(pod("whole"), given.folder / "whole", given.folder / "whole.log")
    wanted = results(given.folder / "whole")
    if not wanted["losses"]:
        raise SystemExit("the undisturbed run left no losses to compare")
    steps = sum(map(len, wanted["losses"].values()))
    say(f"undisturbed: {seconds:.0f} s, {steps} logged steps")
    rng, left, runs = random.Random(given.seed), given.times, 0
    log = (given.folder / "disturbances.jsonl").open("w", encoding="utf-8")
    while left or runs == 0:
        name = f"run{runs}"
        while not attempt(pod(name), given, rng, seconds, log, left > 0):
            left = max(left - 1, 0)
        if results(given.folder / name) != wanted:
            say(f"{name}: DIFFERS from the undisturbed run")
            return 1
        say(f"{name}: as the undisturbed run; {left} disturbances left")
        runs += 1
    return 0


def undisturbed(pod: Pod, workdir: Path, log: Path) -> float:
    """Run to the end, twice: the second time, with warm caches, is the measure of time."""
    for name in ("cold", "warm"):
        shutil.rmtree(workdir, ignore_errors=True)
        began = time.monotonic()
        with log.open("w", encoding="utf-8") as file:
            codes = pod.start(stderr=file.fileno()).wait()
        if any(codes):
            raise SystemExit(f"the undisturbed run failed, see {log}")
        say(f"{name}: {time.monotonic() - began:.0f} s")
    return time.monotonic() - began


def attempt(
    pod: Pod, given: Any, rng: random.Random, seconds: float, log: Any, disturbed: bool
) -> bool:
    """Start the pod and disturb it once; whether it ended by itself before."""
    lines = (given.folder / "last.log").open("w+", encoding="utf-8")
    started, began = pod.start(stderr=lines.fileno()), time.monotonic()
    wait, (what, act) = rng.uniform(EARLIEST, 0.95 * seconds), rng.choice(ACTIONS)
    who = rng.randrange(given.processes)
    while started.running() and not (disturbed and time.monotonic() - began > wait):
        time.sleep(0.1)
    if not started.running():
        codes = started.wait()
        lines.seek(0)
        if any(codes):
            raise SystemExit(f"ended by itself with {codes}:\n{lines.read()[-3000:]}")
        return True
    act(started, who)
    hit = time.monotonic()
    try:
        codes = started.wait(given.patience)
    except subprocess.TimeoutExpired:
        started.kill()
        lines.seek(0)
        raise SystemExit(f"{what} of {who}: HUNG:\n{lines.read()[-3000:]}") from None
    lines.seek(0)
    said = [line.strip() for line in lines if "run the same command again" in line]
    row = {
        "what": what, "process": who, "after": round(hit - began, 1),
        "ended_in": round(time.monotonic() - hit, 1), "codes": codes, "said": said,
    }  # fmt: skip
    log.write(json.dumps(row) + "\n")
    log.flush()
    say(json.dumps({key: value for key, value in row.items() if key != "said"}))
    return not any(codes)


def kill_one(started: Started, who: int) -> None:
    """SIGKILL to one."""
    started.processes[who].kill()


def terminate_one(started: Started, who: int) -> None:
    """SIGTERM to one."""
    started.processes[who].send_signal(signal.SIGTERM)


def terminate_all(started: Started, who: int) -> None:
    """SIGTERM to all."""
    for process in started.processes:
        process.send_signal(signal.SIGTERM)


ACTIONS: list[tuple[str, Callable[[Started, int], None]]] = [
    ("kill -9 one", kill_one),
    ("SIGTERM one", terminate_one),
    ("SIGTERM all", terminate_all),
]


def results(workdir: Path) -> dict[str, Any]:
    """What must not depend on disturbances: figures of every step, and the export's bytes."""
    losses = {}
    for path in sorted(workdir.glob("*/metrics.jsonl")):
        rows = [[row["step"], *(row[key] for key in FIGURES)] for row in read_jsonl(path)]
        losses[path.parent.name] = rows
    files = sorted(path for path in (workdir / "export").rglob("*") if path.is_file())
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {"losses": losses, "export": digests}


def say(text: str) -> None:
    """A line for the person who watches."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
