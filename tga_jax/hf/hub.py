"""Where a checkpoint's files are: a folder, or the Hugging Face hub's cache."""

from __future__ import annotations

from pathlib import Path

from tga_jax.errors import UserError

# Never pickles (*.bin, *.pt, *.pth) and never code.
FILES = ("*.safetensors", "*.json", "tokenizer.model", "*.txt", "*.jinja")
NOT_FILES = ("*/*", "consolidated*")  # other layouts of the same weights


def resolve_checkpoint(name: str) -> Path:
    """The folder of a checkpoint.

    Args:
        name: a folder, or a hub id such as "llava-hf/llava-1.5-7b-hf", which is downloaded to
            the hub's cache (or found there when there is no network).

    Raises:
        UserError: it is neither.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UserError(f"checkpoint {name!r} is a file; give the folder that holds config.json")
    return _from_hub(name)


def origin_of(folder: Path) -> str:
    """The path of a checkpoint; of one in the hub's cache its hub id and revision (a commit)."""
    cache = folder.parent.parent.name
    if folder.parent.name != "snapshots" or not cache.startswith("models--"):
        return str(folder)
    return f"{cache.removeprefix('models--').replace('--', '/')} at revision {folder.name}"


def _from_hub(name: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    advice = "give an existing folder or a reachable Hugging Face hub id"
    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, allow_patterns=list(FILES), ignore_patterns=list(NOT_FILES)
            )
        )
    except HFValidationError:
        raise UserError(f"checkpoint {name!r} is not a folder; {advice}") from None
    except Exception as error:  # the hub client's errors have no common base
        reason = str(error).strip().split("\n")[0][:200]
        raise UserError(
            f"checkpoint {name!r} is not a folder and the hub does not give it"
            f" ({type(error).__name__}: {reason}); {advice}"
        ) from error
