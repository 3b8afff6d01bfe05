"""What job `analyze` asks: sets of harmful and benign images, scenes and texts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.load import Benchmark
from tga_jax.evaluation.items import EvalItem
from tga_jax.evaluation.profiles import (
    PROFILES,
    apology_tokens,
    check_system,
    evaluated_system,
    system_text,
)
from tga_jax.run.prompts import PromptStyle

Row = TypeVar("Row")
# A caption is read in the place of its image ("scenes"); "texts" have no image at all.
KINDS = ("images", "scenes", "texts")
SETS = tuple(f"{degree}_{kind}" for kind in KINDS for degree in ("harmful", "benign"))


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One prompt: the set that it counts in, where it is from, and what is asked.

    Attributes:
        set: that it counts in.
        benchmark: that it is from.
        item: what is asked.
        own: whether it is the benchmark's own question, which job `evaluate` asks, too.
    """

    set: str
    benchmark: str
    item: EvalItem
    own: bool = True

    @property
    def kind(self) -> str:
        """The kind of prompt, one of KINDS, which the name of its set ends with."""
        return self.set.partition("_")[2]

    @property
    def harmful(self) -> bool:
        """Whether it should be refused."""
        return self.set.startswith("harmful")


def make_prompts(
    benchmarks: Iterable[Benchmark], *, image_prompt: str, scene_prompt: str, limit: int
) -> list[Prompt]:
    """Prompts by set; those without a verdict (`harmful` None) are left out.

    In a set the benchmarks' own questions come first, and of these the short ones. So prompts whose
    states job `evaluate` left are together.

    An image is asked about once, however many questions there are about it, so that samples are
    independent: with `image_prompt` if it has a caption, which makes a scene, and else with its
    first question. Texts are asked as they are. Retrieved texts are left out, so that image and
    caption prompts differ in nothing else.

    Args:
        benchmarks: read.
        image_prompt: of an image with a caption.
        scene_prompt: its "{caption}" is replaced.
        limit: of each set, evenly taken; 0: all.
    """
    found: dict[str, dict[Any, Prompt]] = {name: {} for name in SETS}
    for benchmark in benchmarks:
        for item in benchmark.items:
            if item.harmful is None:
                continue
            for kind, asked in _asked(item, image_prompt, scene_prompt):
                name = f"{'harmful' if item.harmful else 'benign'}_{kind}"
                text = asked.text if asked.image is None else asked.extra.get("caption")
                key = (asked.image_dir, asked.image, text)
                own = kind != "scenes" and asked.text == item.text
                found[name].setdefault(key, Prompt(name, benchmark.name, asked, own))
    prompts: list[Prompt] = []
    for rows in found.values():
        chosen = evenly(list(rows.values()), limit)
        prompts += sorted(chosen, key=lambda prompt: (not prompt.own, len(prompt.item.text)))
    return prompts


def _asked(item: EvalItem, image_prompt: str, scene_prompt: str) -> list[tuple[str, EvalItem]]:
    """(kind, question) of an item."""
    caption = item.extra.get("caption")
    extra = {"caption": caption} if caption and item.image is not None else {}
    own = dataclasses.replace(item, extra=extra)
    if item.image is None:
        return [("texts", own)]
    if not extra:
        return [("images", own)]
    scene = scene_prompt.replace("{caption}", str(caption))
    return [
        ("images", dataclasses.replace(own, text=image_prompt)),
        ("scenes", dataclasses.replace(item, text=scene, image=None, image_dir=None, extra={})),
    ]


def evenly(rows: list[Row], limit: int) -> list[Row]:
    """At most `limit` rows, from the whole list, as benchmarks are sorted by category; 0: all."""
    if not 0 < limit < len(rows):
        return rows
    return [rows[i * len(rows) // limit] for i in range(limit)]


def why_nothing(benchmarks: Sequence[Benchmark]) -> str:
    """Why these benchmarks have no prompt to analyse."""
    lost = [part.what for benchmark in benchmarks for part in benchmark.missing]
    return f"nothing to analyse: {lost[0] if lost else 'no question says whether it is harmful'}"


# --- the system text and the apologies ---


def analysis_profile(config: Any) -> str:
    """config.analyze.profile, or else the profile of job `evaluate`."""
    return str(config.analyze.profile or config.evaluate.profile)


def analysed_system(config: Any, style: PromptStyle) -> str:
    """The system text of the analysed prompts."""
    base = style.base_system(config.prompt)
    system = analysis_system(config, base=base)
    return base if system is None else system


def analysis_system(config: Any, *, base: str) -> str | None:
    """The system text of the analysed prompts; None: the template's own."""
    cfg = config.analyze
    if not cfg.profile:
        return evaluated_system(config, base=base)
    if cfg.profile not in PROFILES:
        raise UserError(
            f"config.analyze.profile={cfg.profile!r} must be one of {', '.join(PROFILES)}"
        )
    if cfg.profile == "custom" and not cfg.system:
        raise UserError("config.analyze.profile='custom' needs config.analyze.system")
    return system_text(cfg.profile, base=base, custom=cfg.system)


def check_analysed(config: Any, style: PromptStyle) -> None:
    """Refuse a profile whose system text the template has no place for, and useless apologies."""
    check_system(config, style, analysed_system(config, style))
    analysis_apologies(config, style.source.tokenizer.tokenizer)


def analysis_apologies(config: Any, tokenizer: Any) -> tuple[int, ...]:
    """Ids of the tokens of config.analyze.apologies, or else of config.evaluate.apologies."""
    key = "analyze" if config.analyze.apologies else "evaluate"
    texts = tuple(config[key].apologies)
    try:
        return apology_tokens(tokenizer, texts)
    except UserError as error:
        raise UserError(
            f"config.{key}.apologies={texts!r}: the tokenizer knows none of them"
        ) from error


def pieces_warning(config: Any, tokenizer: Any) -> str | None:
    """What to mind where apology tokens are pieces of the words that they were made from."""
    key = "analyze" if config.analyze.apologies else "evaluate"
    whole = {word for text in config[key].apologies for word in re.findall(r"\w+", text)[:1]}
    tokens = [tokenizer.decode([t]).strip() for t in analysis_apologies(config, tokenizer)]
    pieces = list(dict.fromkeys(token for token in tokens if token not in whole))
    if not pieces:
        return None
    shown = ", ".join(f'"{piece}"' for piece in pieces)
    be, they = ("is", "it was") if len(pieces) == 1 else ("are", "they were")
    return (
        f"of the {len(set(tokens))} apology tokens, {len(pieces)} {be} shorter than the word that "
        f"{they} made from ({shown}). Other answers begin with them too, so that it says little "
        f"of refusals when such a token comes first (config.{key}.apologies)"
    )


def images_of(prompts: Sequence[Prompt]) -> Any:
    """Row -> the folder of its image, as `inference_batches` asks for it."""
    return lambda row: prompts[row].item.image_dir or Path()
