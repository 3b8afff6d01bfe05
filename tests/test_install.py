"""The installed package: its console command, and the configurations that travel inside it."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tga_jax.errors import UserError
from tga_jax.flags import CONFIGS, config_path, with_config_path

ROOT = Path(__file__).parents[1]
SOURCES = ("tga_jax", "configs", "assets")
FILES = ("pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE")
COMMAND = "import sys; sys.argv[0] = 'tga'; import {module}; {module}.{function}()"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a wheel of this checkout unpacks to."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / "source" / name)
    for name in FILES:
        shutil.copy(ROOT / name, folder / "source")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", str(folder), str(folder / "source")], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return folder / "site"


def tga(installed: Path, cwd: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """The console command of the installed package, in another folder than the checkout."""
    (about,) = installed.glob("*.dist-info/entry_points.txt")
    entries = configparser.ConfigParser()
    entries.read(about)
    module, _, function = entries["console_scripts"]["tga"].partition(":")
    command = [sys.executable, "-c", COMMAND.format(module=module, function=function), *flags]
    env = os.environ | {"PYTHONPATH": str(installed)}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


def test_the_console_command_lists_the_configurations_it_carries(
    installed: Path, tmp_path: Path
) -> None:
    done = tga(installed, tmp_path)
    assert done.returncode == 0, done.stderr
    for path in (ROOT / "configs").glob("*.py"):
        assert f"\n  {path.stem} " in done.stdout


def test_a_bare_name_is_found_from_any_folder(installed: Path, tmp_path: Path) -> None:
    done = tga(installed, tmp_path, "--config=audit:defences", "--print_config")
    assert done.returncode == 0, done.stderr
    assert "config.jobs = ('experiment', 'report')" in done.stdout.splitlines()


def test_the_base_models_of_the_miniature_travel_too(installed: Path) -> None:
    ours = sorted(p.relative_to(ROOT) for p in (ROOT / "assets").rglob("*") if p.is_file())
    assert ours and all((installed / "tga_jax" / path).is_file() for path in ours)


def test_the_extras_take_the_version_that_is_pinned(installed: Path) -> None:
    (about,) = installed.glob("*.dist-info/METADATA")
    lines = about.read_text().splitlines()
    needed = [line.removeprefix("Requires-Dist: ") for line in lines if "Requires-Dist" in line]
    assert 'jax[cuda12]; extra == "cuda"' in needed and 'jax[tpu]; extra == "tpu"' in needed
    assert sum(line.startswith("jax==") for line in needed) == 1


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("audit", f"{CONFIGS}/audit.py"),
        ("audit:defences", f"{CONFIGS}/audit.py:defences"),
        ("configs/audit.py:defences", "configs/audit.py:defences"),
        ("mine/other.py", "mine/other.py"),  # ml_collections says that it is not there
        ("", ""),
    ],
)
def test_names_and_paths_of_configurations(given: str, path: str) -> None:
    assert config_path(given) == path
    assert with_config_path(["x", f"--config={given}", "--job=a"])[1] == f"--config={path}"
    assert with_config_path(["x", "--config", given, "--job=a"])[2] == path


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("audits", "Name one of audit, "),
        ("elsewhere/audit.py:defences", r"did you mean --config=audit:defences\?"),
    ],
)
def test_a_configuration_that_is_not_there(given: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        config_path(given)
