"""One model's figures minus another's, from their answers to the same questions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from tga_jax.evaluation import metrics
from tga_jax.evaluation.items import EvalItem
from tga_jax.evaluation.margin_rows import carried_rates
from tga_jax.evaluation.result import FEW, Result, Row
from tga_jax.evaluation.summary import by_scene, compare
from tga_jax.figure import Figure
from tga_jax.report.collect import Arm
from tga_jax.report.headlines import Difference, Place

DRAWS = 300
Pair = tuple[Result, Result]  # the candidate's and the reference's


def differences(reference: Arm, candidate: Arm) -> dict[Place, Difference]:
    """Candidate minus reference of every figure that both have, by benchmark, scene and metric."""
    pairs = {name: _pairs(reference, candidate, name) for name in candidate.answers}
    found: dict[Place, Difference] = {}
    for benchmark, group in pairs.items():
        rows = compare([own for own, _ in group], [other for _, other in group])
        for row in rows:
            if "/" not in row.scene:
                place = (benchmark, row.scene, row.metric.removesuffix("_difference"))
                found[place] = _tested(row)
        by_id = {id(own): (own, other) for own, other in group}
        for scene, results in by_scene([own for own, _ in group]).items():
            if "/" not in scene:
                for metric, figure in _margins([by_id[id(r)] for r in results], group).items():
                    place = (benchmark, scene, metric)
                    if _same_control(reference.row(*place), candidate.row(*place)):
                        found[place] = Difference(figure)
    return found


def _tested(row: Row) -> Difference:
    """The difference of a row of `compare`."""
    figure = dataclasses.replace(row.figure, few=row.more.get("few", False))
    return Difference(figure, *(row.more[k] for k in ("p_value", "only_this", "only_other")))


def _same_control(*rows: dict[str, Any] | None) -> bool:
    """Whether both models have the figure, from this benchmark's own harmless items, as many."""
    controls = [(row or {}).get("control") for row in rows]
    return controls[0] is not None and controls[0]["name"] == "own" and controls[0] == controls[1]


def _pairs(reference: Arm, candidate: Arm, benchmark: str) -> list[Pair]:
    """Answers to the questions that both were asked."""
    others = {(a["question_id"], a["prompt"]): a for a in reference.answers.get(benchmark, [])}
    return [
        (_result(answer), _result(others[answer["question_id"], answer["prompt"]]))
        for answer in candidate.answers[benchmark]
        if (answer["question_id"], answer["prompt"]) in others
    ]


def _result(answer: dict[str, Any]) -> Result:
    about = answer["metadata"]
    item = EvalItem(
        id=answer["question_id"],
        text=answer["prompt"],
        image=about.get("image"),
        scene=about.get("scene") or "",
        harmful=about.get("harmful"),
    )
    verdicts = {"the one that counted": about.get("refused")}
    return Result(item, answer["text"], about.get("margin"), verdicts, about.get("correct"))


def _margins(group: Sequence[Pair], pool: Sequence[Pair]) -> dict[str, Figure]:
    """AUC and matched rates, both samples drawn anew with the two models' margins together."""
    harmful = [pair for pair in group if pair[0].item.harmful and _has_margins(pair)]
    forms = {own.item.image is not None for own, _ in harmful}
    if len(forms) != 1:
        return {}
    form = forms.pop()
    benign = [
        pair
        for pair in pool
        if pair[0].item.harmful is False
        and (pair[0].item.image is not None) == form
        and _has_margins(pair)
    ]
    if not benign:
        return {}
    statistics: dict[str, Callable[..., float]] = {"auc": metrics.auc}
    for name, rate in carried_rates(len(benign)).items():
        statistics[name] = lambda positive, negative, rate=rate: metrics.matched_share(
            positive, negative, rate
        )
    bad, good = (
        np.array([[r.margin for r in pair] for pair in part]) for part in (harmful, benign)
    )
    clusters = [[own.cluster for own, _ in part] for part in (harmful, benign)]
    found = {name: _difference(one, bad, good, clusters) for name, one in statistics.items()}
    counts = {"auc": len(bad) + len(good)}  # of what it is, as in metrics.json
    return {n: dataclasses.replace(f, count=counts.get(n, len(bad))) for n, f in found.items()}


def _difference(
    statistic: Callable[..., float],
    bad: np.ndarray,
    good: np.ndarray,
    clusters: Sequence[Sequence[Hashable]],
) -> Figure:
    """Of one model to the other; the questions about an image are drawn together.

    Args:
        statistic: of margins of harmful and of harmless items.
        bad: float[n, 2], the two models' margins of harmful items.
        good: float[m, 2], of harmless ones.
        clusters: what each harmful item is about, and each harmless one.
    """

    def value(rows: Sequence[float], columns: Sequence[float]) -> float:
        first, second = bad[np.asarray(rows, int)], good[np.asarray(columns, int)]
        return statistic(first[:, 0], second[:, 0]) - statistic(first[:, 1], second[:, 1])

    everything = range(len(bad)), range(len(good))
    found = value(*everything)
    together = clusters if metrics.clustered([*clusters[0], *clusters[1]]) else None
    interval = metrics.bootstrap(value, *everything, draws=DRAWS, clusters=together)
    independent = min(len(set(part)) for part in clusters)
    interval = metrics.not_certain(found, interval, independent, (-1.0, 1.0))
    return Figure(found, *interval, len(bad), independent < FEW)


def _has_margins(pair: Pair) -> bool:
    return pair[0].margin is not None and pair[1].margin is not None
