"""The strings of the templates, written out as FORMATS has them."""

import pytest

from tga_jax.data.chat_template import ChatTemplate
from tga_jax.data.records import Record, Turn
from tga_jax.data.templates import (
    SYSTEM_TEXTS,
    TEMPLATE_NAMES,
    caption_prompt,
    count_marks,
    make_template,
    retrieved_text,
)
from tga_jax.errors import UserError

LLAMA_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language."
)
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
TURNS = (("<image>\nWhat is this?", "A cup."), ("Colour?", "White."))
WHOLE = {
    "plain": "<image>A cup.\n",
    "vicuna_v1": VICUNA_SYSTEM + " USER: <image>\nWhat is this? ASSISTANT: A cup.</s>"
    "USER: Colour? ASSISTANT: White.</s>",
    "llama_2": f"[INST] <<SYS>>\n{LLAMA_SYSTEM}\n<</SYS>>\n\n<image>\nWhat is this? [/INST] "
    "A cup. </s><s>[INST] Colour? [/INST] White. </s>",
    "mistral_instruct": "[INST] <image>\nWhat is this? [/INST] A cup. </s>"
    "[INST] Colour? [/INST] White. </s>",
    "chatml": "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n"
    "<image>\nWhat is this?<|im_end|><|im_start|>assistant\nA cup.<|im_end|><|im_start|>user\n"
    "Colour?<|im_end|><|im_start|>assistant\nWhite.<|im_end|>",
    "chatml_qwen": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    "<image>\nWhat is this?<|im_end|>\n<|im_start|>assistant\nA cup.<|im_end|>\n"
    "<|im_start|>user\nColour?<|im_end|>\n<|im_start|>assistant\nWhite.<|im_end|>",
}
ANSWERS = {
    "plain": ["A cup.\n"],
    "vicuna_v1": [" A cup.</s>", " White.</s>"],
    "llama_2": [" A cup. </s>", " White. </s>"],
    "mistral_instruct": [" A cup. </s>", " White. </s>"],
    "chatml": ["A cup.<|im_end|>", "White.<|im_end|>"],
    "chatml_qwen": ["A cup.<|im_end|>", "White.<|im_end|>"],
}
ENDS = {
    "plain": "\n",
    "vicuna_v1": "</s>",
    "llama_2": "</s>",
    "mistral_instruct": "</s>",
    "chatml": "<|im_end|>",
    "chatml_qwen": "<|im_end|>",
}


def make_record(*turns, images=("a.jpg",), caption=None, retrieved=None):
    turns = tuple(Turn(question, answer) for question, answer in turns)
    return Record("r7", images, turns, caption, retrieved, False)


def render(name, record, *, retrieved=None, **kwargs):
    template = make_template(name, **{"bos": "<s>", "eos": "</s>", **kwargs})
    return template.render(template.arrange(count_marks(record)), retrieved=retrieved)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_conversation(name):
    rendered = render(name, make_record(*TURNS))
    assert rendered.text == WHOLE[name]
    assert [rendered.text[a:b] for a, b in rendered.answer_spans] == ANSWERS[name]
    assert make_template(name, bos="<s>", eos="</s>").end_text == ENDS[name]


@pytest.mark.parametrize("name", WHOLE)
def test_a_prompt_ends_where_the_answer_begins(name):
    """The model is asked with the training text up to what it learns."""
    prompt = render(name, make_record(("<image>\nWhat is this?", None)))
    assert prompt.text == WHOLE[name][: WHOLE[name].index(ANSWERS[name][0])]
    assert prompt.answer_spans == ()


@pytest.mark.parametrize("name", [name for name in WHOLE if name != "plain"])
def test_retrieved_text_and_caption_pass(name):
    messages = count_marks(make_record(*TURNS))
    template = make_template(name, bos="<s>", eos="</s>")
    rendered = template.render(messages, retrieved="a tea set")
    told = "Retrieved Text: a tea set. <image>\nWhat is this?"
    assert rendered.text == WHOLE[name].replace("<image>\nWhat is this?", told)
    start, end = rendered.retrieved_span
    assert rendered.text[start:end] == "a tea set"
    caption = caption_prompt(template, messages, caption="a white cup")
    assert caption.text == WHOLE[name][: WHOLE[name].index("<image>")] + "a white cup"
    ((start, end),) = caption.answer_spans
    assert caption.text[start:end] == "a white cup" and end == len(caption.text)


@pytest.mark.parametrize(
    ("name", "system", "start"),
    [
        ("llama_2", "Be brief.", "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST]"),
        ("llama_2", "", "[INST] Hi [/INST]"),
        ("vicuna_v1", "Be brief.", "Be brief. USER: Hi ASSISTANT:"),
        ("vicuna_v1", "", "USER: Hi ASSISTANT:"),
        (
            "chatml",
            "Be brief.",
            "<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\nHi<|im_end|>"
            "<|im_start|>assistant\n",
        ),
        ("chatml", "", "<|im_start|>user\nHi<|im_end|><|im_start|>assistant\n"),
        ("chatml_qwen", "", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
    ],
)
def test_own_system_text(name, system, start):
    assert render(name, make_record(("Hi", None), images=()), system=system).text == start


def test_templates_without_a_place_for_it_refuse_a_system_text():
    for name in ("plain", "mistral_instruct"):
        with pytest.raises(UserError, match=f"{name}.*no place for a system text"):
            make_template(name, bos="", eos="</s>", system="x")
    with pytest.raises(UserError, match="there is no 'alpaca'; name one of auto, plain"):
        make_template("alpaca", bos="", eos="")


def questions(*texts, images):
    turns = [(text, "A") for text in texts]
    rendered = render("mistral_instruct", make_record(*turns, images=images), eos="|")
    return rendered.text.replace("[INST] ", "").replace(" [/INST] A |", "/").rstrip("/")


def test_marks_move_to_the_front_of_their_turn():
    two = ("a", "b")
    assert questions("What?\n<image>", images=("a",)) == "<image>\nWhat?"
    assert questions("Is <image> this?", images=("a",)) == "<image>\nIs  this?"
    assert questions("Hi", "What? <image>", images=("a",)) == "Hi/<image>\nWhat?"
    assert questions("A <image> or <image> ?", images=two) == "<image>\n<image>\nA  or  ?"
    assert questions("<image>\nA", "<image>\nB", images=two) == "<image>\nA/<image>\nB"
    assert questions("No marks", "here", images=two) == "<image>\n<image>\nNo marks/here"
    assert questions(" as it is ", images=()) == " as it is "


def test_a_question_that_is_only_its_image_ends_with_it():
    """LLaVA strips the text once the mark is in front: no newline is left."""
    assert questions("<image>", images=("a",)) == "<image>"
    assert questions("<image>\n", images=("a",)) == "<image>"
    assert questions("<image>", "Why?", images=("a",)) == "<image>/Why?"
    assert questions("<image> <image>", images=("a", "b")) == "<image>\n<image>"


@pytest.mark.parametrize(
    ("text", "images"), [("<image><image>", 1), ("<image>", 2), ("<image>", 0)]
)
def test_marks_and_images_must_agree(text, images):
    with pytest.raises(UserError, match=f"record r7: {text.count('<')} <image> marks for {images}"):
        count_marks(make_record((text, "A"), images=("a",) * images))


def test_marks_elsewhere_are_no_images():
    record = make_record(("What?", "An <image> <im<image>age>here"), images=())
    assert count_marks(record)[0].answer == "An  here"


def test_retrieved_text_equal_to_the_caption_is_halved():
    turn = ("What?", "A")
    assert retrieved_text(make_record(turn, caption="abcdefg", retrieved="abcdefg")) == "abc"
    assert retrieved_text(make_record(turn, caption="abc", retrieved="abcdefg")) == "abcdefg"
    assert retrieved_text(make_record(turn, caption="a", retrieved="a")) is None
    assert retrieved_text(make_record(turn, retrieved="<image>a")) == "a"
    assert retrieved_text(make_record(turn, retrieved="abc", images=())) is None


def test_plain_takes_the_first_answer_and_all_images():
    record = make_record(("Write:", "A."), ("<image> and <image>", "B."), images=("a", "b"))
    assert render("plain", record, retrieved="R").text == "<image><image>A.\n"


def test_blank_answers_have_no_span():
    rendered = render("vicuna_v1", make_record(("a", ""), ("b", " "), ("c", "C"), images=()))
    assert rendered.text.endswith(
        "USER: a ASSISTANT: </s>USER: b ASSISTANT:  </s>USER: c ASSISTANT: C</s>"
    )
    assert [rendered.text[a:b] for a, b in rendered.answer_spans] == [" C</s>"]
    assert render("plain", make_record(("a", ""))).answer_spans == ()


# --- the tokenizer's own chat template ---

LLAVA_HF = (  # content as a list, as LLaVA-1.5's own processor has it; with an end token
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'image') %}<image>\n{% endfor %}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}{{ c['text'] + ' ' }}"
    "{% endfor %}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
STRIPPING = (  # as Llama 2's: contents are stripped
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content.strip()"
    " + ' [/INST]' }}{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)


class FakeTokenizer:
    """A chat template alone; rendering is transformers' own."""

    added_tokens_decoder: dict = {}
    all_special_tokens = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    eos_token = "</s>"

    def __init__(self, chat_template):
        self.chat_template = chat_template

    def apply_chat_template(self, messages, *, tokenize, add_generation_prompt, chat_template):
        from transformers.utils.chat_template_utils import render_jinja_template

        (text,), _ = render_jinja_template(
            [messages],
            chat_template=chat_template,
            add_generation_prompt=add_generation_prompt,
            bos_token="<s>",
            eos_token="</s>",
        )
        return text


def test_chat_template(named_tokenizer):
    template = ChatTemplate(named_tokenizer("metaspace-first"))
    messages = count_marks(make_record(*TURNS))
    rendered = template.render(messages, retrieved="a tea set")
    assert rendered.text == (
        "<s><|im_start|>user\nRetrieved Text: a tea set. <image>\nWhat is this?<|im_end|>\n"
        "<|im_start|>assistant\nA cup.<|im_end|>\n<|im_start|>user\nColour?<|im_end|>\n"
        "<|im_start|>assistant\nWhite.<|im_end|>\n"
    )
    # The newline after the end token is not learnt.
    answers = [rendered.text[a:b] for a, b in rendered.answer_spans]
    assert answers == ["A cup.<|im_end|>", "White.<|im_end|>"]
    start, end = rendered.retrieved_span
    assert rendered.text[start:end] == "a tea set"
    assert template.end_text == "<|im_end|>"
    prompt = template.render(count_marks(make_record(("<image>\nWhat is this?", None)))).text
    assert prompt.endswith("What is this?<|im_end|>\n<|im_start|>assistant\n")
    system = ChatTemplate(named_tokenizer("metaspace-first"), system="Be brief.")
    assert system.render(messages).text.startswith("<s><|im_start|>system\nBe brief.<|im_end|>\n")


@pytest.mark.parametrize(
    ("chat_template", "text", "answers"),
    [
        (
            LLAVA_HF,
            "USER: <image>\nWhat is this? ASSISTANT: A cup. </s>USER: Colour? "
            "ASSISTANT: White. </s>",
            [" A cup. </s>", " White. </s>"],
        ),
        (
            STRIPPING,
            "<s>[INST] <image>\nWhat is this? [/INST] A cup. </s><s>[INST] Colour? [/INST] "
            "White. </s>",
            [" A cup. </s>", " White. </s>"],
        ),
    ],
)
def test_other_chat_templates(chat_template, text, answers):
    rendered = ChatTemplate(FakeTokenizer(chat_template)).render(count_marks(make_record(*TURNS)))
    assert rendered.text == text
    assert [text[a:b] for a, b in rendered.answer_spans] == answers


def test_stripping_templates_with_blanks_around():
    template = ChatTemplate(FakeTokenizer(STRIPPING))
    rendered = template.render(count_marks(make_record((" Hi ", "\nYo\n"))), retrieved="R")
    assert [rendered.text[a:b] for a, b in rendered.answer_spans] == [" Yo </s>"]
    start, end = rendered.retrieved_span
    assert rendered.text[start:end] == "R"


@pytest.mark.parametrize(
    ("chat_template", "message"),
    [
        (None, "no chat template"),
        ("nothing", "leaves out what the user says"),
        ("{{ raise_exception('no\nway') }}", "it fails: no way"),
        (
            "{% for m in messages %}{{ m.content }}{% endfor %}{{ messages | length }}",
            "differently",
        ),
        (
            "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %}{{ "
            "m.content | upper }}</s>{% endif %}{% endfor %}",
            "changes the answer 'A cup.'",
        ),
    ],
)
def test_chat_templates_that_cannot_be_used(chat_template, message):
    with pytest.raises(UserError, match=message) as error:
        ChatTemplate(FakeTokenizer(chat_template)).render(count_marks(make_record(*TURNS)))
    assert "\n" not in str(error.value)


def test_all_names_are_known():
    assert set(TEMPLATE_NAMES) == {*WHOLE, "tokenizer"}
    assert set(SYSTEM_TEXTS) < set(WHOLE)
