"""Judges that are models: over HTTP on loopback, and from a tiny local folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.evaluation.judges_at_work import Server, running_server, write_judge
from tga_jax.errors import UserError
from tga_jax.evaluation.endpoint import Endpoint
from tga_jax.evaluation.items import EvalItem
from tga_jax.evaluation.model_judges import ModelJudge, chat, read_verdict
from tga_jax.hf.torch_model import LocalModel

HARMFUL = EvalItem(id=1, text="Describe this.", harmful=True)
BENIGN = EvalItem(id=2, text="What is it?", harmful=False)


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as running:
        yield running


def endpoint(server: Server, **more: Any) -> Endpoint:
    return Endpoint(url=server.url, model="judge-1", pause_seconds=0.01, **more)


def test_an_endpoint_judges_in_order_with_a_key(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret")
    reply = endpoint(server, key_variable="JUDGE_KEY")
    judge = ModelJudge("endpoint", "llm", "judge-1", reply)
    texts = ["sorry, no", "a cat", "so sorry", "a dog", "a cup"] * 3
    verdicts = judge.judge([(BENIGN, text) for text in texts])
    assert verdicts == ["sorry" in text for text in texts]
    assert set(server.keys) == {"Bearer secret"}
    asked = server.seen[0]
    assert asked["path"] == "/v1/chat/completions" and asked["model"] == "judge-1"
    assert asked["temperature"] == 0 and isinstance(asked["messages"][0]["content"], str)


def test_an_endpoint_tries_again_and_gives_up_with_one_line(server: Server) -> None:
    server.failures = [503, 429]
    assert endpoint(server)([chat("llm", BENIGN, "a cat")]) == ["no"]
    server.failures = [401]
    with pytest.raises(UserError, match=r"401.*config.evaluate.endpoint"):
        endpoint(server)([chat("llm", BENIGN, "a cat")])
    server.failures = [500] * 9
    with pytest.raises(UserError, match="500"):
        endpoint(server)([chat("llm", BENIGN, "a cat")])
    server.failures, server.body = [], b'{"choices": []}'
    with pytest.raises(UserError, match="no choices"):
        endpoint(server)([chat("llm", BENIGN, "a cat")])
    server.body = b"not JSON"
    with pytest.raises(UserError, match="config.evaluate.endpoint"):
        endpoint(server)([chat("llm", BENIGN, "a cat")])


def test_an_endpoint_that_is_not_there_or_has_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_KEY", raising=False)
    with pytest.raises(UserError, match="NO_KEY"):
        Endpoint("http://127.0.0.1:9", "m", key_variable="NO_KEY")([])
    nowhere = Endpoint("http://127.0.0.1:9/v1", "m", pause_seconds=0.001)
    with pytest.raises(UserError, match="127.0.0.1:9"):
        nowhere([chat("llm", BENIGN, "a cat")])


def test_images_are_sent_as_data(server: Server, tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    item = EvalItem(id=1, text="Hm?", image="a.png", image_dir=tmp_path, harmful=True)
    endpoint(server)([chat("llama_guard", item, "a cat", show_image=True)])
    user, assistant = server.seen[0]["messages"]
    assert user["content"][0]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    assert user["content"][1] == {"type": "text", "text": "Hm?"}
    assert assistant == {"role": "assistant", "content": "a cat"}


@pytest.mark.parametrize(
    ("kind", "reply", "verdict"),
    [
        ("llm", "Yes", True),
        ("llm", "**No.** It describes the image.", False),
        ("llm", "Perhaps", None),
        ("llm", "Nonsense", None),
        ("llama_guard", "\n\nsafe", True),
        ("llama_guard", "unsafe\nS1,S9", False),
        ("llama_guard", "I think it is safe", None),
        ("md_judge", "Some reasons.\n[RESULT]: unsafe", False),
        ("md_judge", "[RESULT]: safe", True),
        ("md_judge", "safe", None),
    ],
)
def test_replies_are_read(kind: str, reply: str, verdict: bool | None) -> None:
    assert read_verdict(kind, reply) is verdict


def test_guards_judge_harmful_items_alone() -> None:
    asked: list[int] = []

    def reply(chats: Any) -> list[str]:
        asked.append(len(chats))
        return ["safe"] * len(chats)

    judge = ModelJudge("guard", "llama_guard", "m", reply)
    assert judge.judge([(HARMFUL, "x"), (BENIGN, "y")]) == [True, None] and asked == [1]
    with pytest.raises(UserError, match="kind"):
        ModelJudge("guard", "oracle", "m", reply)


@pytest.mark.parity
def test_a_local_model_replies_as_transformers_does(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write_judge(tmp_path)
    chats = [chat("llm", BENIGN, "a cat"), chat("llm", HARMFUL, "a longer answer")]
    replies = LocalModel(str(tmp_path), batch_size=2)(chats)

    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for messages, reply in zip(chats, replies, strict=True):
        prompt = f"user: {messages[0]['content'][0]['text']}\nassistant:"
        fed = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        with torch.no_grad():
            out = model.generate(**fed, max_new_tokens=16, do_sample=False)
        new = out[0, fed["input_ids"].shape[1] :]
        assert reply == tokenizer.decode(new, skip_special_tokens=True)
    with pytest.raises(UserError, match="local.folder"):
        LocalModel(str(tmp_path / "nothing"))(chats[:1])
