"""Hugging Face in and out: the only room that knows its names and files."""

import os

# Before transformers is imported: it warns of things that are none of the user's doing, among this
# program's lines. Whoever sets the variable sees them.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
