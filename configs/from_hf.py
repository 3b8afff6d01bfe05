"""Work on any Hugging Face LLaVA checkpoint that you name.

    python -m tga_jax.main --config=configs/from_hf.py --workdir=runs/mine \\
        --config.model.checkpoint=FOLDER_OR_HUB_ID \\
        --config.data.path=samples.json --config.data.image_dir=images \\
        --job=inspect,score,pretrain,finetune,score,export

What is switched on is a word behind a colon, as in `--config=configs/from_hf.py:tga_answer`, which
the evidence so far supports; without one it is the guide as published, `tga`. docs/method.md tells
the three apart.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from tga_jax.config import ANSWER_GUIDE, PAPER_GUIDE, base_config


def tga(config: ConfigDict) -> None:
    """The guide as published: both of the paper's terms at weight 1, raw states, all layers.

    Of it is known that in our miniature it carries no refusal over to images and costs half of
    the naming (docs/miniature.md). Whether it does where the language model is a real one is not
    known. It wants samples with a caption, and with a retrieved text for the second term.
    """
    config.guide.update(PAPER_GUIDE)


def tga_answer(config: ConfigDict) -> None:
    """The answer term alone, centred.

    It is not in the paper. In the miniature it carries over nine tenths of the refusals for things
    that alignment shows, a third for others of their kind, for two to five points of naming, by its
    weight. It wants captions that answer the questions, and counts where a template has a question,
    so not in the first stage with its template "plain".
    """
    config.guide.update(ANSWER_GUIDE)


def audit_only(config: ConfigDict) -> None:
    """No training: the checkpoint as it is, asked and judged, and its layers looked at.

    It needs config.evaluate.benchmarks, as configs/audit.py says, which has more of it.
    """
    config.jobs = ("evaluate", "analyze", "report")
    config.guide.form = "none"
    config.generate.batch_size = 16


VARIANTS: dict[str, Callable[[ConfigDict], None]] = {
    "tga": tga,
    "tga_answer": tga_answer,
    "audit_only": audit_only,
}


def get_config(variant: str = "tga") -> ConfigDict:
    """The defaults, with batches small enough to try things out.

    Args:
        variant: a name in VARIANTS.
    """
    if variant not in VARIANTS:
        known = ", ".join(map(repr, VARIANTS))
        raise ValueError(f"configs/from_hf.py has no variant {variant!r}; there are {known}")
    config = base_config()
    config.jobs = ("inspect", "score")
    for stage in (config.pretrain, config.finetune):
        stage.batch_size = 8
        stage.save_every = 100
    VARIANTS[variant](config)
    return config.lock()
