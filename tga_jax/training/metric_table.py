"""The metrics of training, each declared once: a line of METRICS is all that says one exists.

The step, the held-out figures, `metrics.jsonl`, TensorBoard, the progress line and the report's
curves read this table. It needs no other package, so that a report can be made without JAX.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

# How a metric of a step comes from what its micro-batches and devices give:
MEAN = "mean"  # a sum over a count, both added up over the global batch; null where the count is 0
VALUE = "value"  # one number a step
WINDOW = "window"  # measured on the host over the steps since the line before
HELD_OUT = "held out"  # of samples that are not trained on; only in the lines of such steps


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric that training logs: its name, how it is averaged, and what it means.

    Attributes:
        name: its key in `metrics.jsonl` and its tag in TensorBoard.
        reduction: MEAN, VALUE, WINDOW or HELD_OUT.
        unit: what the number counts.
        curve: what the report calls its curve; "" where it is not plotted.
        must_be_finite: whether training ends with an error where it is not a finite number.
        best: "least" or "most" where config.<stage>.best may name it.
    """

    name: str
    reduction: str
    unit: str
    curve: str = ""
    must_be_finite: bool = False
    best: str = ""


METRICS = (
    Metric("loss", VALUE, "nats", "loss", must_be_finite=True),
    Metric("lm_loss", MEAN, "nats per answer token", "language loss"),
    Metric("guide_pair", MEAN, "per sample with an image and a caption"),
    Metric("guide_hinge", MEAN, "per sample with a retrieved text too"),
    Metric("guide_answer", MEAN, "per sample whose answer can be compared"),
    Metric("image_caption_cos", MEAN, "cosine, -1 to 1", "image-caption cosine"),
    Metric("grad_norm", VALUE, "L2 norm before clipping", must_be_finite=True),
    Metric("learning_rate", VALUE, "of parameters with factor 1"),
    Metric("tokens_per_second", WINDOW, "tokens/s"),
    Metric("tokens_per_second_per_device", WINDOW, "tokens/s"),
    Metric("images_per_second_per_device", WINDOW, "images/s"),
    Metric("step_seconds", WINDOW, "s"),
    Metric("mfu", WINDOW, "share of the device's peak FLOP/s; null where that is unknown"),
    Metric("data_wait_fraction", WINDOW, "share of the time"),
    Metric("peak_memory_bytes", WINDOW, "bytes of the fullest device"),
    Metric("compilations", WINDOW, "programs"),
    Metric("held_out_loss", HELD_OUT, "nats per answer token", "held-out loss", best="least"),
    Metric(
        "held_out_cos", HELD_OUT, "cosine, -1 to 1", "held-out image-caption cosine", best="most"
    ),
    Metric("probe_margin_harmful", HELD_OUT, "nats, mean refusal margin"),
    Metric("probe_margin_harmless", HELD_OUT, "nats, mean refusal margin"),
    Metric("probe_auc", HELD_OUT, "0 to 1", "probe: AUC of the refusal margin", best="most"),
    Metric("probe_refused_harmful", HELD_OUT, "share", "probe: harmful requests refused"),
    Metric("probe_refused_harmless", HELD_OUT, "share", "probe: harmless requests refused"),
    Metric("held_out_seconds", HELD_OUT, "s"),
)

NAMES = tuple(metric.name for metric in METRICS)


def names_of(reduction: str) -> tuple[str, ...]:
    """The names of the metrics with this reduction, in the table's order."""
    return tuple(metric.name for metric in METRICS if metric.reduction == reduction)


def progress_note(values: Mapping[str, float], tokens_per_second: float | None) -> str:
    """The losses of a step for the progress line; what no sample of the step has is left out.

    Args:
        values: name -> value, of all but the WINDOW metrics; not-a-number where there is none.
        tokens_per_second: of all devices together.
    """
    found = {name: value for name, value in values.items() if math.isfinite(value)}
    language = found.get("lm_loss", 0.0)
    terms = {name: found.get(f"guide_{name}") for name in ("pair", "hinge", "answer")}
    shown = ", ".join(f"{name} {value:.4f}" for name, value in terms.items() if value is not None)
    note = f"loss {values['loss']:.4f}"
    if shown:
        guide = values["loss"] - language
        note += f" = language {language:.4f} + guide {guide:.4f} (unweighted: {shown})"
    return note if tokens_per_second is None else f"{note}  {tokens_per_second:,.0f} tokens/s"
