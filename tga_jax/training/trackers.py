"""Where a stage's metrics go beside `metrics.jsonl`: TensorBoard, CSV tables, Weights & Biases.

`config.trackers` names them. Only the first process opens them.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib
import io
import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tga_jax import files
from tga_jax.config import listed
from tga_jax.errors import UserError
from tga_jax.training.metric_table import NAMES

Number = float | int
Table = Sequence[Mapping[str, Any]]
TENSORBOARD, CSV, WANDB = "tensorboard", "csv", "wandb"
TRACKERS = (TENSORBOARD, CSV, WANDB)
BOARD_SECONDS = 30.0  # between two times that TensorBoard's file reaches the disk
WANDB_PROJECT = "tga_jax"  # where the environment variable of this name says no other


@dataclasses.dataclass(frozen=True)
class About:
    """What a tracker shows beside a stage's curves.

    Attributes:
        name: of the run, such as "runs/mine/finetune".
        config: the whole configuration, nested.
        hyperparameters: dotted key -> value, of what decides the stage's result.
        tables: name -> lines with the same columns, such as the parameters of each part.
    """

    name: str = ""
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tables: Mapping[str, Table] = dataclasses.field(default_factory=dict)


class Tracker(Protocol):
    """What every tracker does."""

    def write(self, step: int, values: Mapping[str, Number]) -> None:
        """Takes a step's finite values by name."""

    def close(self) -> None:
        """Writes what is still in memory."""


def tracker_names(text: str) -> list[str]:
    """Returns the names in `config.trackers`.

    Raises:
        UserError: a tracker of that name does not exist.
    """
    names = listed(text)
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"config.trackers: {name!r} is none of {', '.join(TRACKERS)}")
    return names


def check_trackers(text: str, *, first: bool) -> None:
    """Refuses trackers that cannot be used; on the first process it logs in where that is needed.

    Raises:
        UserError: a name is unknown, wandb is not installed, or it knows no account.
    """
    if WANDB not in tracker_names(text):
        return
    wandb = _wandb()
    if first and os.environ.get("WANDB_MODE", "online") == "online":
        try:
            wandb.login()
        except Exception as error:  # it has many kinds of them
            raise _wandb_problem(error) from error


def open_trackers(
    names: Sequence[str], folder: Path, about: About, *, resume_step: int
) -> list[Tracker]:
    """Opens the named trackers of a stage, and gives them what is known before its first step.

    Args:
        names: as `tracker_names` returns them.
        folder: the stage's, with a `metrics.jsonl` that ends at `resume_step`.
        about: what they show beside the curves.
        resume_step: the step after which the stage goes on.

    Raises:
        UserError: wandb cannot begin a run.
    """
    trackers: dict[str, type[Board] | type[CsvTables] | type[WandbRun]] = {
        TENSORBOARD: Board,
        CSV: CsvTables,
        WANDB: WandbRun,
    }
    return [trackers[name](folder, about, resume_step=resume_step) for name in names]


class Board:
    """TensorBoard's event file, written in the caller's thread.

    tensorboardX's own SummaryWriter has a thread for it, which dies of a full disk; whoever then
    writes waits for ever.
    """

    def __init__(self, folder: Path, about: About, *, resume_step: int) -> None:
        """Begins a file; what earlier ones have of later steps is then not shown any more."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        folder = folder / "tensorboard"
        folder.mkdir(parents=True, exist_ok=True)
        self._writer, self._flushed = EventsWriter(str(folder / "events")), time.monotonic()
        self._event(resume_step + 1, session_log=SessionLog(status=SessionLog.START))
        self._describe(resume_step, about)

    def write(self, step: int, values: Mapping[str, Number]) -> None:
        """Appends a step's values."""
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._event(step, summary=scalar(name, value))
        if time.monotonic() - self._flushed > BOARD_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Writes what is still in memory, and closes the file."""
        self._writer.close()

    def _describe(self, step: int, about: About) -> None:
        """Writes the tables as texts, and the hyper-parameters for the tab of that name."""
        from tensorboardX.summary import hparams, text

        for name, table in _all_tables(about).items():
            self._event(step, summary=text(name, _markdown(table)))
        if about.hyperparameters:
            plain = {key: _plain(value) for key, value in about.hyperparameters.items()}
            for summary in hparams(plain, {"loss": None})[:2]:  # the third says that it has ended
                self._event(step, summary=summary)

    def _event(self, step: int, **what: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(wall_time=time.time(), step=step, **what))


class CsvTables:
    """`metrics.csv`, with a line for each of `metrics.jsonl`, and a file for each other table."""

    def __init__(self, folder: Path, about: About, *, resume_step: int) -> None:
        """Writes the tables, and the metrics that `metrics.jsonl` has so far."""
        self._path = folder / "metrics.csv"
        done = list(files.read_log(folder / "metrics.jsonl"))
        files.write_text(self._path, _csv_text(done, ("step", *NAMES)))
        for name, table in _all_tables(about).items():
            files.write_text(folder / f"{name}.csv", _csv_text(table, tuple(table[0])))

    def write(self, step: int, values: Mapping[str, Number]) -> None:
        """Appends a step's values; a column without one stays empty."""
        line = _csv_text([{"step": step, **values}], ("step", *NAMES), header=False)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line)

    def close(self) -> None:
        """Does nothing: every line was written at once."""


class WandbRun:
    """A run of Weights & Biases; where it goes, its own environment variables say.

    A stage that goes on continues its run. The steps that it does again have the same values, and
    wandb keeps the first of them.
    """

    def __init__(self, folder: Path, about: About, *, resume_step: int) -> None:
        """Begins the run, or goes on with it.

        Raises:
            UserError: wandb is not installed, or refuses.
        """
        wandb = _wandb()
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", WANDB_PROJECT),
                name=os.environ.get("WANDB_NAME", about.name),
                job_type=folder.name,
                dir=str(folder),
                id=_run_id(folder / "wandb_id.txt"),
                resume="allow",
                config={**about.config, "hyperparameters": dict(about.hyperparameters)},
                allow_val_change=True,
            )
        except Exception as error:  # it has many kinds of them
            raise _wandb_problem(error) from error
        for name, table in about.tables.items():
            rows = [list(line.values()) for line in table]
            shown = wandb.Table(columns=list(table[0]), data=rows)
            self._run.log({name: shown}, step=resume_step)

    def write(self, step: int, values: Mapping[str, Number]) -> None:
        """Gives the run a step's values, which another process sends."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Waits until all is sent, or written where wandb is offline."""
        self._run.finish()


def _wandb() -> Any:
    """Returns the package; a folder named "wandb", which Python takes for one, is none."""
    try:
        wandb = importlib.import_module("wandb")
        wandb.init  # noqa: B018
    except (ImportError, AttributeError) as error:
        raise UserError(
            "config.trackers names wandb, which is not installed: pip install wandb, or "
            "pip install -e .[wandb] in the clone"
        ) from error
    return wandb


def _wandb_problem(error: Exception) -> UserError:
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return UserError(
        f"config.trackers: wandb: {reason}; type `wandb login`, or set WANDB_MODE=offline in the "
        "environment and `wandb sync` the run's folder later"
    )


def _run_id(path: Path) -> str:
    """Returns the id of a stage's run, which a stage that goes on finds in this file."""
    if not path.exists():
        files.write_text(path, uuid.uuid4().hex[:16] + "\n")
    return path.read_text().strip()


def _all_tables(about: About) -> dict[str, Table]:
    """The tables, with configuration and hyper-parameters among them; empty ones are left out."""
    pairs = {"config": files.flat(about.config), "hyperparameters": about.hyperparameters}
    listed = {
        name: [{"key": key, "value": _plain(value)} for key, value in values.items()]
        for name, values in pairs.items()
    }
    return {name: table for name, table in {**listed, **about.tables}.items() if table}


def _plain(value: Any) -> Any:
    """A value as every tracker takes one: a list becomes its text."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _csv_text(
    lines: Iterable[Mapping[str, Any]], columns: Sequence[str], header: bool = True
) -> str:
    """Lines as CSV; a cell is empty where a line has nothing for its column."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _markdown(table: Table) -> str:
    """A table as TensorBoard's text tab shows it."""
    lines = [tuple(table[0]), ("---",) * len(table[0]), *(line.values() for line in table)]
    cells = [[str(cell).replace("|", r"\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
