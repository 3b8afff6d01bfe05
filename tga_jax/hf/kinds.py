"""What kind of model a config.json is of, so that one at a wrong door is shown the right one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.hf.decoders import DECODERS
from tga_jax.hf.llavas import LLAVAS
from tga_jax.hf.towers import TOWERS

# kind -> its model types, and which keys of the configuration are for such folders
_KINDS = {
    "llava": (tuple(LLAVAS), "it is a LLaVA checkpoint: config.model.checkpoint is for those"),
    "decoder": (
        tuple(DECODERS),
        "it is a language model: set config.model.llm to its folder and config.model.vision to a "
        "CLIP's, and leave config.model.checkpoint empty",
    ),
    "clip": (("clip",), "it is a CLIP: config.model.vision is for those"),
    "siglip": (("siglip",), "it is a SigLIP: config.model.vision is for those"),
    "tower": (tuple(TOWERS), "it is a vision tower: config.model.vision is for those"),
}


def expect_kind(content: dict[str, Any], *kinds: str, file: Path) -> None:
    """Refuses a config.json that is of none of these kinds.

    Args:
        content: of config.json.
        kinds: of "llava", "decoder", "clip", "siglip" and "tower".
        file: is named in errors.

    Raises:
        UserError: for another kind, with the keys that are for it, and for one we do not have.
    """
    found, kind = content.get("model_type"), kind_of(content)
    if kind in kinds:
        return
    known = ", ".join(name for kind in kinds for name in _KINDS[kind][0])
    if kind:
        said = _KINDS[kind][1]
    elif is_original(content):
        said = (
            f"it is {_architecture(content)} in the LLaVA repository's own layout: "
            "config.model.checkpoint is for those"
        )
    else:
        said = f"{_architecture(content)} is a model that this program does not have"
    raise UserError(
        f"{file}: model_type {found!r} is not supported here (one of {known} is): {said}"
    )


def kind_of(content: dict[str, Any]) -> str:
    """The kind of a config.json: a key of `_KINDS`, or "" for any other."""
    if is_original(content):  # its model_type may be the language model's
        return ""
    found = content.get("model_type")
    return next((kind for kind, (types, _) in _KINDS.items() if found in types), "")


def is_original(content: dict[str, Any]) -> bool:
    """Whether a config.json is of a LLaVA in the layout of the LLaVA repository."""
    own = any(key in content for key in ("mm_vision_tower", "mm_projector_type"))
    return own and not _architecture(content).endswith("ForConditionalGeneration")


def _architecture(content: dict[str, Any]) -> str:
    named = content.get("architectures")
    found = named[0] if isinstance(named, list) and named else content.get("model_type")
    return str(found) if found else "what it describes"
