"""The command line: flags, the configuration behind --config, and what is wrong with them."""

from __future__ import annotations

import ast
import difflib
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.jobs.registry import JOBS

# configs/ and assets/ lie beside the package in a checkout, and inside an installed one (setup.py).
PACKAGE = next(p for p in Path(__file__).parents[:2] if (p / "configs").is_dir())
CONFIGS = PACKAGE / "configs"


def help_text(usage: str) -> str:
    """What a newcomer needs: `usage`, the jobs, and the configurations here."""
    width = max(map(len, JOBS))
    jobs = "\n".join(f"  {name:<{width}}  {j.what} ({j.writes})" for name, j in JOBS.items())
    names = config_names()
    width = max(map(len, names))
    configs = "\n".join(f"  {name:<{width}}  {_headline(name)}" for name in names)
    return (
        f"{usage}\nJobs, and where they write:\n{jobs}\n\nConfigurations:\n{configs}\n\n"
        "docs/config.md explains every key. Set one with --config.KEY=VALUE, for example\n"
        "--config.model.checkpoint=FOLDER --config.data.path=samples.json. --print_config shows\n"
        "the configuration that results, and runs nothing."
    )


def config_names() -> list[str]:
    """The configurations that come with the package, as --config names them."""
    return sorted(path.stem for path in CONFIGS.glob("*.py"))


def _headline(name: str) -> str:
    """The first line of a configuration's docstring; the file is not run."""
    text = ast.get_docstring(ast.parse((CONFIGS / f"{name}.py").read_text())) or ""
    return text.partition("\n")[0]


def with_config_path(argv: Sequence[str]) -> list[str]:
    """The command line with the path of the configuration that --config calls by its bare name.

    Raises:
        UserError: no configuration of that name comes with the package.
    """
    args = list(argv)
    for place, arg in enumerate(args):
        flag, equals, value = arg.partition("=")
        if flag not in ("-config", "--config"):
            continue
        if equals:
            args[place] = f"{flag}={config_path(value)}"
        elif place + 1 < len(args):
            args[place + 1] = config_path(args[place + 1])
    return args


def config_path(value: str) -> str:
    """What --config says, as a path: "audit:defences" is ".../configs/audit.py:defences".

    Raises:
        UserError: no configuration of that name comes with the package.
    """
    name, _, variant = value.partition(":")
    ours = CONFIGS / f"{Path(name).stem}.py"
    is_path = "/" in name or name.endswith(".py")
    if not name or is_path and (Path(name).is_file() or not ours.is_file()):
        return value
    if is_path:
        there = value.replace(name, ours.stem, 1)
        raise UserError(f"--config={value}: no such file here; did you mean --config={there}?")
    if not ours.is_file():
        raise UserError(
            f"--config={value}: there is no configuration {name!r}. Name one of "
            f"{', '.join(config_names())}, or a file of your own that ends in .py"
        )
    return f"{ours}:{variant}" if variant else str(ours)


def parse_flags(argv: Sequence[str]) -> Any:
    """absl flags with the configuration behind --config."""
    from absl import flags
    from ml_collections import config_flags

    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "The configuration.", flag_values=values)
    flags.DEFINE_string("workdir", None, "The folder for every output.", flag_values=values)
    flags.DEFINE_boolean("print_config", False, "Shows the configuration.", flag_values=values)
    flags.DEFINE_string("job", "", "The jobs to run, with commas.", flag_values=values)
    flags.DEFINE_string("coordinator", "", "HOST:PORT of the first process.", flag_values=values)
    flags.DEFINE_integer("processes", -1, "The number of processes.", flag_values=values)
    flags.DEFINE_integer("process", -1, "The number of this one, from 0.", flag_values=values)
    argv = with_config_path(argv)
    sys.argv = argv  # config_flags looks for overrides there, whatever it is asked to parse
    try:
        rest = values(argv)[1:]
        needed = ("config",) if values.print_config else ("config", "workdir")
        missing = [name for name in needed if not getattr(values, name)]
        if not missing:
            values.config.jobs  # noqa: B018 - a config that failed to load says so when it is read
    except Exception as error:  # absl, ml_collections and the config file raise what they like
        if wrong := wrong_key(argv):
            raise UserError(wrong) from error
        if isinstance(error, KeyError | AttributeError):
            raise UserError(unknown_key(str(error), argv)) from error
        raise UserError(f"{wrong_value(argv) or load_problem(error)} (see --help)") from error
    if not missing:
        refuse_not_finite(values.config.to_dict(), "config")
    flags.FLAGS.mark_as_parsed()  # Grain's worker processes ask absl's own flags
    if rest:
        raise UserError(f"{rest[0]!r} is not a flag (see --help)")
    if missing:
        example = {"config": "from_hf", "workdir": "runs/mine"}[missing[0]]
        raise UserError(
            f"--{missing[0]} is missing, for example --{missing[0]}={example} (see --help)"
        )
    return values


def refuse_not_finite(value: Any, key: str) -> None:
    """Refuse NaN and infinity wherever they stand: comparisons with bounds let NaN through."""
    if isinstance(value, dict):
        for name, inner in value.items():
            refuse_not_finite(inner, f"{key}.{name}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}={value} must be a finite number")


def wrong_key(argv: Sequence[str]) -> str:
    """What is wrong with the key of a flag: unknown, in a value, or a whole section; else ""."""
    for _, parts, known in config_flags(argv):
        keys, at = ".".join(parts), known
        for depth, key in enumerate(parts):
            section = ".".join(["config", *parts[:depth]])
            if not isinstance(at, dict):
                return f"there is no config key config.{keys}, because {section} is one value"
            if at and key not in at:  # an empty one is filled by files in configs/
                return no_such_key(f"{section}.{key}", difflib.get_close_matches(key, at, 1))
            at = at.get(key, {})
        if isinstance(at, dict) and at:
            return f"--config.{keys} is a section; set its keys, like --config.{keys}.{[*at][0]}"
    return ""


def wrong_value(argv: Sequence[str]) -> str:
    """Which flag's value is no number where a number is wanted; else ""."""
    for arg, parts, at in config_flags(argv):
        for key in parts:
            at = at.get(key) if isinstance(at, dict) else None
        _, equals, value = arg.partition("=")
        if not equals or isinstance(at, bool) or not isinstance(at, int | float):
            continue
        try:
            type(at)(value)
        except ValueError:
            kind = "a whole number" if isinstance(at, int) else "a number"
            return f"--{arg} must be {kind}"
    return ""


def config_flags(argv: Sequence[str]) -> Iterator[tuple[str, list[str], Any]]:
    """Each flag of a configuration key without its dashes, the key's parts, and all defaults."""
    from tga_jax.config import base_config

    defaults = base_config().to_dict()
    for arg in argv:
        flag, _, keys = arg.lstrip("-").partition("=")[0].partition("config.")
        if keys and not flag and "[" not in keys:
            yield arg.lstrip("-"), keys.split("."), defaults


def no_such_key(key: str, meant: Sequence[str]) -> str:
    """What is said of an unknown key; `meant` may have the name that it should end with."""
    hint = f"; did you mean {'.'.join([*key.split('.')[:-1], meant[0]])}?" if meant else ""
    return f"there is no config key {key}{hint} (docs/config.md has all keys)"


def unknown_key(message: str, argv: Sequence[str]) -> str:
    """What is said of a key that a file in configs/ sets; ml_collections knows its last part."""
    quoted = re.findall(r"['\"]([\w.]+)['\\\"]", message) or [message]
    files = [arg for arg in argv if arg.lstrip("-").startswith("config=")]
    said = no_such_key(quoted[0], re.findall(r'Did you mean "(\w+)"', message))
    return ": ".join([*files, said])


def load_problem(error: Exception) -> str:
    """Why the configuration could not be read, in one line and without a traceback's frames."""
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    if not lines:
        return type(error).__name__
    if any(line.startswith("Traceback") for line in lines):
        said = lines[-1].removeprefix("ValueError: ")  # what our configurations raise
        if "get_config() takes 0 positional arguments" in said:
            said = "this configuration has no variants; leave out the colon and what follows it"
        return f"{lines[0].split(': Error')[0].removeprefix('flag ')}: {said}"
    gone = [line for line in lines if "No such file" in line]
    return f"--config: {gone[0].partition('] ')[2] or gone[0]}" if gone else " ".join(lines)


# Of the second of each pair the weights are those of the first.
STARTS_FROM = (("pretrain", "finetune"), ("pretrain", "export"), ("finetune", "export"))


def choose_jobs(flag: str, config: Any) -> list[str]:
    """The jobs of --job, or else of config.jobs."""
    jobs = [job.strip() for job in flag.split(",")] if flag else list(config.jobs)
    if not jobs:
        raise UserError("config.jobs is empty: name jobs there, or with --job")
    for job in jobs:
        if job not in JOBS:
            raise UserError(f"--job: there is no job {job!r}. The jobs are {', '.join(JOBS)}")
    for earlier, later in STARTS_FROM:
        places = [[i for i, job in enumerate(jobs) if job == one] for one in (earlier, later)]
        if all(places) and places[0][0] > places[1][-1]:
            raise UserError(
                f"--job: {later} stands before {earlier}, whose weights it needs. Jobs run in the "
                f"order in which they are named, so put {earlier} first, or use two commands"
            )
    return jobs


def expand_workdir(config: Any, workdir: Path) -> Any:
    """Text values with folders in the place of their names in braces.

    `{workdir}` is the workdir, so that jobs can build on others; `{package}` is the folder that
    holds configs/ and assets/, as they come with this package.
    """
    from ml_collections import ConfigDict

    def expand(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: expand(inner) for key, inner in value.items()}
        if not isinstance(value, str):
            return value
        return value.replace("{workdir}", str(workdir)).replace("{package}", str(PACKAGE))

    return ConfigDict(expand(config.to_dict())).lock()
