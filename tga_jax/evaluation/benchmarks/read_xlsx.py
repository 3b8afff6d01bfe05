"""The first sheet of an Excel workbook (.xlsx) -> rows of texts, with the standard library alone.

A workbook is a ZIP archive of XML: cells hold a number, a text of their own, or the number of a
text in a shared list. Dates come as Excel's day numbers; formulas as the value last computed.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from tga_jax.errors import UserError

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def read_xlsx(path: Path) -> list[dict[str, str]]:
    """Rows by the header in the first row; an empty cell is "".

    Raises:
        UserError: the file is missing or is no workbook.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            texts = _shared_texts(archive)
            cells = list(_rows(archive, texts))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (zipfile.BadZipFile, KeyError, ValueError, ElementTree.ParseError, OSError) as error:
        raise UserError(f"{path}: cannot be read as an Excel workbook (.xlsx)") from error
    if not cells:
        raise UserError(f"{path}: the first sheet is empty")
    header = cells[0]
    return [{name: row.get(at, "") for at, name in header.items()} for row in cells[1:] if row]


def _shared_texts(archive: zipfile.ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in archive.namelist():
        return []
    root = ElementTree.fromstring(archive.read("xl/sharedStrings.xml"))
    return [_text(item) for item in root.iter(f"{_MAIN}si")]


def _rows(archive: zipfile.ZipFile, texts: list[str]) -> Iterator[dict[int, str]]:
    """Yields each row's cells by their column, from 0."""
    sheets = [n for n in archive.namelist() if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", n)]
    first = min(sheets, key=lambda name: int(re.sub(r"\D", "", name)))
    for row in ElementTree.fromstring(archive.read(first)).iter(f"{_MAIN}row"):
        cells: dict[int, str] = {}
        for cell in row.iter(f"{_MAIN}c"):
            at = _column(cell.get("r", "")) if cell.get("r") else len(cells)
            value = cell.findtext(f"{_MAIN}v")
            if cell.get("t") == "inlineStr":
                value = _text(cell)
            elif cell.get("t") == "s" and value is not None:
                value = texts[int(value)]
            if value:
                cells[at] = _unescaped(value)
        yield cells


def _text(node: ElementTree.Element) -> str:
    """A text of one or several runs, without the phonetic ones."""
    runs = [node, *node.iter(f"{_MAIN}r"), *node.findall(f"{_MAIN}is")]
    return "".join(part.text or "" for run in runs for part in run.findall(f"{_MAIN}t"))


def _unescaped(text: str) -> str:
    """Excel writes control characters as _x000D_."""
    return re.sub(r"_x([0-9A-Fa-f]{4})_", lambda match: chr(int(match[1], 16)), text)


def _column(reference: str) -> int:
    """ "B7" -> 1."""
    number = 0
    for letter in re.sub(r"[^A-Z]", "", reference.upper()):
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1
