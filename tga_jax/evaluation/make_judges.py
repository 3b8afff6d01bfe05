"""Builds the judges that config.evaluate.judges names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tga_jax.config import listed
from tga_jax.errors import UserError
from tga_jax.evaluation.endpoint import Endpoint
from tga_jax.evaluation.judges import RULE_JUDGES, Judge
from tga_jax.evaluation.llava_guard import POLICY
from tga_jax.evaluation.llava_model import KEY, LlavaReply, read_policy
from tga_jax.evaluation.model_judges import ModelJudge, reply_tokens
from tga_jax.hf.checkpoint_digest import checkpoint_digest
from tga_jax.hf.torch_model import LocalModel
from tga_jax.run.job import Job


def make_judges(job: Job) -> list[Judge]:
    """The judges of config.evaluate.judges, the one that counts first; no model is loaded.

    Raises:
        UserError: there is no such judge, or its model is not there.
    """
    judges: dict[str, Judge] = {}
    for name in listed(job.config.evaluate.judges):
        if name in RULE_JUDGES:
            judges[name] = RULE_JUDGES[name]
        elif name in MODELS:
            judges[name] = MODELS[name](job)
        else:
            known = ", ".join([*RULE_JUDGES, *MODELS])
            raise UserError(
                f"config.evaluate.judges: there is no judge {name!r}; name one of {known}"
            )
    if not judges:
        raise UserError("config.evaluate.judges is empty; 'strict' is the default")
    return list(judges.values())


def _endpoint_judge(job: Job) -> Judge:
    cfg = job.config.evaluate.endpoint
    if not (cfg.url and cfg.model):
        raise UserError("judge endpoint: set config.evaluate.endpoint.url and .model")
    reply = Endpoint(
        url=cfg.url,
        model=cfg.model,
        key_variable=cfg.key_variable,
        max_tokens=reply_tokens(cfg.kind),
        timeout_seconds=cfg.timeout_seconds,
        workers=cfg.workers,
    )
    return ModelJudge("endpoint", cfg.kind, cfg.model, reply, images=cfg.pictures)


def _local_judge(job: Job) -> Judge:
    cfg = job.config.evaluate.local
    if not Path(cfg.folder or "-").is_dir():
        raise UserError(f"config.evaluate.local.folder={cfg.folder!r}: there is no such folder")
    reply = LocalModel(
        cfg.folder,
        images=cfg.pictures,
        batch_size=cfg.batch_size,
        max_new_tokens=reply_tokens(cfg.kind),
    )
    model = checkpoint_digest([Path(cfg.folder)])
    return ModelJudge("local", cfg.kind, model, reply, images=cfg.pictures)


def _llava_judge(job: Job) -> Judge:
    cfg = job.config.evaluate.llava_judge
    if cfg.kind == "llama_guard":  # which takes the answer as a turn of its own
        raise UserError(
            f"{KEY}.kind='llama_guard': a LLaVA cannot answer as Llama Guard does; use "
            "'llava_guard'"
        )
    policy = read_policy(cfg.policy) if cfg.policy else POLICY
    reply = LlavaReply(job)
    return ModelJudge("llava", cfg.kind, reply.identity, reply, images=cfg.pictures, policy=policy)


MODELS: dict[str, Callable[[Job], Judge]] = {
    "endpoint": _endpoint_judge,
    "local": _local_judge,
    "llava": _llava_judge,
}
