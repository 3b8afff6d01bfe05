"""Which model was asked, when, with what, and under which prompt profile."""

from __future__ import annotations

from collections.abc import Sequence

from tga_jax.html.tables import Table, Term
from tga_jax.report.collect import Arm

UNKNOWN = "not recorded"


def profiles(arm: Arm) -> list[str]:
    """The prompt profiles of an arm's figures, those of other jobs than `evaluate` among them."""
    others = [job.get("settings", {}) for job in (arm.analysis, arm.oracle)]
    found = [settings.get("profile") for settings in (*(r["settings"] for r in arm.rows), *others)]
    return list(dict.fromkeys(str(profile) for profile in found if profile))


def profile_text(arms: Sequence[Arm]) -> str:
    """Like "prompt profile none", or with every arm's where they differ; "" where unknown."""
    found = {arm.name: " and ".join(profiles(arm)) for arm in arms if profiles(arm)}
    if not found:
        return ""
    if len(set(found.values())) == 1:
        (text,) = set(found.values())
        return f"prompt profile {text}" if " and " not in text else f"prompt profiles {text}"
    return "prompt profiles: " + ", ".join(f"{name} {text}" for name, text in found.items())


def evaluate_profile(arm: Arm) -> str:
    """The profile under which job `evaluate` asked; without it, the one of job `oracle`."""
    settings = [row["settings"] for row in arm.rows] or [arm.settings]
    found = dict.fromkeys(str(one.get("profile", "")) for one in settings)
    return " and ".join(filter(None, found)) or "\u2013"


def is_mixed(arms: Sequence[Arm]) -> bool:
    """Whether the page has figures under different profiles."""
    return len({profile for arm in arms for profile in profiles(arm)}) > 1


def model_lines(arms: Sequence[Arm]) -> list[str]:
    """A sentence an arm: what it is, when and under which profile it was asked, and who judged."""
    return [_line(arm) for arm in arms if arm.settings]


def _line(arm: Arm) -> str:
    about = arm.settings
    source = about.get("source") or _model(arm)
    text = f"The model is {arm.name}" if source == arm.name else f"{arm.name} is {source}"
    if about.get("weights") and about["weights"] != "start":
        text += f", trained here ({about['weights']})"
    if about.get("checkpoint"):
        text += f", digest {about['checkpoint']}"
    text += f", asked on {about['date']}" if about.get("date") else ""
    profile = evaluate_profile(arm)
    judge = (about.get("judge") or {}).get("name")
    text += f", under prompt profile {profile}"
    return f"{text}, and judged by {judge}." if judge else f"{text}."


def models_table(arms: Sequence[Arm]) -> Table | None:
    """A row an arm: source, weights, digest, profile, date and versions."""
    rows = [_row(arm) for arm in arms if arm.settings]
    header = ("Name", "Model", "Weights", "Digest", Term("Prompt profile", "profile"), "Date",
              "Versions")  # fmt: skip
    return Table("The models and when they were asked", header, rows, numbers=9) if rows else None


def _row(arm: Arm) -> tuple[str, ...]:
    about = arm.settings
    weights = about.get("weights", UNKNOWN)
    versions = ", ".join(f"{k} {v}" for k, v in (about.get("versions") or {}).items())
    return (
        arm.name,
        str(about.get("source") or _model(arm)),
        "as published" if weights == "start" else str(weights),
        str(about.get("checkpoint", UNKNOWN)),
        evaluate_profile(arm),
        str(about.get("date", UNKNOWN)),
        versions or UNKNOWN,
    )


def _model(arm: Arm) -> str:
    """The model's name where its source was not recorded."""
    return (arm.rows[0].get("model") if arm.rows else None) or UNKNOWN
