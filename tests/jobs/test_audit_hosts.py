"""Jobs index, retrieve, evaluate and analyze on several processes, against one process's files."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launch.rehearse import Pod, Started
from tests.evaluation.judges_at_work import Server, running_server
from tests.hf.test_clip_folder import _save_clip
from tests.jobs.analysis import command, make_analysis_inputs
from tests.jobs.inputs import CAPTIONS, read_jsonl, row, without_seconds, write_jsonl
from tga_jax.main import main

pytestmark = pytest.mark.slow
DEVICES = 4  # of a pod, whose mesh shards the model over all of them (config.mesh.fsdp=-1)
JOBS = "index,retrieve,evaluate,analyze"
QUESTIONS, TEXTS = 12, 5
TOLERANCE = 2e-4  # sums over other shards are added in another order


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA, a CLIP, a corpus, questions, and samples of which one has a broken image."""
    folder = make_analysis_inputs(tmp_path_factory.mktemp("inputs"))
    _save_clip(folder / "clip")
    (folder / "corpus.txt").write_text("a dog\nthe red bus\na blue street\nred dog\nbus\na photo\n")
    asked = [
        {"question_id": f"{i}-{text}", "image": f"{i}.png", "text": text, "harmful": i in (0, 3),
         "image_caption": f"{caption} on grass" if i == 3 else caption, "label": "a cat"}
        for i, caption in enumerate(CAPTIONS) for text in ("What is it?", "Say.", "Say it.")
    ]  # fmt: skip
    write_jsonl(folder / "q.jsonl", asked)
    (folder / "images" / "broken.png").write_bytes(b"no image")
    turns = [("human", "<image>\nWhat is it?"), ("gpt", "A thing.")]
    names = ("0", "1", "broken", "2", "3")  # of the first batch the third row is another process's
    rows = [row(f"s{name}", turns, image=f"{name}.png", image_caption=name) for name in names]
    (folder / "looked_up.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A judge that costs money; it remembers what it was asked."""
    with running_server() as running:
        yield running


def flags(inputs: Path, server: Server, workdir: Path, *, job: str = JOBS) -> list[str]:
    """The command line."""
    spec = (
        f"questions:{inputs}/q.jsonl,texts:{inputs}/texts.jsonl,"
        f"texts:{inputs}/texts.jsonl?wrap=figstep"
    )
    more = (
        f"--config.analyze.benchmarks={spec.rpartition(',')[0]}",
        f"--config.evaluate.benchmarks={spec}", "--config.evaluate.defence=ecso",
        "--config.evaluate.judges=strict,gcg,endpoint,llava",
        f"--config.evaluate.llava_judge.checkpoint={inputs}/checkpoint",
        "--config.evaluate.llava_judge.max_new_tokens=2", "--config.evaluate.endpoint.model=j",
        f"--config.evaluate.endpoint.url={server.url}", "--config.generate.max_new_tokens=4",
        "--config.generate.batch_size=4", "--config.analyze.batch_size=4",
        f"--config.retrieval.clip={inputs}/clip", "--config.retrieval.batch_size=4",
        f"--config.retrieval.corpus={inputs}/corpus.txt", "--config.finetune.steps=1",
        f"--config.retrieval.data={inputs}/looked_up.json", "--config.data.max_bad_fraction=0.2",
        "--config.finetune.accumulate=1",
    )  # fmt: skip
    return command(inputs, workdir, *more, job=job)


def start(
    inputs: Path, server: Server, workdir: Path, processes: int, *, job: str = JOBS
) -> Started:
    """A pod."""
    argv = flags(inputs, server, workdir, job=job)[1:]
    return Pod(processes, DEVICES, argv).start(stderr=subprocess.PIPE)


def finish(started: Started) -> list[str]:
    """What each process said, once all have ended well."""
    said = [process.communicate(timeout=600)[1] for process in started.processes]
    assert set(started.wait()) == {0}, said
    return said


@pytest.fixture(scope="module")
def one(inputs: Path, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of one process on one device, which has trained the model, too."""
    workdir = tmp_path_factory.mktemp("one")
    assert main(flags(inputs, server, workdir, job=f"finetune,{JOBS}")) == 0
    return workdir


def with_trained(one: Path, workdir: Path) -> Path:
    """A workdir with the same trained model and nothing else."""
    shutil.copytree(one / "finetune", workdir / "finetune")
    return workdir


@pytest.fixture(scope="module")
def two(
    inputs: Path, server: Server, one: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str], list[dict[str, Any]]]:
    """The workdir of two processes, what they said, and what the costly judge was asked."""
    workdir, asked = with_trained(one, tmp_path_factory.mktemp("two")), len(server.seen)
    said = finish(start(inputs, server, workdir, 2))
    return workdir, said, server.seen[asked:]


def files_of(workdir: Path, folders: tuple[str, ...]) -> dict[str, bytes]:
    """Contents of the jobs' results by name, without the workdir's name.

    Signatures of finished work are left out: the times at which images were drawn are in them; so
    is how long questions took.
    """
    paths = [path for name in folders for path in sorted((workdir / name).rglob("*"))]
    paths = [path for path in paths if path.is_file() and not path.name.endswith(".done.json")]
    named = {str(path.relative_to(workdir)): path.read_bytes() for path in paths}
    if "retrieve" in folders:
        named["retrieved.jsonl"] = (workdir / "retrieved.jsonl").read_bytes()
    named = {name: data for name, data in named.items() if not name.endswith("seconds.json")}
    for name in named:
        if name.endswith("/retrieved.partial.jsonl"):  # its signature is its first line
            named[name] = named[name].partition(b"\n")[2]
    if "evaluate/metrics.json" in named:
        named["evaluate/metrics.json"] = without_seconds(named["evaluate/metrics.json"])
    return {name: data.replace(str(workdir).encode(), b"") for name, data in named.items()}


def values(name: str, data: bytes) -> Any:
    """A file's content as JSON values; a file of another kind as its digest."""
    if name.endswith(".jsonl"):
        return [json.loads(line) for line in data.split(b"\n") if line]
    if name.endswith(".json"):
        return json.loads(data)
    if name.endswith(".csv"):
        return [list(map(number, line)) for line in csv.reader(io.StringIO(data.decode()))]
    return hashlib.sha256(data).hexdigest()


def number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def assert_alike(found: Any, wanted: Any, where: str) -> None:
    """Equal, but for the last digits of numbers."""
    if isinstance(wanted, float) and isinstance(found, int | float):
        assert found == pytest.approx(wanted, abs=TOLERANCE, rel=TOLERANCE), where
    elif isinstance(wanted, dict) and isinstance(found, dict):
        assert found.keys() == wanted.keys(), where
        for key, value in wanted.items():
            assert_alike(found[key], value, f"{where} {key}")
    elif isinstance(wanted, list) and isinstance(found, list):
        assert len(found) == len(wanted), where
        for place, value in enumerate(wanted):
            assert_alike(found[place], value, f"{where} {place}")
    else:
        assert found == wanted, where


def without_digests(value: Any) -> Any:
    """Without hashes of embeddings, whose last digits may differ, and of drawn images' times."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in ("embeddings", "index", "scann_files")}
        return {key: without_digests(inner) for key, inner in kept.items()}
    return [without_digests(inner) for inner in value] if isinstance(value, list) else value


def test_two_processes_say_what_one_says(one: Path, two: tuple) -> None:
    workdir, said, _ = two
    folders = ("index", "retrieve", "evaluate", "analyze")
    found, wanted = files_of(workdir, folders), files_of(one, folders)
    assert found.keys() == wanted.keys()
    texts = [name for name in wanted if name.endswith((".json", ".jsonl", ".csv"))]
    assert {"evaluate/metrics.json", "analyze/layers.csv", "retrieved.jsonl"} <= {*texts}
    for name in texts:
        new, old = (without_digests(values(name, one[name])) for one in (found, wanted))
        assert_alike(new, old, name)
    tags = {line["model_id"] for line in values("x.jsonl", found["evaluate/texts/answers.jsonl"])}
    assert tags == {"checkpoint-finetune-1"}
    ours = [line for line in said[1].splitlines() if "Gloo" not in line]
    assert not ours  # the first alone talks


def test_the_costly_judge_is_asked_once_for_each_answer(two: tuple) -> None:
    assert len(two[2]) == QUESTIONS + 2 * TEXTS


def test_an_image_that_another_process_reads_in_vain_is_said_and_left_out(two: tuple) -> None:
    workdir, said, _ = two
    assert "skipped: record sbroken: image" in said[0]
    assert [line["id"] for line in read_jsonl(workdir / "retrieved.jsonl")] == [
        "s0", "s1", "s2", "s3"
    ]  # fmt: skip


def test_four_processes_write_the_same_bytes(
    inputs: Path, server: Server, one: Path, two: tuple, tmp_path: Path
) -> None:
    workdir = with_trained(one, tmp_path)
    finish(start(inputs, server, workdir, 4))
    folders = ("index", "retrieve", "evaluate", "analyze")
    found, wanted = (files_of(folder, folders) for folder in (workdir, two[0]))
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []


def test_killed_on_two_and_on_four_it_goes_on_with_one(
    inputs: Path, server: Server, one: Path, two: tuple, tmp_path: Path
) -> None:
    """Every answer is kept, and the end is that of an undisturbed run."""
    workdir = with_trained(one, tmp_path)
    shutil.copytree(two[0] / "index", workdir / "index")
    partial, before = workdir / "evaluate" / "questions" / "answers.partial.jsonl", 0
    for processes, lines in ((2, 2), (4, 1)):
        started = start(inputs, server, workdir, processes, job="evaluate")
        said = kill_after(started, "evaluate ", lines)
        if before:
            assert f"questions: {QUESTIONS - before} of {QUESTIONS} questions" in said
        rows = read_jsonl(partial)[1:]
        assert len(rows) >= max(before, 4)
        before = len(rows)
    finish(start(inputs, server, workdir, 1, job="evaluate"))
    found, wanted = (files_of(folder, ("evaluate",)) for folder in (workdir, two[0]))
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []


def test_index_and_retrieve_killed_on_two_and_on_four_go_on_with_one(
    inputs: Path, server: Server, two: tuple, tmp_path: Path
) -> None:
    """Embeddings are kept by whole batches, of which no line of progress comes twice."""
    jobs, said = "index,retrieve", []
    for processes, line in ((2, "embeddings.npy 4/6"), (4, "queries.npy 4/5")):
        started = start(inputs, server, tmp_path, processes, job=jobs)
        said.append(kill_after(started, line, 1))
    said += finish(start(inputs, server, tmp_path, 1, job=jobs))
    for line in ("embeddings.npy 4/6", "embeddings.npy 6/6", "queries.npy 4/5", "queries.npy 5/5"):
        assert sum(text.count(line) for text in said) == 1, line
    folders = ("index", "retrieve")
    found, wanted = (files_of(folder, folders) for folder in (tmp_path, two[0]))
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []


def kill_after(started: Started, begin: str, lines: int) -> str:
    """Kills all at the first one's `lines`-th line that begins so; what it said until then."""
    first, said = started.processes[0], []
    assert first.stderr is not None
    for line in first.stderr:
        said.append(line)
        if sum(one.startswith(begin) for one in said) == lines:
            break
    started.kill()
    for process in started.processes:
        process.communicate()
    assert set(started.wait()) == {-9}, "".join(said)
    return "".join(said)
