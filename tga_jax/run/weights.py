"""Which weights a job works with, and how they are loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from tga_jax.cluster import hosts, shared_files
from tga_jax.config import STAGES
from tga_jax.errors import UserError
from tga_jax.files import digest
from tga_jax.hf.checkpoint_digest import checkpoint_digest
from tga_jax.models.llava import Llava
from tga_jax.run.job import Job
from tga_jax.run.model import OpenModel
from tga_jax.training.checkpoints import Checkpoints
from tga_jax.training.state import Leaves, param_leaves, random_params

Flat = dict[str, jax.Array]
# Other values of these make another model of a stage's checkpoints, or fit none of their arrays.
DECISIVE = {
    "model": ("quantize", "projector", "feature_layer", "feature_select"),
    "lora": ("rank", "alpha", "targets", "layers"),
}


@dataclasses.dataclass(frozen=True)
class Weights:
    """The source's weights (`stage` None) or a finished stage's; `digest` tells runs apart."""

    stage: str | None
    step: int
    digest: str

    @property
    def tag(self) -> str:
        """What file names and answers call them."""
        return "start" if self.stage is None else f"{self.stage}-{self.step}"


def projector_is_new(config: ConfigDict, weights: Weights) -> bool:
    """Whether nothing has trained the projector yet: the model is put together from two parts."""
    return weights.stage is None and not config.model.checkpoint


def finished_stage(workdir: Path, stage: str) -> Weights | None:
    """The weights of a stage that ran to its end in this workdir; None where it did not."""
    done = shared_files.read_json(workdir / stage / "done.json", missing_ok=True)
    return None if done is None else Weights(stage, done["step"], done["digest"])


def trained_with(workdir: Path, stage: str) -> dict[str, Any]:
    """The settings that a stage was begun with; none of a run that wrote none."""
    return shared_files.read_json(workdir / stage / "settings.json", missing_ok=True) or {}


def current_weights(job: Job, *, before: str | None = None) -> Weights:
    """The furthest finished stage's weights (before stage `before`), else the source's.

    Raises:
        UserError: a key says otherwise than in that stage what the model is.
    """
    stages = STAGES if before is None else STAGES[: STAGES.index(before)]
    for stage in reversed(stages):
        weights = finished_stage(job.workdir, stage)
        if weights is not None:
            check_as_trained(job, weights.stage or "")
            return weights
    model = job.config.model
    return Weights(None, 0, str(hosts.broadcast_from_first(lambda: source_digest(model))))


def source_digest(model: ConfigDict) -> str:
    """A hash of `config.model` and, where it names folders, of their files.

    Other files may be put into the same folders. A hub id is left as it is: asking for its files
    could mean a download.
    """
    names = (model.checkpoint,) if model.checkpoint else (model.vision, model.llm)
    places = [Path(name).expanduser() for name in names if name]
    folders = [place for place in places if place.is_dir()]
    settings = model.to_dict()
    return digest([settings, checkpoint_digest(folders)] if folders else settings)


def model_digest(model: OpenModel, weights: Weights) -> str:
    """A hash of the files that the model comes from and, where it was trained, of its training.

    Kernels in few bits make it another model.
    """
    files = checkpoint_digest(model.source.folders.values())
    quantize = model.llava.config.decoder.quantize
    parts = [files] + [weights.digest] * (weights.stage is not None) + [quantize] * bool(quantize)
    return files if len(parts) == 1 else digest(parts)


def load_params(
    job: Job,
    model: OpenModel,
    weights: Weights,
    factors: Mapping[str, float | None] | None = None,
) -> Flat:
    """Parameters by path, on the mesh.

    Args:
        job: says what is loaded; its workdir has the stages' checkpoints.
        model: whose parameters they are.
        weights: which of them.
        factors: learning-rate factors by path; what is trained is in config.trained_dtype, all
            else in config.dtype.
    """
    leaves = leaves_of(job.config, model.llava, model.mesh, factors)
    if weights.stage is not None:
        checkpoints = Checkpoints(job.workdir / weights.stage / "checkpoints")
        params = checkpoints.restore_params(weights.step, leaves)
        checkpoints.close()
        return params
    job.say(f"loading {model.source.name}")
    params = model.source.load(leaves)
    new = {path: leaf for path, leaf in leaves.items() if path not in params}
    if not new:
        return params
    scale = job.config.model.projector_scale
    made = random_params(model.llava, new, seed=job.config.seed, projector_scale=scale)
    return params | made


def check_as_trained(job: Job, stage: str) -> None:
    """Refuse keys by which the model is another one than the stage's checkpoints are of."""
    found = trained_with(job.workdir, stage)
    adapted = job.config.lora.rank or found.get("lora", {}).get("rank")
    for section, keys in DECISIVE.items():
        if section == "lora" and not adapted:
            continue
        for key in keys:
            was, now = found.get(section, {}).get(key), job.config[section][key]
            if was is not None and was != now:
                raise UserError(
                    f"{job.workdir / stage} was trained with config.{section}.{key}={was!r}, now "
                    f"it is {now!r}: set it as it was"
                )


def leaves_of(
    config: ConfigDict,
    llava: Llava,
    mesh: Mesh,
    factors: Mapping[str, float | None] | None = None,
) -> Leaves:
    """Shape, dtype and sharding of every parameter by path, as the configuration wants them."""
    return param_leaves(
        llava,
        mesh,
        dtype=config.dtype,
        trained_dtype=config.trained_dtype,
        factors=factors,
    )
