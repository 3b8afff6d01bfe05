"""What is to be said of the arms beside their figures: choices of defences, arms left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tga_jax.evaluation.development import KEY
from tga_jax.html.formats import number_text
from tga_jax.report.collect import Arm, Json

NOTHING_BETTER = (
    "within the bound of over-refusal no strength refused more of the harmful development images "
    "than the model does anyway"
)


def defence_of(arm: Arm) -> Json:
    """The settings of an arm's defence; none where it has none."""
    return arm.settings.get("defence") or {}


def changed_nothing(arm: Arm) -> bool:
    """Whether the defence is steering that adds nothing."""
    about = defence_of(arm)
    return about.get("name") == "steering" and not about.get("strength")


def marked_name(arm: Arm) -> str:
    """An arm's name beside its figures, with what its defence chose."""
    about = defence_of(arm)
    if about.get("name") == "steering" and "strength" in about:
        nothing = ": changed nothing" if changed_nothing(arm) else ""
        return f"{arm.name} (strength {number_text(about['strength'])}{nothing})"
    if about.get("name") == "zero_shot" and "threshold" in about:
        return f"{arm.name} (threshold {number_text(about['threshold'])})"
    return arm.name


def defence_notes(arms: Sequence[Arm]) -> list[str]:
    """A sentence for every arm whose defence chose something."""
    return [note for arm in arms if (note := _note(arm))]


def _note(arm: Arm) -> str:
    about, choice = defence_of(arm), arm.choice
    warning = f" It was {choice['warning']}." if choice.get("warning") else ""
    if changed_nothing(arm):
        why = choice.get("why", "").removeprefix(f"{KEY}: ") or NOTHING_BETTER
        return (
            f"{arm.name}: steering with strength 0 changed nothing, because {why}. The figures are "
            f"those of the model without a defence.{warning}"
        )
    if about.get("name") == "steering" and "strength" in about:
        return (
            f"{arm.name}: steering adds the refusal direction with strength "
            f"{number_text(about['strength'])} at layer {about.get('layer')}.{warning}"
        )
    if about.get("name") == "zero_shot" and "threshold" in about:
        threshold = number_text(about["threshold"])
        chosen = (
            f", chosen on {choice['harmless']} harmless development images"
            if choice.get("threshold") == about["threshold"]
            else ", by config.evaluate.zero_shot.threshold"
        )
        return (
            f"{arm.name}: CLIP refuses an image whose probability of being harmful is above "
            f"{threshold}{chosen}.{warning if choice else ''}"
        )
    return ""


def left_out_notes(left_out: Mapping[str, str]) -> list[str]:
    """A sentence for every arm that did not run.

    Args:
        left_out: arm -> the key that it needs, without "config.".
    """
    return [
        f"The arm {name} was left out, because config.{key} is not set."
        for name, key in left_out.items()
    ]
