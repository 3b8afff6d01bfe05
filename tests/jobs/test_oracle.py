"""Job `oracle`: its files, and its users' mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.jobs.analysis import command, make_analysis_inputs
from tests.jobs.inputs import read_jsonl, write_jsonl
from tga_jax.main import main

pytestmark = pytest.mark.parity
SMALL = ["--config.oracle.steps=2", "--config.oracle.tokens=3", "--config.oracle.batch_size=3"]
MATCHES = ("answer-centred", "tokens")


def oracle(inputs: Path, workdir: Path, *more: str) -> list[str]:
    return command(
        inputs, workdir, *SMALL, f"--config.oracle.matches={','.join(MATCHES)}", *more, job="oracle"
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and questions about captioned images of both kinds."""
    return make_analysis_inputs(tmp_path_factory.mktemp("inputs"))


def test_every_match_has_cosines_and_refusals(
    inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(oracle(inputs, tmp_path)) == 0
    folder = tmp_path / "oracle"
    found = json.loads((folder / "oracle.json").read_text())
    assert [row["match"] for row in found["matches"]] == ["caption", "random", *MATCHES]
    assert found["settings"]["tokens"] == 3 and found["settings"]["layers"] == "1-3"
    for row in found["matches"]:
        for kind in ("harmful", "benign"):
            figures = row[kind]
            assert figures["count"] <= 4 and len(figures["interval"]) == 2
            if row["match"] in MATCHES:
                assert len(figures["cosine"]) == 3
                assert all(-1 <= value <= 1 for value in figures["cosine"])
            else:
                assert figures["cosine"] is None
            means = figures["means_centred"]
            assert means is None if row["match"] == "caption" else len(means) == 3
            far = figures["distance"]
            assert far is None if row["match"] == "caption" else far > 0
    said = capfd.readouterr().err
    assert said.count("distance to the model's own embeddings") == 1 + len(MATCHES)
    assert "(below 0.8 on a layer: no answer yet" in said  # after two steps
    lines = read_jsonl(folder / "answers.jsonl")
    assert len(lines) == 8 * 4 and {line["match"] for line in lines} == {
        "caption", "random", *MATCHES
    }  # fmt: skip
    capfd.readouterr()
    twice = f"--config.oracle.matches={','.join((*MATCHES, MATCHES[0]))}"
    assert main(oracle(inputs, tmp_path, twice)) == 0
    assert "finished before" in capfd.readouterr().err
    assert main(oracle(inputs, tmp_path, "--config.generate.temperature=0.5")) == 0
    assert "finished before" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--config.oracle.matches=mean,max", "'max'"),
        ("--config.oracle.layers=2-9", "config.oracle.layers='2-9'"),
        ("--config.oracle.steps=0", "config.oracle.steps=0"),
        ("--config.oracle.learning_rate=0.0", "config.oracle.learning_rate=0.0 must be above 0"),
        ("--config.oracle.learning_rate=1e30", "the match 'answer-centred' diverged"),
        ("--config.data.max_length=20", "leave no room for an answer"),
    ],
)
def test_mistakes_are_one_line(
    inputs: Path, tmp_path: Path, flag: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(oracle(inputs, tmp_path, flag)) == 2
    assert said in capfd.readouterr().err.splitlines()[-1]


def test_without_a_match_the_caption_and_chance_are_asked(
    inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(oracle(inputs, tmp_path, "--config.oracle.matches=")) == 0
    found = json.loads((tmp_path / "oracle" / "oracle.json").read_text())
    assert [row["match"] for row in found["matches"]] == ["caption", "random"]
    assert "no answer yet" not in capfd.readouterr().err


def test_both_kinds_of_image_are_needed(
    inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [row for row in read_jsonl(inputs / "q.jsonl") if not row["harmful"]]
    write_jsonl(tmp_path / "benign.jsonl", rows)
    flag = f"--config.oracle.benchmarks=questions:{tmp_path}/benign.jsonl?images={inputs}/images"
    assert main(oracle(inputs, tmp_path, flag)) == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert "harmful image with a caption" in said and f"of {len(rows)} questions" in said
    assert "0 are marked harmful" in said
