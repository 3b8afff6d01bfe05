"""Job caption on several hosts: disjoint parts, kills, and processes that JAX connects."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.jobs.inputs import make_inputs, read_jsonl, row
from tests.jobs.test_caption import command, count_answers
from tga_jax.captioning.log import CaptionLog, Part
from tga_jax.main import main

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three samples without a caption."""
    folder = make_inputs(tmp_path_factory.mktemp("inputs"))
    turns = [("human", "<image>\nWhat is it?"), ("gpt", "A thing.")]
    rows = [row(f"p{i}", turns, image=f"{i}.png") for i in (0, 2, 3)]
    (folder / "samples.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture(scope="module")
def run(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one host writes."""
    workdir = tmp_path_factory.mktemp("run")
    assert main(command(inputs, workdir)) == 0
    return workdir


def test_hosts_write_disjoint_parts_and_the_last_one_merges(inputs, run, tmp_path, capfd) -> None:
    for index in (2, 0, 1):
        assert not (tmp_path / "captions.jsonl").exists()
        assert main(command(inputs, tmp_path, f"--config.caption.shard={index}/3")) == 0
    assert "left to other hosts" in capfd.readouterr().err
    logs = [read_jsonl(tmp_path / f"caption/{i}-of-3.log.jsonl")[1:] for i in range(3)]
    assert [[row["image"] for row in log] for log in logs] == [["0.png"], ["2.png"], ["3.png"]]
    assert (tmp_path / "captions.jsonl").read_bytes() == (run / "captions.jsonl").read_bytes()


def test_another_number_of_hosts_repeats_nothing(inputs, run, tmp_path, monkeypatch) -> None:
    assert main(command(inputs, tmp_path, "--config.caption.shard=1/3")) == 0
    sizes = count_answers(monkeypatch)
    one = "--config.caption.batch_size=1"
    assert main(command(inputs, tmp_path, one)) == 0
    assert sizes == [1, 1]
    assert (tmp_path / "captions.jsonl").read_bytes() == (run / "captions.jsonl").read_bytes()


def test_a_log_keeps_whole_lines_of_its_own_settings(tmp_path: Path) -> None:
    log = CaptionLog(tmp_path, Part(0, 2), {"a": 1})
    log.append([{"image": "x", "bytes": 1, "text": "one\u2028line"}])
    log.append([{"image": "y", "bytes": 1, "error": "broken"}])
    other = CaptionLog(tmp_path, Part(1, 2), {"a": 1})
    other.append([{"image": "z", "bytes": None, "text": ""}])
    wanted = {("x", 1): "one\u2028line", ("y", 1): None, ("z", None): ""}
    assert other.known() == wanted
    with (tmp_path / "0-of-2.log.jsonl").open("a") as file:
        file.write('{"image": "w", ')
    assert other.known() == wanted
    again = CaptionLog(tmp_path, Part(0, 2), {"a": 1})
    again.append([{"image": "y", "bytes": 1, "text": "mended"}])
    assert again.known() == wanted | {("y", 1): "mended"}
    assert CaptionLog(tmp_path, Part(0, 2), {"a": 2}).known() == {}
    assert other.known() == {("z", None): ""}


def start(inputs: Path, workdir: Path, *more: str) -> subprocess.Popen:
    """A process; its many batches leave time to kill it."""
    flags = command(inputs, workdir, "--config.caption.batch_size=1", *more)[1:]
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    argv = [sys.executable, "-m", "tga_jax.main", *flags]
    return subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def many(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples that show 24 images."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "images").mkdir()
    turns = [("human", "<image>\nWhat is it?"), ("gpt", "A thing.")]
    for number in range(24):
        data = (inputs / f"images/{number % 4}.png").read_bytes()
        (folder / f"images/{number}.png").write_bytes(data)
    rows = [row(f"p{i}", turns, image=f"{i}.png") for i in range(24)]
    (folder / "samples.json").write_text(json.dumps(rows))
    return folder


def of_many(many: Path) -> list[str]:
    return [
        f"--config.data.path={many / 'samples.json'}", f"--config.data.image_dir={many / 'images'}"
    ]  # fmt: skip


@pytest.mark.slow
def test_hosts_killed_at_random_end_as_an_undisturbed_one(inputs, many, tmp_path) -> None:
    whole = tmp_path / "whole"
    assert main(command(inputs, whole, "--config.caption.batch_size=1", *of_many(many))) == 0
    wanted = (whole / "captions.jsonl").read_bytes()
    assert len(wanted.splitlines()) == 24
    rng, workdir, kills = random.Random(0), tmp_path / "killed", 0
    for doomed in (True, True, False):
        shards = [f"--config.caption.shard={i}/2" for i in (0, 1)]
        hosts = [start(inputs, workdir, *of_many(many), shard) for shard in shards]
        for host in hosts:
            killed = doomed and wait_for_captions(host, rng.randrange(2, 8))
            kills += killed
            _, error = host.communicate()
            assert killed or host.returncode == 0, error
    assert kills >= 2
    assert (workdir / "captions.jsonl").read_bytes() == wanted
    images = [
        row["image"] for p in workdir.glob("caption/*.log.jsonl") for row in read_jsonl(p)[1:]
    ]
    assert len(images) == len(set(images)) == 24


def wait_for_captions(host: subprocess.Popen, count: int) -> bool:
    """Kills a process after some captions; False where it ended before."""
    assert host.stderr is not None
    for line in host.stderr:
        if line.startswith(f"caption {count}/"):
            time.sleep(0.01)
            host.send_signal(signal.SIGKILL)
            return True
    return False


PROCESS = """
import sys, jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
from tga_jax.main import main
code = main(sys.argv[3:])
jax.distributed.shutdown()
sys.exit(code)
"""


@pytest.mark.slow
def test_two_connected_processes_share_the_work(inputs, many, tmp_path) -> None:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        address = f"localhost:{one.getsockname()[1]}"
    flags = command(inputs, tmp_path / "two", "--config.caption.batch_size=1", *of_many(many))
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, address, str(index), *flags],
            env=os.environ | {"JAX_PLATFORMS": "cpu"}, stderr=subprocess.PIPE, text=True,
        )
        for index in (0, 1)
    ]  # fmt: skip
    errors = [host.communicate()[1] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], errors
    assert main(command(inputs, tmp_path / "one", *of_many(many))) == 0
    wanted = (tmp_path / "one/captions.jsonl").read_bytes()
    assert (tmp_path / "two/captions.jsonl").read_bytes() == wanted
    logs = [read_jsonl(tmp_path / f"two/caption/{i}-of-2.log.jsonl")[1:] for i in (0, 1)]
    assert [len(log) for log in logs] == [12, 12]
