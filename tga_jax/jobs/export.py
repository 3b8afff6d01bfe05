"""Job `export`: the trained model as a Hugging Face folder."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp

from tga_jax.cluster import hosts
from tga_jax.hf.export import export_folder
from tga_jax.hf.llava_layout import write_llava_layout
from tga_jax.hf.model_card import CardFacts, StageFacts
from tga_jax.hf.peft_export import export_adapters
from tga_jax.hf.tokenizer import with_end_text
from tga_jax.parallel.sharding import shapes
from tga_jax.run.context import STAGES, Context, Weights
from tga_jax.run.stage import guide_config
from tga_jax.run.work import Work
from tga_jax.training.freezing import learning_rate_factors


def run(context: Context) -> None:
    """Write export/ from the furthest finished stage (or the source)."""
    config, weights = context.config, context.current_weights()
    folder = context.workdir / "export"
    signature = {
        "weights": weights.digest,
        "export": config.export.to_dict(),
        "prompt": context.prompt_settings(template(context, weights)),
        "dtype": config.dtype,
    }
    work = Work(context.workdir, "export", signature)
    if work.is_done and hosts.from_first(folder.is_dir):
        context.say(f"finished before: {folder}")
        return
    name = template(context, weights)
    end_text = context.prompter(template=name).end_text
    params = context.load_params(weights)
    export_folder(
        folder,
        params=params,
        config=context.model.config,
        source_config=context.source.hf_config,
        tokenizer=with_end_text(context.source.tokenizer, end_text),
        image_settings=context.image_settings,
        template=name,
        system=config.prompt.system,
        trained=weights.stage is not None,
        dtype=config.export.dtype or config.dtype,
        card=card(context, weights),
        write=hosts.is_first(),
    )
    if config.export.llava_tower and hosts.is_first():
        kind = context.source.hf_config["text_config"].get("model_type", "llama")
        original = context.workdir / f"export-llava-{kind}"
        write_llava_layout(folder, original, vision_tower=config.export.llava_tower)
        context.say(f"in LLaVA's own layout -> {original}")
    if config.lora.rank:
        write_adapters(context, params)
    work.finish()
    context.say(f"weights {weights.tag} -> {folder}")


def write_adapters(context: Context, params: dict[str, jax.Array]) -> None:
    """The adapters (and the projector) alone beside the export, where they are all that changed."""
    config = context.config
    others = [
        p for p in trained_paths(context) if "/lora_" not in p and p.split("/")[0] != "projector"
    ]
    if others or not config.model.checkpoint:
        reason = f"{others[0]} was trained too" if others else "config.model.checkpoint is not set"
        context.say(f"adapters are not written alone: {reason}")
        return
    folder = context.workdir / "export-peft"
    export_adapters(
        folder,
        params=params,
        config=context.model.config,
        base=config.model.checkpoint,
        projector=True,
        dtype=jnp.dtype(config.export.dtype or config.dtype),
    )
    context.say(f"adapters in PEFT's format -> {folder}")


def trained_paths(context: Context) -> list[str]:
    """Parameters that any finished stage trained."""
    boxed = jax.eval_shape(context.model.init, jax.random.key(0))
    found: dict[str, None] = {}
    for stage in STAGES:
        if context.finished(stage):
            factors = learning_rate_factors(shapes(boxed), list(context.config[stage].trainable))
            found |= {path: None for path, factor in factors.items() if factor is not None}
    return list(found)


def template(context: Context, weights: Weights) -> str:
    """The prompt template that the weights were last trained with."""
    own = context.config[weights.stage].template if weights.stage == "finetune" else ""
    return context.template(own)


def card(context: Context, weights: Weights) -> CardFacts:
    """The facts of the model card, from the stages' own settings."""
    guide = guide_config(context)
    trained = weights.stage is not None
    return CardFacts(
        name=f"{context.source.name}-{weights.tag}",
        bases=tuple(str(folder) for folder in context.source.folders.values()),
        template=template(context, weights),
        retrieved_in_prompt=context.config.prompt.retrieved,
        guide_form=guide.form if trained else "none",
        guide_layers=tuple(layer + 1 for layer in guide.layers),
        guide_center=guide.center,
        pad_to_square=context.image_settings["pad_to_square"],
        stages=tuple(stage_facts(context, stage) for stage in STAGES if context.finished(stage)),
    )


def stage_facts(context: Context, stage: str) -> StageFacts:
    """What a finished stage did, as its folder says."""
    path = context.stage_folder(stage) / "settings.json"
    settings = json.loads(path.read_text(encoding="utf-8"))[stage]
    trained = [pattern for pattern, factor in settings["trainable"] if factor is not None]
    return StageFacts(
        name=stage,
        steps=settings["steps"],
        batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        trained=", ".join(trained),
    )
