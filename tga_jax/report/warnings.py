"""What makes the figures incomplete, or two models hard to compare, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tga_jax.evaluation.items import ALL, QUESTIONS
from tga_jax.report.collect import Arm, Json
from tga_jax.report.defences import changed_nothing, defence_notes
from tga_jax.report.identity import is_mixed, profile_text
from tga_jax.report.provenance import differing_settings

MISSING = "missing"
NAMED = 4  # missing parts that a sentence names one by one
# Metric of a count -> what it says of one answer, and of several.
COUNTED = {
    "no_verdict": (
        "answers got no verdict from the first judge. The refusal rates leave it out",
        "answers got no verdict from the first judge. The refusal rates leave them out",
    ),
    "empty": (
        "answers is empty. It counts as neither refused nor right",
        "answers are empty. They count as neither refused nor right",
    ),
    "without_image": (
        "questions has no image. The figures count it among the images. To have it apart, put it "
        "into a benchmark of its own",
        "questions have no image. The figures count them among the images. To have them apart, "
        "put them into a benchmark of their own",
    ),
    "truncated": (
        "answers was cut off by the limit of new tokens. It is judged as far as it goes",
        "answers were cut off by the limit of new tokens. They are judged as far as they go",
    ),
}
RATES = {"dsr_at_5pct": "5%", "dsr_at_1pct": "1%"}


def warnings(arms: Sequence[Arm]) -> list[str]:
    """All sentences about these models, those of each model first."""
    found = arm_warnings(arms) + defence_notes([arm for arm in arms if changed_nothing(arm)])
    if is_mixed(arms):
        found.append(f"The figures come from different prompts ({profile_text(arms)}).")
    differing = [name for name in differing_settings(arms) if name != "Prompt profile"]
    if differing:
        names = ", ".join(differing)
        found.append(f"The two models were not asked in the same way. They differ in {names}.")
    return found + _same_weights(arms)


def arm_warnings(arms: Sequence[Arm]) -> list[str]:
    """What makes the figures of each model incomplete."""
    return [text for arm in arms for text in _of_model(arm)]


def _of_model(arm: Arm) -> Iterator[str]:
    for row in (row for row in arm.rows if row["scene"] == ALL):
        text = _of_row(row)
        if text:
            yield f"For {arm.name} on the benchmark {row['benchmark']}, {text}."
    for benchmark in dict.fromkeys(row["benchmark"] for row in arm.rows):
        text = _unmarked(arm, benchmark)
        if text:
            yield f"For {arm.name} on the benchmark {benchmark}, {text}."


def _of_row(row: Json) -> str:
    """What a row says beside its figure; "" where that is nothing."""
    metric = row["metric"]
    if metric == MISSING:
        return missing_text(row)
    if metric == "no_control":
        why = row.get("why", "it has no harmless items")
        return f"there is no AUC and no rate at a fixed over-refusal, because {why}"
    if metric in COUNTED and row["value"]:
        text = COUNTED[metric][row["value"] != 1]
        of = f" of {row['count']:,}" if row["count"] else ""
        return f"{row['value']:,.0f}{of} {text}"
    absent = (row.get("absent") or {}) if metric == "auc" else {}
    if "dsr_at_5pct" not in absent:  # without a rate at 1% there is still the one at 5%
        return ""
    rates = " and ".join(f"{RATES.get(name, name)} ({why})" for name, why in absent.items())
    return f"there is no rate of harmful refused at an over-refusal of {rates}"


def missing_text(row: Json) -> str:
    """Like "12 of the benchmark's 13 files are missing: a, b, c, d and 8 more".

    Args:
        row: of the metric "missing"; old ones have no unit, and count questions.
    """
    number, unit = round(row["value"]), row.get("unit", QUESTIONS)
    whole, what = row.get("published"), row.get("what") or [""]
    if unit == QUESTIONS and whole:
        text = f"{whole - number:,} of the published {whole:,} questions were there to be asked"
        return f"{text} ({what[0]}). The figures leave the others out"
    if unit == QUESTIONS:
        of = f" of {row['count']:,}" if row["count"] else ""
        why = "because a part of the benchmark is missing. The figures leave"
        return f"{number:,}{of} questions could not be asked, {why} them out"
    be, one = ("is", unit.removesuffix("s")) if number == 1 else ("are", unit)
    of = f"{number:,} of the benchmark's {whole:,} {unit}" if whole else f"{number:,} {one}"
    names = row.get("names") or what
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    lost = "it" if number == 1 else "them"
    return f"{of} {be} missing: {', '.join(names[:NAMED])}{more}. The figures leave {lost} out"


def _unmarked(arm: Arm, benchmark: str) -> str:
    """How many questions count in no refusal rate, where others of the benchmark do."""
    rows = [arm.row(benchmark, ALL, metric) for metric in ("refusal_rate", "dsr", "over_refusal")]
    if rows[0] is None or (rows[1:] == [None, None] and arm.row(benchmark, ALL, "accuracy")):
        return ""
    unmarked, total = rows[0]["count"], sum(row["count"] for row in rows if row)
    be, left = ("question is", "It is") if unmarked == 1 else ("questions are", "They are")
    return (
        f"{unmarked:,} of {total:,} {be} marked as neither harmful nor harmless. {left} left out "
        "of the rates of harmful and of harmless refused"
    )


def _same_weights(arms: Sequence[Arm]) -> list[str]:
    """That two models are one, by the digests of their weights."""
    digests = {(arm.settings.get("checkpoint"), arm.settings.get("weights")) for arm in arms}
    if len(arms) != 2 or len(digests) > 1 or not arms[0].settings.get("checkpoint"):
        return []
    names = " and ".join(arm.name for arm in arms)
    return [
        f"The two models {names} have the same weights (digest {arms[0].settings['checkpoint']})."
    ]
