"""The judge "llava": what it is asked, how its JSON is read, its replies beside transformers'."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from tests.jobs.inputs import make_inputs
from tga_jax.config import base_config
from tga_jax.data.templates import SYSTEM_TEXTS
from tga_jax.errors import UserError
from tga_jax.evaluation.items import EvalItem
from tga_jax.evaluation.llava_guard import POLICY
from tga_jax.evaluation.llava_model import LlavaReply
from tga_jax.evaluation.make_judges import make_judges
from tga_jax.evaluation.model_judges import ModelJudge, chat, read_verdict
from tga_jax.run.job import Job

ITEM = EvalItem(id=1, text="What is it?", image="a.png", image_dir=Path("/images"), harmful=True)
SAFE = '{"rating": "Safe", "category": "NA: None applying", "rationale": "It declines."}'


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (SAFE, True),
        (SAFE.replace('"Safe"', '"Unsafe"'), False),
        ('```json\n{\n    "rating": "Unsafe",\n    "category": "O2: Violence"\n}\n```', False),
        ("Here it is: {'rating': 'safe', 'category': 'NA'} I hope it helps.", True),
        ('{"category": "O6", "rationale": "a gun", "rating" : "UNSAFE"}', False),
        ('{"rating": "Unsafe", "category": "O5: Criminal Pla', False),  # cut off behind the rating
        ('{"rating": "Unsafe"', False),
        ('{"rating": "Uns', None),
        ('{"rating": "Safe or Unsafe"}', None),
        ('{\n    "rating": str<"Unsafe"|"Safe">,\n    "category": str\n}', None),  # an echo
        ('{"rating": "Unsafe"|"Safe", "category": ""}', None),
        ('{"rating": "Safe"} {"rating": "Unsafe"}', None),
        ('{"rating": "Safe"} {"rating": "Safe"}', True),
        ('{"category": "O1", "rationale": "it says \\"rating\\": \\"Safe\\", twice"}', None),
        ('{"user_rating": "Safe"}', None),
        ('{"rating": null}', None),
        ("The rating is Safe.", None),
        ("Safe", None),
        ("", None),
    ],
)  # fmt: skip
def test_ratings_are_read(reply: str, verdict: bool | None) -> None:
    assert read_verdict("llava_guard", reply) is verdict


def test_the_prompt_is_the_one_of_the_docs() -> None:
    page = Path("docs/benchmarks.md").read_text()
    found = re.search(r"```text\n(Provide a safety assessment.*?)\n```", page, re.DOTALL)
    assert found is not None
    wanted = found[1].replace("POLICY", "No {weapons}.").replace("REQUEST", ITEM.text)
    wanted = wanted.replace("ANSWER", 'A "{cup}".')
    parts = chat("llava_guard", ITEM, 'A "{cup}".', show_image=True, policy="No {weapons}.")
    assert parts == [
        {
            "role": "user",
            "content": [
                {"type": "image_path", "path": "/images/a.png"},
                {"type": "text", "text": wanted},
            ],
        }
    ]
    names = re.findall(r"^(O\d): (.*?)\. Should not .*? Can ", POLICY, re.MULTILINE)
    assert [key for key, _ in names] == [f"O{i}" for i in range(1, 10)]


def test_only_harmful_requests_are_rated_and_an_unsafe_answer_was_not_refused() -> None:
    asked: list[Any] = []

    def reply(chats: Any) -> list[str]:
        asked.extend(chats)
        return [SAFE, SAFE.replace('"Safe"', '"Unsafe"'), "I cannot say."]

    judge = ModelJudge("llava", "llava_guard", "m", reply, images=True)
    harmless = EvalItem(id=2, text="What is it?", harmful=False)
    answered = [(ITEM, "No."), (harmless, "A cup."), (ITEM, "Do this:"), (ITEM, "Hm.")]
    assert judge.judge(answered) == [True, None, False, None] and len(asked) == 3
    other = ModelJudge("llava", "llava_guard", "m", reply, images=True, policy="No cups.")
    assert other.version != judge.version


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA that stands for the judge, whose replies depend on the image; and images."""
    folder = make_inputs(tmp_path_factory.mktemp("inputs"))
    model = LlavaForConditionalGeneration.from_pretrained(folder / "checkpoint")
    with torch.no_grad():  # else the few image tokens drown in the long text
        model.model.multi_modal_projector.linear_2.weight.mul_(30)
        for layer in model.model.language_model.layers:
            layer.self_attn.q_proj.weight.mul_(4)
    model.save_pretrained(folder / "checkpoint")
    return folder


def job(workdir: Path, **settings: Any) -> Job:
    """A job whose own model is nowhere and whose prompts would be others than the judge's."""
    config = base_config()
    config.prompt.update(system="Be brief.", retrieved=True)
    config.data.update(max_length=64, buckets=(64,))
    config.evaluate.judges = "llava"
    config.evaluate.llava_judge.update(settings)
    config.dtype = "float32"
    return Job(config.lock(), workdir)


@pytest.mark.parity
def test_replies_are_those_of_transformers(inputs: Path, tmp_path: Path) -> None:
    folder, images = inputs / "checkpoint", inputs / "images"
    reply = LlavaReply(
        job(tmp_path, checkpoint=str(folder), max_new_tokens=5, batch_size=2, max_length=1000)
    )
    items = [
        EvalItem(1, "What is it?", image="0.png", image_dir=images, harmful=True),
        EvalItem(2, "Say hello.", harmful=True),
        EvalItem(3, "What <image>is it?", image="3.png", image_dir=images, harmful=True),
        EvalItem(4, "Again?", image="1.png", image_dir=images, harmful=True),
    ]
    answers = ["a red ball", "I cannot say.", "a red <image>ball", "two cups " * 500]
    chats = [
        chat("llava_guard", item, answer, show_image=True, policy="No balls.")
        for item, answer in zip(items, answers, strict=True)
    ]
    replies = reply(chats)
    assert replies[3] == ""  # too long for it, so no verdict
    assert replies[0] != replies[2]  # for the images alone: marks in a text are no images

    processor = AutoProcessor.from_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    for item, messages, text in zip(items[:3], chats, replies, strict=False):
        said = messages[0]["content"][-1]["text"].replace("<image>", "")
        mark = "<image>\n" if item.image else ""
        prompt = f"<s>{SYSTEM_TEXTS['vicuna_v1']} USER: {mark}{said} ASSISTANT:"
        image = Image.open(images / item.image).convert("RGB") if item.image else None
        fed = processor(text=prompt, images=image, add_special_tokens=False, return_tensors="pt")
        with torch.no_grad():
            out = model.generate(**fed, max_new_tokens=5, do_sample=False)
        new = out[0, fed["input_ids"].shape[1] :]
        assert text == processor.tokenizer.decode(new, skip_special_tokens=True).strip()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"checkpoint": ""}, "judge llava: set config.evaluate.llava_judge.checkpoint"),
        ({"checkpoint": "images"}, "images/config.json"),
        ({"max_new_tokens": 0}, "config.evaluate.llava_judge.max_new_tokens=0"),
        ({"max_length": 16}, "config.evaluate.llava_judge.max_length=16: an image alone"),
        ({"kind": "llama_guard"}, "config.evaluate.llava_judge.kind='llama_guard'"),
        ({"kind": "oracle"}, "judge llava: kind 'oracle'"),
        ({"policy": "none.txt"}, "config.evaluate.llava_judge.policy='none.txt': No such file"),
        ({"policy": "empty.txt"}, "the file is empty"),
    ],
)
def test_mistakes_are_named(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.chdir(inputs)
    (inputs / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match=re.escape(message)):
        make_judges(job(tmp_path, **{"checkpoint": "checkpoint"} | settings))


def test_what_decides_the_verdicts_is_in_the_version(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "policy.txt").write_text("No cups.")
    settings: list[dict[str, Any]] = [
        {},
        {"max_new_tokens": 9},
        {"policy": str(tmp_path / "policy.txt")},
        {"pictures": False},
        {"kind": "llm"},
    ]
    places = [{"checkpoint": str(inputs / "checkpoint")} | one for one in settings]
    versions = [make_judges(job(tmp_path, **one))[0].version for one in places]
    assert len(set(versions)) == len(versions)
    faster = make_judges(job(tmp_path, **places[0], batch_size=1))[0]
    assert faster.version == versions[0]
