"""What the jobs of one run share: configuration, model, mesh, and which weights are current."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from tga_jax.alignment.layers import parse_layers
from tga_jax.cluster import hosts
from tga_jax.data.batches import default_buckets
from tga_jax.data.images import ImageTransform
from tga_jax.data.prompts import Prompter
from tga_jax.data.records import Record
from tga_jax.errors import UserError
from tga_jax.files import digest
from tga_jax.hf.checkpoint_digest import checkpoint_digest
from tga_jax.hf.own_template import writes_date
from tga_jax.hf.source import Source, open_llava, open_parts
from tga_jax.hf.template_choice import AUTO, choose_template
from tga_jax.models.attention import BACKENDS, choose_backend
from tga_jax.models.config import Compute, LlavaConfig, LoraConfig
from tga_jax.models.layers import REMAT_POLICIES
from tga_jax.models.llava import Llava, PixelNorm
from tga_jax.parallel.mesh import make_mesh
from tga_jax.run.prompt_date import prompt_date
from tga_jax.run.samples import read_samples
from tga_jax.training.checkpoints import Checkpoints
from tga_jax.training.state import param_leaves, random_params

STAGES = ("pretrain", "finetune")
Flat = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Weights:
    """The source's weights (`stage` None) or a finished stage's; `digest` tells runs apart."""

    stage: str | None
    step: int
    digest: str

    @property
    def tag(self) -> str:
        """As used in file names and answers."""
        return "start" if self.stage is None else f"{self.stage}-{self.step}"


def read_marker(path: Path) -> Any:
    """The JSON of a file that says what was finished; None without one."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


class Context:
    """A run: its configuration, its workdir, and what follows from them, made when asked for."""

    def __init__(self, config: ConfigDict, workdir: Path, job: str = "") -> None:
        self.config = config
        self.workdir = workdir
        self.job = job
        self._templates: dict[str, str] = {}

    # --- the model ---

    @functools.cached_property
    def source(self) -> Source:
        """The checkpoint, or the two parts, that the run starts from."""
        model = self.config.model
        if model.checkpoint:
            return open_llava(model.checkpoint)
        if not (model.vision and model.llm):
            raise UserError(
                "no model: set config.model.checkpoint, or config.model.vision and config.model.llm"
            )
        return open_parts(
            vision=model.vision,
            llm=model.llm,
            projector=model.projector,
            feature_layer=model.feature_layer,
            feature_select=model.feature_select,
        )

    @functools.cached_property
    def image_settings(self) -> dict[str, Any]:
        """The checkpoint's picture preparation, with config.data.pad_to_square applied."""
        choice = self.config.data.pad_to_square
        settings = dict(self.source.image_settings)
        if choice not in ("auto", "yes", "no"):
            raise UserError(f"config.data.pad_to_square={choice!r}: 'auto', 'yes' or 'no'")
        if choice != "auto":
            settings["pad_to_square"] = choice == "yes"
        return settings

    @functools.cached_property
    def transform(self) -> ImageTransform:
        """Pictures -> pixels."""
        transform = ImageTransform(**self.image_settings)
        side = self.source.config.vision.image_size
        if transform.size != (side, side):
            raise UserError(
                f"{self.source.name}: its processor makes pictures of {transform.size} pixels, "
                f"its vision tower takes {side} x {side}"
            )
        return transform

    @functools.cached_property
    def model(self) -> Llava:
        """The model without parameters."""
        model, dtype = self.config.model, self.config.dtype
        if dtype not in ("float32", "bfloat16"):
            raise UserError(f"config.dtype={dtype!r}: 'float32' or 'bfloat16'")
        if model.remat not in REMAT_POLICIES:
            known = ", ".join(map(repr, REMAT_POLICIES))
            raise UserError(f"config.model.remat={model.remat!r}: one of {known}")
        settings = self.image_settings
        norm = PixelNorm(tuple(settings["mean"]), tuple(settings["std"]), settings["rescale"])
        attention = self.attention(jax.devices()[0].platform)
        compute = Compute(dtype, model.remat, attention)
        self.say(f"attention: {attention}, {dtype}, remat {model.remat}")
        return Llava(self._with_lora(self.source.config), norm, compute)

    def attention(self, platform: str) -> str:
        """config.model.attention on that platform, with "auto" resolved."""
        name = self.config.model.attention
        if name not in ("auto", *BACKENDS):
            known = ", ".join(map(repr, ("auto", *BACKENDS)))
            raise UserError(f"config.model.attention={name!r}: one of {known}")
        return choose_backend(name, platform=platform, dtype=self.config.dtype)

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The device mesh."""
        sizes = self.config.mesh
        return make_mesh(data=sizes.data, fsdp=sizes.fsdp, tensor=sizes.tensor)

    # --- weights ---

    def stage_folder(self, stage: str) -> Path:
        """Where a stage's checkpoints and metrics are."""
        return self.workdir / stage

    def finished(self, stage: str) -> Weights | None:
        """The weights of a stage that ran to its end in this workdir."""
        done = hosts.from_first(lambda: read_marker(self.stage_folder(stage) / "done.json"))
        return None if done is None else Weights(stage, done["step"], done["digest"])

    def current_weights(self, *, before: str | None = None) -> Weights:
        """The furthest finished stage's weights (before stage `before`), else the source's."""
        stages = STAGES if before is None else STAGES[: STAGES.index(before)]
        for stage in reversed(stages):
            weights = self.finished(stage)
            if weights is not None:
                return weights
        return Weights(None, 0, self._start_digest)

    @functools.cached_property
    def _start_digest(self) -> str:
        return str(hosts.from_first(self._digest_start))

    def _digest_start(self) -> str:
        """Of config.model and, where it names folders, of their files: others may be put there.

        A hub id is left as it is: asking for its files could mean a download.
        """
        model = self.config.model
        names = (model.checkpoint,) if model.checkpoint else (model.vision, model.llm)
        places = [Path(name).expanduser() for name in names if name]
        folders = [place for place in places if place.is_dir()]
        settings = model.to_dict()
        return digest([settings, checkpoint_digest(folders)] if folders else settings)

    def load_params(
        self, weights: Weights, factors: Mapping[str, float | None] | None = None
    ) -> Flat:
        """Parameters by path, on the mesh: trained ones in float32, others in config.dtype."""
        leaves = param_leaves(
            self.model,
            self.mesh,
            dtype=self.config.dtype,
            trained_dtype=self.config.trained_dtype,
            factors=factors,
        )
        if weights.stage is not None:
            folder = self.stage_folder(weights.stage) / "checkpoints"
            checkpoints = Checkpoints(folder)
            params = checkpoints.restore_params(weights.step, leaves)
            checkpoints.close()
            return params
        self.say(f"loading {self.source.name}")
        params = self.source.load(leaves)
        new = {path: leaf for path, leaf in leaves.items() if path not in params}
        if not new:
            return params
        scale = self.config.model.projector_scale
        return params | random_params(self.model, new, seed=self.config.seed, projector_scale=scale)

    # --- samples ---

    def records(self, stage: str = "") -> Sequence[Record]:
        """The samples of a stage, or of config.data."""
        return read_samples(self, stage)

    def image_dir(self, stage: str = "") -> Path:
        """The picture folder of a stage, or of config.data."""
        data = self.config.data
        folder = Path((self.config[stage].image_dir if stage else "") or data.image_dir or ".")
        if not folder.is_dir():
            raise UserError(f"config.data.image_dir={str(folder)!r}: there is no such folder")
        return folder

    def prompter(
        self,
        *,
        template: str = "",
        max_length: int = 0,
        system: str | None = None,
        training: bool = False,
    ) -> Prompter:
        """Records -> tokens, as config.prompt says where no argument does."""
        prompt, name = self.config.prompt, self.template(template)
        made = Prompter(
            self.source.tokenizer.tokenizer,
            template=name,
            image_token=self.source.tokenizer.image_token,
            image_tokens=self.source.config.image_tokens,
            max_length=max_length or self.config.data.max_length,
            use_retrieved=prompt.retrieved,
            system=prompt.system if system is None else system,
            date=self.prompt_date(name),
            training=training,
            answer_states=self.config.guide.answer_weight > 0,
        )
        if training and made.closing:
            self.say(
                "the chat template puts no special token after an answer; "
                f"in training {made.closing} closes it"
            )
        return made

    def template(self, name: str = "") -> str:
        """The prompt template `name`, config.prompt.template without, with "auto" resolved."""
        name = name or self.config.prompt.template
        if name not in self._templates:
            choice = choose_template(name, self.source.template_facts)
            self._templates[name] = choice.name
            if name == AUTO:
                self.say(f'prompt template "{choice.name}", {choice.reason}')
            if choice.warning:
                self.say(f"warning: {choice.warning}")
        return self._templates[name]

    def prompt_date(self, template: str) -> datetime.date | None:
        """The date that a resolved template writes into prompts, None where it writes none."""
        if template != "tokenizer" or not writes_date(self.source.tokenizer.tokenizer):
            return None
        return self._prompt_date

    @functools.cached_property
    def _prompt_date(self) -> datetime.date:
        date = prompt_date(self.workdir, self.config.prompt.date)
        self.say(f"the chat template may write the date: {date} (config.prompt.date)")
        return date

    def prompt_settings(self, template: str = "") -> dict[str, Any]:
        """config.prompt as it counts: the template's name, and the date where one is written."""
        name = self.template(template)
        date = self.prompt_date(name)
        return self.config.prompt.to_dict() | {"template": name, "date": str(date or "")}

    def buckets(self, *, max_length: int = 0) -> tuple[int, ...]:
        """Padded lengths of prompts."""
        data = self.config.data
        return tuple(data.buckets) or default_buckets(max_length or data.max_length)

    def caption_buckets(self, *, max_length: int = 0) -> tuple[int, ...]:
        """Padded lengths of the caption pass."""
        data = self.config.data
        return tuple(data.caption_buckets) or default_buckets(max_length or data.max_length)

    # --- talk ---

    def say(self, text: str) -> None:
        """A line for the person who watches."""
        hosts.tell(f"[{self.job}] {text}" if self.job else text)

    def _with_lora(self, config: LlavaConfig) -> LlavaConfig:
        lora = self.config.lora
        if not lora.rank:
            return config
        layers = parse_layers(
            lora.layers, config.decoder.layers, key="config.lora.layers", words="'all'"
        )
        chosen = None if len(layers) == config.decoder.layers else layers
        adapters = LoraConfig(lora.rank, lora.alpha, tuple(lora.targets.split(",")), chosen)
        decoder = dataclasses.replace(config.decoder, lora=adapters)
        return dataclasses.replace(config, decoder=decoder)
