"""Spans and labels against an oracle that doesn't use offsets: the tokens' own bytes."""

import numpy as np
import pytest

from tga_jax.data.prompts import Prompter
from tga_jax.data.records import Question, Record, Turn
from tga_jax.data.templates import SYSTEM_TEXTS, TEMPLATE_NAMES
from tga_jax.data.tokenise import token_span
from tga_jax.errors import UserError

IMAGE_TOKENS = 9
CAPTION = "une tasse « café » 👩‍🚀 白い茶碗"
RETRIEVED = "naïve 茶 set on a table 🫖"
TURNS = (
    Turn("<image>\nWhat is this?", "It is a cup — カップ."),
    Turn("What colour?", "White ☕"),
)


def make_record(turns=TURNS, **changes):
    fields = {
        "id": "r7",
        "images": ("a.jpg",),
        "turns": tuple(turns),
        "caption": CAPTION,
        "retrieved": RETRIEVED,
        "tox": False,
    }
    return Record(**{**fields, **changes})


def make_prompter(tokenizer, template="vicuna_v1", **changes):
    fields = {
        "image_token": "<image>",
        "image_tokens": IMAGE_TOKENS,
        "max_length": 2000,
        "use_retrieved": True,
    }
    return Prompter(tokenizer, template=template, **{**fields, **changes})


# --- the oracle ---


def byte_alphabet():
    """GPT-2's table: the character that stands for each byte in byte-level BPE."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(b): b for b in visible} | {chr(256 + i): b for i, b in enumerate(hidden)}


def token_bytes(tokenizer, token_id):
    token = tokenizer.convert_ids_to_tokens(int(token_id))
    if token_id in tokenizer.added_tokens_decoder and not token.startswith("<0x"):
        return token.encode()
    if tokenizer.eos_token == "<|end|>":
        return bytes(byte_alphabet()[char] for char in token)
    if token.startswith("<0x"):
        return bytes([int(token[1:-1], 16)])
    return token.replace("▁", " ").encode()


def spelled(tokenizer, ids):
    return b"".join(token_bytes(tokenizer, i) for i in ids)


def byte_spans(tokenizer, example_tokens, text):
    """Where in the text's bytes each token is; None for a token that adds no byte of the text."""
    content, at, spans = text.encode(), 0, []
    for token in example_tokens:
        piece = token_bytes(tokenizer, token)
        if not content.startswith(piece, at) and piece.startswith(b" "):
            piece = piece[1:]  # the dummy blank before a text or after a special token
        if not spans and token == tokenizer.bos_token_id and not content.startswith(piece):
            piece = b""
        assert content.startswith(piece, at), (content[at:], piece)
        spans.append((at, at + len(piece)) if piece else None)
        at += len(piece)
    assert at == len(content)
    return spans


def expected_span(tokenizer, tokens, text, wanted):
    """Tokens with a byte of `wanted` (its last place in the text), found without offsets."""
    start = text.encode().rindex(wanted.encode())
    end = start + len(wanted.encode())
    places = [
        i
        for i, span in enumerate(byte_spans(tokenizer, tokens, text))
        if span is not None and span[0] < end and span[1] > start
    ]
    return (places[0], places[-1] + 1)


def system(template):
    return SYSTEM_TEXTS.get(template, "")


def expected_texts(template, tokenizer):
    """(main text, caption pass text, labelled texts) of `make_record()`, written out."""
    eos, bos = tokenizer.eos_token, tokenizer.bos_token or ""
    q1 = f"Retrieved Text: {RETRIEVED}. <image>\nWhat is this?"
    q2, (a1, a2) = "What colour?", (turn.answer for turn in TURNS)
    user, end = "<|im_start|>user\n", "<|im_end|>"
    assistant = "<|im_start|>assistant\n"
    match template:
        case "plain":
            return f"<image>{a1}\n", CAPTION, [f"{a1}\n"]
        case "vicuna_v1":
            head = f"{system(template)} USER: "
            text = f"{q1} ASSISTANT: {a1}{eos}USER: {q2} ASSISTANT: {a2}{eos}"
            return head + text, head + CAPTION, [a1 + eos, a2 + eos]
        case "llama_2":
            head = f"[INST] <<SYS>>\n{system(template)}\n<</SYS>>\n\n"
            text = f"{q1} [/INST] {a1} {eos}{bos}[INST] {q2} [/INST] {a2} {eos}"
            return head + text, head + CAPTION, [f"{a1} {eos}", f"{a2} {eos}"]
        case "mistral_instruct":
            text = f"[INST] {q1} [/INST] {a1} {eos}[INST] {q2} [/INST] {a2} {eos}"
            return text, f"[INST] {CAPTION}", [f"{a1} {eos}", f"{a2} {eos}"]
        case "chatml":
            head = f"<|im_start|>system\n{system(template)}{end}{user}"
            text = f"{q1}{end}{assistant}{a1}{end}{user}{q2}{end}{assistant}{a2}{end}"
            return head + text, head + CAPTION, [a1 + end, a2 + end]
        case "chatml_qwen":
            head = f"<|im_start|>system\n{system(template)}{end}\n{user}"
            text = f"{q1}{end}\n{assistant}{a1}{end}\n{user}{q2}{end}\n{assistant}{a2}{end}"
            return head + text, head + CAPTION, [a1 + end, a2 + end]
        case "tokenizer":
            text = f"{q1}{end}\n{assistant}{a1}{end}\n{user}{q2}{end}\n{assistant}{a2}{end}\n"
            return bos + user + text, bos + user + CAPTION, [a1 + end, a2 + end]


# --- tests ---


@pytest.mark.parametrize("template", TEMPLATE_NAMES)
def test_tokens_labels_and_spans(tokenizer, template):
    example = make_prompter(tokenizer, template).encode(make_record())
    text, caption_text, answers = expected_texts(template, tokenizer)

    # Tokens: what transformers itself makes of the text with the image token repeated.
    repeated = text.replace("<image>", "<image>" * IMAGE_TOKENS)
    bos_in_text = bool(tokenizer.bos_token) and repeated.startswith(tokenizer.bos_token)
    expected = tokenizer(repeated, add_special_tokens=not bos_in_text)["input_ids"]
    if expected[-1] == tokenizer.eos_token_id and not repeated.endswith(tokenizer.eos_token):
        expected = expected[:-1]
    elif expected[-2:] == [tokenizer.eos_token_id] * 2:
        expected = expected[:-1]
    assert example.tokens.tolist() == expected

    # Labels: every answer through its end token, in this order, and nothing else.
    learnt = example.labels != -100
    np.testing.assert_array_equal(example.labels[learnt], example.tokens[learnt])
    blankless = spelled(tokenizer, example.tokens[learnt]).replace(b" ", b"")
    assert blankless == "".join(answers).replace(" ", "").encode()
    decoded = tokenizer.decode(example.tokens[learnt], clean_up_tokenization_spaces=False)
    assert decoded.replace(" ", "") == "".join(answers).replace(" ", "")

    (image,) = example.image_spans
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    assert np.flatnonzero(example.tokens == image_id).tolist() == list(range(*image))

    if template == "plain":
        assert example.retrieved_span is None
    else:
        span = expected_span(tokenizer, example.tokens, repeated, RETRIEVED)
        assert example.retrieved_span == span
    start, end = example.caption_span
    expected = expected_span(tokenizer, example.caption_tokens, caption_text, CAPTION)
    # A tokenizer may say of its dummy blank that it belongs to a text's first character.
    assert (start, end) == expected or (template == "plain" and (start + 1, end) == expected)
    assert end == len(example.caption_tokens)


@pytest.mark.parametrize("answer", ["It is.", "☕ 1", "A white cup"])
@pytest.mark.parametrize("template", TEMPLATE_NAMES)
def test_a_training_text_starts_with_the_inference_prompt(tokenizer, template, answer):
    """The model is asked exactly what it was trained on, up to the first learnt token.

    So where the blank before an answer is a token of its own it is learnt, for the model writes it.
    """
    prompter = make_prompter(tokenizer, template)
    trained = prompter.encode(make_record([Turn("<image>\nWhat is this?", answer)]))
    question = Question(3, "a.jpg", "What is this?", CAPTION, RETRIEVED)
    asked = prompter.encode_question(question)
    first = int(np.argmax(trained.labels != -100))
    assert (asked.labels == -100).all() and asked.id == "3"
    np.testing.assert_array_equal(asked.tokens, trained.tokens[:first])
    np.testing.assert_array_equal(asked.caption_tokens, trained.caption_tokens)
    assert (asked.image_spans, asked.retrieved_span) == (
        trained.image_spans,
        trained.retrieved_span,
    )


def test_token_span_by_hand():
    #        bos     "A"     " cup"  "é" in two tokens, a trimmed blank, "."
    chars = np.array([(0, 0), (0, 1), (1, 5), (5, 6), (5, 6), (7, 7), (7, 8)])
    assert token_span(chars, (0, 1)) == (1, 2)
    assert token_span(chars, (2, 5)) == (2, 3)  # the blank before a word comes along
    assert token_span(chars, (5, 6)) == (3, 5)
    assert token_span(chars, (5, 8)) == (3, 7)
    assert token_span(chars, (6, 7)) is None


def test_word_level_with_special_tokens_once(named_tokenizer):
    tokenizer = named_tokenizer("words")
    example = make_prompter(tokenizer, system="").encode(
        make_record([Turn("What is this?", "a cup")], retrieved="a tea set", caption="a cup")
    )
    tokens = tokenizer.convert_ids_to_tokens(example.tokens)
    words = "Retrieved Text : a tea set .".split()
    asked = "What is this ? ASSISTANT : a cup </s>".split()
    assert tokens == ["<s>", "USER", ":", *words, *["<image>"] * IMAGE_TOKENS, *asked]
    assert tokens[slice(*example.retrieved_span)] == ["a", "tea", "set"]
    assert example.labels[-3:].tolist() == example.tokens[-3:].tolist()
    assert (example.labels[:-3] == -100).all()
    tokens = tokenizer.convert_ids_to_tokens(example.caption_tokens)
    assert tokens == ["<s>", "USER", ":", "a", "cup"]
    assert tokens[slice(*example.caption_span)] == ["a", "cup"]


def test_several_images_and_an_image_in_a_later_turn(named_tokenizer):
    tokenizer = named_tokenizer("byte")
    turns = [Turn("Hi", "Hello"), Turn("<image> or <image>?", "Both")]
    record = make_record(turns, images=("a.jpg", "b.jpg"))
    example = make_prompter(tokenizer).encode(record)
    assert example.images == ("a.jpg", "b.jpg")
    newline = tokenizer("\n")["input_ids"]
    first, second = example.image_spans
    assert first[1] - first[0] == second[1] - second[0] == IMAGE_TOKENS
    assert example.tokens[first[1] : second[0]].tolist() == newline
    caption = tokenizer.decode(example.caption_tokens)
    assert caption.endswith(f"ASSISTANT: Hello{tokenizer.eos_token}USER: {CAPTION}")


def test_what_a_record_lacks_is_absent(named_tokenizer):
    prompter = make_prompter(named_tokenizer("metaspace-first"))
    text_only = prompter.encode(make_record([Turn("Hi", "Yo")], images=()))
    assert text_only.image_spans == () and text_only.retrieved_span is None
    no_caption = prompter.encode(make_record(caption=None))
    no_retrieved = prompter.encode(make_record(retrieved=None))
    tox = prompter.encode(make_record(tox=True))
    for example in (text_only, no_caption, tox):
        assert example.caption_span is None and example.caption_tokens.shape == (0,)
    assert no_retrieved.retrieved_span is None and no_retrieved.caption_span is not None
    assert tox.tox and len(tox.image_spans) == 1 and tox.images == ("a.jpg",)
    unused = make_prompter(named_tokenizer("metaspace-first"), use_retrieved=False)
    np.testing.assert_array_equal(unused.encode(make_record()).tokens, no_retrieved.tokens)


def test_equal_caption_and_retrieved_text(named_tokenizer):
    tokenizer = named_tokenizer("byte")
    example = make_prompter(tokenizer).encode(make_record(retrieved=CAPTION))
    text = tokenizer.decode(example.tokens[slice(*example.retrieved_span)])
    assert text.strip() == CAPTION[: len(CAPTION) // 2].strip()


def test_another_image_token(named_tokenizer):
    """The data's mark stays `<image>`; the tokenizer's own token stands in the prompt."""
    tokenizer = named_tokenizer("byte")
    plain = make_prompter(tokenizer, "vicuna_v1").encode(make_record())
    other = make_prompter(tokenizer, "vicuna_v1", image_token="<|im_start|>").encode(make_record())
    old, new = (tokenizer.convert_tokens_to_ids(t) for t in ("<image>", "<|im_start|>"))
    np.testing.assert_array_equal(np.where(plain.tokens == old, new, plain.tokens), other.tokens)
    np.testing.assert_array_equal(plain.labels, other.labels)
    assert plain.image_spans == other.image_spans
    assert plain.retrieved_span == other.retrieved_span


# --- lengths ---


def lengths_of(prompter, turns):
    return [len(prompter.encode(make_record(turns[:n])).tokens) for n in range(1, len(turns) + 1)]


def test_whole_turns_are_dropped_first(named_tokenizer):
    tokenizer = named_tokenizer("byte")
    turns = [*TURNS, Turn("<image> And this?", "A tea set.")]
    turns = [Turn(turn.question.replace("<image>\n", ""), turn.answer) for turn in turns]
    one, two, three = lengths_of(make_prompter(tokenizer), turns[:2]) + [0]
    record = make_record(turns, images=("b.jpg",))
    three = len(make_prompter(tokenizer).encode(record).tokens)
    for limit, expected in [(three, three), (three - 1, None), (two, None)]:
        example = make_prompter(tokenizer, max_length=limit).encode(record)
        kept = expected or len(example.tokens)
        assert len(example.tokens) == kept <= limit
        assert example.truncated_tokens == three - kept
    # The dropped turn had the image: it is gone from the example, and with it the caption pass.
    assert example.images == () and example.image_spans == () and example.caption_span is None
    assert tokenizer.decode(example.tokens).endswith(f"{TURNS[1].answer}{tokenizer.eos_token}")


def test_a_long_first_answer_loses_its_tail(named_tokenizer):
    tokenizer = named_tokenizer("byte")
    whole = make_prompter(tokenizer).encode(make_record())
    first_label = int(np.argmax(whole.labels != -100))
    for limit in (first_label + 1, first_label + 5):
        example = make_prompter(tokenizer, max_length=limit).encode(make_record())
        np.testing.assert_array_equal(example.tokens, whole.tokens[:limit])
        np.testing.assert_array_equal(example.labels, whole.labels[:limit])
        assert example.truncated_tokens == len(whole.tokens) - limit
        assert example.image_spans == whole.image_spans
        assert example.retrieved_span == whole.retrieved_span
    with pytest.raises(UserError, match=f"record r7: .*{len(whole.tokens)} tokens.*{first_label}"):
        make_prompter(tokenizer, max_length=first_label).encode(make_record())


def test_a_turn_without_an_answer_is_not_what_is_kept(named_tokenizer):
    tokenizer = named_tokenizer("byte")
    turns = [Turn("<image>\nWhat?", ""), Turn("Again?", "A " + "very " * 50 + "white cup")]
    whole = make_prompter(tokenizer).encode(make_record(turns))
    limit = len(whole.tokens) - 20
    example = make_prompter(tokenizer, max_length=limit).encode(make_record(turns))
    np.testing.assert_array_equal(example.labels, whole.labels[:limit])
    assert (example.labels != -100).any()


def test_a_long_caption_loses_its_tail(named_tokenizer):
    tokenizer = named_tokenizer("metaspace-first")
    prompter = make_prompter(tokenizer, max_length=300)
    example = prompter.encode(make_record(caption="a white cup " * 200))
    assert len(example.caption_tokens) == 300 and example.caption_span[1] == 300
    assert example.truncated_tokens == 0


def test_questions_are_never_cut(named_tokenizer):
    prompter = make_prompter(named_tokenizer("byte"), max_length=30)
    with pytest.raises(UserError, match=r"record 5: .* tokens .* 30 \(max_length"):
        prompter.encode_question(Question(5, "a.jpg", "What is this? " * 20))


# --- mistakes ---


@pytest.mark.parametrize(("answer", "caption"), [("", CAPTION), ("  ", CAPTION), (None, None)])
def test_nothing_to_learn_is_an_error(named_tokenizer, answer, caption):
    prompter = make_prompter(named_tokenizer("byte"))
    with pytest.raises(UserError, match="record r7: it has no answer"):
        prompter.encode(make_record([Turn("Hi", answer)], caption=caption))


def test_marks_without_images(named_tokenizer):
    prompter = make_prompter(named_tokenizer("byte"))
    with pytest.raises(UserError, match="record 9: 1 <image> marks for 0 images"):
        prompter.encode_question(Question(9, None, "<image>\nHi"))
    prompter = make_prompter(named_tokenizer("byte"), system="See <image>")
    with pytest.raises(UserError, match="record r7: .* system text holds"):
        prompter.encode(make_record())
    with pytest.raises(UserError, match="its prompt is empty"):
        make_prompter(named_tokenizer("byte"), "plain").encode_question(Question(1, None, "Hi"))


def test_tokenizers_that_do_not_fit(named_tokenizer):
    with pytest.raises(UserError, match="does not know '<figure>' as one token"):
        make_prompter(named_tokenizer("byte"), image_token="<figure>")
    with pytest.raises(UserError, match="does not know 'nothing' as one token"):
        make_prompter(named_tokenizer("words"), image_token="nothing")
    with pytest.raises(UserError, match="slow"):
        make_prompter(object())


# --- where the answer begins ---


@pytest.mark.parametrize("template", [name for name in TEMPLATE_NAMES if name != "plain"])
def test_both_passes_end_alike_before_the_answer(named_tokenizer, template):
    """The caption pass, continued, is the question's prompt with the caption for the image."""
    tokenizer = named_tokenizer("byte")
    prompter = make_prompter(tokenizer, template, answer_states=True)
    example = prompter.encode(make_record(retrieved=None))
    start, end = example.answer_span
    assert end == start + 1 == np.flatnonzero(example.labels != -100)[0]
    assert example.caption_answer_span == (
        len(example.caption_tokens) - 1,
        len(example.caption_tokens),
    )
    after_image = example.tokens[example.image_spans[0][1] : end]
    after_caption = example.caption_tokens[example.caption_span[1] :]
    decoded = tokenizer.decode(after_image), tokenizer.decode(after_caption)
    assert decoded[0].strip() == decoded[1].strip() and "What is this?" in decoded[0]
    plain = make_prompter(tokenizer, template).encode(make_record(retrieved=None))
    assert plain.answer_span is None and plain.caption_answer_span is None
    assert plain.caption_span == example.caption_span


def test_no_answer_states_without_question_caption_or_first_image(named_tokenizer):
    tokenizer = named_tokenizer("byte")
    later = (Turn("Hello", "Hi"), Turn("<image>\nWhat is this?", "a cup"))
    blank = (Turn("<image>\nWhat is this?", " "), Turn("Which colour?", "Red."))
    for template, record in (
        ("plain", make_record()),
        ("vicuna_v1", make_record(caption=None)),
        ("vicuna_v1", make_record(tox=True)),
        ("vicuna_v1", make_record(turns=later)),
        ("vicuna_v1", make_record(turns=blank)),
    ):
        example = make_prompter(tokenizer, template, answer_states=True).encode(record)
        assert example.answer_span is None and example.caption_answer_span is None


def test_no_answer_state_where_the_caption_pass_was_cut(named_tokenizer):
    record = make_record(caption="a very long caption " * 30, retrieved=None)
    short = make_prompter(named_tokenizer("byte"), "vicuna_v1", answer_states=True, max_length=400)
    example = short.encode(record)
    assert len(example.caption_tokens) == 400 and example.caption_span is not None
    assert example.answer_span is not None and example.caption_answer_span is None


@pytest.mark.parametrize("template", TEMPLATE_NAMES)
def test_a_image_without_an_answer_is_read_like_one_with(named_tokenizer, template):
    """Nothing is labelled, and all that the guide compares is the same."""
    prompter = make_prompter(named_tokenizer("byte"), template, answer_states=True)
    answered = prompter.encode(make_record())
    open_record = make_record((Turn(TURNS[0].question, None),))
    example = prompter.encode(open_record)
    assert np.all(example.labels == -100)
    assert example.tokens.tolist() == answered.tokens[: len(example.tokens)].tolist()
    for name in ("image_spans", "retrieved_span", "caption_span", "answer_span"):
        assert getattr(example, name) == getattr(answered, name), name
    assert example.caption_tokens.tolist() == answered.caption_tokens.tolist()
    assert example.caption_answer_span == answered.caption_answer_span
    assert prompter.check(open_record) == (0, 0)


def test_a_image_without_an_answer_is_never_truncated(named_tokenizer):
    prompter = make_prompter(named_tokenizer("byte"), max_length=100)
    with pytest.raises(UserError, match="record r7: its .* tokens leave no room"):
        prompter.encode(make_record((Turn("<image>\n" + "What is this? " * 30, None),)))
