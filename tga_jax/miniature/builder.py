"""How much a made-up world holds, and how its images and rows are made from drawn lots."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from tga_jax.miniature import rows as make
from tga_jax.miniature.concepts import concepts_of
from tga_jax.miniature.draw import DrawSettings, draw
from tga_jax.miniature.language import Exchange, ask, caption
from tga_jax.miniature.rows import Row
from tga_jax.miniature.scene import Scene, random_scene


@dataclass(frozen=True)
class WorldSizes:
    """How much of everything there is, and in which proportions.

    What a user may set has its default in `tga_jax/config.py` alone. `eval_*` are images of each of
    the two splits: benign ones, and of each harmful group.
    """

    llm_pretrain: int
    llm_safety: int
    pretrain: int
    finetune_captions: int
    finetune_looks: int
    finetune_describe: float  # of the finetune_looks; the others only name the object
    finetune_questions: int
    finetune_texts: int
    corpus: int
    eval_benign: int
    eval_harmful: int
    text_eval: int
    tokenizer_texts: int
    caption_form: str  # of `image_caption`, one of language.CAPTION_FORMS
    retrieved: bool  # whether rows have a `retrieved_caption` without a retriever
    vocab_size: int = 1536
    captions_name: float = 0.5  # of the bare captions; the others tell attributes too
    harmful_pretrain: float = 0.2  # of the captions of stage 1
    harmful_finetune: float = 0.3  # of the captions of stage 2
    harmful_looks: float = 0.1  # of the looks; all other questions are about benign images
    harmful_texts: float = 0.4  # of the texts of safety training
    harmful_corpus: float = 0.08
    corpus_groups: tuple[str, ...] = ("seen",)  # the harmful groups that the corpus speaks of
    drawing: DrawSettings = field(default_factory=DrawSettings)


@dataclass(frozen=True)
class Builder:
    """Where to write and how much; every part draws its lots from a stream of its own."""

    folder: Path
    seed: int
    sizes: WorldSizes

    def rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, 101, *stream])

    def image(self, name: str, scene: Scene, rng: np.random.Generator) -> str:
        """Draws a scene into `images/NAME.png`; returns the path inside `images/`."""
        path = self.folder / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = draw(scene, int(rng.integers(2**31)), self.sizes.drawing)
        Image.fromarray(pixels).save(path, compress_level=1)
        return f"{name}.png"

    def look(self, rng: np.random.Generator) -> str:
        """How to ask what there is to see.

        In an answer with all attributes, one token of a dozen is the object, which is learned late.
        """
        return "describe" if rng.random() < self.sizes.finetune_describe else "what"

    def bare_caption(self, scene: Scene, rng: np.random.Generator) -> Exchange:
        """An image with its caption and no question."""
        exchange = dataclasses.replace(make.caption_exchange(scene, rng), question="")
        if rng.random() >= self.sizes.captions_name:
            return exchange
        return dataclasses.replace(exchange, answer=caption(scene, rng, form="name"))

    def alignment_row(
        self, stage: str, kind: str, index: int, harmful_share: float, rng: np.random.Generator
    ) -> tuple[Row, bool]:
        """A row of "pretrain" or "finetune": a "caption", a "look" at it all, or a "chat".

        Returns:
            the row, and whether its image is harmful.
        """
        group = "seen" if rng.random() < harmful_share else "benign"
        scene = random_scene(rng, concepts_of(group), split="train")
        name = f"{stage}/{kind}-{index:06d}"
        exchanges = {
            "caption": lambda: [self.bare_caption(scene, rng)],
            "look": lambda: [ask(scene, rng, kind=self.look(rng))],
            "chat": lambda: make.chat_exchanges(scene, rng)[:2],
        }[kind]()
        row = make.image_row(
            f"{kind}-{index:06d}",
            self.image(name, scene, rng),
            scene,
            exchanges,
            rng=rng,
            caption_form=self.sizes.caption_form,
            retrieved=self.sizes.retrieved,
        )
        return row, group != "benign"
