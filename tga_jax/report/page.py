"""The page: all sections from top to bottom, and the tables that go beside it."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tga_jax.html.render import render, source
from tga_jax.html.tables import Table, to_latex, to_markdown
from tga_jax.report import cards, curves, evidence
from tga_jax.report.browse import browse, browse_data, chosen_arms
from tga_jax.report.collect import Arm, Run
from tga_jax.report.defences import defence_notes, left_out_notes
from tga_jax.report.examples import Example
from tga_jax.report.figures import (
    all_arms,
    arms_table,
    figures,
    headline_table,
    over_seeds,
    paired_section,
    paired_table,
)
from tga_jax.report.glossary import glossary
from tga_jax.report.headlines import Difference, Place, lines
from tga_jax.report.identity import is_mixed, model_lines, profile_text
from tga_jax.report.judged import judged, judged_table, judged_text
from tga_jax.report.judges import judges, judges_table
from tga_jax.report.oracle import oracle, oracle_table
from tga_jax.report.provenance import provenance
from tga_jax.report.remarks import remarks
from tga_jax.report.seeds import seeds_tables
from tga_jax.report.verdict import verdict
from tga_jax.report.warnings import arm_warnings

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{}'"
JOBS = {  # section -> the job that it needs
    "layers": "layer by layer (job analyze)",
    "training": "training curves (a training stage)",
    "tests": "paired tests (the answers of two models)",
    "examples": "examples (job evaluate)",
    "figures": "figures (job evaluate)",
}


@dataclasses.dataclass(frozen=True)
class Report:
    """All that the page shows.

    Attributes:
        run: what was collected.
        pair: the models that are compared: (reference, candidate), or one alone; none without arms.
        differences: candidate minus reference, on the same questions.
        examples: chosen questions, with the pair's answers.
        blur: whether harmful images are blurred until they are asked for.
        answers: how many questions can be browsed at most.
        pair_reason: why these two models are the pair.
        left_out: arms that did not run -> the configuration key that they need.
    """

    run: Run
    pair: tuple[Arm, ...]
    differences: Mapping[Place, Difference]
    examples: Sequence[Example]
    blur: bool = True
    answers: int = 10_000
    pair_reason: str = ""
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def reference(self) -> Arm | None:
        """The arm to compare with."""
        return self.pair[0] if len(self.pair) == 2 else None


def page(report: Report) -> str:
    """The whole page as HTML, in one self-contained text."""
    arms, run = report.pair, report.run
    data = browse_data(chosen_arms(run.arms, arms), report.answers)
    tests = paired_table(arms, report.differences)
    bodies: list[tuple[str, str, Markup | None]] = [
        ("figures", "Headline figures", figures(arms, report.differences)),
        ("scenes", "By scene", evidence.scenes(arms)),
        ("examples", "Examples", cards.examples(arms, report.examples, blur=report.blur)),
        ("answers", "All answers", browse(data)),
        ("layers", "Layer by layer", curves.layers(arms)),
        ("oracle", "What matched states would do", oracle(run.arms, arms)),
        ("seeds", "Over seeds", over_seeds(run.arms, arms)),
        ("arms", "All models", all_arms(run.arms, arms, _notes(report))),
        ("training", "Training", curves.training(arms)),
        ("tests", "Paired tests", paired_section(tests)),
        ("judges", "Judges", judges(arms)),
        ("judged", "Answers that were made elsewhere", judged(run.judged)),
        ("provenance", "What produced the figures", provenance(run)),
    ]
    shown = [(name, title, body) for name, title, body in bodies if body]
    lacking = [JOBS[name] for name, _, body in bodies if not body and name in JOBS]
    terms = glossary("".join(body for _, _, body in shown))
    shown.append(("glossary", "Glossary", terms))
    script = source("browse.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return str(
        render(
            "page.html",
            policy=POLICY.format(digest),
            title=_title(report),
            verdict=_verdict(report),
            models=model_lines(run.arms),
            remarks=_remarks(report),
            sections=[{"id": name, "title": text, "body": body} for name, text, body in shown],
            lacking=lacking,
            data=data,
            script=Markup(script),
        )
    )


def _title(report: Report) -> str:
    """The heading; a page whose figures are not all under one profile says so here."""
    title = f"Report: {report.run.workdir.resolve().name}"
    if not is_mixed(report.run.arms):
        return title
    return f"{title}. Its figures come from different prompts ({profile_text(report.run.arms)})"


def _verdict(report: Report) -> list[str]:
    if not report.pair and report.run.judged:
        return [judged_text(report.run.judged)]
    if not report.pair:
        return ["No model has been evaluated or trained here yet. What there is, is shown below."]
    arms = report.run.arms
    found = lines(arms)
    return verdict(found, arms, report.reference, report.pair[-1], report.differences)


def _notes(report: Report) -> list[str]:
    """What is said above the table of all models."""
    others = [arm for arm in report.run.arms if arm not in report.pair]
    notes = defence_notes(report.run.arms) + left_out_notes(report.left_out)
    return notes + arm_warnings(others)


def _remarks(report: Report) -> list[tuple[str, Any]]:
    if not report.pair:
        return []
    found = remarks(lines(report.pair), report.reference, report.pair[-1], report.differences)
    where = (curves.where_refusal_arises(arm) for arm in report.pair)
    found += [("Layers", text) for text in where if text]
    return found + ([("Pair", report.pair_reason)] if report.pair_reason else [])


def tables(report: Report) -> list[Table]:
    """Those of tables.md and tables.tex, which are on the page too."""
    found: list[Table | None] = [headline_table(report.pair, report.differences)]
    found += seeds_tables(report.run.arms, [arm.name for arm in report.pair])
    found.append(arms_table(report.run.arms))
    found += evidence.scene_tables(report.pair)
    found += [paired_table(report.pair, report.differences), judges_table(report.pair)]
    found.append(judged_table(report.run.judged))
    found += [oracle_table(report.run.arms), curves.training_table(report.pair)]
    return [table for table in found if table is not None and table.rows]


def markdown(report: Report) -> str:
    """The text of tables.md: every table of the page in Markdown."""
    return "\n".join(to_markdown(table) for table in tables(report))


def latex(report: Report) -> str:
    """The text of tables.tex: every table of the page in LaTeX."""
    head = "% Needs \\usepackage{booktabs} and \\usepackage{textcomp}.\n\n"
    return head + "\n".join(to_latex(table) for table in tables(report))
