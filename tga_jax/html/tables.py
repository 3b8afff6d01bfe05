"""A table once, as HTML, Markdown and LaTeX."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tga_jax.html.formats import MINUS
from tga_jax.html.markup import Markup, join, tag

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

    def css(place: int) -> str | None:
        return "number" if place >= table.numbers else None

    head = [
        tag("th", cell, scope="col", class_=css(place)) for place, cell in enumerate(table.header)
    ]
    body = [
        tag(
            "tr",
            (
                tag("td", _cell(cell, wide), class_=css(i)) if i else tag("th", cell, scope="row")
                for i, cell in enumerate(row)
            ),
        )
        for row in table.rows
    ]
    parts = (tag("caption", table.caption), tag("thead", tag("tr", head)), tag("tbody", body))
    return tag("div", tag("table", parts, class_="wide" if wide else None), class_="scroll",
               tabindex="0")  # fmt: skip


def _cell(text: str, wide: bool) -> Markup:
    value, bracket, interval = text.partition(" [")
    if not (wide and bracket):
        return join([text])
    return tag("span", f"{value} ", tag("span", f"[{interval}", class_="under"))


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
