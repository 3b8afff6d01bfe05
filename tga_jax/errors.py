"""The one error that means: the user can mend this; and the one that means: start me again."""

EXIT_USER_ERROR = 2
EXIT_PREEMPTED = 75  # EX_TEMPFAIL: run the same command again


class UserError(Exception):
    """A user's mistake: one line that names the file, key or record and says what to do.

    `tga_jax.main` prints it on stderr without a traceback and exits with code 2.
    """


class Preempted(BaseException):
    """The machine is being taken away: the state is saved, and the same command goes on from it.

    Like KeyboardInterrupt it may be raised anywhere, and no `except Exception` may keep it.
    """
