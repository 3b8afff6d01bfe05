"""A guard against getting slower: `python -m benchmarks.guard NEW.json`.

Benchmarks with `--write FILE` leave their ratios there (not times, which are the machine's), with
the kind of machine and the command. They are compared with those that `ratios.json` records for
the same kind and command. Exit code 1: one is worse by more than the tolerance or missing; 2:
nothing is recorded to compare with. To record a new run, put its object in `ratios.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).with_name("ratios.json")
GOOD, WORSE, UNKNOWN = 0, 1, 2
DIRECTIONS = ("higher_is_better", "lower_is_better")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("new", type=Path, help="what a benchmark wrote with --write")
    parser.add_argument("--recorded", type=Path, default=RECORDED)
    args = parser.parse_args()
    code, lines = compare(json.loads(args.new.read_text()), json.loads(args.recorded.read_text()))
    print("\n".join(lines))
    return code


def machine_kind(device: str = "") -> str:
    """What a ratio may depend on; `device`: an accelerator's name, empty for the CPU."""
    cores = len(os.sched_getaffinity(0))
    return device or f"cpu, {cores} core{'s' * (cores > 1)} of {processor_kind(processor())}"


def processor() -> str:
    """This machine's processor, as its maker names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def processor_kind(name: str) -> str:
    """Maker and family, such as "AMD EPYC" or "Intel Xeon": ratios to torch depend on them."""
    return " ".join(name.replace("(R)", "").replace("(TM)", "").split()[:2])


def write_ratios(
    path: Path,
    benchmark: str,
    *,
    higher: Mapping[str, float],
    lower: Mapping[str, float] | None = None,
    kind: str = "",
) -> None:
    """Leave a run's ratios for the guard.

    Args:
        path: the file, replaced.
        benchmark: its module's name in this folder.
        higher: ratios that are better when higher.
        lower: ratios that are better when lower.
        kind: of machine; empty: this one's CPU.
    """
    run = {
        "kind": kind or machine_kind(),
        "command": command_of(benchmark, sys.argv[1:]),
        "higher_is_better": dict(higher),
        "lower_is_better": dict(lower or {}),
    }
    path.write_text(json.dumps(run, indent=1) + "\n")


def command_of(benchmark: str, flags: list[str]) -> str:
    """The command without `--write FILE`, which changes nothing that is measured."""
    kept, rest = [], iter(flags)
    for flag in rest:
        if flag == "--write":
            next(rest, None)
        elif not flag.startswith("--write="):
            kept.append(flag)
    return " ".join(["python", "-m", f"benchmarks.{benchmark}", *kept])


def compare(new: Mapping[str, Any], recorded: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Exit code, and lines of a table."""
    title = [f"{new['command']}  ({new['kind']})"]
    runs = [run for run in recorded["runs"] if run["command"] == new["command"]]
    same = [run for run in runs if run["kind"] == new["kind"]]
    if not same:
        known = ", ".join(sorted({run["kind"] for run in runs}))
        why = f"only for: {known}" if known else "for no kind of machine"
        return UNKNOWN, [*title, f"nothing is recorded for this: the command is recorded {why}"]
    tolerance, rows = float(recorded["tolerance"]), []
    for direction in DIRECTIONS:
        old, now = same[-1].get(direction, {}), new.get(direction, {})
        for name in [*old, *(name for name in now if name not in old)]:
            sign = 1 if direction == DIRECTIONS[0] else -1
            rows.append((name, *judged(old.get(name), now.get(name), sign * tolerance)))
    width = max([len(name) for name, *_ in rows], default=0)
    lines = [f"{name:{width}}  {old:>8}  {now:>8}  {word}" for name, old, now, word in rows]
    head = f"{'ratio':{width}}  {'recorded':>8}  {'new':>8}"
    bad = any(row[-1].startswith(("WORSE", "MISSING")) for row in rows)
    return (WORSE if bad else GOOD), [*title, head, *lines]


def judged(old: float | None, now: float | None, tolerance: float) -> tuple[str, str, str]:
    """Both as text, and a word on them; a negative tolerance: lower is better."""
    shown = ["-" if x is None else f"{x:.3f}" for x in (old, now)]
    if old is None:
        word = "not recorded"
    elif now is None:
        word = "MISSING"
    else:
        change = (now / old - 1) * (1 if tolerance > 0 else -1)
        limit = abs(tolerance)
        word = "WORSE" if change < -limit else "better" if change > limit else "as recorded"
        word += f" ({now / old - 1:+.1%})"
    return shown[0], shown[1], word


if __name__ == "__main__":
    sys.exit(main())
