"""Orbax checkpoints of a stage: parameters, the rest of the train state, the data position."""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from tga_jax.cluster import hosts
from tga_jax.errors import UserError
from tga_jax.training.step import TrainState

PARAMS, REST, DATA = "params", "rest", "data"
VISIBLE_SECONDS = 60.0  # that a shared file system may take to show one host what another wrote


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record is no error that Orbax logs in a thread of its own and raises again here."""
    return not (record.exc_info and "orbax" in record.pathname)


def _quieter(shown: Callable[[Any], Any]) -> Callable[[Any], None]:
    """A sys.unraisablehook without the writes that were under way when another one failed.

    They end when Orbax has closed the event loop that waited for them.
    """

    def hook(args: Any) -> None:
        if str(args.exc_value) != "Event loop is closed":
            shown(args)

    return hook


logging.getLogger("absl").addFilter(_is_news)
sys.unraisablehook = _quieter(sys.unraisablehook)


@dataclasses.dataclass(frozen=True)
class Restored:
    """A train state, and the data iterator's state at that step."""

    state: TrainState
    data: dict[str, Any]


class Checkpoints:
    """`<folder>/<step>/{params,rest,data}`; saving is asynchronous and atomic.

    Attributes:
        best_step: the checkpoint that stays whatever comes after it; None: none does for this.
    """

    def __init__(self, folder: Path, *, keep: int = 2, keep_every: int = 0) -> None:
        """Args:
        folder: made if need be.
        keep: how many of the newest stay.
        keep_every: those of steps that it divides stay for good; 0: none.
        """
        self.folder = folder
        self.best_step: int | None = None
        kept: list[Any] = [policies.LatestN(keep), _Best(self)]
        if keep_every:
            kept.append(policies.EveryNSteps(keep_every))
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            item_names=(PARAMS, REST, DATA),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(kept),
                cleanup_tmp_directories=True,
                enable_async_checkpointing=True,
            ),
        )

    def latest_step(self) -> int | None:
        """The newest complete checkpoint's step."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, data: Mapping[str, Any]) -> None:
        """Start saving; the arrays are copied before this returns."""
        args = ocp.args.Composite(
            **{
                PARAMS: ocp.args.StandardSave(state.flat_params),
                REST: ocp.args.StandardSave(_rest(state)),
                DATA: ocp.args.JsonSave(dict(data)),
            }
        )
        self._manager.save(step, args=args)

    def wait(self) -> None:
        """Until everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and free the manager's threads."""
        self._manager.wait_until_finished()
        self._manager.close()

    def restore(self, step: int, abstract: TrainState) -> Restored:
        """A state of `abstract`'s shapes, dtypes and shardings."""
        args = ocp.args.Composite(
            **{
                PARAMS: ocp.args.StandardRestore(abstract.flat_params),
                REST: ocp.args.StandardRestore(_rest(abstract)),
                DATA: ocp.args.JsonRestore(),
            }
        )
        found = self._read(step, args)
        params, rest = found[PARAMS], found[REST]
        state = TrainState(
            step=rest["step"],
            trained={p: params[p] for p in abstract.trained},
            frozen={p: params[p] for p in abstract.frozen},
            opt_state=rest["opt_state"],
            running=rest["running"],
        )
        return Restored(state, found[DATA])

    def restore_params(
        self, step: int, leaves: Mapping[str, jax.ShapeDtypeStruct]
    ) -> dict[str, jax.Array]:
        """The parameters alone, in the wanted dtypes and shardings."""
        args = ocp.args.Composite(**{PARAMS: ocp.args.StandardRestore(dict(leaves))})
        return self._read(step, args)[PARAMS]

    def _read(self, step: int, args: Any) -> Any:
        self._until_visible(step)
        try:
            return self._manager.restore(step, args=args)
        except (ValueError, KeyError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"checkpoint {self.folder / str(step)} cannot be read ({reason}): "
                "it was made by another model or an older version, or is damaged; delete it or use "
                "another --workdir"
            ) from error

    def _until_visible(self, step: int) -> None:
        """Wait for a checkpoint that the first process sees, and this host perhaps not yet."""
        folder, end = self.folder / str(step), time.monotonic() + VISIBLE_SECONDS
        while not folder.exists():
            if not hosts.several():
                raise UserError(
                    f"checkpoint {folder} is not there, though {self.folder.parent / 'done.json'} "
                    "names it: delete that file, and the stage is trained again"
                )
            if time.monotonic() > end:
                raise UserError(
                    f"checkpoint {folder} is not there for process {jax.process_index()}: "
                    "is --workdir one folder that all hosts share?"
                )
            time.sleep(0.5)


class _Best:
    """Preserves the checkpoint that is the best one at the time."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints

    def should_preserve(self, found: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """Whether each of these checkpoints stays."""
        return [one.step == self._checkpoints.best_step for one in found]


def _rest(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, "opt_state": state.opt_state, "running": state.running}
