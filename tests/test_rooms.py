"""The rule of the house: every room imports only from rooms below it, and no file is in a circle.

The same list stands in WORKSPACE.md, top room first.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path("tga_jax")
GROUND = ("labels", "errors", "environment", "config", "files", "figure", "html")  # all from below
TOWER = (
    "models", "parallel", "alignment", "inference", "hf", "cluster", "data", "training", "run",
    "preparation", "retrieval", "captioning", "planning", "miniature", "evaluation", "analysis",
    "report", "jobs", "flags", "main",
)  # fmt: skip
# Package -> the rooms that may import it; whoever needs it elsewhere asks these rooms.
ONLY_IN = {"transformers": ("hf",), "torch": ("hf",), "scann": ("retrieval",), "tensorflow": ()}


def sources() -> list[Path]:
    """Every file of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def file_of(module: str) -> Path | None:
    """The package's file of a dotted name; None where it names no file of the package."""
    path = Path(*module.split(".")).with_suffix(".py")
    return path if module.startswith("tga_jax.") and path.is_file() else None


def room_of(path: Path) -> str:
    """The folder under the package, or the file's own name where it lies at the top."""
    return path.parts[1] if len(path.parts) > 2 else path.stem


def test_every_room_has_its_place() -> None:
    rooms = {room_of(path) for path in sources()} - {"__init__"}
    assert rooms == {*GROUND, *TOWER}
    said = Path("WORKSPACE.md").read_text()
    names = [room if (PACKAGE / room).is_dir() else f"{room}.py" for room in GROUND + TOWER]
    places = [said.index(f"\n| `{name}` |") for name in reversed(names)]
    assert places == sorted(places), "WORKSPACE.md lists the rooms in another order"


@pytest.mark.parametrize("path", sources(), ids=str)
def test_imports_go_down(path: Path) -> None:
    room, rooms = room_of(path), (*GROUND, *TOWER, "__init__")  # `tga_jax.load` is above all
    for target in filter(None, map(file_of, imports(path))):
        other = room_of(target)
        below = rooms.index(other) < rooms.index(room)
        assert room == other or below, f"{path} imports {target}"


def test_no_file_is_in_a_circle() -> None:
    graph = {path: {t for t in map(file_of, imports(path)) if t} for path in sources()}
    while graph:
        free = [path for path, targets in graph.items() if not targets & graph.keys()]
        assert free, f"these files import each other in a circle: {sorted(map(str, graph))}"
        for path in free:
            del graph[path]


@pytest.mark.parametrize("package", ONLY_IN)
def test_packages_are_imported_in_their_rooms_only(package: str) -> None:
    for path in sources():
        if any(name.split(".")[0] == package for name in imports(path)):
            assert room_of(path) in ONLY_IN[package], f"{path} imports {package}"
