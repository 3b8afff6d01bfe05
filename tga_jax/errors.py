"""The one error that means: the user can mend this; and the one that means: start me again."""

import errno
import os

EXIT_USER_ERROR = 2
EXIT_PREEMPTED = 75  # EX_TEMPFAIL: run the same command again
RETRY = "; run the same command again to go on"


class UserError(Exception):
    """A user's mistake: one line that names the file, key or record and says what to do.

    `tga_jax.main` prints it on stderr without a traceback and exits with code 2.
    """


def disk_problem(error: Exception) -> str | None:
    """What the user can mend about a disk, in one line; None for any other error."""
    text, number = " ".join(str(error).split()), getattr(error, "errno", None)
    # Libraries in C++ raise errors of their own, which say so in words.
    if number in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in text:
        return "the disk is full; make room or use another --workdir"
    if number in (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO):
        return text
    return None


# Job -> the part of the configuration whose batch size decides its memory.
BATCH_OF = {
    "score": "score", "generate": "generate", "evaluate": "generate", "analyze": "analyze",
    "oracle": "oracle", "caption": "caption", "index": "retrieval", "retrieve": "retrieval",
}  # fmt: skip


def memory_problem(error: Exception, planned: str = "", *, job: str = "") -> str | None:
    """What the user can do where a device's memory was not enough; None for any other error.

    Args:
        error: what JAX or Python raised.
        planned: what job `plan` says the step needs, if it was run.
        job: the job that was running; "" where that is not known.
    """
    text = " ".join(str(error).split())
    if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in text:
        return None
    detail = text.split("RESOURCE_EXHAUSTED:")[-1].strip()[:200] or "the host has no memory left"
    if job in BATCH_OF:
        return (
            f"out of memory ({detail}): lower config.{BATCH_OF[job]}.batch_size, set "
            "config.dtype=bfloat16, or use more devices with config.mesh.fsdp"
        )
    stage = job if job in ("pretrain", "finetune") else "<stage>"
    return (
        f"out of memory ({detail}): lower config.{stage}.batch_size or raise config.{stage}."
        "accumulate, set config.model.remat=full, or use more devices with config.mesh.fsdp"
        f"{planned}; --job=plan tells what fits"
    )


def option_problem(error: Exception) -> str | None:
    """What XLA says of a wrong compiler option, in one line; None for any other error."""
    reason = (str(error).splitlines() or [""])[0]
    wrong = any(text in reason for text in ("No such compile option", "While setting option"))
    return f"config.compiler_options: {reason}" if wrong else None


class Preempted(BaseException):
    """The machine is being taken away: the state is saved, and the same command goes on from it.

    Like KeyboardInterrupt it may be raised anywhere, and no `except Exception` may keep it.
    """


def refuse_below(key: str, value: float, least: float) -> None:
    """Refuse a number of the configuration that is less than it may be, or none at all (NaN).

    Raises:
        UserError: it is; `key` is without "config.".
    """
    if not value >= least:
        raise UserError(f"config.{key}={value} must be {least} or more")
