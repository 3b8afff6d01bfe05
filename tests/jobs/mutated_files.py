"""Mutations of configuration values, of tokenizer files and of checkpoints."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.jobs.mutation import Mutation, mutate_bytes, mutate_key, odd_value
from tga_jax.config import base_config
from tga_jax.files import flat

SECTIONS = (
    "data",
    "prompt",
    "guide",
    "model",
    "mesh",
    "lora",
    "score",
    "inspect",
    "prepare",
    "finetune",
)
ODD_TEXTS: dict[type, tuple[str, ...]] = {
    bool: ("maybe", "2", "", "None"),
    int: ("-1", "-7", "0", "1.5", "abc", "nan", "", "1e3", "None", "100000000000000000000"),
    float: ("-1", "0", "nan", "inf", "-inf", "abc", "", "None"),
    str: ("no-such", "../..", "a,b", "0", "-1", "{x}", "é\u2028"),
    tuple: ("abc", "(0,)", "(-1,)", "('a',)", "((1,),)", "7", "(1.5,)", "(", "None"),
}
LONG_WORK = ("finetune.steps", "finetune.epochs", "finetune.batch_size", "finetune.accumulate")
# What is no key or no flag, and what the error's line must call it.
TYPOS = {
    "--config.data.pth=x": "config.data.pth", "--config.dta.path=x": "config.dta",
    "--config.guide=x": "config.guide", "--config.data.path.x=1": "config.data.path.x",
    "--cofig.data.path=x": "cofig", "--config.finetune.stps=1": "config.finetune.stps",
    "stray": "stray", "--config.seed": "config.seed", "--config.x.y.z=1": "config.x",
}  # fmt: skip
ANSWERED = ("config.json", "generation_config.json", "tokenizer", "prompt template")


def config_mutation(rng: random.Random) -> Mutation:
    """A value on the command line: of a wrong type, out of range, or of an unknown key."""
    if rng.random() < 0.15:
        typo = rng.choice(list(TYPOS))
        return Mutation(typo, "inspect", (TYPOS[typo],), flags=(typo,), expect=2)
    config = base_config().to_dict()
    values = {k: v for s in SECTIONS for k, v in flat(config[s], s).items()}
    values |= {key: config[key] for key in ("seed", "dtype", "trained_dtype", "moments")}
    key = rng.choice([k for k in sorted(values) if k != "model.checkpoint"])
    section, kind = key.split(".")[0], type(values[key])
    texts = ODD_TEXTS.get(kind, ODD_TEXTS[str])
    text = rng.choice(texts[:-1] if key in LONG_WORK else texts)
    jobs = {"finetune": "finetune", "prepare": "prepare", "inspect": "inspect"}
    training = key in ("trained_dtype", "moments")
    job = "finetune" if training else jobs.get(section, rng.choice(["inspect", "score"]))
    flag = f"--config.{key}={text}"
    return Mutation(flag, job, (key, f"{text}: "), flags=(flag,))


def tokenizer_mutation(rng: random.Random) -> Mutation:
    """A key, a byte or a token of the tokenizer's files, or a chat template that is no template."""
    name = rng.choice(["tokenizer.json"] * 3 + ["tokenizer_config.json"] * 2 + ["template"])
    if name == "template":
        return _template_mutation(rng)
    return _json_mutation(rng, name, "inspect", ANSWERED, depth=3)


def _json_mutation(
    rng: random.Random, name: str, job: str, culprits: tuple[str, ...], depth: int
) -> Mutation:
    """A key of a JSON file of the checkpoint's, or its bytes, or the whole of it."""
    path, chance = f"checkpoint/{name}", rng.random()
    seed = rng.random()

    def gone(inputs: Path) -> str:
        (inputs / path).unlink()
        return "gone"

    def garble(inputs: Path) -> str:
        content = (inputs / path).read_bytes()
        what, content = mutate_bytes(random.Random(seed), content)
        (inputs / path).write_bytes(content)
        return what

    def change(inputs: Path) -> str:
        value = json.loads((inputs / path).read_text())
        what = mutate_key(random.Random(seed), value, depth)
        (inputs / path).write_text(json.dumps(value))
        return what

    spoil = gone if chance < 0.08 else garble if chance < 0.3 else change
    return Mutation(name, job, (name, *culprits), spoil)


TEMPLATES = (
    "{% for m in messages %}", "{{ messages[0]['text'] }}", "{{ raise_exception('no') }}",
    "nothing", "{{ 1 / 0 }}", "{{ messages | map(attribute='content') | join", "{% include 'x' %}",
    "{{ x.y.z }}", "{{ ''.__class__.__mro__ }}", "{% set n = 0 %}{{ strftime_now(n) }}", "\0",
    "{{ 7 }}", " ", "{% for m in messages %}{{ m['role'] + m['content'] }}{% endfor %}",
)  # fmt: skip


def _template_mutation(rng: random.Random) -> Mutation:
    place, template = rng.choice(["jinja", "json", "config"]), rng.choice(TEMPLATES)
    value = template if rng.random() < 0.7 else odd_value(rng)
    name = {"jinja": "chat_template.jinja", "json": "chat_template.json", "config": ""}[place]

    def spoil(inputs: Path) -> None:
        path = inputs / "checkpoint" / (name or "tokenizer_config.json")
        if place == "jinja":
            path.write_text(template)
        elif place == "json":
            path.write_text(json.dumps({"chat_template": value}))
        else:
            path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": value}))

    flags = rng.choice([(), ("--config.prompt.template=tokenizer",)])
    told = ("prompt template", "chat_template", "chat template", "tokenizer_config.json")
    shown = template if place == "jinja" else value
    return Mutation(f"chat template in {place}: {shown!r} {flags}", "inspect", told, spoil, flags)


def checkpoint_mutation(rng: random.Random) -> Mutation:
    """A key of a settings file, or a tensor, or the file of tensors."""
    kind = rng.choice(["config"] * 3 + ["picture"] * 2 + ["generation"] + ["weights"] * 3)
    if kind == "weights":
        change = rng.choice(WEIGHTS)
        seed = rng.random()
        return Mutation(
            f"weights: {change.__name__} {seed:.3f}",
            "score",
            ("model.safetensors", "checkpoint: "),
            lambda inputs: change(inputs / "checkpoint/model.safetensors", random.Random(seed)),
            expect=None if change in (other_value, garbled_weights) else 2,
        )
    name, job = {
        "config": ("config.json", rng.choice(["inspect", "inspect", "score"])),
        "picture": (rng.choice(["preprocessor_config.json", "processor_config.json"]), "inspect"),
        "generation": ("generation_config.json", "inspect"),
    }[kind]
    # A model's shape that agrees with nothing is seen at the weights or at the images.
    told = ("checkpoint: ",) if name == "config.json" else ()
    return _json_mutation(rng, name, job, told, depth=2)


def _edit_weights(path: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def other_shape(path: Path, rng: random.Random) -> None:
    """A tensor with one row less."""

    def change(tensors: dict[str, np.ndarray]) -> None:
        name = rng.choice(sorted(tensors))
        tensors[name] = tensors[name][:-1].copy()

    _edit_weights(path, change)


def missing_tensor(path: Path, rng: random.Random) -> None:
    """A tensor is not there."""
    _edit_weights(path, lambda tensors: tensors.pop(rng.choice(sorted(tensors))) and None)


def more_tensors(path: Path, rng: random.Random) -> None:
    """One that the model does not have."""
    _edit_weights(
        path, lambda tensors: tensors.update({"model.extra.weight": np.ones(3, np.float32)})
    )


def other_kind(path: Path, rng: random.Random) -> None:
    """A tensor of whole numbers, as of a quantised model."""

    def change(tensors: dict[str, np.ndarray]) -> None:
        name = rng.choice(sorted(tensors))
        tensors[name] = tensors[name].astype(np.int8)

    _edit_weights(path, change)


def other_value(path: Path, rng: random.Random) -> None:
    """A tensor of NaN."""

    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors[rng.choice(sorted(tensors))].fill(np.nan)

    _edit_weights(path, change)


def cut(path: Path, rng: random.Random) -> None:
    """The end of the file is missing."""
    path.write_bytes(path.read_bytes()[: int(rng.random() * path.stat().st_size)])


def garbled_weights(path: Path, rng: random.Random) -> None:
    """A byte of the header is another."""
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    content[rng.randrange(8 + length)] ^= 0x15
    path.write_bytes(bytes(content))


def odd_header(path: Path, rng: random.Random) -> None:
    """A value of a tensor's entry in the header is another."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + length])
    name = rng.choice(sorted(entries.keys() - {"__metadata__"}))
    key = rng.choice(["dtype", "shape", "data_offsets"])
    entries[name][key] = rng.choice(["F99", [-1, 8], [0], None, {}, [10**30, 1], [[1]], [8, 4]])
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])


def index_without_shard(path: Path, rng: random.Random) -> None:
    """An index names a file that is not there, or is no index."""
    weight_map = {name: "model-00001-of-00002.safetensors" for name in load_file(path)}
    value = rng.choice(
        [weight_map, {"a": "../x.safetensors"}, {"a": 1}, {}, [], None, {"a": "x\0"}]
    )
    path.unlink()
    path.with_name("model.safetensors.index.json").write_text(json.dumps({"weight_map": value}))


def no_weights(path: Path, rng: random.Random) -> None:
    """The file is gone, or a folder."""
    path.unlink()
    if rng.random() < 0.5:
        path.mkdir()


WEIGHTS = (
    other_shape, missing_tensor, more_tensors, other_kind, other_value, cut, garbled_weights,
    odd_header, index_without_shard, no_weights,
)  # fmt: skip
