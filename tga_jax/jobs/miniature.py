"""Job `miniature`: the made-up world, a CLIP trained on it, and an LLM that refuses harmful text.

Each phase is done once for its settings; a killed one goes on from its last checkpoint. Models that
config.miniature.shipped holds for the very same settings are taken from there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from tga_jax.config import STAGES
from tga_jax.data.records import Question, read_records
from tga_jax.data.templates import count_marks, make_template
from tga_jax.files import write_json
from tga_jax.hf.clip import clip_tokens, export_clip, open_clip
from tga_jax.hf.decoder_export import export_decoder
from tga_jax.hf.tokenizer import load_fast, load_tokenizer
from tga_jax.jobs import train
from tga_jax.miniature import base_models
from tga_jax.miniature.build import build_world
from tga_jax.miniature.builder import WorldSizes
from tga_jax.miniature.clip_training import ClipTraining, dev_pairs, train_clip, zero_shot
from tga_jax.miniature.documents import document_rows
from tga_jax.miniature.phases import Figures, phase, phase_settings, timed
from tga_jax.miniature.rows import Row
from tga_jax.models.decoder import Decoder
from tga_jax.parallel.mesh import mesh_of
from tga_jax.retrieval.clip_embedder import clip_model_of, load_clip
from tga_jax.run.answerer import Answerer
from tga_jax.run.job import Job
from tga_jax.run.model import open_model
from tga_jax.run.prompts import make_prompter
from tga_jax.run.weights import current_weights, load_params
from tga_jax.training.step import nested

TOKEN_MULTIPLE = 12  # of padded captions
DECODER_ONLY = (("decoder/.*", 1.0), (".*", None))


def check(job: Job, before: Sequence[str]) -> None:
    """Refuse sizes of the world that there are not."""
    WorldSizes(**job.config.miniature.world.to_dict())


def run(job: Job) -> None:
    """Write world/, clip/, llm/ and base_models.json."""
    settings, seed = job.config.miniature, job.config.seed
    sizes = WorldSizes(**settings.world.to_dict())
    world = timed(lambda: build_world(job.workdir / "world", seed=seed, sizes=sizes))
    job.say(f"world: {world['figures']['counts']}")
    own = phase_settings(job.config, world["figures"]["settings"])
    clip = phase(job, "clip", own["clip"], lambda folder: make_clip(job, sizes, folder))
    llm = phase(job, "llm", own["llm"], lambda folder: make_llm(job, folder))
    done = {"world": world["figures"]["counts"], "clip": clip["figures"], "llm": llm["figures"]}
    phases = {"clip": clip, "llm": llm}
    for key, shipped in (("seconds", False), ("shipped_seconds", True)):
        done[key] = {
            name: found["seconds"]
            for name, found in phases.items()
            if found.get("shipped", False) == shipped
        }
    write_json(job.workdir / "base_models.json", done)
    job.say(f"clip: {json.dumps(clip['figures'])}")
    job.say(f"llm: {json.dumps(llm['figures'])}")


# --- CLIP ---


def make_clip(job: Job, sizes: WorldSizes, folder: Path) -> Figures:
    """Trains and writes clip/; the figures are those of the written model."""
    cfg, drawing = job.config.miniature.clip, sizes.drawing
    vocab = base_models.write_clip_tokenizer(
        job.workdir / "world" / "tokenizer", folder / "tokenizer"
    )
    tokenizer = load_fast(folder / "tokenizer")
    shape = base_models.clip_config(
        side_pixels=drawing.side_pixels,
        patch_pixels=cfg.patch_pixels,
        width=cfg.width,
        layers=cfg.layers,
        text_layers=cfg.text_layers,
        vocab=vocab,
    )
    image_settings = base_models.image_settings(drawing.side_pixels)

    def tokenise(texts: Sequence[str]) -> np.ndarray:
        length = shape.text.length
        return clip_tokens(tokenizer, texts, length=length, multiple=TOKEN_MULTIPLE)[0]

    settings = ClipTraining(
        seed=job.config.seed,
        pairs=cfg.pairs,
        steps=cfg.steps,
        batch_size=cfg.batch_size,
        learning_rate=cfg.learning_rate,
        weight_decay=cfg.weight_decay,
        save_every=cfg.save_every,
    )
    params = train_clip(
        clip_model_of(shape, image_settings),
        folder,
        settings=settings,
        drawing=drawing,
        tokenise=tokenise,
        mesh=mesh_of(job.config.mesh),
    )
    export_clip(
        job.workdir / "clip",
        params=params,
        config=shape,
        tokenizer=tokenizer,
        image_settings=image_settings,
        dtype=job.config.miniature.dtype,
    )
    source = open_clip(str(job.workdir / "clip"))
    model, params = load_clip(source, mesh_of(job.config.mesh))
    pairs = dev_pairs(job.config.seed, cfg.dev_pictures, drawing)
    figures = zero_shot(params, model, pairs, tokenise=lambda texts: source.tokenise(texts)[0])
    return {"parameters": sum(p.size for p in params.values()), "zero_shot": figures}


# --- the language model ---


def make_llm(job: Job, folder: Path) -> Figures:
    """Trains from random parameters and writes llm/; the figures are those of the written one."""
    cfg, start = job.config.miniature.llm, folder / "start"
    tokenizer = load_tokenizer(job.workdir / "world" / "tokenizer")
    shape = base_models.decoder_config(
        width=cfg.width, layers=cfg.layers, vocab=tokenizer.vocab_needed
    )
    prompt = job.config.prompt
    written = {
        "config": shape,
        "tokenizer": tokenizer,
        "model_type": "llama",
        "template": prompt.template,
        "system": prompt.system,
        "length": 1024,
    }
    if not start.is_dir():
        params = random_decoder(shape, seed=job.config.seed)
        export_decoder(start, params=params, dtype="float32", **written)
    documents = folder / "documents.json"
    if not documents.exists():
        write_json(documents, pretraining_rows(job, tokenizer.tokenizer.eos_token))
    config = llm_config(job, start, documents)
    for stage in STAGES:  # texts, then safe chats
        train.run(Job(config, folder, stage))
    params = trained_params(Job(config, folder))
    llm = job.workdir / "llm"
    export_decoder(llm, params=params, dtype=job.config.miniature.dtype, **written)
    check = Job(llm_config(job, llm, documents), folder / "check", "text")
    questions = base_models.read_text_questions(job.workdir / "world/text_eval_dev.jsonl")
    figures = base_models.text_figures(questions, answers(check, [q["prompt"] for q in questions]))
    count = sum(p.size for path, p in params.items() if path.startswith("decoder/"))
    return {"parameters": count, **figures}


def random_decoder(shape: Any, *, seed: int) -> dict[str, jax.Array]:
    """Random parameters of a language model, by their paths."""

    def init() -> dict[str, jax.Array]:
        tokens = np.zeros((1, 2), np.int32)
        params = Decoder(shape).init(jax.random.key(seed), tokens, method="init_all")["params"]
        flat = flatten_dict({"decoder": nn.meta.unbox(params)}, sep="/")
        return base_models.from_scratch(flat)

    return jax.jit(init)()


def pretraining_rows(job: Job, eos: str) -> list[Row]:
    """What the language model is pretrained on: the world's helpful chats, and documents."""
    prompt, count = job.config.prompt, job.config.miniature.llm.documents
    template = make_template(prompt.template, bos="", eos=eos, system=prompt.system)
    records = read_records(job.workdir / "world" / "llm_pretrain.json")
    chats = [template.render(count_marks(record)).text for record in records]
    rng = np.random.default_rng([job.config.seed, 29])
    return document_rows(rng, count, chats)


def llm_config(job: Job, llm: Path, documents: Path) -> ConfigDict:
    """The configuration with which a user would train the decoder alone, on text rows."""
    config, cfg = job.config.copy_and_resolve_references(), job.config.miniature.llm
    with config.unlocked():
        config.model.checkpoint = ""
        config.model.vision, config.model.llm = str(job.workdir / "clip"), str(llm)
        config.lora.rank = 0
        config.data.captions = config.data.retrieved = config.data.image_dir = ""
        config.data.max_length, config.data.buckets = cfg.max_length, cfg.buckets
        config.generate.max_new_tokens, config.generate.batch_size = 48, 100
        safety = job.workdir / "world" / "llm_safety.json"
        for stage, rows, template, part in (
            (config.pretrain, documents, "plain", "pretrain"),
            (config.finetune, safety, config.prompt.template, "safety"),
        ):
            stage.path, stage.image_dir, stage.template = str(rows), "", template
            stage.steps, stage.batch_size, stage.accumulate = (
                cfg[f"{part}_steps"],
                cfg.batch_size,
                1,
            )
            stage.learning_rate = cfg[f"{part}_learning_rate"]
            stage.weight_decay, stage.save_every = cfg.weight_decay, 250
            stage.trainable, stage.guide, stage.max_length = DECODER_ONLY, False, 0
    return config


def trained_params(job: Job) -> dict[str, jax.Array]:
    """The parameters that the job's stages trained, by flat path."""
    model = open_model(job, mesh_of(job.config.mesh))
    return load_params(job, model, current_weights(job))


def answers(job: Job, prompts: Sequence[str]) -> list[str]:
    """Greedy answers to text prompts by the model that config.model names."""
    config = job.config
    model = open_model(job, mesh_of(config.mesh))
    questions = [Question(i, None, prompt) for i, prompt in enumerate(prompts)]
    rows = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    found: dict[int, str] = {}
    params = nested(load_params(job, model, current_weights(job)))
    answerer = Answerer(config, model, make_prompter(config, model.prompts), title=job.name)
    for new in answerer.replies(questions, rows, params, image_dir=lambda row: Path()):
        found |= {row: reply.text for row, reply in new.items()}
    return [found[i] for i in range(len(prompts))]
