"""TensorBoard, CSV and Weights & Biases: the numbers that they get, after a kill too."""

from __future__ import annotations

import csv
import json
import math
import struct
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.test_metrics import events
from tga_jax.errors import UserError
from tga_jax.training.metrics import MetricsLog
from tga_jax.training.trackers import About, check_trackers, tracker_names

ABOUT = About(
    name="mine/finetune",
    config={"seed": 3, "guide": {"form": "paper", "layers": (1, 2)}},
    hyperparameters={"seed": 3, "guide.layers": [1, 2], "finetune.learning_rate": 1e-3},
    tables={"parameters": [{"part": "projector", "parameters": 10, "trained": 4}]},
)
PARTS = [{"part": "projector", "parameters": "10", "trained": "4"}]


def read_csv(path: Path) -> list[dict[str, str]]:
    """The lines of a table by the names of its columns."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def log(folder: Path, steps: range, *trackers: str) -> None:
    """Writes what a stage logs that goes on before the first of these steps."""
    written = MetricsLog(folder, resume_step=steps[0] - 1, trackers=trackers, about=ABOUT)
    for step in steps:
        written.write(step, {"loss": step / 2, "lm_loss": math.nan, "grad_norm": 1.0})
    written.close()


@pytest.mark.parametrize(
    "first", [(), ("csv",)], ids=["csv since the resume", "csv from the start"]
)
def test_a_csv_table_goes_on_where_the_stage_does(tmp_path: Path, first: tuple[str, ...]) -> None:
    log(tmp_path, range(1, 6), *first)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("6,0.")  # killed while writing
    log(tmp_path, range(4, 6), "csv")
    lines = read_csv(tmp_path / "metrics.csv")
    assert [(line["step"], line["loss"]) for line in lines] == [
        ("1", "0.5"), ("2", "1.0"), ("3", "1.5"), ("4", "2.0"), ("5", "2.5"),
    ]  # fmt: skip
    assert {(line["lm_loss"], line["grad_norm"], line["mfu"]) for line in lines} == {
        ("", "1.0", "")
    }


def test_csv_has_the_configuration_and_the_parameters(tmp_path: Path) -> None:
    log(tmp_path, range(1, 2), "csv")
    assert read_csv(tmp_path / "parameters.csv") == PARTS
    config = {line["key"]: line["value"] for line in read_csv(tmp_path / "config.csv")}
    assert config == {"seed": "3", "guide.form": "paper", "guide.layers": "(1, 2)"}
    settings = {line["key"]: line["value"] for line in read_csv(tmp_path / "hyperparameters.csv")}
    assert settings["finetune.learning_rate"] == "0.001"


def test_tensorboard_has_the_configuration_as_text_and_the_hyper_parameters(tmp_path: Path) -> None:
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    log(tmp_path, range(1, 2), "tensorboard")
    values = [value for event in events(tmp_path / "tensorboard") for value in event.summary.value]
    found = {value.tag: value for value in values}
    parts = found["parameters/text_summary"].tensor.string_val[0].decode()
    assert parts.splitlines()[::2] == ["| part | parameters | trained |", "| projector | 10 | 4 |"]
    assert "| guide.form | paper |" in found["config/text_summary"].tensor.string_val[0].decode()
    content = found["_hparams_/session_start_info"].metadata.plugin_data.content
    rates = HParamsPluginData.FromString(content).session_start_info.hparams
    assert rates["finetune.learning_rate"].number_value == 1e-3
    assert found["loss"].simple_value == 0.5


def test_no_trackers_leave_metrics_jsonl_alone(tmp_path: Path) -> None:
    log(tmp_path, range(1, 3))
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_an_unknown_tracker_names_the_known_ones() -> None:
    assert tracker_names(" csv,tensorboard , csv,") == ["csv", "tensorboard"]
    with pytest.raises(UserError, match="config.trackers: 'mlflow' is none of tensorboard, csv, "):
        check_trackers("csv,mlflow", first=True)


# --- Weights & Biases, with a module that writes down how it is called ---


class FakeRun:
    """The run that `FakeWandb.init` returns."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.finished = False

    def log(self, values: dict[str, Any], *, step: int) -> None:
        """As wandb's."""
        self.logged.append((step, values))

    def finish(self) -> None:
        """As wandb's."""
        self.finished = True


class FakeWandb(types.ModuleType):
    """As much of wandb as is called."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.begun: list[dict[str, Any]] = []
        self.runs: list[FakeRun] = []
        self.problem: Exception | None = None

    def login(self) -> bool:
        """As wandb's, which raises where it knows no account and nobody can be asked."""
        if self.problem:
            raise self.problem
        return True

    def init(self, **arguments: Any) -> FakeRun:
        """As wandb's."""
        if self.problem:
            raise self.problem
        self.begun.append(arguments)
        self.runs.append(FakeRun())
        return self.runs[-1]

    def Table(self, *, columns: list[str], data: list[list[Any]]) -> Any:
        """As wandb's."""
        return ("table", columns, data)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    """Stands where `import wandb` looks."""
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)
    return fake


def test_wandb_gets_configuration_tables_and_metrics(tmp_path: Path, wandb: FakeWandb) -> None:
    folder = tmp_path / "finetune"
    log(folder, range(1, 3), "wandb")
    (begun,), (run,) = wandb.begun, wandb.runs
    assert (begun["project"], begun["name"], begun["job_type"]) == (
        "tga_jax", "mine/finetune", "finetune",
    )  # fmt: skip
    assert begun["config"]["guide"]["form"] == "paper" and begun["dir"] == str(folder)
    assert begun["config"]["hyperparameters"]["finetune.learning_rate"] == 1e-3
    table = ("table", ["part", "parameters", "trained"], [["projector", 10, 4]])
    assert run.logged == [
        (0, {"parameters": table}),
        (1, {"loss": 0.5, "grad_norm": 1.0}),
        (2, {"loss": 1.0, "grad_norm": 1.0}),
    ]
    assert run.finished


def test_a_stage_that_goes_on_continues_its_wandb_run(tmp_path: Path, wandb: FakeWandb) -> None:
    log(tmp_path / "finetune", range(1, 3), "wandb")
    log(tmp_path / "finetune", range(3, 4), "wandb")
    log(tmp_path / "pretrain", range(1, 2), "wandb")
    first, again, other = (begun["id"] for begun in wandb.begun)
    assert first == again != other
    assert {begun["resume"] for begun in wandb.begun} == {"allow"}


def test_the_environment_names_the_wandb_project(
    tmp_path: Path, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    log(tmp_path, range(1, 2), "wandb")
    assert wandb.begun[0]["project"] == "ours"


def test_a_wandb_without_an_account_is_said_before_work_begins(
    tmp_path: Path, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb.problem = RuntimeError("api_key not\nconfigured (no-tty)")
    with pytest.raises(UserError, match="wandb: api_key not configured.*`wandb login`.*offline"):
        check_trackers("wandb", first=True)
    check_trackers("wandb", first=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_trackers("wandb", first=True)
    with pytest.raises(UserError, match="config.trackers: wandb: api_key not configured"):
        log(tmp_path, range(1, 2), "wandb")


@pytest.mark.parametrize("found", [None, types.ModuleType("wandb")], ids=["none", "a folder"])
def test_a_missing_wandb_says_how_to_install_it(
    found: types.ModuleType | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", found)  # None: importing it raises an ImportError
    with pytest.raises(UserError, match=r"not installed: pip install wandb"):
        check_trackers("tensorboard,wandb", first=True)
    check_trackers("tensorboard,csv", first=True)


def test_wandb_itself_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    check_trackers("wandb", first=True)
    for steps in (range(1, 4), range(3, 6)):  # killed after step 3, resumed after step 2
        log(tmp_path / "finetune", steps, "wandb")
    logged, configs = wandb_records(tmp_path / "finetune" / "wandb")
    ends = time.monotonic() + 20
    while len(logged) < 6 and time.monotonic() < ends:  # another process writes the files
        time.sleep(0.1)
        logged, configs = wandb_records(tmp_path / "finetune" / "wandb")
    assert logged == [(1, 0.5), (2, 1.0), (3, 1.5), (3, 1.5), (4, 2.0), (5, 2.5)]
    assert all(config["guide"]["form"] == "paper" for config in configs)
    lines = (tmp_path / "finetune" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5]


def wandb_records(folder: Path) -> tuple[list[tuple[int, float]], list[dict[str, Any]]]:
    """(step, loss) of the runs that wandb wrote offline, and the configuration of each."""
    from wandb.proto.wandb_internal_pb2 import Record

    logged, configs = [], []
    for path in sorted(folder.glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime):
        for record in map(Record.FromString, wandb_contents(path.read_bytes())):
            items = {item.key or item.nested_key[0]: item for item in record.history.item}
            if "loss" in items:
                logged.append((record.history.step.num, json.loads(items["loss"].value_json)))
            if record.HasField("run"):
                update = record.run.config.update
                configs.append({item.key: json.loads(item.value_json) for item in update})
    return logged, configs


def wandb_contents(content: bytes, block: int = 1 << 15) -> Iterator[bytes]:
    """The records of a .wandb file, in LevelDB's log format behind seven bytes of its own."""
    place, parts, last = 7, b"", (1, 4)  # kinds of a part: whole, first, middle, last
    while place + 7 <= len(content):
        if block - place % block < 7:  # too little for a part's head: the block ends in zeros
            place += block - place % block
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in last:
            yield parts
            parts = b""
