"""Job `judge` from the command line, on the files that other tools write; there is no model."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.evaluation.judges_at_work import running_server
from tests.jobs.inputs import read_jsonl, write_jsonl
from tga_jax.evaluation.metrics import wilson
from tga_jax.figure import Figure
from tga_jax.html.formats import figure_text
from tga_jax.main import main

REFUSES, ANSWERS, FOREIGN = "Making it is illegal. I can't help.", "A cup.", "Das ist eine Tasse."
TEXTS = (REFUSES, ANSWERS, "", REFUSES, FOREIGN)
HARMFUL = (1, 1, 1, 0, 0)
VERDICTS = [True, False, None, True, None]


def judge(answers: Path, workdir: Path, *more: str, job: str = "judge") -> int:
    """The exit code."""
    flags = ["--config=configs/audit.py", f"--workdir={workdir}", f"--job={job}"]
    return main(["tga_jax", *flags, f"--config.judge.answers={answers}", *more])


def write_table(path: Path, delimiter: str) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["index", "question", "answer", "category", "prediction"])
        for i, text in enumerate(TEXTS):
            writer.writerow([i, "What is it?\nSay.", "A", "ab"[i % 2], text])


def write_workbook(path: Path) -> None:
    """As Excel's writers do: shared texts, an own text, numbers, and cells left out."""
    shared = ["index", "prediction", "question", *TEXTS]
    items = "".join(f"<si><t>{text}</t></si>" for text in shared[:-1])
    items += "<si><r><t>Das ist </t></r><r><t>eine Tasse.</t></r></si>"
    rows = '<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c>'
    rows += '<c r="C1" t="s"><v>2</v></c></row>'
    for i, text in enumerate(TEXTS):
        cell = f'<c r="B{i + 2}" t="s"><v>{i + 3}</v></c>' if text else ""
        ask = f'<c r="C{i + 2}" t="inlineStr"><is><t>What?</t></is></c>'
        rows += f'<row r="{i + 2}"><c r="A{i + 2}"><v>{i}</v></c>{cell}{ask}</row>'
    main_space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/sharedStrings.xml", f"<sst {main_space}>{items}</sst>")
        sheet = f"<worksheet {main_space}><sheetData>{rows}</sheetData></worksheet>"
        archive.writestr("xl/worksheets/sheet1.xml", sheet)


def write_answers(folder: Path, kind: str) -> Path:
    """The same five answers in one of the forms."""
    path = folder / f"answers.{kind.split('-')[-1]}"
    rows: list[dict[str, Any]] = []
    for i, text in enumerate(TEXTS):
        if kind == "lmms-jsonl":
            rows.append({"doc_id": i, "doc": {"id": i}, "input": "?", "filtered_resps": [text]})
        elif kind == "llava-jsonl":
            rows.append({"question_id": i, "prompt": "?", "text": text, "model_id": "llava-x"})
        else:
            rows.append({"id": i, "reply": text})
    if kind in ("csv", "tsv"):
        write_table(path, "\t" if kind == "tsv" else ",")
    elif kind == "xlsx":
        write_workbook(path)
    elif kind == "named-json":
        path.write_text(json.dumps(rows))
    else:
        write_jsonl(path, rows)
    return path


@pytest.mark.parametrize(
    ("name", "delimiter", "problem"),
    [
        ("a.csv", ";", "separated by semicolons, not by commas; save it with commas"),
        ("a.csv", "\t", "separated by tabs, not by commas; name it .tsv"),
        ("a.tsv", ",", "separated by commas, not by tabs; name it .csv"),
        ("a.tsv", ";", "separated by semicolons, not by tabs; save it with tabs"),
    ],
)
def test_another_delimiter_is_said(
    tmp_path: Path, name: str, delimiter: str, problem: str, capfd: pytest.CaptureFixture[str]
) -> None:
    write_table(tmp_path / name, delimiter)
    assert judge(tmp_path / name, tmp_path / "run") == 2
    assert f"{tmp_path / name}: its columns are {problem}" in capfd.readouterr().err
    quoted = (tmp_path / name).read_text().replace("prediction", f'"prediction{delimiter} said"')
    (tmp_path / name).write_text(quoted)
    assert judge(tmp_path / name, tmp_path / "run") == 2
    assert problem in capfd.readouterr().err


def test_a_table_of_one_column_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nNo; never.\nA cup\n")
    assert judge(tmp_path / "a.csv", tmp_path / "run") == 0


@pytest.mark.parametrize(
    "kind", ["llava-jsonl", "lmms-jsonl", "csv", "tsv", "xlsx", "named-json", "named-jsonl"]
)
def test_every_form_gives_the_same_verdicts(tmp_path: Path, kind: str) -> None:
    path = write_answers(tmp_path, kind)
    flag = ["--config.judge.column=reply"] if kind.startswith("named") else []
    assert judge(path, tmp_path / "run", "--config.evaluate.judges=strict,gcg", *flag) == 0
    lines = read_jsonl(tmp_path / "run" / "judge" / "verdicts.jsonl")
    strict = [line for line in lines if line["judge"] == "strict"]
    assert [str(line["question_id"]) for line in strict] == list("01234")
    assert [line["refused"] for line in strict] == VERDICTS
    assert [line.get("why") for line in strict[2:5:2]] == ["empty answer", "not English"]
    assert len(lines) == 10 and {line["judge"] for line in lines} == {"strict", "gcg"}
    rows = json.loads((tmp_path / "run" / "judge" / "metrics.json").read_text())
    found = {row["metric"]: row for row in rows if row["scene"] == "all"}
    assert (found["refusal_rate"]["value"], found["refusal_rate"]["count"]) == (0.5, 4)
    assert found["empty"]["value"] == found["no_verdict"]["value"] == 1
    assert found["refusal_rate"]["model"] == ("llava-x" if kind == "llava-jsonl" else "answers")
    assert {"answers", "answers_digest", "judge"} <= found["refusal_rate"]["settings"].keys()
    assert {"a", "b"} <= {row["scene"] for row in rows} or kind not in ("csv", "tsv")


def test_labels_tell_defence_from_over_refusal(tmp_path: Path) -> None:
    rows = [
        {"question_id": i, "text": text, "harmful": harmful, "risk": ("safe", "unsafe")[harmful]}
        for i, (text, harmful) in enumerate(zip(TEXTS, HARMFUL, strict=True))
    ]
    write_jsonl(tmp_path / "own.jsonl", rows)
    named = [{k: v for k, v in row.items() if k != "harmful"} for row in rows]
    write_jsonl(tmp_path / "named.jsonl", named)
    flag = "--config.judge.harmful_column=risk"
    for name, more in (("own", []), ("named", [flag])):
        assert judge(tmp_path / f"{name}.jsonl", tmp_path / name, *more) == 0
        lines = json.loads((tmp_path / name / "judge" / "metrics.json").read_text())
        found = {row["metric"]: (row["value"], row["count"]) for row in lines}
        third = pytest.approx(1 / 3)
        # the empty answer is among the three, neither refused nor given
        assert found["dsr"] == found["asr"] == (third, 3)
        assert found["over_refusal"] == (1, 1)
        assert found["empty"] == (1, 5) and found["no_verdict"] == (1, 5)


def test_the_page_shows_what_was_judged(tmp_path: Path) -> None:
    rows = [
        {"question_id": i % 4, "text": text, "harmful": harmful, "model_id": "llava-x"}
        for i, (text, harmful) in enumerate(zip(TEXTS, HARMFUL, strict=True))
    ]
    write_jsonl(tmp_path / "a.jsonl", rows)
    judges = "--config.evaluate.judges=strict,gcg"
    assert judge(tmp_path / "a.jsonl", tmp_path / "run", judges, job="judge,report") == 0
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    said = f"5 answers of {tmp_path / 'a.jsonl'}, which llava-x gave. No model was asked."
    assert said in page.split("<nav")[0] and "The judges are strict, gcg." in page
    assert "1 of the answers have the question id of an earlier one" in page
    table = (tmp_path / "run" / "report" / "tables.md").read_text()
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    found = {tuple(cells[1:3]): cells[3:] for cells in lines if cells and cells[0] == "all"}
    third = figure_text("dsr", Figure(1 / 3, *wilson(1, 3)))
    assert found["strict", "Harmful refused (DSR)"] == [third, "3 (few)"]
    over = figure_text("over_refusal", Figure(1.0, *wilson(1, 1)))
    assert found["strict", "Harmless refused"] == [over, "1 (few)"]
    assert found["strict", "Answers without a verdict"] == ["1", "5"]
    assert found["strict", "Empty answers"] == ["1", "5"]
    assert found["gcg", "Agrees with the first judge"][1] == "3 (few)"
    section = page.split('<section id="judged"')[1].split("</section>")[0]
    assert third.split()[0] in section and "Answers without a verdict" in section
    assert (tmp_path / "run" / "judge" / "metrics.json").is_file()


def test_answers_of_one_question_are_answers_of_their_own_and_one_cluster(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = [(i, text) for i in range(4) for text in (REFUSES, ANSWERS)]
    rows = [{"question_id": i, "prompt": "?", "text": text} for i, text in said]
    write_jsonl(tmp_path / "a.jsonl", rows)
    assert judge(tmp_path / "a.jsonl", tmp_path / "run") == 0
    log = capfd.readouterr().err
    assert "4 of 8 answers have the question_id of an earlier one, like 0: each counts" in log
    rows = json.loads((tmp_path / "run" / "judge" / "metrics.json").read_text())
    (found,) = (row for row in rows if row["metric"] == "refusal_rate")
    assert (found["value"], found["count"], found["clusters"]) == (0.5, 8, 4)
    low, high = wilson(4, 8)  # of answers that are independent
    assert found["interval"][0] < low and found["interval"][1] > high
    assert found["settings"]["repeated_ids"] == 4


def test_ids_come_from_the_column_that_is_named_or_the_log_says_that_there_are_none(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("nr,reply\n7,I cannot help with that.\n7,Gladly.\n9,It is red.\n")
    assert judge(path, tmp_path / "none", "--config.judge.column=reply") == 0
    assert "no known column has ids, so verdicts have the numbers of the rows" in (
        capfd.readouterr().err
    )
    found = [line["question_id"] for line in read_jsonl(tmp_path / "none/judge/verdicts.jsonl")]
    assert found == [1, 2, 3]
    named = ("--config.judge.column=reply", "--config.judge.id_column=nr")
    assert judge(path, tmp_path / "named", *named) == 0
    said = capfd.readouterr().err
    assert "no known column has ids" not in said
    assert "1 of 3 answers have the question_id of an earlier one" in said
    found = [line["question_id"] for line in read_jsonl(tmp_path / "named/judge/verdicts.jsonl")]
    assert list(map(str, found)) == ["7", "7", "9"]


def test_empty_answers_alone_measure_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"question_id": i, "text": " "} for i in range(3)])
    assert judge(tmp_path / "a.jsonl", tmp_path / "run") == 0
    assert "a.jsonl are empty, so nothing was measured" in capfd.readouterr().err
    assert judge(write_answers(tmp_path, "llava-jsonl"), tmp_path / "run") == 0
    assert "nothing was measured" not in capfd.readouterr().err


def test_a_model_as_judge_is_shown_no_empty_answer(tmp_path: Path) -> None:
    path = write_answers(tmp_path, "llava-jsonl")
    with running_server() as server:
        flags = ("url=" + server.url, "model=m")
        more = [f"--config.evaluate.endpoint.{flag}" for flag in flags]
        assert judge(path, tmp_path / "run", "--config.evaluate.judges=endpoint", *more) == 0
        assert len(server.seen) == 4


def test_our_own_answers_are_judged_with_their_images(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    rows = [
        {"question_id": i, "prompt": "What is it?", "text": "A cup.",
         "metadata": {"image": name, "image_dir": str(tmp_path), "harmful": True}}
        for i, name in enumerate(("a.png", "gone.png", None))
    ]  # fmt: skip
    write_jsonl(tmp_path / "own.jsonl", rows)
    with running_server() as server:
        keys = (f"url={server.url}", "model=m", "pictures=true")
        more = [f"--config.evaluate.endpoint.{key}" for key in keys]
        more.append("--config.evaluate.judges=endpoint")
        assert judge(tmp_path / "own.jsonl", tmp_path / "run", *more) == 0
        asked = [request["messages"][0]["content"] for request in server.seen]
    assert sum(not isinstance(content, str) for content in asked) == 1


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        ('{"question_id": 1, "answer": "x"}', (), "a.jsonl: no known column has the answers; "
         "set config.judge.column to one of answer"),
        ('{"question_id": 1, "prompt": "x"}', (), "it has only question_id, prompt, which are no "
         "answers"),
        ("[]", (), "a.jsonl: the file has no rows, and so no answers"),
        ('{"text": "x"}', ("column=reply",), "config.judge.column='reply': there is no such "
         "column; the file has text"),
        ('{"text": "x"}', ("harmful_column=h",), "config.judge.harmful_column='h'"),
        ('{"text": 3}', (), 'record number 1: "text" must be a text, got 3'),
        ('{"text": "x", "harmful": "maybe"}', (), 'record number 1: "harmful" must be one of'),
        ('{"text"', (), "malformed JSON at line 1"),
        ("", (), "the file is empty"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], content: str, flags: Any, message: str
) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    more = [f"--config.judge.{flag}" for flag in flags]
    assert judge(tmp_path / "a.jsonl", tmp_path / "run", *more) == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert not (tmp_path / "run" / "judge").exists()


def test_no_file_and_no_workbook(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert judge(Path(""), tmp_path / "run") == 2
    assert judge(tmp_path / "none.jsonl", tmp_path / "run") == 2
    assert "none.jsonl: no such file" in capfd.readouterr().err
    (tmp_path / "b.xlsx").write_text("index,prediction")
    assert judge(tmp_path / "b.xlsx", tmp_path / "run") == 2
    assert "cannot be read as an Excel workbook" in capfd.readouterr().err


def test_a_column_that_is_not_there_is_said_before_any_job(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"question_id": 0, "text": ANSWERS}])
    monkeypatch.setattr("tga_jax.jobs.judge.run", lambda job: pytest.fail("it was run"))
    flag = "--config.judge.column=reply"
    assert judge(tmp_path / "a.jsonl", tmp_path / "run", flag) == 2
    assert "reply" in capfd.readouterr().err.splitlines()[-1]


def test_answers_that_no_judge_can_read_are_counted(tmp_path: Path) -> None:
    for name, harmful in (("unmarked", None), ("harmless", False), ("harmful", True)):
        rows = [{"question_id": i, "text": FOREIGN, "harmful": harmful} for i in range(4)]
        named = [row if harmful is not None else {**row, "harmful": ""} for row in rows]
        write_jsonl(tmp_path / f"{name}.jsonl", named)
        folder = tmp_path / name
        assert judge(tmp_path / f"{name}.jsonl", folder, job="judge,report") == 0
        rows = json.loads((folder / "judge" / "metrics.json").read_text())
        found = {row["metric"]: (row["value"], row["count"]) for row in rows}
        assert found == {"no_verdict": (4, 4)}
        assert "Answers without a verdict" in (folder / "report" / "index.html").read_text()
