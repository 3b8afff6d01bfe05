"""A table once, as HTML, Markdown and LaTeX."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from markupsafe import Markup

from tga_jax.html.formats import MINUS
from tga_jax.html.render import render

TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # else, as a row's first letter, it is an argument of the line end before
    "]": "{]}",
    MINUS: "$-$",
    "\u2013": "--",
    "\u00b7": r"\textperiodcentered{}",
    "\u00d7": r"$\times$",
}
MARKDOWN = {"\\": "\\\\", "|": "\\|", "<": "&lt;", ">": "&gt;", "*": "\\*", "`": "\\`"}


class Term(str):
    """A text whose meaning the page's glossary gives under a key."""

    key: str

    def __new__(cls, text: str, key: str) -> Term:
        """The text, and the glossary's key."""
        term = super().__new__(cls, text)
        term.key = key
        return term


@dataclasses.dataclass(frozen=True)
class Table:
    """Text cells; columns from `numbers` on hold numbers. `caption` says what they are."""

    caption: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: int = 1


def to_html(table: Table) -> Markup:
    """In a box that scrolls sideways where the screen is narrow."""
    wide = len(table.header) > 7  # then an interval goes under its value
    return render("table.html", table=table, wide=wide)


def to_markdown(table: Table) -> str:
    """A heading and a table of GitHub's kind."""
    rules = ["---" if place < table.numbers else "---:" for place in range(len(table.header))]
    rows = [table.header, tuple(rules), *table.rows]
    cells = [[text if row == 1 else escape(text, MARKDOWN) for text in line]
             for row, line in enumerate(rows)]  # fmt: skip
    body = "".join(f"| {' | '.join(line)} |\n" for line in cells)
    return f"**{escape(table.caption, MARKDOWN)}**\n\n{body}"


def to_latex(table: Table) -> str:
    """A `table` with a tabular of the package booktabs."""
    columns = "l" * table.numbers + "r" * (len(table.header) - table.numbers)
    lines = [" & ".join(escape(cell, TEX) for cell in row) for row in (table.header, *table.rows)]
    head, *body = (f"{line} \\\\\n" for line in lines)
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{escape(table.caption, TEX)}}}\n"
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head}\\midrule\n{''.join(body)}"
        "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
    )


def escape(text: str, replacements: dict[str, str]) -> str:
    """Letter by letter; white space, line ends among it, becomes single blanks."""
    return "".join(replacements.get(letter, letter) for letter in " ".join(text.split()))
