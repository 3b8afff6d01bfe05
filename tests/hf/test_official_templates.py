"""Twins of official checkpoints' chat templates: prompts, what is learnt, and what is exported.

The oracle is transformers' own `apply_chat_template` with images as items of their own.
"""

from __future__ import annotations

import copy
import datetime
import json

import pytest

from tests.hf.official_templates import (
    LLAMA_3,
    LLAMA_32,
    LLAVA_15,
    LLAVA_15_VSFT,
    LLAVA_16_MISTRAL,
    ONEVISION,
)
from tests.toy_tokenizers import write_byte_level, write_prepending
from tga_jax.data.prompts import Prompter
from tga_jax.data.records import Question, Record, Turn
from tga_jax.errors import UserError
from tga_jax.hf.chat_template import chat_template
from tga_jax.hf.tokenizer import load_tokenizer, save_tokenizer

TURNS = (("<image>\nWhat is this?", "A cup."), ("Colour?", "White."))
DAY = datetime.date(2026, 11, 28)
HEAD = "<|start_header_id|>"
LLAMA_32_SYSTEM = (
    f"<|begin_of_text|>{HEAD}system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: 28 Nov 2026\n\n<|eot_id|>"
)
LLAMA_3_TURNS = (
    f"{HEAD}user<|end_header_id|>\n\n<image>\nWhat is this?<|eot_id|>"
    f"{HEAD}assistant<|end_header_id|>\n\nA cup.<|eot_id|>"
    f"{HEAD}user<|end_header_id|>\n\nColour?<|eot_id|>"
    f"{HEAD}assistant<|end_header_id|>\n\nWhite.<|eot_id|>"
)


def write_llama_3(folder):
    """Llama 3's marks; its base tokenizer has no padding token."""
    bos = "<|begin_of_text|>"
    write_byte_level(folder, bos=bos, chat_template=None)
    path = folder / "tokenizer.json"
    text = path.read_text().replace("<|im_start|>", "<|start_header_id|>")
    text = text.replace("<|im_end|>", "<|eot_id|>").replace("<|endoftext|>", "<|end_header_id|>")
    path.write_text(text)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": "<|eot_id|>"}))
    return folder


def write_qwen(folder):
    return write_byte_level(folder, chat_template=None)


# template -> file, tokenizer, the text as it is, what is scored of it, what is learnt of it
OFFICIAL = {
    "llava-1.5": (
        LLAVA_15, "chat_template.json", write_prepending,
        "USER: <image>\nWhat is this? ASSISTANT: A cup. USER: Colour? ASSISTANT: White. ",
        [" A cup.", " White."], [" A cup.</s>", " White.</s>"],
    ),
    "llava-1.5 vsft": (
        LLAVA_15_VSFT, "chat_template.json", write_prepending,
        "USER: <image>\nWhat is this? ASSISTANT: A cup. USER: Colour? ASSISTANT: White. ",
        [" A cup.", " White."], [" A cup.</s>", " White.</s>"],
    ),
    "v1.6-mistral": (
        LLAVA_16_MISTRAL, "chat_template.json", write_prepending,
        "[INST] <image>\nWhat is this? [/INST] A cup.<\\s> [INST] Colour? [/INST] White.<\\s> ",
        [" A cup.", " White."], [" A cup.</s>", " White.</s>"],
    ),
    "onevision": (
        ONEVISION, "chat_template.json", write_qwen,
        "<|im_start|>user\n<image>\nWhat is this?<|im_end|>\n<|im_start|>assistant\nA cup."
        "<|im_end|>\n<|im_start|>user\nColour?<|im_end|>\n<|im_start|>assistant\nWhite."
        "<|im_end|>\n",
        ["A cup.<|im_end|>", "White.<|im_end|>"], ["A cup.<|im_end|>", "White.<|im_end|>"],
    ),
    "llama 3": (
        LLAMA_3, "tokenizer_config.json", write_llama_3, f"<|begin_of_text|>{LLAMA_3_TURNS}",
        ["A cup.<|eot_id|>", "White.<|eot_id|>"], ["A cup.<|eot_id|>", "White.<|eot_id|>"],
    ),
    "llama 3.2": (
        LLAMA_32, "chat_template.jinja", write_llama_3, LLAMA_32_SYSTEM + LLAMA_3_TURNS,
        ["A cup.<|eot_id|>", "White.<|eot_id|>"], ["A cup.<|eot_id|>", "White.<|eot_id|>"],
    ),
}  # fmt: skip
UNCLOSED = ["llava-1.5", "llava-1.5 vsft", "v1.6-mistral"]


@pytest.fixture(scope="module")
def infos(tmp_path_factory):
    root = tmp_path_factory.mktemp("official")
    return {name: load_tokenizer(write(root / name, name)) for name in OFFICIAL}


def write(folder, name):
    template, file, tokenizer, *_ = OFFICIAL[name]
    tokenizer(folder)
    path = folder / file
    if file.endswith(".jinja"):
        path.write_text(template)
    else:
        found = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(found | {"chat_template": template}))
    return folder


def prompter(info, **settings):
    common = dict(image_tokens=4, max_length=4000, use_retrieved=True, date=DAY)
    return Prompter(
        info.tokenizer, template="tokenizer", image_token="<image>", **common | settings
    )


def record(turns=TURNS):
    turns = tuple(Turn(*turn) for turn in turns)
    return Record("r1", ("a.png",), turns, None, None, False)


def ids_with_images(info, text):
    """The text's tokens as the processor feeds them: four for the image; BOS once."""
    ids = info.tokenizer(text).input_ids
    ids = ids[1:] if len(ids) > 1 and ids[0] == ids[1] == info.bos_id else ids
    return [i for one in ids for i in [one] * (4 if one == info.image_token_id else 1)]


def learnt(info, example):
    """The texts of what has labels, answer by answer."""
    runs, last = [], False
    for token, label in zip(example.tokens.tolist(), example.labels.tolist(), strict=True):
        if label != -100:
            runs = [*runs, []] if not last else runs
            runs[-1].append(token)
        last = label != -100
    return [info.tokenizer.decode(run) for run in runs]


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_text_is_the_templates_own(infos, name):
    info, (_, file, _, text, scored, _) = infos[name], OFFICIAL[name]
    assert info.template_file == file
    encoded = prompter(info).encode(record())
    assert encoded.tokens.tolist() == ids_with_images(info, text)
    assert [one.strip() for one in learnt(info, encoded)] == [one.strip() for one in scored]
    asked = prompter(info).encode_question(Question("q", "a.png", "What is this?"))
    said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": TURNS[0][0]}]}]
    said[0]["content"][1]["text"] = "What is this?"
    if "content'] | trim" in OFFICIAL[name][0]:  # Llama 3's are for texts
        said = [{"role": "user", "content": "<image>\nWhat is this?"}]
    oracle = info.tokenizer.apply_chat_template(
        said, tokenize=False, add_generation_prompt=True, date_string="28 Nov 2026"
    )
    assert asked.tokens.tolist() == ids_with_images(info, oracle)


@pytest.mark.parametrize("name", OFFICIAL)
def test_training_ends_every_answer(infos, name):
    info, expected = infos[name], OFFICIAL[name][5]
    trained = prompter(info, training=True)
    encoded = trained.encode(record())
    assert [one.strip() for one in learnt(info, encoded)] == [one.strip() for one in expected]
    assert trained.closing == ("</s>" if name in UNCLOSED else "")
    ends = [i for i, label in enumerate(encoded.labels) if label == info.eos_ids[0]]
    assert len(ends) == 2
    # What is asked is the same, so the model is trained on what it will be asked with.
    plain = prompter(info).encode(record())
    start = int((plain.labels != -100).argmax())
    assert encoded.tokens[:start].tolist() == plain.tokens[:start].tolist()


def test_generation_stops_where_the_template_lets_it(infos):
    ends = {name: prompter(info).end_text for name, info in infos.items()}
    assert ends["llava-1.5"] == ends["llava-1.5 vsft"] == ""
    assert ends["v1.6-mistral"] == "<\\s>"
    assert ends["onevision"] == "<|im_end|>"
    assert ends["llama 3"] == ends["llama 3.2"] == "<|eot_id|>"


@pytest.mark.parametrize("name", UNCLOSED)
def test_a_system_text_without_a_place_is_refused_and_one_with_a_place_is_written(infos, name):
    if name == "v1.6-mistral":
        with pytest.raises(UserError, match="Only user and assistant roles"):
            prompter(infos[name], system="Be brief.").encode(record())
    else:
        ids = prompter(infos[name], system="Be brief.").encode(record()).tokens
        assert infos[name].tokenizer.decode(ids).startswith("<s> Be brief. USER: <image>")


@pytest.mark.parametrize("name", OFFICIAL)
@pytest.mark.parametrize("retrieved", [None, "a tea set"])
def test_the_export_writes_the_training_texts(tmp_path, infos, name, retrieved):
    info = infos[name]
    one = record()
    one = Record(one.id, one.images, one.turns, None, retrieved, False)
    expected = prompter(info, training=True).encode(one).tokens.tolist()
    template = chat_template("tokenizer", info=info, trained=True)
    save_tokenizer(tmp_path / "out", info.tokenizer, chat_template=template)
    again = load_tokenizer(tmp_path / "out")
    question, answer = TURNS[0][0].removeprefix("<image>\n"), TURNS[0][1]
    said = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        {"role": "user", "content": TURNS[1][0]},
        {"role": "assistant", "content": TURNS[1][1]},
    ]
    given = {} if retrieved is None else {"retrieved_text": retrieved}
    text = again.tokenizer.apply_chat_template(
        said, tokenize=False, date_string="28 Nov 2026", **given
    )
    assert ids_with_images(again, text) == expected
    # Read back by this program, it says and learns the same.
    back = prompter(again, training=True)
    assert back.encode(one).tokens.tolist() == expected
    assert back.closing == ""


def test_the_clock_is_not_read(infos):
    info = infos["llama 3.2"]
    days = [datetime.date(2024, 2, 29), DAY]
    first, second = (prompter(info, date=day).encode(record()) for day in days)
    assert "Today Date: 29 Feb 2024\n" in info.tokenizer.decode(first.tokens)
    assert "Today Date: 28 Nov 2026\n" in info.tokenizer.decode(second.tokens)
    with pytest.raises(UserError, match=r"writes today's date; set config\.prompt\.date"):
        prompter(info, date=None)
    prompter(infos["llama 3"], date=None)  # writes none


def test_a_template_that_leaves_out_images_is_refused(infos):
    info = infos["onevision"]
    tokenizer = write_first_image_only(info.tokenizer)
    second = Record("r2", ("a.png", "b.png"), (Turn("<image>a", "A"), Turn("<image>b", "B")), None,
                    None, False)  # fmt: skip
    made = Prompter(
        tokenizer, template="tokenizer", image_token="<image>", image_tokens=4, max_length=99,
        use_retrieved=False,
    )  # fmt: skip
    with pytest.raises(UserError, match="r2: its prompt template writes 1 of its 2 images"):
        made.encode(second)


def write_first_image_only(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = ONEVISION.replace("{{ '<image>' }}", "{{ image }}").replace(
        "{% for content in message['content']",
        "{% set image = '<image>' if loop.first else '' %}{% for content in message['content']",
        1,
    )
    return tokenizer
