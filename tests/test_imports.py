"""What the core can be imported without."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

PACKAGE = Path("tga_jax")
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
    paths = [p for room in rooms for p in sorted((PACKAGE / room).rglob("*.py"))]
    return [".".join(p.with_suffix("").parts) for p in paths if p.stem != "__init__"]


def test_the_training_core_needs_no_heavy_package() -> None:
    rooms = ("models", "alignment", "parallel", "training", "data", "hf", "inference")
    modules = ["tga_jax", "tga_jax.main", *modules_of(*rooms), "tga_jax.jobs.train"]
    code = BLOCKED.format(heavy=HEAVY, modules=modules)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_models_and_alignment_need_jax_flax_numpy_and_jaxtyping_alone() -> None:
    modules = modules_of("models", "alignment")
    others = ("clu", "optax", "orbax", "grain", "transformers", "ml_collections", "absl", "PIL")
    # flax itself imports orbax and optax where they are installed.
    allowed_by_flax = ("optax", "orbax", "absl")
    heavy = HEAVY + tuple(name for name in others if name not in allowed_by_flax)
    code = BLOCKED.format(heavy=heavy, modules=modules)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_is_quick_and_lists_every_job() -> None:
    from tga_jax.jobs.registry import JOBS

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tga_jax.main", "--help"],
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    assert done.returncode == 0 and all(name in done.stdout for name in JOBS)
    for package in ("jax", "flax", "transformers", "numpy"):
        assert f" {package}\n" not in done.stderr
