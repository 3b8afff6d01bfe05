"""The evaluate job from the command line: its files, a killed run, and two models side by side."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from tests.jobs.inputs import Killed, arguments, make_inputs, read_jsonl, write_jsonl
from tga_jax.data.templates import SYSTEM_TEXTS
from tga_jax.evaluation import examinee
from tga_jax.evaluation import verdicts as evaluate_answers
from tga_jax.evaluation.items import EvalItem
from tga_jax.evaluation.judges import GCG
from tga_jax.evaluation.llava_model import LlavaReply
from tga_jax.evaluation.model_judges import ModelJudge
from tga_jax.evaluation.profiles import PAPER_REQUEST
from tga_jax.evaluation.strict import refuses
from tga_jax.main import main
from tga_jax.run.work import Work

pytestmark = pytest.mark.parity
KEYS = {"benchmark", "scene", "metric", "value", "count", "interval", "model", "settings"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and benign stand-ins for four benchmarks."""
    folder = make_inputs(tmp_path_factory.mktemp("inputs"))
    rows = [
        {"question_id": i, "image": f"{i % 4}.png", "text": "What is it?" + " Say." * (i % 3),
         "harmful": i % 2 == 0, "label": "a cat", "category": "ab"[i // 4]}
        for i in range(8)
    ]  # fmt: skip
    write_jsonl(folder / "q.jsonl", rows)
    texts = [{"id": f"t{i}", "prompt": f"Hello {i}.", "label": "safe"} for i in range(3)]
    write_jsonl(folder / "texts.jsonl", [*texts, {"id": "u", "prompt": "Hi.", "label": "unsafe"}])
    for scene, names in {"cup": ("0.png", "1.png"), "sea": ("3.png",)}.items():
        for name in names:
            (folder / "scenes" / scene).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / "images" / name, folder / "scenes" / scene / name)
    return folder


def command(inputs: Path, workdir: Path, benchmarks: str, *more: str) -> list[str]:
    """Its command line, with a small batch."""
    flags = [
        f"--config.evaluate.benchmarks={benchmarks}", "--config.generate.max_new_tokens=6",
        "--config.generate.batch_size=3", "--config.data.buckets=(256,)", *more,
    ]  # fmt: skip
    return arguments(inputs, workdir, *flags, job="evaluate")


def all_benchmarks(inputs: Path) -> str:
    return (
        f"questions:{inputs}/q.jsonl,texts:{inputs}/texts.jsonl,scenes:{inputs}/scenes,"
        f"texts:{inputs}/texts.jsonl?wrap=figstep"
    )


@pytest.fixture(scope="module")
def run(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir after an evaluation under the paper's profile with two judges."""
    workdir = tmp_path_factory.mktemp("run")
    flags = ("--config.evaluate.profile=paper", "--config.evaluate.judges=strict,gcg")
    assert main(command(inputs, workdir, all_benchmarks(inputs), *flags)) == 0
    return workdir


def answers_of(workdir: Path, name: str) -> list[dict[str, Any]]:
    return read_jsonl(workdir / "evaluate" / name / "answers.jsonl")


def test_neither_the_day_nor_the_versions_decide_whether_answers_are_used_again(run: Path) -> None:
    done = json.loads((run / "evaluate" / "questions" / "answers.done.json").read_text())
    assert "checkpoint" in done and not {"source", "date", "versions"} & done.keys()


def test_answers_that_were_changed_by_hand_are_refused(
    inputs: Path, run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    workdir = Path(shutil.copytree(run, tmp_path / "run"))
    path = workdir / "evaluate" / "texts" / "answers.jsonl"
    line = command(
        inputs, workdir, f"texts:{inputs}/texts.jsonl", "--config.evaluate.profile=paper"
    )
    rows = read_jsonl(path)
    assert main(line) == 0  # with other judges, whose verdicts change the file
    assert main(line) == 0
    write_jsonl(path, [{**rows[0], "text": "Sorry, I cannot help."}, *rows[1:]])
    assert main(line) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert f"{path}: was changed after it had been written" in error and "delete it" in error
    assert "--job=judge --config.judge.answers=" in error
    path.unlink()
    assert main(line) == 0
    assert [row["text"] for row in read_jsonl(path)] == [row["text"] for row in rows]


def test_every_row_says_what_produced_it(inputs: Path, run: Path) -> None:
    rows = json.loads((run / "evaluate" / "metrics.json").read_text())
    assert {row["benchmark"] for row in rows} == {"questions", "texts", "scenes", "texts-figstep"}
    for row in rows:
        assert KEYS <= row.keys() and row["model"] == "checkpoint-start"
        low, high = row["interval"]
        assert low <= row["value"] <= high and row["count"] > 0
        settings = row["settings"]
        assert len(settings["checkpoint"]) == 16 and settings["template"] == "vicuna_v1"
        assert settings["profile"] == "paper" and settings["system"].endswith(PAPER_REQUEST)
        assert settings["retrieved"] is False and settings["decoding"]["temperature"] == 0
        assert settings["source"] == str(inputs / "checkpoint")
        assert datetime.date.fromisoformat(settings["date"]) <= datetime.date.today()
        assert settings["versions"].keys() == {"tga_jax", "jax", "transformers"}
        by_gcg = row["metric"].endswith(("_by_gcg", "_with_gcg"))
        assert settings["judge"]["name"] == ("gcg" if by_gcg else "strict")
        assert len(settings["judge"]["hash"]) == 16 and settings["benchmark"]["path"]
    metrics = {(row["benchmark"], row["scene"], row["metric"]): row for row in rows}
    assert metrics["questions", "all", "dsr"]["count"] == 4
    assert metrics["questions", "b", "over_refusal"]["count"] == 2
    assert metrics["scenes", "cup", "dsr"]["count"] == 2
    for metric in ("auc", "accuracy", "exact_match"):
        assert ("questions", "all", metric) in metrics
    assert ("questions", "all", "agreement_with_gcg") in metrics
    assert metrics["questions", "all", "auc"]["control"] == {"name": "own", "count": 4}
    # the scenes are harmful alone, and nothing is borrowed for them
    assert ("scenes", "all", "auc") not in metrics
    assert "no harmless items" in metrics["scenes", "all", "no_control"]["why"]


def test_answers_and_margins_are_those_of_transformers(inputs: Path, run: Path) -> None:
    processor = AutoProcessor.from_pretrained(inputs / "checkpoint")
    model = LlavaForConditionalGeneration.from_pretrained(inputs / "checkpoint").eval()
    rows = json.loads((run / "evaluate" / "metrics.json").read_text())
    words = set(rows[0]["settings"]["apologies"])
    vocabulary = range(model.config.text_config.vocab_size)
    sorry = np.array([processor.tokenizer.decode([token]) in words for token in vocabulary])
    system = f"{SYSTEM_TEXTS['vicuna_v1']} {PAPER_REQUEST}"
    for name in ("questions", "texts", "scenes", "texts-figstep"):
        for answer in answers_of(run, name)[-2:]:
            about = answer["metadata"]
            mark = "<image>\n" if about["image"] else ""
            prompt = f"<s>{system} USER: {mark}{answer['prompt']} ASSISTANT:"
            image = None
            if about["image"]:
                image = Image.open(Path(about["image_dir"]) / about["image"]).convert("RGB")
            fed = processor(
                text=prompt, images=image, add_special_tokens=False, return_tensors="pt"
            )
            with torch.no_grad():
                logits = model(**fed).logits[0, -1].numpy()
                out = model.generate(**fed, max_new_tokens=6, do_sample=False)
            margin = logits[sorry].max() - logits[~sorry].max()
            np.testing.assert_allclose(about["margin"], margin, atol=2e-4)
            new = out[0, fed["input_ids"].shape[1] :]
            assert about["truncated"] == (processor.tokenizer.eos_token_id not in new.tolist())
            text = processor.decode(new, skip_special_tokens=True)
            assert answer["text"] == text.strip()
            verdicts = {"strict": refuses(text), "gcg": GCG.refuses(text)}
            assert about["verdicts"] == verdicts and about["refused"] == verdicts["strict"]


def test_answers_are_in_llavas_format_and_in_order(run: Path) -> None:
    answers = answers_of(run, "questions")
    assert [answer["question_id"] for answer in answers] == list(range(8))
    assert {frozenset(answer) for answer in answers} == {
        frozenset({"question_id", "prompt", "text", "answer_id", "model_id", "metadata"})
    }
    assert (run / "evaluate" / "questions" / "vlmevalkit.tsv").exists()
    samples = read_jsonl(run / "evaluate" / "questions" / "lmms_eval_samples.jsonl")
    assert [s["filtered_resps"] for s in samples] == [[a["text"]] for a in answers]


def test_again_with_another_judge_asks_the_model_nothing(
    inputs: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = tmp_path / "copy"
    shutil.copytree(run, workdir)
    drawn = [f"--config.evaluate.{flag}" for flag in ("profile=paper", "judges=vlguard")]
    monkeypatch.setattr(
        examinee, "load_params", lambda *args, **kwargs: pytest.fail("model loaded")
    )
    spec = f"questions:{inputs}/q.jsonl,texts:{inputs}/texts.jsonl"
    assert main(command(inputs, workdir, spec, *drawn)) == 0
    for before, after in zip(answers_of(run, "texts"), answers_of(workdir, "texts"), strict=True):
        assert before["text"] == after["text"]
        assert before["metadata"]["margin"] == after["metadata"]["margin"]
        assert list(after["metadata"]["verdicts"]) == ["vlguard"]


def test_a_killed_run_goes_on(
    inputs: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir, append, rows = tmp_path / "killed", Work.append, []

    def killed_at_the_third(self: Work, new: list[Any]) -> None:
        if len(rows) == 2:
            raise Killed
        rows.append(new)
        append(self, new)

    flags = ("--config.evaluate.profile=paper", "--config.evaluate.judges=strict,gcg")
    line = command(inputs, workdir, f"questions:{inputs}/q.jsonl", *flags)
    with monkeypatch.context() as patch:
        patch.setattr(Work, "append", killed_at_the_third)
        with pytest.raises(Killed):
            main(line)
    assert not (workdir / "evaluate" / "questions" / "answers.jsonl").exists()
    after: list[Any] = []
    monkeypatch.setattr(Work, "append", lambda self, new: (after.append(new), append(self, new)))
    assert main(line) == 0
    assert [len(new) for new in rows] == [3, 3] and [len(new) for new in after] == [2]
    for one, other in zip(answers_of(workdir, "questions"), answers_of(run, "questions")):  # noqa: B905
        assert one["text"] == other["text"]
        assert one["metadata"]["margin"] == pytest.approx(other["metadata"]["margin"], abs=1e-4)


def test_what_is_missing_is_said_and_is_an_error_until_it_is_accepted(
    inputs: Path, run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "copy"
    shutil.copytree(run, workdir)
    spec = f"scenes:{inputs}/scenes?expect=cup+car,pope:{inputs}/pope"
    line = command(inputs, workdir, spec, "--config.evaluate.profile=paper")
    before = (workdir / "evaluate" / "metrics.json").read_bytes()
    assert main(line) == 2  # before any question is asked
    error = capfd.readouterr().err
    assert error.splitlines()[-1].startswith("error: missing from scenes, pope")
    assert (workdir / "evaluate" / "metrics.json").read_bytes() == before
    assert main([*line, "--config.evaluate.partial=true"]) == 0
    error = capfd.readouterr().err
    assert "MISSING in scenes car" in error and f"{inputs}/pope: no such file or folder" in error
    rows = json.loads((workdir / "evaluate" / "metrics.json").read_text())
    assert [(r["benchmark"], r["scene"]) for r in rows if r["metric"] == "missing"] == [
        ("scenes", "all"), ("scenes", "car"), ("pope", "all"),
    ]  # fmt: skip
    assert any(row["metric"] == "dsr" for row in rows)


def test_two_runs_side_by_side(inputs: Path, run: Path, tmp_path: Path) -> None:
    workdir, spec = tmp_path / "other", f"questions:{inputs}/q.jsonl"
    line = command(inputs, workdir, spec, f"--config.evaluate.compare={run}")
    assert main(line) == 0
    rows = json.loads((workdir / "evaluate" / "metrics.json").read_text())
    assert {row["settings"]["profile"] for row in rows} == {"none"}
    paired = [row for row in rows if row["metric"].endswith("_difference")]
    assert {row["metric"] for row in paired} == {
        "dsr_difference", "over_refusal_difference", "accuracy_difference",
    }  # fmt: skip
    for row in paired:
        assert 0 <= row["p_value"] <= 1 and row["compared_with"] == "checkpoint-start"
    missing = line[:-1] + [f"--config.evaluate.compare={tmp_path / 'nowhere'}"]
    assert main(missing) == 2


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.evaluate.benchmarks=", "no benchmarks: set config.evaluate.benchmarks"),
        ("--config.evaluate.judges=oracle", "there is no judge 'oracle'"),
        ("--config.evaluate.judges=endpoint", "config.evaluate.endpoint.url"),
        ("--config.evaluate.judges=local", "config.evaluate.local.folder=''"),
        ("--config.evaluate.profile=custom", "needs config.evaluate.system"),
        ("--config.evaluate.apologies=()", "config.evaluate.apologies=()"),
    ],
)
def test_mistakes_are_one_line(
    inputs: Path, tmp_path: Path, flag: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    line = command(inputs, tmp_path, f"texts:{inputs}/texts.jsonl", flag)
    assert main(line) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error


def test_a_llava_judges_with_images_and_is_not_asked_again(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint = "--config.evaluate.llava_judge.checkpoint="
    flag = "--config.evaluate.judges=strict,llava"
    line = command(inputs, tmp_path, f"questions:{inputs}/q.jsonl", flag)
    assert main([*line, f"{checkpoint}{tmp_path}/none"]) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: judge llava: ") and "none' is not a folder" in error
    assert not (tmp_path / "evaluate").exists()

    monkeypatch.setattr(evaluate_answers, "JUDGED_AT_A_TIME", 4)
    asked: list[Any] = []

    def reply(self: LlavaReply, chats: Any) -> list[str]:
        asked.append(chats)
        if len(asked) == 2:
            raise Killed
        image = [chat[0]["content"][0]["path"] for chat in chats]
        return ['{"rating": "Unsafe"}' if path.endswith("0.png") else "Hm." for path in image]

    monkeypatch.setattr(LlavaReply, "__call__", reply)
    line.append(f"{checkpoint}{inputs}/checkpoint")
    with pytest.raises(Killed):
        main(line)
    assert main(line) == 0 and [len(chats) for chats in asked] == [2, 2, 2]  # of 4, 2 are harmful
    folder = tmp_path / "evaluate"
    verdicts = read_jsonl(folder / "questions" / "verdicts-llava.jsonl")
    assert [line["refused"] for line in verdicts] == [False, *[None] * 3] * 2
    rows = json.loads((folder / "metrics.json").read_text())
    found = {row["metric"]: row["value"] for row in rows if row["scene"] == "all"}
    assert found["asr_by_llava"] == 1 and found["no_verdict_by_llava"] == 2
    assert "over_refusal_by_llava" not in found
    assert main(line) == 0 and len(asked) == 3


def test_costly_verdicts_are_kept_and_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def reply(chats: Any) -> list[str]:
        asked.append(len(chats))
        if len(asked) == 2:
            raise Killed
        return ["yes" if "Answer: sorry" in str(chat) else "no" for chat in chats]

    monkeypatch.setattr(evaluate_answers, "JUDGED_AT_A_TIME", 4)
    items = [EvalItem(i, "?", harmful=True) for i in range(6)]
    texts = ["sorry", "a", "b", "sorry", "c", "sorry"]
    judge = ModelJudge("m", "llm", "m", reply)
    with pytest.raises(Killed):
        evaluate_answers.verdicts_of(judge, items, texts, tmp_path)
    for _ in range(2):  # the second time from the file
        verdicts = evaluate_answers.verdicts_of(judge, items, texts, tmp_path)
        assert verdicts == [text == "sorry" for text in texts]
    assert asked == [4, 2, 2]
    evaluate_answers.verdicts_of(judge, items, ["other", *texts[1:]], tmp_path)
    assert asked == [4, 2, 2, 4, 2]
