"""Rendered prompts -> token ids, with character spans turned into token spans.

A prompt is tokenised once, as one string, and the tokenizer's own character offsets say which
tokens belong to which text. So spans and labels are right for every tokenizer and template, and
training sees exactly the tokens that inference will see.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tga_jax.data.templates import IMAGE_MARK, Rendered, Span
from tga_jax.errors import UserError
from tga_jax.labels import IGNORE_INDEX
from tga_jax.models.tiling import Layout

ADDED_TOKENS = 4  # at most, which a tokenizer writes around a text, as its BOS


@dataclass(frozen=True, eq=False)
class TokenPrompt:
    """A tokenised prompt. Spans are [start, end) in tokens.

    Attributes:
        tokens: int32[T], each image's token repeated as often as the model has image features.
        labels: int32[T], the token itself in answers, -100 elsewhere; not shifted.
        image_spans: where each image is.
        retrieved_span: where the retrieved text is, None without one.
        layouts: what each image's tokens show, of images in tiles; else empty.
    """

    tokens: np.ndarray
    labels: np.ndarray
    image_spans: tuple[Span, ...]
    retrieved_span: Span | None
    layouts: tuple[Layout, ...] = ()

    @property
    def has_labels(self) -> bool:
        """Whether any token of the prompt is trained on."""
        return bool(np.any(self.labels != IGNORE_INDEX))

    def truncate(self, length: int) -> "TokenPrompt":
        """Returns the prompt without its tail.

        Images and the retrieved text stand before the first answer, so a prompt of one answer
        that keeps a label keeps them whole.
        """
        return replace(self, tokens=self.tokens[:length], labels=self.labels[:length])


class Tokenise:
    """Rendered prompt -> `TokenPrompt`, for one tokenizer and number of tokens per image."""

    def __init__(self, tokenizer: Any, *, image_token: str, image_tokens: int):
        """Takes a fast transformers tokenizer that knows `image_token` as one token.

        Raises:
            UserError: when it is a slow one, or doesn't know the image token.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise UserError(
                "the tokenizer is a slow one, which gives no character offsets; use a fast one"
            )
        self._tokenizer = tokenizer
        self.image_token = image_token
        self._image_id = _image_id(tokenizer, image_token)
        self.image_tokens = image_tokens
        added = tokenizer.added_tokens_decoder.get(self._image_id)
        # One that goes through the normalizer may be missed where it stands in a text.
        self.always_reads_image_token = added is not None and not added.normalized

    def __call__(self, rendered: Rendered, layouts: Sequence[Layout] = ()) -> TokenPrompt:
        """Tokenises a prompt, repeats its image tokens, and finds all token spans.

        `layouts`: of the images, or of more, where these are in tiles.
        """
        rendered = _with_image_token(rendered, self.image_token)
        ids, offsets = self._ids_and_offsets(rendered.text)
        (places,) = np.nonzero(ids == self._image_id)
        repeats = np.ones_like(ids)
        counts = [layout.tokens for layout in layouts] or self.image_tokens
        repeats[places] = np.resize(counts, len(places))
        tokens, chars = np.repeat(ids, repeats), np.repeat(offsets, repeats, axis=0)
        ends = np.cumsum(repeats)[places]
        spans = zip((ends - repeats[places]).tolist(), ends.tolist(), strict=True)
        labels = np.full_like(tokens, IGNORE_INDEX)
        for answer in rendered.answer_spans:
            span = token_span(chars, answer)
            if span is not None:
                labels[slice(*span)] = tokens[slice(*span)]
        retrieved = rendered.retrieved_span
        return TokenPrompt(
            tokens=tokens,
            labels=labels,
            image_spans=tuple(spans),
            retrieved_span=None if retrieved is None else token_span(chars, retrieved),
            layouts=tuple(layouts[: len(places)]),
        )

    def _ids_and_offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns int32[T] ids and int64[T, 2] character offsets, each special token once.

        A BOS that the tokenizer adds stays, unless the text has it too; an EOS that the tokenizer
        appends goes, for the template says where answers end.
        """
        encoded = self._tokenizer(text, return_offsets_mapping=True, verbose=False)
        ids = np.asarray(encoded["input_ids"], np.int32)
        offsets = np.asarray(encoded["offset_mapping"], np.int64).reshape(-1, 2)
        bos, eos = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        if bos is not None and len(ids) > 1 and ids[0] == ids[1] == bos:
            ids, offsets = ids[1:], offsets[1:]
        if len(ids) and ids[-1] == eos and offsets[-1, 0] == offsets[-1, 1]:
            ids, offsets = ids[:-1], offsets[:-1]
        return ids, offsets


def most_tokens(text: str) -> int:
    """Returns a number of tokens that no tokenizer exceeds for a text, without tokenising it.

    A token holds a byte or more of the text in its normal form, and no Unicode normal form makes
    more than 11 bytes out of one (U+FDFA in NFKC, 3 bytes, becomes 33). ASCII stays as it is.
    """
    plain = len(text.encode("ascii", "ignore"))
    return plain + 11 * (len(text.encode()) - plain) + ADDED_TOKENS


def token_span(chars: np.ndarray, span: Span) -> Span | None:
    """Returns the [start, end) tokens that hold a character of text[span], None if there is none.

    Args:
        chars: int[T, 2], the [start, end) characters of each token. Several tokens may share one
            character (byte-level BPE), and a token may start with the blank before a word.
        span: [start, end) in characters.
    """
    # Tokens of zero width are those that a tokenizer adds, before or after the text and so outside
    # of every span, and blanks whose offsets ByteLevel trims, which may be inside.
    overlaps = (chars[:, 0] < span[1]) & (chars[:, 1] > span[0])
    (places,) = np.nonzero(overlaps)
    return (int(places[0]), int(places[-1]) + 1) if len(places) else None


def image_problem(images: int, written: int, *, found: int) -> str:
    """Returns why a prompt has another number of images than its record.

    Args:
        images: of the record.
        written: into the prompt by the template.
        found: in the prompt by the tokenizer.
    """
    if written < images:
        return f"its prompt template writes {written} of its {images} images; name another"
    if found < images:
        return (
            f"the tokenizer reads {found} of its {images} image tokens as such, only those "
            'behind a blank; set "normalized": false for the image token in tokenizer.json'
        )
    return (
        "its text or the system text holds the tokenizer's image token where no image is; remove it"
    )


def _image_id(tokenizer: Any, image_token: str) -> int:
    """Returns the id of the image token, which must be one token at least behind a blank.

    A normalized one of a SentencePiece tokenizer is one only there.
    """
    ids = tokenizer(f"a {image_token} b", add_special_tokens=False)["input_ids"]
    image_id = tokenizer.convert_tokens_to_ids(image_token)
    if image_id is None or image_id == tokenizer.unk_token_id or ids.count(image_id) != 1:
        raise UserError(
            f"the tokenizer does not know {image_token!r} as one token; add it to its "
            "special tokens"
        )
    return image_id


def _with_image_token(rendered: Rendered, image_token: str) -> Rendered:
    """Writes the tokenizer's own image token for `IMAGE_MARK` and moves the spans with it."""
    growth = len(image_token) - len(IMAGE_MARK)

    def moved(span: Span) -> Span:
        start, end = (at + growth * rendered.text[:at].count(IMAGE_MARK) for at in span)
        return start, end

    retrieved = rendered.retrieved_span
    return Rendered(
        text=rendered.text.replace(IMAGE_MARK, image_token),
        answer_spans=tuple(moved(span) for span in rendered.answer_spans),
        retrieved_span=None if retrieved is None else moved(retrieved),
    )
