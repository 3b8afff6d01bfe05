"""The ECSO defence: which questions are asked again, with what, and what is kept of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.inputs import Killed, arguments, make_inputs, read_jsonl, write_jsonl
from tga_jax.config import base_config
from tga_jax.data.records import Question
from tga_jax.errors import UserError
from tga_jax.evaluation import ecso
from tga_jax.main import main
from tga_jax.run.answerer import Answerer, Reply
from tga_jax.run.work import Work

PROMPTS = ecso.Prompts.of(base_config().evaluate.ecso)
QUESTIONS = [
    Question(0, "a.png", "What is {answer}?", caption="a cup", retrieved="a cup of tea"),
    Question(1, "b.png", "What is it?"),
    Question(2, None, "Hello."),
]


class Model:
    """Answers by rote and remembers what it was asked."""

    def __init__(self, told: dict[int, str]) -> None:
        self.told, self.asked = told, list[tuple[str, int, Question]]()

    def ask(self, name: str, questions: Sequence[Question], rows: Sequence[int]) -> Any:
        self.asked += [(name, row, questions[row]) for row in rows]
        texts = {"tell": self.told, "caption": {0: "a gun", 1: "a cup"}, "answer": {0: "Sorry.",
                 1: "A cup."}}[name]  # fmt: skip
        return {row: Reply(texts[row], 0.5) for row in rows}


def test_only_flagged_images_are_answered_again_and_without_their_image() -> None:
    model = Model({0: "Yes, it is.", 1: "No."})
    first = {row: Reply(f"first {row}", -1.0) for row in range(3)}
    replies, lines = ecso.defend(model.ask, QUESTIONS, first, PROMPTS)
    assert replies == {0: Reply("Sorry.", 0.5), 1: first[1], 2: first[2]}
    assert [(name, row) for name, row, _ in model.asked] == [
        ("tell", 0), ("tell", 1), ("caption", 0), ("answer", 0),
    ]  # fmt: skip
    tell, _, caption, answer = (question for _, _, question in model.asked)
    assert tell.image == caption.image == "a.png" and answer.image is None
    assert answer.caption is None and answer.retrieved is None
    assert "What is {answer}?" in tell.text and "first 0" in tell.text
    assert "What is {answer}?" in caption.text and "first 0" not in caption.text
    assert "What is {answer}?" in answer.text and "a gun" in answer.text
    assert lines == [
        {"question_id": 0, "told": "Yes, it is.", "flagged": True, "first_answer": "first 0",
         "caption": "a gun"},
        {"question_id": 1, "told": "No.", "flagged": False, "first_answer": None, "caption": None},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "yes"),
    [("yes", True), ("Yes.", True), ('"YES", it is', True), ("No, yes", False),
     ("yesterday", False), ("", False), ("The answer is yes", False)],
)  # fmt: skip
def test_yes_is_the_first_word(text: str, yes: bool) -> None:
    assert ecso.says_yes(text) == yes


def test_a_prompt_without_its_place_is_refused() -> None:
    cfg = base_config().evaluate.ecso.to_dict() | {"answer": "{question}"}
    with pytest.raises(
        UserError, match=r"config.evaluate.ecso.answer: the prompt must contain \{caption\}"
    ):
        ecso.Prompts.of(cfg)


# --- the job ---


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, three image questions and a text."""
    folder = make_inputs(tmp_path_factory.mktemp("inputs"))
    rows = [
        {"question_id": i, "image": f"{i}.png", "text": "What is it?", "harmful": i == 0}
        for i in range(3)
    ]
    write_jsonl(folder / "q.jsonl", [*rows, {"question_id": 3, "text": "Hello.", "harmful": False}])
    return folder


def command(inputs: Path, workdir: Path, *more: str) -> list[str]:
    flags = [
        f"--config.evaluate.benchmarks=questions:{inputs}/q.jsonl",
        "--config.generate.batch_size=2", "--config.generate.max_new_tokens=4",
        "--config.data.buckets=(256,)", *more,
    ]  # fmt: skip
    return arguments(inputs, workdir, *flags, job="evaluate")


def flag_odd(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model flags every other answer: the random one never says yes."""
    said: list[bool] = []
    monkeypatch.setattr(ecso, "says_yes", lambda text: (said.append(True), len(said) % 2 == 1)[1])


@pytest.mark.slow
def test_the_job_goes_on_after_a_kill_in_any_pass(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def files(workdir: Path) -> tuple[Any, Any]:
        folder = workdir / "evaluate" / "questions"
        return read_jsonl(folder / "answers.jsonl"), read_jsonl(folder / "ecso.jsonl")

    defended = "--config.evaluate.defence=ecso"
    with monkeypatch.context() as patch:
        flag_odd(patch)
        assert main(command(inputs, tmp_path / "whole", defended)) == 0
    answers, lines = files(tmp_path / "whole")
    assert [line["flagged"] for line in lines] == [True, False, True]
    for line in lines:
        changed = answers[line["question_id"]]["text"] != line["first_answer"]
        assert line["first_answer"] is None or changed
    rows = json.loads((tmp_path / "whole" / "evaluate" / "metrics.json").read_text())
    assert rows[0]["settings"]["defence"]["tell"] == PROMPTS.tell
    append, line = Work.append, command(inputs, tmp_path / "killed", defended)
    for batches in (3, 2):  # of the 6 there are: 2 answers, 2 told, 1 caption, 1 answer
        kept: list[Any] = []

        def killed(self: Work, new: Any, kept: list[Any] = kept, most: int = batches) -> None:
            if len(kept) == most:
                raise Killed
            kept.append(new)
            append(self, new)

        with monkeypatch.context() as patch:
            flag_odd(patch)
            patch.setattr(Work, "append", killed)
            with pytest.raises(Killed):
                main(line)
    with monkeypatch.context() as patch:
        flag_odd(patch)
        assert main(line) == 0
        assert files(tmp_path / "killed") == (answers, lines)
        patch.setattr(Answerer, "replies", lambda *a, **k: pytest.fail("asked again"))
        assert main(line) == 0


def test_undefended_answers_are_the_first_ones(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for defence in ("none", "ecso"):
        workdir = tmp_path / defence
        assert main(command(inputs, workdir, f"--config.evaluate.defence={defence}")) == 0
        answers = read_jsonl(workdir / "evaluate" / "questions" / "answers.jsonl")
        found[defence] = [answer["text"] for answer in answers]
    assert found["none"] == found["ecso"]  # the random model flags nothing
    assert not (tmp_path / "none" / "evaluate" / "questions" / "ecso.jsonl").exists()


def test_an_unknown_defence_is_one_line(
    inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(command(inputs, tmp_path, "--config.evaluate.defence=ecos")) == 2
    assert "config.evaluate.defence='ecos'" in capfd.readouterr().err.splitlines()[-1]
