import json
import subprocess
import sys

import pytest
from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from tests.toy_tokenizers import (
    CHATML,
    write_byte_level,
    write_prepending,
    write_sentencepiece_style,
    write_split_digits,
)
from tga_jax.data.prompts import Prompter
from tga_jax.data.records import Question
from tga_jax.errors import UserError
from tga_jax.hf.tokenizer import load_tokenizer, save_tokenizer, with_end_text

TEXTS = [
    "USER: What colour is the bus? ASSISTANT: Red.</s>USER: naïve  café\n",
    "<image>\nWhat?<image>x <image> y",
    " leading blank\n\n<|im_end|>日本",
]


def test_image_and_pad_are_appended_once(tmp_path):
    folder = write_sentencepiece_style(tmp_path / "m")
    size = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    info = load_tokenizer(folder)
    assert (info.image_token_id, info.pad_id, info.vocab_needed) == (size, size + 1, size + 2)
    assert (info.bos_id, info.eos_ids) == (1, (2,))
    ids = info.tokenizer("a<image><image>b").input_ids
    assert ids[0] == 1 and ids.count(size) == 2
    assert info.tokenizer.decode(ids, skip_special_tokens=True) == "ab"


def test_own_pad_token_is_kept(tmp_path):
    info = load_tokenizer(write_byte_level(tmp_path / "m"))
    assert info.tokenizer.pad_token == "<|endoftext|>"
    assert info.bos_id is None
    assert info.vocab_needed == info.image_token_id + 1


def test_end_ids_of_generation_config_are_added(tmp_path):
    folder = write_byte_level(tmp_path / "m")
    im_end = load_tokenizer(folder).eos_ids[0]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, im_end]}))
    assert load_tokenizer(folder).eos_ids == (im_end, 3)


def test_end_text_of_one_token_ends_answers(tmp_path):
    info = load_tokenizer(write_sentencepiece_style(tmp_path / "m"))
    newline = info.tokenizer.convert_tokens_to_ids("<0x0A>")
    assert with_end_text(info, "\n").eos_ids == (2, newline)
    assert with_end_text(info, "</s>").eos_ids == (2,)
    assert with_end_text(info, "<|im_end|>").eos_ids == (2,)  # many tokens here


@pytest.mark.parametrize("write", [write_sentencepiece_style, write_byte_level])
def test_saved_tokenizer_gives_the_same_ids(tmp_path, write):
    info = load_tokenizer(write(tmp_path / "m"))
    out = tmp_path / "out"
    out.mkdir()
    save_tokenizer(out, info.tokenizer, chat_template="{{ messages }}")
    (out / "config.json").write_text(json.dumps({"model_type": "llava"}))
    again = AutoTokenizer.from_pretrained(out)
    alone = Tokenizer.from_file(str(out / "tokenizer.json"))
    for text in TEXTS:
        ids = info.tokenizer(text).input_ids
        assert again(text).input_ids == ids
        assert alone.encode(text).ids == ids
    assert again.pad_token_id == info.pad_id
    assert again.eos_token_id == info.eos_ids[0]
    assert again.chat_template == "{{ messages }}"


def test_padding_of_the_last_call_is_not_saved(tmp_path):
    info = load_tokenizer(write_byte_level(tmp_path / "m"))
    info.tokenizer(["a", "a b c"], padding=True, truncation=True, max_length=9)
    save_tokenizer(tmp_path, info.tokenizer, chat_template="{{ messages }}")
    state = json.loads((tmp_path / "tokenizer.json").read_text())
    assert state["padding"] is None and state["truncation"] is None


def test_appended_end_token_is_taken_off(tmp_path):
    folder = write_sentencepiece_style(tmp_path / "m")
    path = str(folder / "tokenizer.json")
    backend = Tokenizer.from_file(path)
    backend.post_processor = TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    backend.save(path)
    assert AutoTokenizer.from_pretrained(folder)("a").input_ids[-1] == 2
    ids = load_tokenizer(folder).tokenizer("a").input_ids
    assert ids[0] == 1 and ids[-1] != 2


def test_folder_without_tokenizer_is_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}.*tokenizer.json"):
        load_tokenizer(tmp_path)


def test_broken_tokenizer_is_named(tmp_path):
    folder = write_byte_level(tmp_path / "m")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=str(folder)):
        load_tokenizer(folder)


def test_slow_tokenizer_is_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"not a model")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UserError, match=str(tmp_path)):
        load_tokenizer(tmp_path)


# --- tokenizer.json says how texts become tokens ---

WRITTEN_APART = {
    "digits": write_split_digits,
    "digits of a qwen2": lambda folder: write_split_digits(folder, model_type="qwen2"),
    "blanks": write_prepending,
    "blanks, legacy": lambda folder: write_prepending(folder, legacy=True),
    "blanks, not legacy": lambda folder: write_prepending(folder, legacy=False),
    "blanks of a mistral": lambda folder: write_prepending(
        folder, legacy=False, model_type="mistral"
    ),
    "blanks of a llava": lambda folder: write_prepending(folder, legacy=False, model_type="llava"),
}
APART = [*TEXTS, "In 2023 it was 42.", "<|im_start|>user\nHow many in 2023?<|im_end|>", "42</s>42"]


def file_alone(folder):
    """The oracle: the file as the tokenizers library reads it, with LLaVA's image token."""
    alone = Tokenizer.from_file(str(folder / "tokenizer.json"))
    alone.add_tokens([AddedToken("<image>", special=True, normalized=False)])
    return alone


@pytest.mark.parametrize("kind", WRITTEN_APART)
def test_tokenizer_json_is_honoured_whatever_its_class_builds(tmp_path, kind):
    folder = WRITTEN_APART[kind](tmp_path / "m")
    info, alone = load_tokenizer(folder), file_alone(folder)
    out = tmp_path / "out"
    save_tokenizer(out, info.tokenizer, chat_template="{{ messages }}")
    (out / "config.json").write_text((folder / "config.json").read_text())
    again, by_others = load_tokenizer(out).tokenizer, AutoTokenizer.from_pretrained(out)
    for text in APART:
        expected = alone.encode(text).ids
        assert info.tokenizer(text).input_ids == expected
        assert again(text).input_ids == expected  # what was exported is read as it was used
        assert by_others(text).input_ids == expected


def test_single_digits_are_single_tokens(tmp_path):
    info = load_tokenizer(write_split_digits(tmp_path / "m"))
    assert info.tokenizer.tokenize("in 2023")[-4:] == ["2", "0", "2", "3"]


# --- an image token that was added in another way than LLaVA's ---


def added_plainly(folder):
    """By `add_tokens`, which has a token normalized and not special."""
    tokenizer = AutoTokenizer.from_pretrained(write_prepending(folder, model_type="llava"))
    tokenizer.add_tokens(["<image>"])
    tokenizer.save_pretrained(folder)
    return tokenizer.convert_tokens_to_ids("<image>")


def added_by_file(folder):
    """By added_tokens.json, beside a tokenizer.json that doesn't know it."""
    write_prepending(folder, model_type="llava")
    size = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    (folder / "added_tokens.json").write_text(json.dumps({"<image>": size}))
    return size


@pytest.mark.parametrize("add", [added_plainly, added_by_file])
def test_normalized_image_token_is_read_as_transformers_reads_it(tmp_path, add):
    token_id = add(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    info = load_tokenizer(tmp_path, image_token_id=token_id)
    assert (info.image_token, info.image_token_id) == ("<image>", token_id)
    for text in ["USER: <image>\nWhat is it? ASSISTANT:", "<image>\nWhat", "a <image> b</s>c"]:
        ids = theirs(text).input_ids
        assert ids.count(token_id) == 1
        assert info.tokenizer(text).input_ids == ids
    question = Question(id="1", image="x.png", text="What is it?")
    ids = prompter(info, "vicuna_v1").encode_question(question).tokens.tolist()
    assert ids.count(token_id) == 4
    saved = tmp_path / "saved"
    save_tokenizer(saved, info.tokenizer, chat_template="{{ messages }}")
    again = load_tokenizer(saved, image_token_id=token_id)
    assert prompter(again, "vicuna_v1").encode_question(question).tokens.tolist() == ids


def test_normalized_image_token_behind_a_newline_is_refused_with_the_remedy(tmp_path):
    info = load_tokenizer(tmp_path, image_token_id=added_plainly(tmp_path))
    question = Question(id="q7", image="x.png", text="What is it?")
    with pytest.raises(
        UserError, match='q7: .*reads 0 of its 1 .* "normalized": false .*tokenizer.json'
    ):
        prompter(info, "chatml").encode_question(question)


def prompter(info, template):
    return Prompter(
        info.tokenizer,
        template=template,
        image_token=info.image_token,
        image_tokens=4,
        max_length=2000,
        use_retrieved=True,
    )


def test_image_token_of_another_name_is_the_configs(tmp_path):
    folder = write_byte_level(tmp_path / "m", bos="<|image|>")
    token_id = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("<|image|>")
    info = load_tokenizer(folder, image_token_id=token_id)
    assert (info.image_token, info.image_token_id) == ("<|image|>", token_id)


def test_an_ordinary_token_is_no_image_token_where_there_is_one(tmp_path):
    folder = write_byte_level(tmp_path / "m", bos="<image>")
    with pytest.raises(
        UserError, match="image_token_index=40 is .* in tokenizer.json, where <image>"
    ):
        load_tokenizer(folder, image_token_id=40)


# --- where a chat template stands ---


def test_chat_template_is_found_in_every_place(tmp_path):
    folder = write_byte_level(tmp_path / "m")

    def found():
        info = load_tokenizer(folder)
        return info.template_file, info.tokenizer.chat_template

    assert found() == ("tokenizer_config.json", CHATML)
    (folder / "processor_config.json").write_text(json.dumps({"image_token": "<image>"}))
    assert found() == ("tokenizer_config.json", CHATML)
    for name, text in (("processor_config.json", "a"), ("chat_template.json", "b")):
        (folder / name).write_text(json.dumps({"chat_template": text}))
        assert found() == (name, text)
    (folder / "chat_template.jinja").write_text("c")
    assert found() == ("chat_template.jinja", "c")


def test_folder_without_a_chat_template_says_so(tmp_path):
    info = load_tokenizer(write_sentencepiece_style(tmp_path / "m"))
    assert (info.template_file, info.tokenizer.chat_template) == ("", None)


def test_broken_chat_template_file_is_named(tmp_path):
    folder = write_byte_level(tmp_path / "m")
    (folder / "chat_template.json").write_text("{")
    with pytest.raises(UserError, match="chat_template.json: malformed JSON"):
        load_tokenizer(folder)


# --- the user's screen ---


def test_warnings_of_transformers_do_not_reach_the_user(tmp_path):
    """Of a Llama class over a byte-level file, and of CLIP's end token beyond its vocabulary."""
    folder = write_byte_level(tmp_path / "m")
    path = folder / "tokenizer_config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "LlamaTokenizer"})
    )
    clip = {"model_type": "clip", "text_config": {"vocab_size": 64}, "vision_config": {}}
    (tmp_path / "config.json").write_text(json.dumps(clip))
    code = (
        "import sys; from pathlib import Path\n"
        "from tga_jax.hf.config import read_vision_config\n"
        "from tga_jax.hf.tokenizer import load_tokenizer\n"
        "load_tokenizer(Path(sys.argv[1])); read_vision_config(Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(folder), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
