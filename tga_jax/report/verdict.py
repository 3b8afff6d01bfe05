"""What the figures come to: a sentence for every benchmark that asks harmful questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tga_jax.evaluation.items import ALL
from tga_jax.evaluation.result import FEW
from tga_jax.figure import Figure
from tga_jax.html.formats import difference_text, figure_text, value_text, words
from tga_jax.report.collect import Arm
from tga_jax.report.headlines import MACRO, Difference, Line, Place, difference_of

NONE = "No refusals of harmful questions have been measured here."
SAFETY = {
    "picture_dsr": ("over_refusal", "harmful images", "harmless ones"),
    "text_dsr": ("text_over_refusal", "harmful texts", "harmless ones"),
}
HARMLESS = {"over_refusal": "harmless images", "text_over_refusal": "harmless texts"}
NAMED = 6  # other models, or scenes, that the verdict names one by one
LEAST_COUNT = 10  # questions of a scene, below which it is not called the one with least refusals

Differences = Mapping[Place, Difference]


def verdict(
    found: Sequence[Line],
    arms: Sequence[Arm],
    reference: Arm | None,
    candidate: Arm,
    differences: Differences,
) -> list[str]:
    """Sentences, the most important one first: averages, then every benchmark.

    Args:
        found: the headlines of all arms.
        arms: all of them; those that are not compared are named too.
        reference: the arm to compare with, if any.
        candidate: the arm that the page is about.
        differences: candidate minus reference, on the same questions.
    """
    sentences = []
    for key, (harmless_key, harmful_name, harmless_name) in SAFETY.items():
        for line in (line for line in found if line.headline.key == key):
            if line.of(candidate) is None:
                continue
            harmless = _same_place(found, line, harmless_key)
            names = harmful_name, harmless_name
            sentences.append(_sentence(line, harmless, names, reference, candidate, differences))
            sentences += _lowest(line, candidate)
            others = [arm for arm in arms if arm not in (reference, candidate)]
            sentences += _others(line, others, harmful_name, where_of(line, candidate))
    sentences = sentences or [NONE]
    asked = {line.benchmark for line in found if line.headline.key in SAFETY}
    for key, what in HARMLESS.items():
        for line in (line for line in found if line.headline.key == key):
            if line.benchmark not in asked | {MACRO} and line.of(candidate) is not None:
                names = what, ""
                sentences.append(_sentence(line, None, names, reference, candidate, differences))
    return sentences


def _same_place(found: Sequence[Line], line: Line, key: str) -> Line | None:
    """The line of another headline about the very same benchmarks."""
    here = (other for other in found if other.headline.key == key)
    return next((other for other in here if _benchmarks(other) == _benchmarks(line)), None)


def _benchmarks(line: Line) -> list[str]:
    return [part.benchmark for part in line.parts] or [line.benchmark]


def where_of(line: Line, arm: Arm) -> str:
    """Like "On all scenes of the benchmark hod"; what a model could not be asked is not claimed."""
    if line.benchmark == MACRO:
        names = ", ".join(
            words(part.benchmark) + (" in part" if _lacks(part, arm) else "") for part in line.parts
        )
        return f"On average over {len(line.parts)} benchmarks that count equally ({names})"
    if not line.benchmark:
        return "By the figures of summary.json"
    if line.scene == ALL and _lacks(line, arm):
        return (
            f"On the part of the benchmark {words(line.benchmark)} that is there{_asked(line, arm)}"
        )
    scene = "all scenes" if line.scene == ALL else f"the scene {words(line.scene)}"
    return f"On {scene} of the benchmark {words(line.benchmark)}"


def _lacks(line: Line, arm: Arm) -> bool:
    """Whether a part of the line's benchmark is missing."""
    return arm.row(line.benchmark, ALL, "missing") is not None


def _asked(line: Line, arm: Arm) -> str:
    """Like " (only the scenes a and b)"; "" where the benchmark has no scenes."""
    scenes = [words(scene) for _, scene, _ in _scenes(line, arm)]
    if not scenes:
        return ""
    more = f" and {len(scenes) - NAMED} more" if len(scenes) > NAMED else ""
    return f" (only the scene{'s' * (len(scenes) > 1)} {', '.join(scenes[:NAMED])}{more})"


def count_of(figure: Figure) -> str:
    """Like ", n = 180", and that this is small where it is."""
    if not figure.count:
        return ""
    small = ", which is small" if figure.few or figure.count < FEW else ""
    return f", n = {figure.count:,}{small}"


def _sentence(
    line: Line,
    harmless: Line | None,
    names: tuple[str, str],
    reference: Arm | None,
    candidate: Arm,
    differences: Differences,
) -> str:
    if reference is None or line.of(reference) is None:
        text = _alone(line, harmless, names, candidate)
    else:
        text = _pair(line, harmless, names, reference, candidate, differences)
    return f"{where_of(line, candidate)}, {text}."


def _alone(line: Line, harmless: Line | None, names: tuple[str, str], candidate: Arm) -> str:
    figure = line.of(candidate)
    assert figure is not None
    text = (
        f"{candidate.name} refuses {figure_text('dsr', figure)} of the {names[0]}{count_of(figure)}"
    )
    benign = harmless.of(candidate) if harmless else None
    if benign is not None:
        shown = figure_text("over_refusal", benign)
        text += f". It refuses {shown} of the {names[1]}{count_of(benign)}"
    return text


def _pair(
    line: Line,
    harmless: Line | None,
    names: tuple[str, str],
    reference: Arm,
    candidate: Arm,
    differences: Differences,
) -> str:
    both = f"between {candidate.name} and {reference.name} "
    text = _compared(
        line, names[0], reference, candidate, differences, who=candidate.name,
        than=f" than {reference.name}", between=f"there is no clear difference {both}",
    )  # fmt: skip
    if harmless is not None and harmless.of(candidate) and harmless.of(reference):
        text += ". " + _compared(
            harmless, names[1], reference, candidate, differences, who="It",
            between="There is no clear difference ",
        )  # fmt: skip
    return text


def _compared(
    line: Line,
    what: str,
    reference: Arm,
    candidate: Arm,
    differences: Differences,
    *,
    who: str,
    than: str = "",
    between: str,
) -> str:
    """Like "tga refuses more harmful images than baseline (83.1% against 12.0%, +71.1 [..])"."""
    metric, own, other = line.headline.metric, line.of(candidate), line.of(reference)
    assert own is not None and other is not None
    values = f"{value_text(metric, own.value)} against {value_text(metric, other.value)}"
    difference = difference_of(line, differences)
    if difference is None:
        return f"{who} refuses {values} of {what} (a difference that is not tested{count_of(own)})"
    values += f", {difference_text(metric, difference.figure, unit=True)}"
    values += count_of(difference.figure)
    if not difference.is_clear:
        return f"{between}in refusals of {what} ({values})"
    more = "more" if difference.figure.value > 0 else "fewer"
    return f"{who} refuses {more} {what}{than} ({values})"


def _lowest(line: Line, candidate: Arm) -> list[str]:
    """The scene of a benchmark with the fewest refusals, where it is a single one and not small."""
    if line.scene != ALL or line.headline.metric != "dsr":
        return []
    scenes = sorted(_scenes(line, candidate))
    if len(scenes) < 2 or scenes[0][0] == scenes[1][0] or scenes[0][2] < LEAST_COUNT:
        return []
    value, scene, count = scenes[0]
    return [
        f"In the benchmark {words(line.benchmark)}, {candidate.name} refuses least in the scene "
        f"{words(scene)}: {value_text('dsr', value)} of {count}."
    ]


def _scenes(line: Line, arm: Arm) -> list[tuple[float, str, int]]:
    """(value, scene, count) of the line's figure by scene, without the parts of scenes."""
    return [
        (row["value"], row["scene"], row["count"])
        for row in arm.rows
        if (row["benchmark"], row["metric"]) == (line.benchmark, line.headline.metric)
        and row["scene"] != ALL
        and "/" not in row["scene"]
    ]


def _others(line: Line, others: Sequence[Arm], what: str, where: str) -> list[str]:
    """The models that are not compared: each by name, or how far they reach where they are many."""
    found = [(figure, arm.name) for arm in others if (figure := line.of(arm)) is not None]
    if not found:
        return []
    if len(found) <= NAMED:
        shown = ", ".join(f"{name} {figure_text('dsr', figure)}" for figure, name in found)
        return [f"{where}, the other models refuse these shares of the {what}: {shown}."]
    ordered = sorted(found, key=lambda each: each[0].value)
    low, high = (f"{value_text('dsr', f.value)} ({name})" for f, name in (ordered[0], ordered[-1]))
    return [
        f"{where}, {len(found)} other models refuse between {low} and {high} of the "
        f"{what}. The table of all models has each of them."
    ]
