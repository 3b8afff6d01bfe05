"""The tokenizer of a Hugging Face folder, with the image and padding tokens that LLaVA needs."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tga_jax import files
from tga_jax.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

IMAGE_TOKEN = "<image>"
PAD_TOKEN = "<pad>"


@dataclass(frozen=True)
class TokenizerInfo:
    """A fast tokenizer and the ids that the rest of the program asks for.

    Attributes:
        tokenizer: knows `image_token` and has a padding token.
        image_token: the text whose id stands for an image.
        image_token_id: its id.
        pad_id: id of the padding token.
        eos_ids: ids that end an answer; the tokenizer's own end token first.
        bos_id: id of the begin token, None when there is none.
        vocab_needed: 1 + the largest id; rows that the embedding must have.
        template_file: the file that the tokenizer's chat template was found in, "" without one.
    """

    tokenizer: PreTrainedTokenizerFast
    image_token: str
    image_token_id: int
    pad_id: int
    eos_ids: tuple[int, ...]
    bos_id: int | None
    vocab_needed: int
    template_file: str = ""


def load_tokenizer(folder: Path, *, image_token_id: int | None = None) -> TokenizerInfo:
    """Loads the tokenizer that tokenizer.json describes, with image and padding token.

    `<image>` and, where the tokenizer has no padding token of its own, `<pad>` are added as
    special tokens, in this order, behind the vocabulary, as in the published LLaVA checkpoints.

    Args:
        folder: of the model.
        image_token_id: the id that the model's configuration gives the image token; where the
            tokenizer knows it, its text is the image token in place of `<image>`.

    Raises:
        UserError: when the folder has no fast tokenizer, or the tokenizer has no end token.
    """
    from transformers import AddedToken

    tokenizer = load_fast(folder)
    tokenizer.chat_template, template_file = find_chat_template(folder, tokenizer.chat_template)
    _check_template(tokenizer.chat_template, folder / template_file)
    _stop_appending_eos(tokenizer)
    _check_image_token(tokenizer, image_token_id, folder)
    image_token = _text_of(tokenizer, image_token_id) or IMAGE_TOKEN
    _add_image_token(tokenizer, image_token)
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": AddedToken(PAD_TOKEN, normalized=False)})
    if tokenizer.eos_token_id is None:
        raise UserError(f"{folder}/tokenizer_config.json: it has no eos_token; name one")
    return TokenizerInfo(
        tokenizer=tokenizer,
        image_token=image_token,
        image_token_id=tokenizer.get_vocab()[image_token],
        pad_id=tokenizer.pad_token_id,
        eos_ids=_eos_ids(folder, tokenizer.eos_token_id),
        bos_id=tokenizer.bos_token_id,
        vocab_needed=1 + max(tokenizer.get_vocab().values()),
        template_file=template_file,
    )


def with_end_text(info: TokenizerInfo, end_text: str) -> TokenizerInfo:
    """Adds the id of a template's end text to `eos_ids`, when it is a single token.

    A "plain" answer ends with a newline and a "chatml" one with "<|im_end|>", whatever the
    tokenizer's own end token is.
    """
    ids = info.tokenizer(f"a{end_text}", add_special_tokens=False).input_ids
    start = info.tokenizer("a", add_special_tokens=False).input_ids
    if ids[:-1] != start:
        return info
    return replace(info, eos_ids=tuple(dict.fromkeys([*info.eos_ids, ids[-1]])))


def save_tokenizer(
    folder: Path,
    tokenizer: Any,
    *,
    chat_template: str,
    processor_class: str | None = "LlavaProcessor",
) -> None:
    """Writes `save_fast`'s files and the chat template in its three places.

    Where the template writes the begin token, the saved tokenizer does not add it too.
    """
    tokenizer = copy.deepcopy(tokenizer)
    if adds_bos(tokenizer) and _writes_bos(tokenizer, chat_template):
        tokenizer.add_bos_token = False
    settings = {
        "processor_class": processor_class,
        "padding_side": "left",  # a batch can be generated from
        "chat_template": chat_template,  # transformers before 4.43 reads no .jinja file
    }
    save_fast(folder, tokenizer, settings=settings)
    (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
    # AutoProcessor before 4.51 reads this one only.
    write_json(folder / "chat_template.json", {"chat_template": chat_template})


def save_fast(folder: Path, tokenizer: Any, *, settings: dict[str, Any]) -> None:
    """Writes tokenizer.json, and tokenizer_config.json with these settings (None: left out).

    The class is written as PreTrainedTokenizerFast, which loads tokenizer.json as it stands in
    transformers 4 and 5; other classes rebuild parts of it by rules that differ between versions,
    and the ids would no longer be those of the training.
    """
    tokenizer = copy.deepcopy(tokenizer)
    # Both are left over from the last call with padding, and would be saved.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    path = folder / "tokenizer_config.json"
    config = files.read_json(path)
    for key in ("added_tokens_decoder", "auto_map", "backend", "is_local", "local_files_only"):
        config.pop(key, None)
    config |= {"tokenizer_class": "PreTrainedTokenizerFast"} | settings
    write_json(path, {key: value for key, value in config.items() if value is not None})


def adds_bos(tokenizer: Any) -> bool:
    """Whether tokenising a text puts the begin token in front by itself."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a").input_ids[0] == bos


def _writes_bos(tokenizer: Any, chat_template: str) -> bool:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "a"}],
        chat_template=chat_template,
        tokenize=False,
    )
    return text.startswith(tokenizer.bos_token)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON as transformers does: two spaces, sorted keys, a newline at the end."""
    files.write_json(path, value, sort_keys=True)


def load_fast(folder: Path, **settings: Any) -> Any:
    """The folder's fast tokenizer as it is, without remote code or network; errors as above.

    Where there is a tokenizer.json, that file says how texts become tokens. AutoTokenizer would
    take the class that tokenizer_config.json names, and transformers 5 has many of those build
    normalizer and pre-tokenizer by rules of their own from the vocabulary, whatever the file says:
    SmolLM2 would lose its single digits, Llama 2 the blanks after special tokens.

    Args:
        folder: of the model.
        settings: of the tokenizer, in place of what tokenizer_config.json says.
    """
    import transformers  # not AutoTokenizer, which takes seconds to import and is rarely needed

    whole = (folder / "tokenizer.json").is_file()
    if not whole and not (folder / "tokenizer.model").is_file():
        raise UserError(f"{folder}: no tokenizer.json; put the model's tokenizer files there")
    kind = transformers.PreTrainedTokenizerFast if whole else transformers.AutoTokenizer
    try:
        tokenizer = kind.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **settings
        )
        ids = tokenizer("a").input_ids  # some settings of a wrong type are found in use only
    except Exception as error:  # tokenizers raises bare Exception on a malformed file
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{folder}: the tokenizer cannot be loaded, see tokenizer.json and "
            f"tokenizer_config.json ({reason})"
        ) from error
    if not ids:
        raise UserError(f"{folder}/tokenizer.json: makes no token of a text; download it again")
    if not tokenizer.is_fast:
        raise UserError(
            f"{folder}: only a slow tokenizer ({type(tokenizer).__name__}); "
            "save it once with transformers as a fast one (tokenizer.json)"
        )
    return tokenizer


def find_chat_template(folder: Path, found: Any) -> tuple[Any, str]:
    """A folder's chat template, and the file that it stands in ("" without one).

    A processor's template comes before a tokenizer's: it is the one that the model's images
    were trained with, as transformers' own processors take it.

    Args:
        folder: of the model.
        found: the template that the tokenizer was loaded with, from chat_template.jinja or
            tokenizer_config.json; a text, several texts by name, or None.
    """
    if (folder / "chat_template.jinja").is_file():
        return found, "chat_template.jinja"
    for name in ("chat_template.json", "processor_config.json"):
        path = folder / name
        if path.is_file():
            content = files.read_json(path, advice="mend or delete it")
            own = content.get("chat_template") if isinstance(content, dict) else None
            if isinstance(own, str) and own:
                return own, name
    return found, "tokenizer_config.json" if found else ""


def _check_template(template: Any, file: Path) -> None:
    """Refuse what is neither a text nor several texts by name."""
    texts = template.values() if isinstance(template, dict) else [template or ""]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{file}: its chat_template is no text; mend or delete it")


def _check_image_token(tokenizer: Any, token_id: int | None, folder: Path) -> None:
    """Refuse an image token that is an ordinary one where the tokenizer has `<image>`."""
    own = tokenizer.get_vocab().get(IMAGE_TOKEN)
    if token_id is None or own in (None, token_id) or token_id in tokenizer.added_tokens_decoder:
        return
    text = tokenizer.convert_ids_to_tokens(token_id)
    if text is not None:
        raise UserError(
            f"{folder / 'config.json'}: image_token_index={token_id} is {text!r} in "
            f"tokenizer.json, where {IMAGE_TOKEN} is {own}; make them agree"
        )


def _text_of(tokenizer: Any, token_id: int | None) -> str | None:
    """The text that stands for a token in prompts, None where the tokenizer does not know it.

    An added token's own text: `convert_ids_to_tokens` gives it as the tokenizer's normalizer
    writes it, with SentencePiece's blank in front.
    """
    if token_id is None:
        return None
    added = tokenizer.added_tokens_decoder.get(token_id)
    return tokenizer.convert_ids_to_tokens(token_id) if added is None else added.content


def _add_image_token(tokenizer: Any, text: str) -> None:
    """Adds the image token, or makes it a special one, which decoded answers leave out.

    One that is there already is found in a text as before: plain `add_tokens` and
    added_tokens.json have it normalized, and the tokens beside it depend on that.
    """
    from transformers import AddedToken

    known = {token.content: token for token in tokenizer.added_tokens_decoder.values()}.get(text)
    flags = dict(normalized=False, lstrip=False, rstrip=False, single_word=False)
    if known is not None:
        flags = {name: getattr(known, name) for name in flags}
    tokenizer.add_tokens([AddedToken(text, special=True, **flags)])


def _stop_appending_eos(tokenizer: Any) -> None:
    """A prompt must end where the answer begins; templates write the end tokens themselves."""
    if tokenizer("a").input_ids[-1] == tokenizer.eos_token_id is not None:
        starts_with_bos = adds_bos(tokenizer)
        tokenizer.add_eos_token = False
        tokenizer.add_bos_token = starts_with_bos


def _eos_ids(folder: Path, tokenizer_eos: int) -> tuple[int, ...]:
    """The tokenizer's end token, then what generation_config.json names, each once."""
    path = folder / "generation_config.json"
    content = files.read_json(path, missing_ok=True, advice="mend or delete it")
    if not isinstance(content, dict | None):
        raise UserError(f"{path}: not a JSON object; mend or delete it")
    listed = (content or {}).get("eos_token_id")
    listed = [] if listed is None else listed if isinstance(listed, list) else [listed]
    return tuple(dict.fromkeys([tokenizer_eos, *listed]))
