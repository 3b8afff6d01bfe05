"""The messages of the troubleshooting page are those of the program."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PAGE = Path("docs/troubleshooting.md")
MESSAGES = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Every text of the program's code; of a text with values in it, the parts between them."""
    trees = (ast.parse(path.read_text()) for path in Path("tga_jax").rglob("*.py"))
    nodes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return [node.value for node in nodes if isinstance(node.value, str)]


def test_the_page_has_messages() -> None:
    assert len(MESSAGES) > 40 and len(set(MESSAGES)) == len(MESSAGES)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_page_is_said_somewhere(message: str, texts: list[str]) -> None:
    assert any(message in text for text in texts)
