"""configs/audit.py from the command line: one page, and the defences as arms."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from tests.evaluation.judges_at_work import running_server, write_judge
from tests.jobs.analysis import TEXTS, make_analysis_inputs
from tests.jobs.inputs import CAPTIONS, read_jsonl, write_jsonl
from tga_jax.main import main


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that transformers wrote, questions about images, and texts."""
    return make_analysis_inputs(tmp_path_factory.mktemp("inputs"))


def audit(inputs: Path, workdir: Path, *more: str, variant: str = "") -> int:
    """The exit code."""
    config = f"configs/audit.py:{variant}" if variant else "configs/audit.py"
    flags = [
        f"--config={config}", f"--workdir={workdir}",
        f"--config.model.checkpoint={inputs / 'checkpoint'}",
        f"--config.data.image_dir={inputs / 'images'}", "--config.data.buckets=(256,)",
        f"--config.evaluate.benchmarks=questions:{inputs}/q.jsonl,texts:{inputs}/texts.jsonl",
        "--config.generate.max_new_tokens=4", "--config.evaluate.judges=strict,gcg", *more,
    ]  # fmt: skip
    return main(["tga_jax", *flags])


def other_checkpoint(inputs: Path) -> Path:
    """The same model with one weight changed."""
    folder = Path(shutil.copytree(inputs / "checkpoint", inputs / "other"))
    path = next(folder.glob("*.safetensors"))
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("lm_head.weight"))
    save_file(weights | {name: -weights[name]}, path, metadata={"format": "pt"})
    return folder


def test_one_command_answers_three_questions_on_one_page(inputs: Path, tmp_path: Path) -> None:
    assert audit(inputs, tmp_path / "run") == 0
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    for section in ("figures", "scenes", "examples", "layers", "judges", "provenance"):
        assert f'<section id="{section}"' in page
    rows = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())
    found = {(row["benchmark"], row["metric"]) for row in rows}
    assert {("questions", "dsr"), ("texts", "dsr"), ("texts", "over_refusal")} <= found
    assert (
        "In checkpoint there are no safety layers: at no layer is an apology token the one" in page
    )
    assert "At the last layer an apology token comes first for" in page
    assert 'class="band arm1"' in page


def test_an_audit_of_ability_alone_ends_with_its_page(
    inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"question_id": i, "image": f"{i}.png", "text": "What is it?", "label": "ball"}
        for i in range(3)
    ]
    write_jsonl(tmp_path / "plain.jsonl", rows)
    plain = f"questions:{tmp_path}/plain.jsonl"
    assert audit(inputs, tmp_path / "run", f"--config.evaluate.benchmarks={plain}") == 0
    assert "no question says whether it is harmful; skipped" in capfd.readouterr().err
    assert "| Right answers" in (tmp_path / "run" / "report" / "tables.md").read_text()
    assert audit(inputs, tmp_path / "other", f"--config.analyze.benchmarks={plain}") == 2
    assert "nothing to analyse" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("key", "job", "more"),
    [
        ("evaluate.benchmarks", "evaluate", ""),
        ("evaluate.development", "evaluate", "--config.evaluate.defence=steering"),
        ("analyze.benchmarks", "analyze", ""),
        ("oracle.benchmarks", "oracle", ""),
    ],
)
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("textx:a.csv", "'textx:a.csv': there is no kind 'textx'"),
        ("a.csv", "'a.csv': write it as KIND:PATH"),
        ("texts:a.csv, texts:b.csv", "two benchmarks are called 'texts'"),
        ("texts:a.csv?control=x", "texts: control='x' is no benchmark of this run"),
    ],
)
def test_a_malformed_list_of_benchmarks_names_its_own_key(
    inputs: Path, tmp_path: Path, key: str, job: str, more: str, text: str, problem: str,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    flags = [f"--config.{key}={text}", f"--job={job}", *([more] if more else [])]
    assert audit(inputs, tmp_path, *flags) == 2
    assert f"error: config.{key}: {problem}" in capfd.readouterr().err


@pytest.mark.slow
def test_every_defence_is_asked_the_same_and_stands_in_one_table(
    inputs: Path, tmp_path: Path
) -> None:
    names = ("undefended", "safety-prompt", "ecso", "aligned")
    only = f"--config.experiment.only={','.join(names)}"
    aligned = f"--config.experiment.arms.aligned.model.checkpoint={other_checkpoint(inputs)}"
    assert audit(inputs, tmp_path, only, aligned, variant="defences") == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert f"undefended is {inputs}/checkpoint" in page and f"aligned is {inputs}/other" in page
    assert "undefended" in page.split('<p class="verdict">')[1].split("</p>")[0]
    tables = (tmp_path / "report" / "tables.md").read_text()
    arms = tables.split("All models")[1].split("**")[1]
    asked, systems = [], []
    for name in names:
        assert f"| {name} |" in arms
        folder = tmp_path / "arms" / name / "evaluate"
        asked.append(
            [line["prompt"] for line in read_jsonl(folder / "questions" / "answers.jsonl")]
        )
        row = json.loads((folder / "metrics.json").read_text())[0]
        systems.append((row["settings"]["system"], row["settings"]["defence"] is not None))
    assert asked[0] == asked[1] == asked[2] == asked[3]
    assert "Sorry, I cannot help you." in systems[1][0]
    assert systems[0][0] == systems[2][0] == systems[3][0] != systems[1][0]
    assert [defended for _, defended in systems] == [False, False, True, False]


def test_models_judge_beside_the_rules(inputs: Path, tmp_path: Path) -> None:
    write_judge(tmp_path / "judge")
    with running_server() as server:
        flags = [
            "--job=evaluate,report", "--config.evaluate.judges=strict,endpoint,local",
            f"--config.evaluate.endpoint.url={server.url}",
            "--config.evaluate.endpoint.model=judge-1",
            f"--config.evaluate.local.folder={tmp_path / 'judge'}",
            "--config.evaluate.local.kind=llm",
        ]  # fmt: skip
        assert audit(inputs, tmp_path / "run", *flags) == 0
        assert len(server.seen) == 2 * len(CAPTIONS) + len(TEXTS)
    rows = json.loads((tmp_path / "run" / "evaluate" / "metrics.json").read_text())
    agreed = [row for row in rows if row["metric"] == "agreement_with_endpoint"]
    assert {row["benchmark"] for row in agreed} == {"questions", "texts"}
    assert all(row["judges"] == ["strict", "endpoint"] for row in agreed)
    assert any(row["metric"] == "dsr_by_local" or row["metric"] == "no_verdict_by_local"
               for row in rows)  # fmt: skip
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert "endpoint" in page.split('<section id="judges"')[1]
