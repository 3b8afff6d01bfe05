"""Job caption from the command line: held against `generate`, killed, split over hosts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.jobs.inputs import Killed, arguments, make_inputs, read_jsonl, row, write_jsonl
from tga_jax.main import main
from tga_jax.run.answerer import Answerer

pytestmark = pytest.mark.parity
QUESTION = "What is it?"
OWN = "two white cups"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images, one of them with a caption, and every reason to get none."""
    folder = make_inputs(tmp_path_factory.mktemp("inputs"))
    turns = [("human", "<image>\nWhat is it?"), ("gpt", "A thing.")]
    rows = [row(f"p{i}", turns, image=f"{i}.png") for i in range(4)]
    rows[1]["image_caption"] = OWN
    rows += [
        row("again", turns, image="0.png"),  # an image that p0 shows
        row("p2", turns, image="2.png"),  # the same id and image once more
        row("two", turns, image="0.png"),
        row("two", turns, image="3.png"),
        row("text", [("human", "Say hello."), ("gpt", "Hello.")]),
        row("tox-1", turns, image="0.png"),
        row("tox-2", turns, image="0.png", image_caption="it is bad"),
    ]
    (folder / "samples.json").write_text(json.dumps(rows))
    return folder


def command(inputs: Path, workdir: Path, *more: str, job: str = "caption") -> list[str]:
    flags = [f"--config.caption.question={QUESTION}", "--config.caption.max_new_tokens=12"]
    return arguments(inputs, workdir, *flags, "--config.caption.batch_size=2", *more, job=job)


@pytest.fixture(scope="module")
def run(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("run")
    assert main(command(inputs, workdir, job="generate,caption")) == 0
    return workdir


def report(workdir: Path) -> dict:
    return json.loads((workdir / "caption/report.json").read_text())


def test_captions_are_the_answers_of_generate(inputs: Path, run: Path) -> None:
    answers = {
        row["question_id"]: row["text"] for row in read_jsonl(run / "generate/answers.jsonl")
    }
    assert len(set(answers.values())) > 1 and all(answers.values())
    assert read_jsonl(run / "captions.jsonl") == [
        {"id": name, "image": f"{number}.png", "caption": caption}
        for name, number, caption in (
            ("p0", 0, answers[0]), ("p1", 1, OWN), ("p2", 2, answers[2]), ("p3", 3, answers[3]),
            ("again", 0, answers[0]), ("two", 0, answers[0]), ("two", 3, answers[3]),
            ("tox-2", 0, "it is bad"),
        )
    ]  # fmt: skip
    assert report(run)["counts"] == {
        "records": 11, "without_picture": 1, "tox": 1, "own": 2,
        "pictures": 3, "unreadable": 0, "empty": 0, "written": 8,
    }  # fmt: skip
    speed = report(run)["speed"]["0-of-1"]
    assert speed["tokens"] == 12  # of the second batch; these captions do not end by themselves
    assert speed["tokens_per_second"] == pytest.approx(speed["tokens"] / speed["seconds"])


def test_changed_answers_of_generate_are_refused(inputs: Path, run: Path, capfd) -> None:
    path = run / "generate" / "answers.jsonl"
    before = path.read_text()
    assert main(command(inputs, run, job="generate")) == 0
    path.write_text(before.replace('"text": "', '"text": "Sorry. ', 1))
    assert main(command(inputs, run, job="generate")) == 2
    assert "generate/answers.jsonl: was changed after" in capfd.readouterr().err
    path.write_text(before)
    assert main(command(inputs, run, job="generate")) == 0


def test_the_same_command_again_does_nothing(inputs, run, monkeypatch, capfd) -> None:
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    assert main(command(inputs, run)) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert "finished before" in capfd.readouterr().err


def test_the_batch_size_does_not_count(inputs, run, tmp_path) -> None:
    assert main(command(inputs, tmp_path, "--config.caption.batch_size=3")) == 0
    assert (tmp_path / "captions.jsonl").read_bytes() == (run / "captions.jsonl").read_bytes()


def count_answers(monkeypatch: pytest.MonkeyPatch, die_after: int = -1) -> list[int]:
    """How many images each batch answers; the run is killed after `die_after` batches."""
    sizes, replies = [], Answerer.replies

    def counted(self, *args, **kwargs):
        for new in replies(self, *args, **kwargs):
            if len(sizes) == die_after:
                raise Killed
            sizes.append(len(new))
            yield new

    monkeypatch.setattr(Answerer, "replies", counted)
    return sizes


def test_a_killed_run_goes_on_to_the_same_bytes(inputs, run, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        count_answers(patch, die_after=1)
        main(command(inputs, tmp_path))
    assert not (tmp_path / "captions.jsonl").exists()
    with (tmp_path / "caption/0-of-1.log.jsonl").open("ab") as file:
        file.write('{"image": "3.png", "text": "caf\u00e9'.encode()[:-1])  # within a character
    sizes = count_answers(monkeypatch)
    assert main(command(inputs, tmp_path)) == 0
    assert sizes == [1]
    assert (tmp_path / "captions.jsonl").read_bytes() == (run / "captions.jsonl").read_bytes()


def test_another_question_or_more_samples(inputs, run, tmp_path, monkeypatch) -> None:
    assert main(command(inputs, tmp_path)) == 0
    rows = json.loads((inputs / "samples.json").read_text())
    del rows[1]["image_caption"]
    (tmp_path / "more.json").write_text(json.dumps(rows))
    sizes, more = count_answers(monkeypatch), f"--config.data.path={tmp_path / 'more.json'}"
    assert main(command(inputs, tmp_path, more)) == 0
    assert sizes == [2]  # the batch that holds the new image
    answers = [row["text"] for row in read_jsonl(run / "generate/answers.jsonl")]
    captions = {row["id"]: row["caption"] for row in read_jsonl(tmp_path / "captions.jsonl")}
    assert [captions[f"p{i}"] for i in range(4)] == answers
    other = "--config.caption.question=Where is it now, and why?"
    assert main(command(inputs, tmp_path, more, other)) == 0
    assert sizes == [2, 2, 2]
    new = {row["id"]: row["caption"] for row in read_jsonl(tmp_path / "captions.jsonl")}
    assert new != captions and new["tox-2"] == "it is bad"


def test_unreadable_images_within_the_budget(inputs, run, tmp_path, capfd) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in (0, 1, 3):
        (images / f"{number}.png").write_bytes((inputs / f"images/{number}.png").read_bytes())
    (images / "2.png").write_bytes((inputs / "images/2.png").read_bytes()[:99])
    there, workdir = f"--config.data.image_dir={images}", tmp_path / "run"
    none, third = (f"--config.data.max_bad_fraction={share}" for share in (0.0, 0.34))
    assert main(command(inputs, workdir, there, none)) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: record p2: image") and "2.png" in error
    assert main(command(inputs, workdir, there, third)) == 0
    rows = read_jsonl(workdir / "captions.jsonl")
    assert rows == [row for row in read_jsonl(run / "captions.jsonl") if row["id"] != "p2"]
    assert report(workdir)["counts"]["unreadable"] == 1
    assert report(workdir)["unreadable"] == ["2.png"]
    # Each of two hosts may lose one, both together may not.
    (images / "3.png").unlink()
    split = [
        command(inputs, tmp_path / "apart", there, third, f"--config.caption.shard={i}/2")
        for i in (0, 1)
    ]
    assert [main(one) for one in split] == [0, 2]
    assert "2 of 3 images cannot be read" in capfd.readouterr().err


def test_empty_captions_are_left_out(inputs, tmp_path, monkeypatch) -> None:
    text = Answerer.text
    monkeypatch.setattr(
        Answerer, "text", lambda self, tokens: "" if first.append(1) or len(first) == 2
        else text(self, tokens)
    )  # fmt: skip
    first: list[int] = []
    assert main(command(inputs, tmp_path)) == 0
    assert [row["id"] for row in read_jsonl(tmp_path / "captions.jsonl")] == [
        "p0", "p1", "p3", "again", "two", "two", "tox-2"
    ]  # fmt: skip
    assert report(tmp_path)["counts"]["empty"] == 1


def test_given_captions_count_and_unknown_ids_do_not(inputs, run, tmp_path) -> None:
    given = tmp_path / "given.jsonl"
    write_jsonl(given, [{"id": "p3", "caption": "mine"}, {"id": "nobody", "caption": "x"}])
    assert main(command(inputs, tmp_path, f"--config.data.captions={given}")) == 0
    rows = read_jsonl(run / "captions.jsonl")
    wanted = [row | {"caption": "mine"} if row["id"] == "p3" else row for row in rows]
    assert read_jsonl(tmp_path / "captions.jsonl") == wanted


def test_the_output_may_be_named_as_the_captions_file(inputs, run, tmp_path) -> None:
    named = "--config.data.captions={workdir}/captions.jsonl"
    assert main(command(inputs, tmp_path, named, job="caption,inspect")) == 0
    assert (tmp_path / "captions.jsonl").read_bytes() == (run / "captions.jsonl").read_bytes()
    shown = read_jsonl(tmp_path / "inspect/samples.jsonl")
    assert {row["id"] for row in shown if row["caption_span"]} == {
        "p0", "p1", "p2", "p3", "again", "two",
    }  # fmt: skip
    first, second = (row["caption_input_ids"] for row in shown if row["id"] == "two")
    assert first != second


def test_another_checkpoint_with_a_template_of_its_own(inputs, tmp_path) -> None:
    other = make_inputs(tmp_path / "other", "mistral") / "checkpoint"
    chatml = "--config.prompt.template=chatml"
    more = [f"--config.caption.checkpoint={other}", "--config.caption.template=chatml"]
    assert main(command(inputs, tmp_path / "a", *more, "--config.prompt.system=Hm.")) == 0
    mine = f"--config.model.checkpoint={other}"
    assert main(command(inputs, tmp_path / "b", mine, chatml, job="generate")) == 0
    answers = [row["text"] for row in read_jsonl(tmp_path / "b/generate/answers.jsonl")]
    captions = {row["id"]: row["caption"] for row in read_jsonl(tmp_path / "a/captions.jsonl")}
    assert [captions[f"p{i}"] for i in (0, 2, 3)] == [answers[i] for i in (0, 2, 3)]


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("caption.shard=3/3", "config.caption.shard='3/3': write it like '0/4'"),
        ("caption.batch_size=0", "config.caption.batch_size=0 must be 1 or more"),
        ("caption.question=", "config.caption.question is empty"),
        ("caption.checkpoint=nowhere/at-all/none", "nowhere/at-all/none"),
        ("data.path=", "set config.data.path"),
    ],
)
def test_clear_errors(inputs, tmp_path, capfd, flag, words) -> None:
    assert main(command(inputs, tmp_path, f"--config.{flag}")) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and words in error
