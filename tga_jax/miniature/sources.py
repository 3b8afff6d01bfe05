"""A digest of code: what was made by other code is not taken for what this code makes."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def source_digest(names: Iterable[str]) -> str:
    """A short hash of the sources of these modules of the miniature, in this order."""
    here = Path(__file__)
    sources = [here.with_name(f"{name}.py").read_bytes() for name in names]
    return hashlib.sha256(b"".join(sources)).hexdigest()[:16]
