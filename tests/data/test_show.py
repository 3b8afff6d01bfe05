import json
import re

from tga_jax.data.prompts import Prompter
from tga_jax.data.records import Record, Turn
from tga_jax.data.show import inspect_line, render


def make_example(tokenizer, **changes):
    turns = (Turn("<image>\nWhat\x1b[2J is this?", "A white cup"),)
    fields = {
        "id": "r7",
        "images": ("a.jpg",),
        "turns": turns,
        "caption": "a cup",
        "retrieved": "a tea set",
        "tox": False,
    }
    prompter = Prompter(
        tokenizer,
        template="vicuna_v1",
        image_token="<image>",
        image_tokens=144,
        max_length=500,
        use_retrieved=True,
        system="",
    )
    return prompter.encode(Record(**{**fields, **changes}))


def test_inspect_line_is_json_with_the_contracts_keys(named_tokenizer):
    example = make_example(named_tokenizer("byte"))
    line = json.loads(json.dumps(inspect_line(example)))
    assert list(line) == [
        "id",
        "input_ids",
        "labels",
        "image_span",
        "retrieved_span",
        "caption_input_ids",
        "caption_span",
    ]
    assert line["input_ids"] == example.tokens.tolist()
    assert line["labels"] == example.labels.tolist()
    assert line["image_span"][1] - line["image_span"][0] == 144
    assert line["caption_input_ids"] == example.caption_tokens.tolist()
    assert line["caption_span"] == list(example.caption_span)


def test_inspect_line_of_a_tox_and_a_text_only_row(named_tokenizer):
    tox = inspect_line(make_example(named_tokenizer("byte"), tox=True))
    assert tox["caption_input_ids"] == [] and tox["caption_span"] is None
    turns = (Turn("Hi", "Yo"),)
    text = inspect_line(make_example(named_tokenizer("byte"), images=(), turns=turns))
    assert text["image_span"] is None and text["retrieved_span"] is None


def test_colours(tokenizer):
    view = render(make_example(tokenizer), tokenizer, colours=True)
    painted = re.findall(r"\033\[(\d+)m([^\033]*)\033\[0m", view.split("\n", 1)[1])
    painted = [(colour, text.strip()) for colour, text in painted]
    end = tokenizer.eos_token
    assert ("35", "<image x144>") in painted
    assert ("36", "a cup") in painted
    retrieved = next(text for colour, text in painted if colour == "33")
    assert retrieved.startswith("a tea set")
    learnt = "".join(text for colour, text in painted if colour == "32")
    assert learnt == f"A white cup{end}"
    assert "What\\x1b[2J is this?" in view and "\033[2J" not in view


def test_a_file_gets_marks_in_brackets(tokenizer):
    view = render(make_example(tokenizer), tokenizer, colours=False)
    assert "\033" not in view and "<image x144>" in view
    assert re.search(r"\[retrieved: *a tea set.*?\]", view)
    assert re.search(rf"\[label: *A white cup{re.escape(tokenizer.eos_token)}\]", view)
    assert re.search(r"caption pass:\n.*\[caption: *a cup\]", view)
