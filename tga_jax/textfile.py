"""A text file that a user brings: read, or one line that says what is wrong with it."""

from pathlib import Path

from tga_jax.errors import UserError


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises:
        UserError: it is missing, cannot be read, is no UTF-8, or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if not text.strip():
        raise UserError(f"{path}: the file is empty")
    return text
