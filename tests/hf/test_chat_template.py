"""Chat templates against FORMATS' strings, LLaVA's rules and the training prompts."""

import itertools
import json
from dataclasses import replace

import pytest
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer

from tests.toy_tokenizers import (
    CHATML,
    INST_WITH_BOS,
    LIST_ONLY,
    write_byte_level,
    write_sentencepiece_style,
)
from tga_jax.data.chat_template import ChatTemplate
from tga_jax.data.prompts import Prompter
from tga_jax.data.records import Question, Record, Turn
from tga_jax.data.templates import count_marks, make_template
from tga_jax.errors import UserError
from tga_jax.hf.chat_template import chat_template
from tga_jax.hf.processor import write_processor
from tga_jax.hf.tokenizer import load_tokenizer, save_tokenizer
from tga_jax.models.config import DecoderConfig, LlavaConfig, VisionConfig

IMAGE = {"type": "image"}
LLAMA_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language."
)
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
TWO_TURNS = [
    {"role": "user", "content": [IMAGE, {"type": "text", "text": "What?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A cup."}]},
    {"role": "user", "content": "Its colour?"},
]
# Of FORMATS.md, to the character; the prompt before the second answer.
EXPECTED = {
    "plain": "<image>A cup.\n",
    "vicuna_v1": f"{VICUNA_SYSTEM} USER: <image>\nWhat? ASSISTANT: A cup.</s>"
    "USER: Its colour? ASSISTANT:",
    "llama_2": f"[INST] <<SYS>>\n{LLAMA_SYSTEM}\n<</SYS>>\n\n<image>\nWhat? [/INST] A cup. </s>"
    "<s>[INST] Its colour? [/INST]",
    "mistral_instruct": "[INST] <image>\nWhat? [/INST] A cup. </s>[INST] Its colour? [/INST]",
    "chatml": "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\nWhat?"
    "<|im_end|><|im_start|>assistant\nA cup.<|im_end|><|im_start|>user\nIts colour?<|im_end|>"
    "<|im_start|>assistant\n",
    # As Qwen's own apply_chat_template writes it.
    "chatml_qwen": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    "<image>\nWhat?<|im_end|>\n<|im_start|>assistant\nA cup.<|im_end|>\n<|im_start|>user\n"
    "Its colour?<|im_end|>\n<|im_start|>assistant\n",
}
OTHERS = ["plain", "vicuna_v1", "llama_2", "mistral_instruct", "chatml", "chatml_qwen"]
TOKENIZERS = {
    "llama": write_sentencepiece_style,
    "qwen": write_byte_level,
    "llama3": lambda folder: write_byte_level(folder, bos="<|begin_of_text|>"),
}


@pytest.fixture(scope="module")
def infos(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokenizers")
    return {name: load_tokenizer(write(root / name)) for name, write in TOKENIZERS.items()}


def render(info, template, messages, **kwargs):
    return info.tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, **kwargs
    )


@pytest.mark.parametrize("name", OTHERS)
def test_strings_of_the_formats(infos, name):
    template = chat_template(name, info=infos["llama"])
    got = render(infos["llama"], template, TWO_TURNS, add_generation_prompt=True)
    assert got == EXPECTED[name]


@pytest.mark.parametrize("name", OTHERS)
def test_order_and_kind_of_content_do_not_matter(infos, name):
    template = chat_template(name, info=infos["llama"])
    text = {"type": "text", "text": "What?"}
    contents = [
        [IMAGE, text],
        [text, IMAGE],
        [{"type": "image_url", "image_url": {"url": "x"}}, text],
        "<image>\nWhat?",
        "What?\n<image>",
    ]
    rendered = {
        render(infos["llama"], template, [{"role": "user", "content": content}, *TWO_TURNS[1:]])
        for content in contents
    }
    assert len(rendered) == 1
    assert "<image>" in rendered.pop()


@pytest.mark.parametrize("name", ["vicuna_v1", "llama_2", "chatml", "chatml_qwen"])
def test_system_message_replaces_the_built_in_text(infos, name):
    info = infos["llama"]
    said = [{"role": "system", "content": "It's “short”."}, *TWO_TURNS]
    by_message = render(info, chat_template(name, info=info), said)
    baked = render(info, chat_template(name, info=info, system="It's “short”."), TWO_TURNS)
    assert by_message == baked
    assert by_message.count("It's “short”.") == 1
    assert LLAMA_SYSTEM not in by_message and VICUNA_SYSTEM not in by_message
    none = render(info, chat_template(name, info=info, system=""), TWO_TURNS)
    assert none.startswith(("USER: <", "[INST] <image>", "<|im_start|>user\n"))


@pytest.mark.parametrize("name", ["plain", "mistral_instruct"])
def test_system_message_without_a_place_is_refused(infos, name):
    said = [{"role": "system", "content": "x"}, *TWO_TURNS]
    with pytest.raises(Exception, match="no place for a system"):
        render(infos["llama"], chat_template(name, info=infos["llama"]), said)


CONVERSATIONS = {
    "one image": [("<image>\nWhat is this?", "A cup."), ("And the colour?", "Red.\nOr blue.")],
    "two images": [("<image>\n<image>\nCompare.", "Same."), ("And <image>?", "Other.")],
    "text only": [(" blanks kept ", "{{ 'not' }} a {% template %}"), ("Why?", "naïve café")],
    "blank answer": [("Hello", ""), ("Hello?", "Yes.")],
    "image alone": [("<image>", "A cup."), ("Why?", "I see it.")],
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("said", CONVERSATIONS)
def test_whole_conversations_equal_the_training_text(infos, name, said):
    turns = CONVERSATIONS[said]
    for info in infos.values():
        tokenizer = info.tokenizer
        trained = make_template(name, bos=tokenizer.bos_token or "", eos=tokenizer.eos_token)
        messages = trained.arrange(count_marks(record(turns)))
        expected = trained.render(messages).text
        template = chat_template(name, info=info)
        assert render(info, template, chat(turns)) == expected


@pytest.mark.parametrize(
    ("kind", "own"), [("llama3", CHATML), ("llama", INST_WITH_BOS), ("llama", LIST_ONLY)]
)
@pytest.mark.parametrize("said", CONVERSATIONS)
def test_own_template_renders_the_training_text(tmp_path, kind, own, said):
    info = load_tokenizer(TOKENIZERS[kind](tmp_path / "m"))
    info.tokenizer.chat_template = own
    turns = CONVERSATIONS[said]
    expected = ChatTemplate(info.tokenizer, system="Be kind.").render(count_marks(record(turns)))
    template = chat_template("tokenizer", info=info, system="Be kind.")
    got = render(info, template, chat(turns))
    assert got == expected.text


def test_begin_token_is_left_to_the_tokenizer_where_the_ids_stay(tmp_path):
    info = load_tokenizer(TOKENIZERS["llama3"](tmp_path / "m"))
    info.tokenizer.chat_template = INST_WITH_BOS
    text = render(info, chat_template("tokenizer", info=info), chat(CONVERSATIONS["text only"]))
    assert text.startswith("[INST]") and text.count("<|begin_of_text|>[INST]") == 1


def test_begin_token_stays_where_the_tokenizer_does_not_add_it(tmp_path):
    folder = write_byte_level(tmp_path / "m", chat_template=INST_WITH_BOS)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bos_token": "<|im_start|>"}))
    info = load_tokenizer(folder)
    assert info.bos_id is not None and info.tokenizer("a").input_ids[0] != info.bos_id
    text = render(info, chat_template("tokenizer", info=info), [{"role": "user", "content": "a"}])
    assert text == "<|im_start|>[INST] a [/INST]"


def test_tokenizer_without_a_template_is_an_error(tmp_path):
    info = load_tokenizer(write_sentencepiece_style(tmp_path / "m"))
    with pytest.raises(UserError, match="no chat template"):
        chat_template("tokenizer", info=info)
    with pytest.raises(UserError, match="vicuna_v1"):
        chat_template("vicuna", info=info)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", [*OTHERS, "tokenizer"])
@pytest.mark.parametrize("retrieved", [None, "a tea set on a table"])
def test_processor_gives_the_training_ids(tmp_path, kind, name, retrieved):
    """Rendered and tokenised apart, or in one call: both are what training feeds the model."""
    info = load_tokenizer(TOKENIZERS[kind](tmp_path / "m"))
    if kind != "qwen":
        info.tokenizer.chat_template = INST_WITH_BOS
    question = Question(id="1", image="x.png", text="What is this?", retrieved=retrieved)
    expected = prompter(info, name).encode_question(question).tokens.tolist()

    processor = saved_processor(tmp_path / "out", info, name)
    shown = Image.new("RGB", (50, 30), "red")
    message = [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": shown},
                {"type": "text", "text": "What is this?"},
            ],
        }
    ]
    extra = {} if retrieved is None else {"retrieved_text": retrieved}
    text = processor.apply_chat_template(message, add_generation_prompt=True, **extra)
    assert processor(text=text, images=shown).input_ids[0] == expected
    at_once = processor.apply_chat_template(
        message, add_generation_prompt=True, tokenize=True, **extra
    )
    assert list(at_once[0]) == expected
    assert expected.count(info.image_token_id) == 9
    same = AutoTokenizer.from_pretrained(tmp_path / "out").apply_chat_template(
        message, add_generation_prompt=True, tokenize=False, **extra
    )
    assert same == text


def prompter(info, name):
    return Prompter(
        info.tokenizer,
        template=name,
        image_token="<image>",
        image_tokens=9,
        max_length=2000,
        use_retrieved=True,
    )


def saved_processor(folder, info, name):
    vision = VisionConfig(image_size=24, patch_size=8, width=8, layers=2, heads=2, ffn=8)
    decoder = DecoderConfig(vocab=1, width=8, layers=1, heads=1, kv_heads=1, head_dim=8, ffn=8)
    config = LlavaConfig(vision=vision, decoder=decoder, image_token=info.image_token_id)
    settings = dict(
        shortest_edge=24,
        resize=None,
        crop=(24, 24),
        resample=3,
        pad_to_square=True,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        rescale=1 / 255,
    )
    folder.mkdir()
    template = chat_template(name, info=info)
    save_tokenizer(folder, info.tokenizer, chat_template=template)
    write_processor(folder, settings=settings, config=config, image_token=info.image_token)
    (folder / "config.json").write_text(json.dumps({"model_type": "llava"}))
    return AutoProcessor.from_pretrained(folder)


def record(turns):
    images = tuple("x.png" for q, _ in turns for _ in range(q.count("<image>")))
    return Record(
        id="1",
        images=images,
        turns=tuple(Turn(question, answer) for question, answer in turns),
        caption=None,
        retrieved=None,
        tox=False,
    )


def chat(turns):
    roles = itertools.cycle(["user", "assistant"])
    texts = itertools.chain.from_iterable(turns)
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


def test_image_token_of_another_name_is_rendered(infos):
    info = replace(infos["llama"], image_token="<|image|>")
    text = render(info, chat_template("vicuna_v1", info=info, system=""), TWO_TURNS)
    assert text.startswith("USER: <|image|>\nWhat?")
