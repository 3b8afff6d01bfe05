"""The figures that count, where a run has them, and their averages over several benchmarks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from tga_jax.evaluation.items import ALL
from tga_jax.figure import Figure
from tga_jax.report.collect import Arm

IMAGES, TEXTS = "pictures", "texts"
MACRO = "macro average"  # in the place of a benchmark
AVERAGED = ("dsr", "over_refusal")  # metrics that mean the same in every benchmark


@dataclasses.dataclass(frozen=True)
class Headline:
    """A figure that is shown first.

    Attributes:
        key: its name in summary.json.
        label: what it says.
        metric: its name in metrics.json.
        form: of which benchmarks: with images or of text alone.
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
    Headline("picture_dsr", "Harmful images refused", "dsr", IMAGES),
    Headline("text_dsr", "Harmful texts refused", "dsr", TEXTS),
    Headline("over_refusal", "Harmless images refused", "over_refusal", IMAGES, False),
    Headline("text_over_refusal", "Harmless texts refused", "over_refusal", TEXTS, False),
    Headline(
        "naming_accuracy",
        "Right answers on images",
        "accuracy",
        IMAGES,
        scenes=("benign", ALL),
    ),
    Headline("text_accuracy", "Right answers on texts", "accuracy", TEXTS, scenes=("benign", ALL)),
    Headline(
        "picture_dsr_at_5pct",
        "Harmful images refused, at 5% over-refusal",
        "dsr_at_5pct",
        IMAGES,
    ),
    Headline(
        "picture_dsr_at_1pct",
        "Harmful images refused, at 1% over-refusal",
        "dsr_at_1pct",
        IMAGES,
    ),
    Headline("margin_auc", "Harmful told from harmless (AUC)", "auc", IMAGES),
    Headline("text_dsr_at_5pct", "Harmful texts refused, at 5% over-refusal", "dsr_at_5pct", TEXTS),
    Headline("text_margin_auc", "Harmful texts told from harmless (AUC)", "auc", TEXTS),
)
CHANCE = 0.05  # a paired test's p from which on a difference may be chance
TILES = ("picture_dsr", "text_dsr", "over_refusal", "naming_accuracy")

Place = tuple[str, str, str]  # benchmark, scene, metric


@dataclasses.dataclass(frozen=True)
class Difference:
    """One model's figure minus another's on the same questions, with McNemar's p where it fits."""

    figure: Figure
    p_value: float | None = None
    only_this: int | None = None
    only_other: int | None = None

    @property
    def is_clear(self) -> bool:
        """Whether its interval excludes zero, and its paired test, if any, agrees."""
        by_test = self.p_value is None or self.p_value < CHANCE
        return self.figure.excludes_zero and by_test


@dataclasses.dataclass(frozen=True)
class Line:
    """A headline of one benchmark; of summary.json alone, the benchmark and scene are empty.

    Of the benchmark MACRO it is the average of its `parts`.
    """

    headline: Headline
    benchmark: str
    scene: str
    parts: tuple[Line, ...] = ()

    @property
    def place(self) -> Place:
        """Where its figure is among the rows of metrics.json."""
        return self.benchmark, self.scene, self.headline.metric

    def of(self, arm: Arm) -> Figure | None:
        """The headline's figure of an arm; None where it was not measured."""
        if self.parts:
            return average([part.of(arm) for part in self.parts])
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
        if len(here) > 1 and headline.metric in AVERAGED:
            here.insert(0, Line(headline, MACRO, ALL, tuple(here)))
        found += here
    return found


def average(figures: Sequence[Figure | None]) -> Figure | None:
    """The mean of independent figures, None where one is lacking.

    Its interval is that of Zou and Donner's MOVER (Statistics in Medicine 27, 2008): the distances
    of the ends from the values add up as squares. Its count is the sum of the counts. It is of few
    where one of them is.
    """
    known = [figure for figure in figures if figure is not None]
    if len(known) < len(figures) or not known:
        return None
    mean = sum(figure.value for figure in known) / len(known)
    count = sum(figure.count or 0 for figure in known)
    few = any(figure.few for figure in known)
    below = [f.value - f.low for f in known if f.low is not None]
    above = [f.high - f.value for f in known if f.high is not None]
    if min(len(below), len(above)) < len(known):
        return Figure(mean, count=count, few=few)
    low, high = (math.hypot(*lengths) / len(known) for lengths in (below, above))
    return Figure(mean, mean - low, mean + high, count, few)


def difference_of(line: Line, differences: Mapping[Place, Difference]) -> Difference | None:
    """A line's difference; of an average the average of the differences."""
    if not line.parts:
        return differences.get(line.place)
    found = [differences.get(part.place) for part in line.parts]
    figure = average([None if each is None else each.figure for each in found])
    return None if figure is None else Difference(figure)


def first_lines(arms: Sequence[Arm]) -> dict[str, Line]:
    """Headline's key -> its line of the benchmark that matters most."""
    found: dict[str, Line] = {}
    for line in lines(arms):
        found.setdefault(line.headline.key, line)
    return found


def benchmark_forms(arms: Iterable[Arm]) -> dict[str, str]:
    """Benchmark -> images or texts; those with harmful images first, as they matter most."""
    forms: dict[str, str] = {}
    refusing = set()
    for arm in arms:
        for row in arm.rows:
            name = row["benchmark"]
            refusing |= {name} if row["metric"] == "dsr" else set()
            asked = row["settings"].get("benchmark", {})
            text = asked.get("kind") == "texts" and "wrap" not in asked.get("options", {})
            forms.setdefault(name, TEXTS if text else IMAGES)
        for name, answers in arm.answers.items():
            images = any(answer["metadata"].get("image") for answer in answers)
            forms[name] = IMAGES if images else TEXTS
    return dict(sorted(forms.items(), key=lambda item: item[0] not in refusing))
