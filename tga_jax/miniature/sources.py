"""A digest of code: what was made by other code is not taken for what this code makes."""

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterable
from pathlib import Path

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def source_digest(names: Iterable[str]) -> str:
    """A short hash of these modules of the miniature, in this order, as `without_words`."""
    here = Path(__file__)
    code = "".join(without_words(here.with_name(f"{name}.py").read_text()) for name in names)
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def without_words(source: str) -> str:
    """Python source without comments, docstrings and empty lines, which change nothing it does."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            text = node.body[0]
            for row in range(text.lineno, (text.end_lineno or text.lineno) + 1):
                lines[row - 1] = ""
    return "".join(f"{line.rstrip()}\n" for line in lines if line.strip())
