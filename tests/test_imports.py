"""What the core can be imported without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("tensorflow", "tensorflow_datasets", "scann", "torch")
BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {heavy!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import importlib
for name in {modules!r}:
    importlib.import_module(name)
"""


def modules_of(*rooms: str) -> list[str]:
    """Dotted names of the modules in these rooms."""
    paths = [p for room in rooms for p in sorted((ROOT / "tga_jax" / room).rglob("*.py"))]
    assert paths
    names = [p.relative_to(ROOT).with_suffix("").parts for p in paths if p.stem != "__init__"]
    return [".".join(parts) for parts in names]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """This interpreter with these arguments, where the package is."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_training_core_needs_no_heavy_package() -> None:
    rooms = ("models", "alignment", "parallel", "training", "data", "hf", "inference")
    modules = ["tga_jax", "tga_jax.main", *modules_of(*rooms), "tga_jax.jobs.train"]
    code = BLOCKED.format(heavy=HEAVY, modules=modules)
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


def test_models_and_alignment_need_jax_flax_numpy_and_jaxtyping_alone() -> None:
    modules = modules_of("models", "alignment")
    others = ("clu", "optax", "orbax", "grain", "transformers", "ml_collections", "absl", "PIL")
    # flax itself imports orbax and optax where they are installed.
    allowed_by_flax = ("optax", "orbax", "absl")
    heavy = HEAVY + tuple(name for name in others if name not in allowed_by_flax)
    code = BLOCKED.format(heavy=heavy, modules=modules)
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


LIBRARIES = {"jax", "flax", "numpy", "transformers", *HEAVY}


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    """The packages that a process started with `-X importtime` imported."""
    return {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}


def test_help_lists_every_job_and_imports_no_library() -> None:
    from tga_jax.jobs.registry import JOBS

    done = run("-X", "importtime", "-m", "tga_jax.main", "--help")
    assert done.returncode == 0 and all(name in done.stdout for name in JOBS)
    libraries = LIBRARIES | {"absl", "ml_collections"}
    assert "tga_jax" in imported(done) and not imported(done) & libraries


@pytest.mark.parametrize(
    "mistake", ["--config.no_such_key=1", "--config.seed=one", "--config=none_such", "--job=none"]
)
def test_a_mistake_in_the_configuration_is_told_before_any_library_is_imported(
    mistake: str, tmp_path: Path
) -> None:
    flags = ["--config=miniature", f"--workdir={tmp_path}", mistake]
    done = run("-X", "importtime", "-m", "tga_jax.main", *flags)
    assert done.returncode == 2 and "error: " in done.stderr
    assert "ml_collections" in imported(done) and not imported(done) & LIBRARIES


def test_training_starts_without_statistics() -> None:
    code = "import sys, tga_jax.jobs.train; print(*sys.modules)"
    done = run("-c", code)
    assert "tga_jax.evaluation.metrics" in done.stdout.split()
    assert "scipy" not in done.stdout.split()
