"""The analyze job from the command line: every figure against torch, kills, mistakes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from transformers import AutoProcessor, LlavaForConditionalGeneration

from tests.jobs.analysis import command, make_analysis_inputs, table
from tests.jobs.inputs import Killed, read_jsonl
from tga_jax.analysis import analyst
from tga_jax.analysis.prompts import make_prompts
from tga_jax.data.templates import SYSTEM_TEXTS
from tga_jax.evaluation.benchmarks.load import Benchmark
from tga_jax.evaluation.benchmarks.registry import Entry
from tga_jax.evaluation.items import EvalItem
from tga_jax.evaluation.profiles import PAPER_REQUEST
from tga_jax.jobs import analyze
from tga_jax.main import main
from tga_jax.run.work import Work

pytestmark = pytest.mark.parity
SYSTEM = f"{SYSTEM_TEXTS['vicuna_v1']} {PAPER_REQUEST}"
KINDS = ("images", "scenes", "texts")
SETS = [f"{degree}_{kind}" for kind in KINDS for degree in ("harmful", "benign")]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, captioned images and texts."""
    return make_analysis_inputs(tmp_path_factory.mktemp("inputs"))


def test_prompts_of_the_sets() -> None:
    def item(i: int, image: str | None, harmful: bool | None, **extra: Any) -> EvalItem:
        folder = None if image is None else Path("p")
        return EvalItem(i, f"Q{i}", image, folder, harmful=harmful, extra=extra)

    items = [
        item(0, "a.png", True, caption="a {red} cup", retrieved="tea"),
        item(1, "a.png", True, caption="a {red} cup"),  # the same image again
        item(2, "b.png", False, retrieved="tea"),
        item(3, None, True),
        item(4, None, None),
        *(item(i, None, False) for i in range(5, 15)),
    ]
    benchmark = Benchmark(Entry("b", "questions", Path("b"), {}), items, [])
    prompts = make_prompts([benchmark], image_prompt="I?", scene_prompt="S: {caption}!", limit=3)
    assert [(p.set, p.item.id, p.item.text, p.item.image, dict(p.item.extra)) for p in prompts] == [
        ("harmful_images", 0, "I?", "a.png", {"caption": "a {red} cup"}),
        ("benign_images", 2, "Q2", "b.png", {}),
        ("harmful_scenes", 0, "S: a {red} cup!", None, {}),
        ("harmful_texts", 3, "Q3", None, {}),
        ("benign_texts", 5, "Q5", None, {}),
        ("benign_texts", 8, "Q8", None, {}),
        ("benign_texts", 11, "Q11", None, {}),
    ]


# --- torch ---


class Oracle:
    """transformers' model: logit lens and states after every block, the last before its norm."""

    def __init__(self, checkpoint: Path) -> None:
        self.model = LlavaForConditionalGeneration.from_pretrained(checkpoint).eval()
        self.processor = AutoProcessor.from_pretrained(checkpoint)
        decoder = self.model.model.language_model
        self.norm, self.last = decoder.norm, []
        decoder.layers[-1].register_forward_hook(lambda m, i, out: self.last.append(out))

    def states(self, prompt: str, file: Path | None = None) -> tuple[list[int], torch.Tensor]:
        """Tokens and [1 + L, T, D]."""
        image = None if file is None else Image.open(file).convert("RGB")
        fed = self.processor(text=prompt, images=image, add_special_tokens=False,
                             return_tensors="pt")  # fmt: skip
        with torch.no_grad():
            hidden = self.model(**fed, output_hidden_states=True).hidden_states
        last = self.last.pop()
        last = last[0] if isinstance(last, tuple) else last
        return fed["input_ids"][0].tolist(), torch.cat([*hidden[:-1], last])

    def lens(self, states: torch.Tensor) -> np.ndarray:
        """float[1 + L, V], log-probabilities at the last position."""
        with torch.no_grad():
            logits = self.model.lm_head(self.norm(states[:, -1]))
        return torch.log_softmax(logits, -1).numpy()


def image_prompt(question: str) -> str:
    return f"<s>{SYSTEM} USER: <image>\n{question} ASSISTANT:"


def text_prompt(question: str) -> str:
    return f"<s>{SYSTEM} USER: {question} ASSISTANT:"


@pytest.fixture(scope="module")
def oracle(inputs: Path) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """(set, id) -> lens and states at the last position; for images mean image, caption too."""
    torch_model = Oracle(inputs / "checkpoint")
    image = torch_model.processor.tokenizer.convert_tokens_to_ids("<image>")
    found: dict[tuple[str, str], dict[str, np.ndarray]] = {}

    def put(name: str, identifier: str, states: torch.Tensor) -> dict[str, np.ndarray]:
        values = {"lens": torch_model.lens(states), "last": states[1:, -1].numpy()}
        found[name, identifier] = values
        return values

    for row in read_jsonl(inputs / "q.jsonl")[::2]:
        degree, caption = "harmful" if row["harmful"] else "benign", row["image_caption"]
        file = inputs / "images" / row["image"]
        tokens, states = torch_model.states(image_prompt("Describe this image."), file)
        values = put(f"{degree}_images", row["question_id"], states)
        values["image"] = states[1:, np.array(tokens) == image].mean(1).numpy()
        _, states = torch_model.states(text_prompt(f"Describe this scene : {caption}"))
        put(f"{degree}_scenes", row["question_id"], states)
        # the caption pass: the image's prompt with the caption in its place
        head, tail = f"<s>{SYSTEM} USER: ", "\nDescribe this image. ASSISTANT:"
        tokens, states = torch_model.states(f"{head}{caption}{tail}")
        ends = [len(torch_model.processor.tokenizer(f"{head}{part}", add_special_tokens=False)
                    .input_ids) for part in ("", caption)]  # fmt: skip
        # the blank before the caption is a part of the caption's first token
        values["caption"] = states[1:, ends[0] - 1 : ends[1]].mean(1).numpy()
    for row in read_jsonl(inputs / "texts.jsonl"):
        degree = "harmful" if row["label"] == "unsafe" else "benign"
        put(f"{degree}_texts", str(row["id"]), torch_model.states(text_prompt(row["prompt"]))[1])
    return found


def telling_pair(oracle: dict[Any, dict[str, np.ndarray]]) -> tuple[int, ...]:
    """Two tokens by which some samples turn at some layers, some never, and some texts refuse."""
    lens = np.stack([value["lens"] for value in oracle.values()], axis=1)
    turned, top = (lens[1:] - lens[:-1]).argmax(-1), lens[-1].argmax(-1)
    scenes = np.array(["scenes" in name for name, _ in oracle])
    for pair in itertools.product(np.unique(turned).tolist(), np.unique(top).tolist()):
        found, refused = np.isin(turned, pair), np.isin(top, pair)[scenes]
        first = np.where(found.any(0), found.argmax(0), -1)
        if -1 in first and len(np.unique(first)) > 2 and 0 < refused.mean() < 1:
            return tuple(sorted(set(pair)))
    raise AssertionError("no such pair: draw another model")


@pytest.fixture(scope="module")
def run(
    inputs: Path, oracle: dict[Any, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, tuple[int, ...]]:
    """The analysis of a random model, and the tokens that are apologies there."""
    workdir, apologies = tmp_path_factory.mktemp("run"), telling_pair(oracle)
    with pytest.MonkeyPatch.context() as patch:
        for module in (analyze, analyst):
            patch.setattr(module, "analysis_apologies", lambda *a: apologies)
        assert main(command(inputs, workdir, "--config.analyze.batch_size=2")) == 0
    return workdir / "analyze", apologies


def test_every_sample_is_that_of_torch(run: Any, oracle: dict[Any, Any]) -> None:
    folder, apologies = run
    lines = read_jsonl(folder / "samples.jsonl")
    assert {(line["set"], str(line["id"])) for line in lines} == set(oracle)
    assert len(lines) == len(oracle)
    firsts = set()
    mean = np.mean([v["caption"] for v in oracle.values() if "caption" in v], 0)
    for line in lines:
        own = oracle[line["set"], str(line["id"])]
        lens = own["lens"]
        turns = np.flatnonzero(np.isin((lens[1:] - lens[:-1]).argmax(-1), apologies))
        assert line["first_layer"] == (turns[0] + 1 if len(turns) else -1)
        firsts.add(line["first_layer"])
        leads = np.isin(lens[1:].argmax(-1), apologies)
        assert line["apology_top1"] == leads.tolist() and line["refused"] == leads[-1]
        family = np.log(np.exp(lens[1:, list(apologies)].astype(np.float64)).sum(-1))
        np.testing.assert_allclose(line["apology_log_prob"], family, atol=2e-4)
        if "image" not in own:
            assert line["image_caption_cos"] is None and line["image_caption_cos_centred"] is None
            continue
        for name, shift in (("image_caption_cos", 0), ("image_caption_cos_centred", mean)):
            wanted = cosine(own["image"] - shift, own["caption"] - shift)
            np.testing.assert_allclose(line[name], wanted, atol=1e-4)
    assert -1 in firsts and len(firsts) > 2


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_refusal_direction_is_that_of_torch(run: Any, oracle: dict[Any, Any]) -> None:
    folder, apologies = run
    scenes = [v for (name, _), v in oracle.items() if name.endswith("scenes")]
    refused = np.array([v["lens"][-1].argmax() in apologies for v in scenes])
    states = np.stack([v["last"] for v in scenes])
    zero, one = states[~refused].mean(0), states[refused].mean(0)
    unit = (one - zero) / np.linalg.norm(one - zero, axis=-1, keepdims=True)
    length = np.linalg.norm(one - zero, axis=-1)
    for line in read_jsonl(folder / "samples.jsonl"):
        own = oracle[line["set"], str(line["id"])]["last"]
        wanted = ((own - zero) * unit).sum(-1) / length
        np.testing.assert_allclose(line["refusal_direction"], wanted, atol=2e-3)


def test_table_holds_the_means_of_the_lines(run: Any) -> None:
    folder, _ = run
    rows, lines = table(folder), read_jsonl(folder / "samples.jsonl")
    for name in SETS:
        own = [line for line in lines if line["set"] == name]
        for metric in ("apology_log_prob", "refusal_direction", "image_caption_cos"):
            if metric == "image_caption_cos" and "images" not in name:
                assert (name, 1, metric) not in rows
                continue
            values = np.array([line[metric] for line in own])
            for layer in (1, 2, 3):
                row, column = rows[name, layer, metric], values[:, layer - 1]
                assert int(row["count"]) == len(own)
                assert float(row["value"]) == pytest.approx(column.mean(), abs=1e-6)
                half = stats.t.ppf(0.975, len(own) - 1) * column.std(ddof=1) / len(own) ** 0.5
                assert float(row["high"]) == pytest.approx(column.mean() + half, abs=1e-4)
        first = [line["first_layer"] for line in own]
        for layer in (-1, 1, 2, 3):
            share = float(rows[name, layer, "first_safety_layer_share"]["value"])
            assert share == pytest.approx(first.count(layer) / len(first), abs=1e-6)
    summary = json.loads((folder / "summary.json").read_text())
    none = [line for line in lines if line["set"] == "benign_images" and line["first_layer"] == -1]
    assert summary["sets"]["benign_images"]["none"] == len(none)
    assert summary["settings"]["profile"] == "paper" and summary["settings"]["system"] == SYSTEM
    assert (folder / "image_caption_cos.svg").read_text().startswith("<svg")


def test_batches_do_not_matter(run: Any, inputs: Path, tmp_path: Path) -> None:
    folder, apologies = run
    with pytest.MonkeyPatch.context() as patch:
        for module in (analyze, analyst):
            patch.setattr(module, "analysis_apologies", lambda *a: apologies)
        assert main(command(inputs, tmp_path, "--config.analyze.batch_size=5")) == 0
    one, other = (read_jsonl(f / "samples.jsonl") for f in (folder, tmp_path / "analyze"))
    for a, b in zip(one, other, strict=True):
        assert (a["id"], a["set"], a["first_layer"]) == (b["id"], b["set"], b["first_layer"])
        for name in ("apology_log_prob", "refusal_direction", "image_caption_cos_centred"):
            if a[name] is not None:
                np.testing.assert_allclose(a[name], b[name], atol=2e-4)
    found = [(f / "summary.json").read_text() for f in (folder, tmp_path / "analyze")]
    assert found[0] == found[1]


def test_a_killed_run_goes_on(
    run: Any, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (analyze, analyst):
        monkeypatch.setattr(module, "analysis_apologies", lambda *a: run[1])
    append, kept = Work.append, []

    def killed_at_the_fourth(self: Work, new: list[Any]) -> None:
        if len(kept) == 3:
            raise Killed
        kept.append(new)
        append(self, new)

    flags = (f"--config.analyze.benchmarks=questions:{inputs}/q.jsonl", "--config.analyze.limit=2")
    line, whole = (
        command(inputs, tmp_path / name, "--config.analyze.batch_size=1", *flags)
        for name in ("killed", "whole")
    )
    assert main(whole) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Work, "append", killed_at_the_fourth)
        with pytest.raises(Killed):
            main(line)
    assert not (tmp_path / "killed" / "analyze" / "layers.csv").exists()
    after: list[Any] = []
    monkeypatch.setattr(Work, "append", lambda self, new: (after.extend(new), append(self, new)))
    assert main(line) == 0
    assert len(kept) == 3 and len(after) == 8 - 3
    for name in ("samples.jsonl", "layers.csv"):
        one, other = (tmp_path / which / "analyze" / name for which in ("killed", "whole"))
        assert one.read_text() == other.read_text()
    monkeypatch.setattr(analyze, "load_params", lambda *a, **k: pytest.fail("model loaded"))
    assert main(line) == 0


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.analyze.profile=papre", "config.analyze.profile='papre'"),
        ("--config.analyze.profile=custom", "config.analyze.system"),
        ("--config.analyze.batch_size=0", "config.analyze.batch_size=0 must be 1 or more"),
        ("--config.analyze.benchmarks=texts:/no/such.csv", "missing from texts"),
        ("--config.evaluate.apologies=()", "config.evaluate.apologies=()"),
    ],
)
def test_mistakes_are_one_line(
    inputs: Path, tmp_path: Path, flag: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(command(inputs, tmp_path, flag)) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error
