"""The report job from the command line, on a workdir as the other jobs leave it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from tests.report.fake import HOSTILE, make_workdir
from tests.report.screenshot import screenshot
from tga_jax.evaluation.strict_accuracy import strict_accuracy
from tga_jax.figure import Figure
from tga_jax.html.formats import difference_text, figure_text, number_text, p_text
from tga_jax.main import main
from tga_jax.report.collect import read_arm
from tga_jax.report.differences import differences
from tga_jax.report.headlines import lines
from tga_jax.report.seeds import mean_figure, mean_share, paired

VOID = ("br", "img", "input", "meta", "hr", "line", "rect", "circle", "path")


class Page(HTMLParser):
    """Checks that every element is closed; keeps attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[Any]) -> None:
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[Any]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def report(workdir: Path, *more: str) -> int:
    """The job's exit code."""
    flags = ["--config=configs/from_hf.py", f"--workdir={workdir}", "--job=report"]
    return main(["tga_jax", *flags, *more])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reported workdir with two arms."""
    workdir = make_workdir(tmp_path_factory.mktemp("run") / "miniature")
    assert report(workdir) == 0
    return workdir


def page_of(workdir: Path) -> str:
    return (workdir / "report" / "index.html").read_text()


def test_the_page_is_whole_and_needs_nothing_from_outside(run: Path) -> None:
    text = page_of(run)
    page = Page(text)
    links = [value for _, key, value in page.attributes if key in ("src", "href")]
    assert links and all(link.startswith(("data:image/", "#")) for link in links)
    ids = {value for _, key, value in page.attributes if key == "id"}
    assert {link[1:] for link in links if link.startswith("#")} <= ids
    assert not re.search(r"url\(|https?://|@import", text)
    assert not {tag for tag, _, _ in page.attributes} & {"link", "iframe"}
    assert not [key for _, key, _ in page.attributes if key.startswith("on")]


def test_only_the_page_s_own_script_may_run(run: Path) -> None:
    text = page_of(run)
    scripts = re.findall(r"<script( [^>]*)?>(.*?)</script>", text, re.S)
    assert [attributes for attributes, _ in scripts] == [
        ' type="application/json" id="answer-data"', ""
    ]  # fmt: skip
    digest = base64.b64encode(hashlib.sha256(scripts[1][1].encode()).digest()).decode()
    policy = next(v for tag, k, v in Page(text).attributes if tag == "meta" and "default-src" in v)
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    assert "innerHTML" not in scripts[1][1] and "textContent" in scripts[1][1]


def test_every_figure_s_link_leads_to_the_glossary_and_back_to_nothing_else(run: Path) -> None:
    page = Page(page_of(run))
    links = {v[1:] for _, key, v in page.attributes if key == "href" and v.startswith("#term-")}
    entries = {v for _, key, v in page.attributes if key == "id" and v.startswith("term-")}
    assert entries == links | {"term-interval", "term-n"}
    assert {"term-dsr", "term-over_refusal", "term-accuracy", "term-auc", "term-strict"} <= links
    found = strict_accuracy()
    for name in ("recall", "precision"):
        shown = figure_text("dsr", Figure(found[name].value, *found[name].interval))
        assert f"is {shown} of {found[name].count}" in " ".join(page.text)


def test_every_headline_figure_is_on_the_page_and_in_both_tables(run: Path) -> None:
    text = " ".join(Page(page_of(run)).text)
    folder = run / "report"
    markdown, latex = (folder / "tables.md").read_text(), (folder / "tables.tex").read_text()
    arms = [read_arm(run / "arms" / name, name=name) for name in ("baseline", "tga")]
    keys = set()
    for line in lines(arms):
        keys.add(line.headline.key)
        for arm in arms:
            rows = json.loads((arm.workdir / "evaluate" / "metrics.json").read_text())
            row = next(r for r in rows if (r["benchmark"], r["scene"], r["metric"]) == line.place)
            shown = figure_text(row["metric"], Figure(row["value"], *row["interval"]))
            assert shown in text and shown in markdown
            assert shown.replace("%", "\\%").replace("[", "{[}").replace("]", "{]}") in latex
    assert {"picture_dsr", "text_dsr", "over_refusal", "naming_accuracy", "margin_auc"} <= keys
    assert "picture_dsr_at_5pct" in keys  # 60 harmless items are too few for 1%


def test_all_rows_are_kept_with_their_arm(run: Path) -> None:
    rows = json.loads((run / "report" / "metrics.json").read_text())
    expected = [
        {"arm": name, **row}
        for name in ("baseline", "tga")
        for row in json.loads((run / f"arms/{name}/evaluate/metrics.json").read_text())
    ]
    assert rows == expected


def test_the_verdict_follows_the_figures(run: Path, tmp_path: Path) -> None:
    assert "tga refuses more harmful images than baseline" in page_of(run)
    same = tmp_path / "same"
    for name in ("baseline", "tga"):
        shutil.copytree(run / "arms" / "tga", same / "arms" / name)
    assert report(same) == 0
    assert "there is no clear difference between tga and baseline in refusals" in page_of(same)


def test_differences_are_paired_and_those_of_the_rows(run: Path) -> None:
    first, second = (read_arm(run / "arms" / name, name=name) for name in ("baseline", "tga"))
    found = differences(first, second)
    for place, difference in found.items():
        own, other = second.figure(*place), first.figure(*place)
        assert own is not None and other is not None
        assert difference.figure.value == pytest.approx(own.value - other.value)
        low, high = difference.figure.low, difference.figure.high
        assert low is not None and high is not None and low <= difference.figure.value <= high
    assert found["pictures", "all", "dsr"].p_value < 0.001  # type: ignore[operator]
    assert not any(metric == "dsr_at_1pct" for *_, metric in found)  # of 60 harmless items
    assert ("texts", "seen", "dsr_at_5pct") in found and ("pictures", "all", "auc") in found


def test_hostile_answers_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path / "run", each=4)
    assert report(workdir, "--config.report.examples=40") == 0
    assert page_of(workdir).count("<script") == 2  # both the page's own
    assert HOSTILE in Page(page_of(workdir)).text


def test_layer_curves_have_intervals_and_both_models(run: Path) -> None:
    text = page_of(run)
    for title in (
        "Cosine of image and caption states, centred",
        "for which an apology token comes first",
    ):
        panel = next(p for p in text.split("<figure")[1:] if title in p)
        for arm in ("baseline", "tga"):
            for name in ("harmful images", "benign images"):
                assert f"{arm}, {name}" in panel
        assert panel.count('class="band arm0"') == panel.count('class="band arm1"') == 2
    rows = (run / "arms" / "tga" / "analyze" / "layers.csv").read_text().splitlines()
    row = next(r for r in rows if r.startswith("harmful_images,6,apology_top1_share"))
    *_, value, _, low, high = row.split(",")
    shown = figure_text("dsr", Figure(float(value), float(low), float(high)))
    assert "In tga, refusal of text arises at layers 3-4 of 6." in text
    assert (
        f"At the last layer an apology token comes first for {shown} of harmful images (n = 100)"
        in text
    )


def test_judges_are_set_side_by_side_and_their_disagreements_listed(run: Path) -> None:
    arm = read_arm(run / "arms" / "tga", name="tga")
    section = page_of(run).split('<section id="judges">')[1].split("</section>")[0]
    text = " ".join(Page(section).text)
    for metric in ("dsr_by_gcg", "over_refusal_by_gcg", "agreement_with_gcg"):
        assert figure_text("dsr", arm.figure("pictures", "all", metric)) in text
    kappa = arm.figure("pictures", "all", "kappa_with_gcg")
    assert kappa is not None and figure_text("kappa", kappa) in text
    apart = sum(
        len(set(answer["metadata"]["verdicts"].values())) == 2
        for answers in arm.answers.values()
        for answer in answers
    )
    assert apart > 0 and f"tga: {min(12, apart)} of {apart} answers on which judges differ" in text
    assert "strict answers, gcg refuses" in text


def test_harmful_images_are_blurred_unless_told_otherwise(run: Path, tmp_path: Path) -> None:
    shown = page_of(run)
    harmful = shown.count(" \u00b7 harmful</p>", 0, shown.index('<section id="answers"'))
    texts = len(re.findall(r'<p class="where">texts [^<]* harmful</p>', shown))
    assert shown.count('class="shown-image blurred"') == harmful - texts > 0
    workdir = Path(shutil.copytree(run, tmp_path / "run"))
    assert report(workdir, "--config.report.blur=false", "--config.report.examples=4") == 0
    text = page_of(workdir)
    assert 'class="shown-image blurred"' not in text and text.count("<article") == 4


def test_a_image_outside_its_folder_is_not_shown(tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path / "run", each=1)
    Image.new("RGB", (8, 8)).save(tmp_path / "run" / "secret.png")
    for path in workdir.glob("arms/*/evaluate/pictures/answers.jsonl"):
        path.write_text(re.sub(r'"image": "[^"]*"', '"image": "../secret.png"', path.read_text()))
    assert report(workdir) == 0
    text = page_of(workdir)
    assert "data:image/" not in text and text.count("The image is no longer there.") == 4
    assert text.count("<article") == 8  # the other four have no image


def test_what_is_absent_is_left_out_and_said_once(run: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "one"
    shutil.copytree(run / "arms" / "tga" / "evaluate", workdir / "evaluate")
    assert report(workdir) == 0
    text = page_of(workdir)
    for section in ("layers", "training", "tests", "arms", "seeds"):
        assert f'<section id="{section}"' not in text and f'href="#{section}"' not in text
    footer = text.split("<footer>")[1]
    for part in ("layer by layer (job analyze)", "training curves", "paired tests"):
        assert part in footer
    assert "one refuses" in text and "harmful texts. It refuses images less often." in text


def test_other_parts_alone_are_reported(run: Path, tmp_path: Path) -> None:
    training = tmp_path / "training"
    shutil.copytree(run / "arms" / "tga" / "finetune", training / "finetune")
    assert report(training) == 0 and "figures (job evaluate)" in page_of(training)
    rows = [json.loads(line) for line in (training / "finetune" / "metrics.jsonl").open()]
    ends = [number_text(row["lm_loss"]) for row in (rows[0], rows[-1])]
    line = f"| training | finetune | language loss | 10 to 1,000 | {' | '.join(ends)} |"
    assert line in (training / "report" / "tables.md").read_text()
    assert all(f">{end}</td>" in page_of(training) for end in ends)
    summary = tmp_path / "summary"
    summary.mkdir()
    shutil.copyfile(run / "summary.json", summary / "summary.json")
    assert report(summary) == 0
    value = json.loads((run / "summary.json").read_text())["tga"]["picture_dsr"]
    assert f"{100 * value:.1f}%" in page_of(summary)


def test_another_workdir_is_compared(run: Path, tmp_path: Path) -> None:
    workdir = Path(shutil.copytree(run / "arms" / "tga", tmp_path / "mine"))
    assert report(workdir, f"--config.evaluate.compare={run / 'arms' / 'baseline'}") == 0
    assert "mine refuses more harmful images than baseline" in page_of(workdir)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir with three arms."""
    folder = tmp_path_factory.mktemp("three") / "run"
    return make_workdir(folder, arms=("baseline", "tga", "zz_literal"), each=2)


def test_more_than_two_arms_get_a_table(tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path / "run", arms=("baseline", "tga", "zz_literal"), each=20)
    assert report(workdir) == 0
    text = page_of(workdir)
    assert "All models" in text and "zz_literal" in text
    arm = read_arm(workdir / "arms" / "zz_literal", name="zz_literal")
    shown = figure_text("dsr", arm.figure("pictures", "all", "dsr"))
    assert (
        f"the other models refuse these shares of the harmful images: zz_literal {shown}." in text
    )


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("", "The headline compares baseline with tga, because they are the first two of 3 models; "
         "config.report.pair=A,B compares other models."),
        ("tga,zz_literal", "compares tga with zz_literal, because config.report.pair names them."),
        ("baseline,zzz", "compares baseline with tga, the first two models. config.report.pair "
         "names baseline and zzz, but there is no zzz here"),
    ],
)  # fmt: skip
def test_the_head_says_why_these_two_are_compared(three: Path, pair: str, said: str) -> None:
    assert report(three, f"--config.report.pair={pair}") == 0
    assert said in page_of(three).split("<nav")[0]


def test_arms_that_were_left_out_are_listed_with_the_key_that_they_need(three: Path) -> None:
    flags = ["--config=configs/audit.py:defences", f"--workdir={three}", "--job=report"]
    assert main(["tga_jax", *flags, "--config.retrieval.clip=some/clip"]) == 0
    text = page_of(three)
    shown = text.split('<section id="arms"')[1].split("</section>")[0]
    key = "experiment.arms.aligned.model.checkpoint"
    for arm, needs in (("retrieved-text", "retrieval.corpus"), ("aligned", key)):
        assert f"The arm {arm} was left out, because config.{needs} is not set." in shown
    assert "zero-shot" not in shown
    assert "names undefended and aligned, but there is no undefended and no aligned here" in text
    assert main(["tga_jax", *flags, "--config.experiment.only=ecso"]) == 0
    assert "left out" not in page_of(three)


def test_every_arm_is_a_point_of_ability_and_safety(tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path / "run", arms=("baseline", "tga", "zz_literal"), each=24)
    assert report(workdir) == 0
    section = page_of(workdir).split('<section id="arms"')[1].split("</section>")[0]
    assert section.count("<circle") == 6 and section.count('class="dot other"') == 2
    assert section.count("<li>zz_literal</li>") == 2


def test_seeds_are_averaged_and_tested_in_pairs(tmp_path: Path) -> None:
    names = [f"{name}{more}" for more in ("", "-seed-1", "-seed-2") for name in ("baseline", "tga")]
    workdir = make_workdir(tmp_path / "run", arms=tuple(names), each=20)
    assert report(workdir) == 0
    table = (workdir / "report" / "tables.md").read_text().split("Means over seeds")[1]
    header, row = table.split("\n")[2], table.split("| pictures/all | Harmful refused")[1]
    assert "baseline, 3 seeds | tga, 3 seeds | Difference | p" in header
    found = {name: read_arm(workdir / "arms" / name, name=name) for name in names}
    values = np.array([found[name].figure("pictures", "all", "dsr").value for name in names])
    first, second = values[::2], values[1::2]
    t = stats.ttest_rel(second, first)
    low, high = t.confidence_interval()
    cells = [cell.strip() for cell in row.split("\n")[0].split("|")]
    own = stats.t.interval(0.95, 2, second.mean(), stats.sem(second))
    assert cells[2] == figure_text("dsr", Figure(second.mean(), *own))
    assert cells[3] == difference_text("dsr", Figure((second - first).mean(), low, high))
    assert cells[4] == p_text(t.pvalue)


def test_intervals_of_one_family_alone_are_explained_too(tmp_path: Path) -> None:
    names = ["baseline", "baseline-seed-1", "baseline-seed-2", "tga", "tga-seed-1"]
    workdir = make_workdir(tmp_path / "run", arms=tuple(names), each=8)
    assert report(workdir) == 0
    table = (workdir / "report" / "tables.md").read_text().split("**Means over seeds")[1]
    assert table.startswith(" with Student's 95% intervals**")
    assert table.split("\n")[2].endswith("baseline, 3 seeds | tga, 2 seeds | Difference |")


@pytest.mark.parametrize("pair", ["baseline,tga-seed-1", "baseline-seed-1,tga-seed-1"])
def test_families_are_compared_on_the_seeds_that_both_have(tmp_path: Path, pair: str) -> None:
    names = [
        "baseline",
        "baseline-seed-1",
        "tga-seed-1",
        "tga-seed-2",
        "alone-seed-3",
        "alone-seed-4",
    ]
    workdir = make_workdir(tmp_path / "run", arms=tuple(names), each=8)
    assert report(workdir, f"--config.report.pair={pair}") == 0
    tables = (workdir / "report" / "tables.md").read_text().split("**Means over seeds")[1:]
    headers = {table.split("\n")[2] for table in tables}
    assert headers == {
        "| Benchmark/scene | Figure | baseline, 2 seeds | tga, 2 seeds | Difference |",
        "| Benchmark/scene | Figure | baseline, 2 seeds | alone, 2 seeds |",
    }
    found = {name: read_arm(workdir / "arms" / name, name=name) for name in names}
    first, second = (
        found[name].figure("pictures", "all", "dsr").value
        for name in ("baseline-seed-1", "tga-seed-1")
    )
    table = next(table for table in tables if "tga, 2 seeds" in table)
    row = table.split("| pictures/all | Harmful refused")[1].split("\n")[0]
    expected = difference_text("dsr", Figure(second - first))
    assert row.split("|")[3].strip() == expected


@pytest.mark.slow
def test_every_family_is_compared_with_its_baseline(tmp_path: Path) -> None:
    kinds = ("baseline", "tga", "frozen-baseline", "frozen", "zz_literal")
    names = [f"{name}{more}" for more in ("", "-seed-1") for name in kinds]
    workdir = make_workdir(tmp_path / "run", arms=tuple(names), each=8)
    assert report(workdir) == 0
    tables = (workdir / "report" / "tables.md").read_text().split("**Means over seeds")[1:]
    expected = {("baseline", "tga"), ("frozen-baseline", "frozen"), ("baseline", "zz_literal")}
    headers = {
        f"| Benchmark/scene | Figure | {a}, 2 seeds | {b}, 2 seeds | Difference |"
        for a, b in expected
    }
    assert {table.split("\n")[2] for table in tables} == headers and len(tables) == 3
    caption = '<p class="caption">Means over seeds</p>'
    assert page_of(workdir).count(caption) == 3


def test_an_interval_over_seeds_wants_three_and_stays_within_shares() -> None:
    assert mean_figure([0.2, 0.4]).value == pytest.approx(0.3)
    assert mean_figure([0.2, 0.4]).low is None and paired([0.2, 0.4], [0.3, 0.9])[1] is None
    beyond = mean_figure([0.0, 0.0, 0.1])
    assert beyond.interval == pytest.approx(stats.t.interval(0.95, 2, 0.1 / 3, 0.1 / 3))
    assert beyond.interval[0] < 0
    assert mean_share([0.0, 0.0, 0.1]).interval == (0.0, beyond.high)
    assert mean_share([1.0, 1.0, 0.9]).interval == pytest.approx((1 - beyond.high, 1.0))


def test_models_asked_in_different_ways_are_flagged(run: Path, tmp_path: Path) -> None:
    assert "not asked in the same way" not in page_of(run)
    workdir = Path(shutil.copytree(run, tmp_path / "run"))
    path = workdir / "arms" / "tga" / "evaluate" / "metrics.json"
    path.write_text(path.read_text().replace("vicuna_v1", "chatml"))
    assert report(workdir) == 0
    assert "They differ in Prompt template" in page_of(workdir)


def test_mistakes_are_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert report(tmp_path / "empty") == 2
    error = capfd.readouterr().err
    assert "nothing to report" in error and "judge/" in error
    assert "jobs:" not in error  # refused before the run says what it will do
    workdir = make_workdir(tmp_path / "run", each=1)
    path = workdir / "arms" / "tga" / "analyze" / "layers.csv"
    path.write_text("set,layer,metric,value,count\na,one,m,0.5,1\n")
    assert report(workdir) == 2
    error = capfd.readouterr().err
    assert "layers.csv: line 2" in error and "Traceback" not in error


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it(run: Path, tmp_path: Path, scheme: str) -> None:
    file = tmp_path / "page.png"
    screenshot(run / "report" / "index.html", file, dark=scheme == "dark")
    image = Image.open(file).convert("RGB")
    corner = image.getpixel((5, 5))
    assert corner == ((18, 21, 25) if scheme == "dark" else (255, 255, 255))
    colours = {colour for _, colour in image.getcolors(maxcolors=1 << 24)}
    arm = (0x5C, 0xB3, 0xEC) if scheme == "dark" else (0x00, 0x68, 0xA8)
    assert arm in colours  # the candidate's bars and dots
