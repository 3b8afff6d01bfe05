"""Builds the judges that config.evaluate.judges names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.evaluation.endpoint import Endpoint
from tga_jax.evaluation.judges import RULE_JUDGES, Judge
from tga_jax.evaluation.model_judges import ModelJudge
from tga_jax.hf.checkpoint_digest import checkpoint_digest
from tga_jax.hf.torch_model import LocalModel


def make_judges(cfg: Any) -> list[Judge]:
    """The judges of config.evaluate.judges, the one that counts first."""
    judges: dict[str, Judge] = {}
    for name in filter(None, (part.strip() for part in cfg.judges.split(","))):
        if name in RULE_JUDGES:
            judges[name] = RULE_JUDGES[name]
        elif name == "endpoint":
            judges[name] = _endpoint_judge(cfg.endpoint)
        elif name == "local":
            judges[name] = _local_judge(cfg.local)
        else:
            known = ", ".join([*RULE_JUDGES, "endpoint", "local"])
            raise UserError(f"config.evaluate.judges: there is no judge {name!r}; of {known}")
    if not judges:
        raise UserError("config.evaluate.judges is empty; 'strict' is the default")
    return list(judges.values())


def _endpoint_judge(cfg: Any) -> Judge:
    if not (cfg.url and cfg.model):
        raise UserError("judge endpoint: set config.evaluate.endpoint.url and .model")
    reply = Endpoint(
        url=cfg.url,
        model=cfg.model,
        key_variable=cfg.key_variable,
        timeout_seconds=cfg.timeout_seconds,
        workers=cfg.workers,
    )
    return ModelJudge("endpoint", cfg.kind, cfg.model, reply, images=cfg.pictures)


def _local_judge(cfg: Any) -> Judge:
    if not Path(cfg.folder or "-").is_dir():
        raise UserError(f"config.evaluate.local.folder={cfg.folder!r}: there is no such folder")
    reply = LocalModel(cfg.folder, images=cfg.pictures, batch_size=cfg.batch_size)
    model = checkpoint_digest([Path(cfg.folder)])
    return ModelJudge("local", cfg.kind, model, reply, images=cfg.pictures)
