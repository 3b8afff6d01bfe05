"""What the other jobs left in a workdir, read back. What is not there is empty, not an error."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tga_jax.analysis.layer_values import LayerValue, read_layers
from tga_jax.config import STAGES
from tga_jax.errors import UserError
from tga_jax.figure import Figure
from tga_jax.files import read_json, read_log

Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Arm:
    """One model and what is known of it.

    Attributes:
        name: as it is called on the page.
        workdir: where it was found.
        rows: of evaluate/metrics.json.
        answers: benchmark -> lines of its answers.jsonl.
        layers: of analyze/layers.csv; else the mean cosines of score/scores.jsonl.
        analysis: of analyze/summary.json.
        training: stage -> lines of its metrics.jsonl.
        seconds: job -> how long it took.
        summary: figures of summary.json, which stand in for rows that are not there.
        oracle: of oracle/oracle.json.
        choice: of defence/choice.json: what its defence chose.
    """

    name: str
    workdir: Path
    rows: list[Json]
    answers: dict[str, list[Json]]
    layers: list[LayerValue]
    analysis: Json
    training: dict[str, list[Json]]
    seconds: dict[str, float]
    summary: dict[str, float]
    oracle: Json = dataclasses.field(default_factory=dict)
    choice: Json = dataclasses.field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known of it."""
        found = self.rows, self.answers, self.layers, self.training, self.summary, self.oracle
        return not any(found)

    @property
    def settings(self) -> Json:
        """What produced its first figure, or else what the oracle asked."""
        return self.rows[0]["settings"] if self.rows else self.oracle.get("settings", {})

    def figure(self, benchmark: str, scene: str, metric: str) -> Figure | None:
        """The figure of a benchmark, group and metric in evaluate/metrics.json."""
        row = self.row(benchmark, scene, metric)
        if row is None:
            return None
        low, high = row["interval"]
        return Figure(row["value"], low, high, row["count"], row.get("few", False))

    def row(self, benchmark: str, scene: str, metric: str) -> Json | None:
        """The row of evaluate/metrics.json with a figure and all that is known of it."""
        wanted = (benchmark, scene, metric)
        found = (row for row in self.rows if _place(row) == wanted)
        return next(found, None)


def _place(row: Json) -> tuple[str, str, str]:
    return row["benchmark"], row["scene"], row["metric"]


@dataclasses.dataclass(frozen=True)
class Run:
    """All that a report is made of; `judged` has the rows of judge/metrics.json."""

    workdir: Path
    arms: list[Arm]
    seconds: dict[str, float]
    base_models: Json
    judged: list[Json] = dataclasses.field(default_factory=list)


def collect(workdir: Path, *, compare: str = "", order: Sequence[str] = ()) -> Run:
    """Reads a workdir, its arms, and a workdir to compare with.

    Args:
        workdir: of the run.
        compare: another workdir, which becomes the first arm; "": none.
        order: names of arms that come first, in this order; the others follow by name.

    Raises:
        UserError: there is nothing to report, or a file is malformed.
    """
    summary = read_found(workdir / "summary.json") or {}
    figures = {name: _numbers(values) for name, values in summary.items() if name != "seconds"}
    folders = [path for path in sorted((workdir / "arms").glob("*")) if path.is_dir()]
    names = [path.name for path in folders]
    names += [name for name in figures if name not in names and figures[name]]
    names.sort(key=lambda name: (order.index(name) if name in order else len(order), name))
    arms = [
        read_arm(workdir / "arms" / name, name=name, summary=figures.get(name)) for name in names
    ]
    if compare and not (Path(compare) / "evaluate").is_dir():
        raise UserError(f"config.evaluate.compare={compare!r}: has no folder evaluate/")
    own = [workdir] if not compare else [Path(compare), workdir]
    read = [read_arm(folder, name=folder.resolve().name) for folder in own]
    arms = [*read[:-1], *arms, read[-1]]
    arms = _named_apart([arm for arm in arms if not arm.is_empty])
    base_models = read_found(workdir / "base_models.json") or {}
    judged = _metric_rows(workdir / "judge" / "metrics.json", job="judge")
    if not arms and not base_models and not judged:
        if (workdir / "judge" / "metrics.json").is_file():
            raise UserError(
                f"{workdir}: nothing to report: job judge has no figures, because guards judge "
                "answers about harmful inputs alone; name another judge in config.evaluate.judges"
            )
        raise UserError(
            f"{workdir}: nothing to report: no evaluate/, judge/, analyze/, oracle/, score/, arms/ "
            "or training metrics; run another job first"
        )
    seconds = _numbers(base_models.get("seconds")) | _numbers(summary.get("seconds"))
    return Run(workdir, arms, seconds, base_models, judged)


def _named_apart(arms: Sequence[Arm]) -> list[Arm]:
    """Arms under names of their own: the model's where that tells it, else the workdir's too."""
    short = [_model_name(arm) for arm in arms]
    longer = [
        f"{name} ({arm.workdir.resolve().name})" for name, arm in zip(short, arms, strict=True)
    ]
    whole = [f"{name} ({arm.workdir.resolve()})" for name, arm in zip(short, arms, strict=True)]
    for names in (short, longer, whole):
        if len(set(names)) == len(names):
            break
    return [dataclasses.replace(arm, name=name) for arm, name in zip(arms, names, strict=True)]


def _model_name(arm: Arm) -> str:
    """Of a model that was audited as it came the name of its checkpoint, else the arm's."""
    settings = arm.settings
    in_experiment = arm.workdir.parent.name == "arms"
    if in_experiment or settings.get("weights") != "start" or not settings.get("source"):
        return arm.name
    parts = settings["source"].split(" + ")
    return "+".join(Path(part.partition(" at revision ")[0]).name for part in parts)


def read_arm(folder: Path, *, name: str, summary: dict[str, float] | None = None) -> Arm:
    """What the jobs left in the workdir of one model."""
    answers = {
        path.parent.name: list(read_log(path))
        for path in sorted((folder / "evaluate").glob("*/answers.jsonl"))
    }
    stages = {stage: list(read_log(folder / stage / "metrics.jsonl")) for stage in STAGES}
    return Arm(
        name=name,
        workdir=folder,
        rows=_metric_rows(folder / "evaluate" / "metrics.json"),
        answers=answers,
        layers=read_layers(folder / "analyze" / "layers.csv")
        or _score_layers(folder / "score" / "scores.jsonl"),
        analysis=read_found(folder / "analyze" / "summary.json") or {},
        training={stage: lines for stage, lines in stages.items() if lines},
        seconds=_numbers(read_found(folder / "seconds.json")),
        summary=summary or {},
        oracle=read_found(folder / "oracle" / "oracle.json") or {},
        choice=read_found(folder / "defence" / "choice.json") or {},
    )


# --- files ---


def read_found(path: Path) -> Any:
    """A JSON file of another job; None where there is none."""
    return read_json(path, missing_ok=True, advice="make it again or remove it")


def _metric_rows(path: Path, *, job: str = "evaluate") -> list[Json]:
    rows = read_found(path) or []
    for number, row in enumerate(rows, start=1):
        lacking = [k for k in ("benchmark", "scene", "metric", "value", "interval") if k not in row]
        if lacking:
            raise UserError(f"{path}: row {number} has no {lacking[0]!r}; run job {job} again")
    return [{"count": None, "settings": {}} | row for row in rows]


def _score_layers(path: Path) -> list[LayerValue]:
    """Mean cosines of every layer, of the samples that have them."""
    found, lines = [], list(read_log(path))
    for metric in ("image_caption_cos", "image_caption_cos_centred"):
        rows = [line[metric] for line in lines if line.get(metric)]
        for layer, values in enumerate(zip(*rows, strict=True), start=1):
            mean = sum(values) / len(values)
            found.append(LayerValue("scored samples", layer, metric, mean))
    return found


def _numbers(values: Any) -> dict[str, float]:
    """The entries of a dict that are numbers."""
    if not isinstance(values, dict):
        return {}
    return {k: float(v) for k, v in values.items() if isinstance(v, int | float)}
