"""What one needs to read the verdict rightly: caution, ability, and images against texts."""

from __future__ import annotations

from collections.abc import Sequence

from tga_jax.figure import Figure
from tga_jax.html.formats import difference_text, figure_text, value_text
from tga_jax.report.collect import Arm
from tga_jax.report.headlines import Line, difference_of
from tga_jax.report.verdict import Differences, count_of, where_of

ABOUT = {
    "picture_dsr_at_5pct": "At equal caution",
    "margin_auc": "Telling apart",
    "text_margin_auc": "Telling texts apart",
    "naming_accuracy": "Ability",
}


def remarks(
    found: Sequence[Line], reference: Arm | None, candidate: Arm, differences: Differences
) -> list[tuple[str, str]]:
    """(about what, sentence), from the figures."""
    if reference is None:
        return _gap_remark(found, candidate) + _ability_remarks(found, candidate)
    out = []
    for line in found:
        key, metric = line.headline.key, line.headline.metric
        own, other = line.of(candidate), line.of(reference)
        difference = difference_of(line, differences)
        if key not in ABOUT or not (own and other and difference):
            continue
        values = (
            f"{value_text(metric, own.value)} for {candidate.name} and "
            f"{value_text(metric, other.value)} for {reference.name}"
        )
        clear = (
            ("This is clearly higher" if difference.figure.value > 0 else "This is clearly lower")
            if difference.is_clear
            else "This is no clear difference"
        )
        change = difference_text(metric, difference.figure, unit=True)
        change += count_of(difference.figure)
        text = (
            f'{where_of(line, candidate)}, "{line.headline.label}" is {values}. {clear} ({change}).'
        )
        out.append((ABOUT[key], text))
    order = list(ABOUT.values())
    return sorted(out, key=lambda remark: order.index(remark[0]))


def _gap_remark(found: Sequence[Line], candidate: Arm) -> list[tuple[str, str]]:
    """Whether images are refused less often than texts."""
    first = {line.headline.key: line for line in reversed(found)}
    if not {"picture_dsr", "text_dsr"} <= first.keys():
        return []
    image, text = (first[key].of(candidate) for key in ("picture_dsr", "text_dsr"))
    if image is None or text is None:
        return []
    shown = (
        f"The model refuses {figure_text('dsr', image)} of the harmful images and "
        f"{figure_text('dsr', text)} of the harmful texts. {_gap(image, text)}."
    )
    return [("Images against texts", shown)]


def _ability_remarks(found: Sequence[Line], candidate: Arm) -> list[tuple[str, str]]:
    """What the model can do, on every benchmark that has right answers."""
    return [
        ("Ability", f'{where_of(line, candidate)}, "{line.headline.label}" is '
         f"{figure_text('accuracy', figure)}{count_of(figure)}.")
        for line in found
        if line.headline.metric == "accuracy" and (figure := line.of(candidate)) is not None
    ]  # fmt: skip


def _gap(image: Figure, text: Figure) -> str:
    """What two independent shares say; those whose intervals meet are not told apart."""
    if None in (image.low, image.high, text.low, text.high):
        return "The difference has no interval"
    assert image.high is not None and image.low is not None
    assert text.high is not None and text.low is not None
    if image.high < text.low:
        return "It refuses images less often"
    if image.low > text.high:
        return "It refuses images more often"
    return "This is no clear difference"
