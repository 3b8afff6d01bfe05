"""Job `export`: the trained model as a Hugging Face folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from tga_jax.cluster import hosts, shared_files
from tga_jax.config import STAGES
from tga_jax.errors import UserError
from tga_jax.files import read_json
from tga_jax.hf.export import export_folder
from tga_jax.hf.llava_layout import check_classes, write_llava_layout
from tga_jax.hf.llavas import llava_type
from tga_jax.hf.model_card import CardFacts, StageFacts
from tga_jax.hf.peft_export import export_adapters, why_not
from tga_jax.hf.tokenizer import with_end_text
from tga_jax.models.llava import Llava, part_of
from tga_jax.models.quantised import is_quantised
from tga_jax.parallel.mesh import mesh_of
from tga_jax.run.checks import check_export_room, check_model
from tga_jax.run.guide import guide_config
from tga_jax.run.job import Job
from tga_jax.run.model import OpenModel, open_model, open_source, unquantised
from tga_jax.run.prompts import PromptStyle, make_prompter
from tga_jax.run.stage import stage_factors, trained_counts
from tga_jax.run.stage_settings import as_trained
from tga_jax.run.weights import (
    Weights,
    current_weights,
    finished_stage,
    leaves_of,
    load_params,
)
from tga_jax.run.work import Work

DTYPES = ("float32", "bfloat16", "float16")


def check(job: Job, before: Sequence[str]) -> None:
    """Refuse a model that is not there, a dtype that is none, and a disk without room."""
    config = job.config
    dtype = config.export.dtype or config.dtype
    if dtype not in DTYPES:
        raise UserError(f"config.export.dtype={dtype!r} must be one of {', '.join(DTYPES)}")
    llava = check_model(config, before=before)
    if llava is not None:
        check_export_room(unquantised(llava), dtype, job.workdir)
        if config.export.llava_tower:
            source = open_source(config.model)
            check_classes(llava_type(source.config), source.decoder_type, where=source.name)
            check_tower(job, before, llava)


def check_tower(job: Job, before: Sequence[str], llava: Llava) -> None:
    """Refuse a trained vision tower where LLaVA's own layout only names the one of the hub."""
    for stage in STAGES:
        done = shared_files.read_json(job.workdir / stage / "done.json", missing_ok=True) or {}
        parts = done.get("trained")  # what was trained counts, and not what is configured since
        if parts is None and (done or stage in before):
            parts = trained_counts(llava, stage_factors(llava, job.config, stage))
        if "vision" in (parts or {}):
            raise UserError(
                f"{stage} trains the vision tower, and LLaVA's own layout only names the tower "
                "config.export.llava_tower, which is another then: leave that empty, or freeze "
                f'"vision/.*" in config.{stage}.trainable'
            )


def run(job: Job) -> None:
    """Write export/ from the furthest finished stage (or the source)."""
    job, weights = as_trained(job), current_weights(job)
    config, folder = job.config, job.workdir / "export"
    model = open_model(job, mesh_of(config.mesh))
    signature = {
        "weights": weights.digest,
        "export": config.export.to_dict(),
        "prompt": model.prompts.settings(config.prompt),
        "dtype": config.dtype,
    }
    if weights.stage is None:
        job.say(
            f"WARNING: no stage has finished in {job.workdir}, so this is the checkpoint as it was"
        )
    work = Work(job.workdir, "export", signature)
    if work.is_done(folder):
        job.say(f"was finished before: {folder}")
        return
    name = template(config, model.prompts, weights)
    end_text = make_prompter(config, model.prompts, template=name).end_text
    params = full_params(job, model, weights)
    export_folder(
        folder,
        params=params,
        config=unquantised(model.llava).config,
        source_config=model.source.hf_config,
        tokenizer=with_end_text(model.source.tokenizer, end_text),
        image_settings=model.image_settings,
        template=name,
        system=config.prompt.system,
        trained=weights.stage is not None,
        dtype=config.export.dtype or config.dtype,
        card=card(job, model, weights),
        write=hosts.is_first(),
    )
    if config.export.llava_tower and hosts.is_first():
        original = job.workdir / f"export-llava-{model.source.decoder_type}"
        write_llava_layout(folder, original, vision_tower=config.export.llava_tower)
        job.say(f"in LLaVA's own layout -> {original}")
    if config.lora.rank:
        write_adapters(job, model, params)
    work.finish()
    job.say(f"weights {weights.tag} -> {folder}")


def full_params(job: Job, model: OpenModel, weights: Weights) -> dict[str, jax.Array]:
    """The parameters, with the checkpoint's own kernels where the run has them in few bits.

    Nothing is rounded before it is written: adapters are merged as they were trained, into the
    checkpoint's kernels, and what is written in float32 is read in float32.

    Raises:
        UserError: the checkpoint is not the one that the run began with.
    """
    config = job.config.copy_and_resolve_references()
    if config.export.dtype == "float32":
        config.dtype = "float32"
    job = dataclasses.replace(job, config=config)
    adapters = {path: 1.0 for path in trained_paths(job, model) if part_of(path) == "adapters"}
    params = load_params(job, model, weights, adapters)
    if not model.llava.config.decoder.quantize:
        return params
    check_base(job)
    kept = {path: value for path, value in params.items() if not is_quantised(path)}
    del params  # the kernels below take its room
    job.say(
        f"writes the full matrices of {model.source.name}, not their {job.config.model.quantize} "
        f"form{', with the adapters merged into them' if adapters else ''}"
    )
    return model.source.load(leaves_of(job.config, unquantised(model.llava), model.mesh)) | kept


def check_base(job: Job) -> None:
    """Refuse a checkpoint that has changed since the first finished stage was begun."""
    stage = next((stage for stage in STAGES if finished_stage(job.workdir, stage)), None)
    if stage is None:
        return
    began = shared_files.read_json(job.workdir / stage / "settings.json")["start"]
    if began != current_weights(job, before=stage).digest:
        raise UserError(
            f"{job.workdir / stage} was begun with another config.model, or its files have changed "
            "since: export needs the same checkpoint, as adapters are merged into its matrices"
        )


def write_adapters(job: Job, model: OpenModel, params: dict[str, jax.Array]) -> None:
    """The adapters (and the projector) alone beside the export, where they are all that changed."""
    config = job.config
    kept = ("adapters", "projector")
    others = [path for path in trained_paths(job, model) if part_of(path) not in kept]
    fused = why_not(model.source.decoder_type)
    if "projector/newline" in trained_paths(job, model):
        others = ["projector/newline"]  # no module, and PEFT saves modules
    if others or fused or "llava" not in model.source.folders:
        reason = f"{others[0]} was trained too" if others else fused
        reason = reason or "config.model.checkpoint is no LlavaForConditionalGeneration"
        job.say(f"adapters are not written alone: {reason}")
        return
    folder = job.workdir / "export-peft"
    export_adapters(
        folder,
        params=params,
        config=model.llava.config,
        base=config.model.checkpoint,
        projector=True,
        dtype=jnp.dtype(config.export.dtype or config.dtype),
    )
    job.say(f"adapters in PEFT's format -> {folder}")


def trained_paths(job: Job, model: OpenModel) -> list[str]:
    """Parameters that any finished stage trained."""
    found: dict[str, None] = {}
    for stage in STAGES:
        if finished_stage(job.workdir, stage):
            factors = stage_factors(model.llava, job.config, stage)
            found |= {path: None for path, factor in factors.items() if factor is not None}
    return list(found)


def template(config: ConfigDict, style: PromptStyle, weights: Weights) -> str:
    """The prompt template that the weights were last trained with."""
    own = config[weights.stage].template if weights.stage == "finetune" else ""
    return style.named(own)


def card(job: Job, model: OpenModel, weights: Weights) -> CardFacts:
    """The facts of the model card, from the stages' own settings."""
    config = job.config
    guide = guide_config(config, job.workdir, model.llava.config.decoder.layers)
    trained = weights.stage is not None
    stages = [stage for stage in STAGES if finished_stage(job.workdir, stage)]
    asking = [s for s in stages if model.prompts.named(config[s].template) != "plain"]
    retrieved = any(had_retrieved(job.workdir / stage) for stage in asking)
    return CardFacts(
        name=f"{model.source.name}-{weights.tag}",
        bases=tuple(str(folder) for folder in model.source.folders.values()),
        template=template(config, model.prompts, weights),
        retrieved_in_prompt=config.prompt.retrieved and retrieved,
        guide_form=guide.form if trained else "none",
        guide_layers=tuple(layer + 1 for layer in guide.layers),
        guide_center=guide.center,
        pad_to_square=model.image_settings["pad_to_square"],
        model_type=llava_type(model.source.config),
        stages=tuple(stage_facts(job.workdir / stage) for stage in stages),
    )


def had_retrieved(folder: Path) -> bool:
    """Whether any image of a stage had a retrieved text, as its samples.json says."""
    about = read_json(folder / "samples.json")
    return about["pictures"] > about["pictures_without_retrieved"]["count"]


def stage_facts(folder: Path) -> StageFacts:
    """What a finished stage did, as its folder says."""
    found, done = read_json(folder / "settings.json"), read_json(folder / "done.json")
    settings, lora = found[folder.name], found["lora"]
    counts = done.get("trained") or {p: None for p, f in settings["trainable"] if f is not None}
    shape = {"adapters": f", rank {lora['rank']}, alpha {lora['alpha']:g}"}
    trained = [
        part if n is None else f"{part} ({n:,} parameters{shape.get(part, '')})"
        for part, n in counts.items()
    ]
    return StageFacts(
        name=folder.name,
        steps=settings["steps"],
        batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        trained=", ".join(trained),
        terms=done.get("terms", {}),
    )
