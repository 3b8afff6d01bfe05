"""The shell scripts and images: shellcheck, retry.sh and slurm.sh as they would run."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPTS = [*map(str, sorted(Path("launch").glob("*.sh"))), ".ci/run"]


def test_shellcheck_is_content() -> None:
    tool = Path(sys.executable).with_name("shellcheck")  # of requirements-dev.txt
    command = [str(tool) if tool.exists() else "shellcheck", *SCRIPTS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# --- retry.sh ---


def retry(folder: Path, *codes: int) -> tuple[int, int]:
    """Exit code, and how often it was run, of a command that ends with these codes in turn."""
    script = folder / "script"
    cases = "".join(f"[ $n = {n} ] && exit {code}\n" for n, code in enumerate(codes, 1))
    script.write_text(f"echo >> {folder}/turns\nn=$(wc -l < {folder}/turns)\n{cases}exit 9\n")
    env = os.environ | {"RETRY_SECONDS": "0", "RETRIES": "5"}
    done = subprocess.run(["launch/retry.sh", "bash", str(script)], env=env, capture_output=True)
    return done.returncode, len((folder / "turns").read_text().splitlines())


@pytest.mark.parametrize(
    ("codes", "expected"),
    [((0,), (0, 1)), ((75, 137, 134, 0), (0, 4)), ((75, 2), (2, 2)), ((1,) * 6, (1, 6))],
)
def test_retry(tmp_path: Path, codes: tuple[int, ...], expected: tuple[int, int]) -> None:
    assert retry(tmp_path, *codes) == expected


def test_retry_passes_sigterm_on_and_stops(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(f"trap 'exit 75' TERM\ntouch {tmp_path}/up\nwhile :; do sleep 0.1; done\n")
    process = subprocess.Popen(["launch/retry.sh", "bash", str(script)])
    while not (tmp_path / "up").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 75


# --- slurm.sh ---


def slurm(folder: Path, *flags: str, code: int = 0, **env: str) -> list[list[str]]:
    """The commands that it calls; srun ends with `code`."""
    for name in ("sbatch", "srun", "scontrol"):
        text = f'#!/bin/sh\necho "{name} $*" >> {folder}/called\n'
        (folder / name).write_text(text + (f"exit {code}\n" if name == "srun" else ""))
        (folder / name).chmod(0o755)
    whole = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"} | env
    done = subprocess.run(["launch/slurm.sh", *flags], env=whole, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    shown = (folder / "called").read_text() if (folder / "called").exists() else done.stdout
    return [shlex.split(line) for line in shown.splitlines()]


def test_slurm_dry_run_shows_what_a_run_submits(tmp_path: Path) -> None:
    shown = slurm(tmp_path, "--config=c.py", SLURM_NODES="4", DRY_RUN="1")
    assert shown == slurm(tmp_path, "--config=c.py", SLURM_NODES="4")
    (submit,) = shown
    wanted = {"--nodes=4", "--ntasks-per-node=8", "--requeue", "--signal=TERM@120"}
    assert wanted <= set(submit) and submit[-1] == "--config=c.py"


@pytest.mark.parametrize(("code", "again"), [(0, False), (2, False), (75, True), (137, True)])
def test_slurm_job_asks_for_another_try(tmp_path: Path, code: int, again: bool) -> None:
    called = slurm(tmp_path, "--config=c.py", code=code, SLURM_JOB_ID="7")
    assert called[0][0] == "srun" and called[0][-1] == "--config=c.py"
    assert called[1:] == ([["scontrol", "requeue", "7"]] if again else [])


# --- images ---


@pytest.mark.parametrize("name", ["tpu", "cuda"])
def test_images_copy_what_is_here_and_pin_jax(name: str) -> None:
    text = Path(f"launch/docker/{name}.Dockerfile").read_text()
    pinned = re.search(r"^jax==(\S+)", Path("requirements.txt").read_text(), re.M)
    assert pinned is not None and re.search(rf"jax\[{name}\d*\]=={pinned[1]}\"", text)
    kept = {line[1:] for line in Path(".dockerignore").read_text().split() if line[0] == "!"}
    copied = re.findall(r"^COPY (\S+)", text, re.M)
    assert copied and all(Path(source).exists() and source in kept for source in copied)
