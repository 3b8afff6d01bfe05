"""The figures that count, where a run has them, and what they come to in a sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from tga_jax.evaluation.items import ALL
from tga_jax.html.formats import Figure, difference_text, figure_text, value_text
from tga_jax.report.collect import Arm

PICTURES, TEXTS = "pictures", "texts"


@dataclasses.dataclass(frozen=True)
class Headline:
    """A figure that is shown first.

    Attributes:
        key: its name in summary.json.
        label: what it says.
        metric: its name in metrics.json.
        form: of which benchmarks: with pictures or of text alone.
        higher_is_better: so or the other way round.
        scenes: of which scene, the first that there is.
    """

    key: str
    label: str
    metric: str
    form: str
    higher_is_better: bool = True
    scenes: tuple[str, ...] = (ALL,)


HEADLINES = (
    Headline("picture_dsr", "Harmful pictures refused", "dsr", PICTURES),
    Headline("text_dsr", "Harmful texts refused", "dsr", TEXTS),
    Headline("over_refusal", "Harmless pictures refused", "over_refusal", PICTURES, False),
    Headline("text_over_refusal", "Harmless texts refused", "over_refusal", TEXTS, False),
    Headline(
        "naming_accuracy",
        "Right answers on pictures",
        "accuracy",
        PICTURES,
        scenes=("benign", ALL),
    ),
    Headline("text_accuracy", "Right answers on texts", "accuracy", TEXTS, scenes=("benign", ALL)),
    Headline(
        "picture_dsr_at_5pct",
        "Harmful pictures refused, at 5% over-refusal",
        "dsr_at_5pct",
        PICTURES,
    ),
    Headline(
        "picture_dsr_at_1pct",
        "Harmful pictures refused, at 1% over-refusal",
        "dsr_at_1pct",
        PICTURES,
    ),
    Headline("margin_auc", "Harmful told from harmless, AUC", "auc", PICTURES),
)
TILES = ("picture_dsr", "text_dsr", "over_refusal", "naming_accuracy")

Place = tuple[str, str, str]  # benchmark, scene, metric


@dataclasses.dataclass(frozen=True)
class Difference:
    """One model's figure minus another's on the same questions, with McNemar's p where it fits."""

    figure: Figure
    p_value: float | None = None
    only_this: int | None = None
    only_other: int | None = None


@dataclasses.dataclass(frozen=True)
class Line:
    """A headline of one benchmark; of summary.json alone, the benchmark and scene are empty."""

    headline: Headline
    benchmark: str
    scene: str

    @property
    def place(self) -> Place:
        """Where its figure is among the rows of metrics.json."""
        return self.benchmark, self.scene, self.headline.metric

    def of(self, arm: Arm) -> Figure | None:
        """The arm's figure."""
        if self.benchmark:
            return arm.figure(*self.place)
        value = arm.summary.get(self.headline.key)
        return None if value is None else Figure(value)


def lines(arms: Sequence[Arm]) -> list[Line]:
    """Every headline that any arm has, once for each benchmark that has it."""
    forms = benchmark_forms(arms)
    found = []
    for headline in HEADLINES:
        here = []
        for benchmark in (name for name, form in forms.items() if form == headline.form):
            places = (Line(headline, benchmark, scene) for scene in headline.scenes)
            here += [line for line in places if any(line.of(arm) for arm in arms)][:1]
        if not here:
            line = Line(headline, "", "")
            here = [line] if any(line.of(arm) for arm in arms) else []
        found += here
    return found


def first_lines(arms: Sequence[Arm]) -> dict[str, Line]:
    """Headline's key -> its line of the benchmark that matters most."""
    found: dict[str, Line] = {}
    for line in lines(arms):
        found.setdefault(line.headline.key, line)
    return found


def benchmark_forms(arms: Iterable[Arm]) -> dict[str, str]:
    """Benchmark -> pictures or texts; those with harmful pictures first, as they matter most."""
    forms: dict[str, str] = {}
    refusing = set()
    for arm in arms:
        for row in arm.rows:
            name = row["benchmark"]
            refusing |= {name} if row["metric"] == "dsr" else set()
            asked = row["settings"].get("benchmark", {})
            text = asked.get("kind") == "texts" and "wrap" not in asked.get("options", {})
            forms.setdefault(name, TEXTS if text else PICTURES)
        for name, answers in arm.answers.items():
            pictures = any(answer["metadata"].get("image") for answer in answers)
            forms[name] = PICTURES if pictures else TEXTS
    return dict(sorted(forms.items(), key=lambda item: item[0] not in refusing))


# --- what it comes to ---


def verdict(
    found: Sequence[Line],
    reference: Arm | None,
    candidate: Arm,
    differences: Mapping[Place, Difference],
) -> str:
    """One sentence from the figures."""
    first = {line.headline.key: line for line in reversed(found)}
    harmful, harmless = first.get("picture_dsr"), first.get("over_refusal")
    if harmful is None or harmful.of(candidate) is None:
        return "No refusals of harmful pictures have been measured here."
    if reference is None or harmful.of(reference) is None:
        return _one_model(candidate, harmful, harmless, first.get("text_dsr"))
    names = f"between {candidate.name} and {reference.name} "
    sentence = _compared(
        harmful, "harmful pictures", reference, candidate, differences, who=candidate.name,
        than=f" than {reference.name}", between=f"There is no clear difference {names}",
    )  # fmt: skip
    if harmless is not None and harmless.of(candidate) and harmless.of(reference):
        sentence += "; " + _compared(
            harmless, "harmless ones", reference, candidate, differences, who="it",
            between="there is no clear difference ",
        )  # fmt: skip
    return sentence + "."


def _compared(
    line: Line,
    what: str,
    reference: Arm,
    candidate: Arm,
    differences: Mapping[Place, Difference],
    *,
    who: str,
    than: str = "",
    between: str,
) -> str:
    """Like "tga refuses more harmful pictures than baseline (83.1% against 12.0%, +71.1 [..])"."""
    metric, own, other = line.headline.metric, line.of(candidate), line.of(reference)
    assert own is not None and other is not None
    values = f"{value_text(metric, own.value)} against {value_text(metric, other.value)}"
    difference = differences.get(line.place)
    if difference is None:
        return f"{who} refuses {values} of {what} (a difference that is not tested)"
    values += f", {difference_text(metric, difference.figure, unit=True)}"
    if not difference.figure.excludes_zero:
        return f"{between}in refusals of {what} ({values})"
    more = "more" if difference.figure.value > 0 else "fewer"
    return f"{who} refuses {more} {what}{than} ({values})"


def _one_model(candidate: Arm, harmful: Line, harmless: Line | None, text: Line | None) -> str:
    picture = harmful.of(candidate)
    sentence = f"{candidate.name} refuses {figure_text('dsr', picture)} of harmful pictures"
    spoken = text.of(candidate) if text else None
    if picture and spoken:
        sentence += f" and {figure_text('dsr', spoken)} of harmful texts: {_gap(picture, spoken)}"
    benign = harmless.of(candidate) if harmless else None
    if benign:
        sentence += f"; of harmless pictures it refuses {figure_text('over_refusal', benign)}"
    return sentence + "."


def _gap(picture: Figure, text: Figure) -> str:
    """Two independent shares whose intervals meet are not told apart."""
    if None in (picture.low, picture.high, text.low, text.high):
        return "a difference without intervals"
    assert picture.high is not None and picture.low is not None
    assert text.high is not None and text.low is not None
    if picture.high < text.low:
        return "pictures less often"
    if picture.low > text.high:
        return "pictures more often"
    return "no clear difference"


def remarks(
    found: Sequence[Line],
    reference: Arm | None,
    candidate: Arm,
    differences: Mapping[Place, Difference],
) -> list[tuple[str, str]]:
    """What one needs to read the verdict rightly: (about what, sentence), from the figures."""
    if reference is None:
        return []
    about = {
        "picture_dsr_at_5pct": "At equal caution",
        "margin_auc": "Telling apart",
        "naming_accuracy": "Ability",
        "text_dsr": "Text safety",
    }
    out, seen = [], set()
    for line in found:
        key, metric = line.headline.key, line.headline.metric
        own, other = line.of(candidate), line.of(reference)
        difference = differences.get(line.place)
        if key in seen or key not in about or not (own and other and difference):
            continue
        seen.add(key)
        values = f"{value_text(metric, own.value)} against {value_text(metric, other.value)}"
        clear = (
            ("higher" if difference.figure.value > 0 else "lower")
            if difference.figure.excludes_zero
            else "no clear difference"
        )
        change = difference_text(metric, difference.figure, unit=True)
        out.append((about[key], f"{line.headline.label}: {values}, {clear} ({change})."))
    order = list(about.values())
    return sorted(out, key=lambda remark: order.index(remark[0]))
