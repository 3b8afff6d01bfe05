"""Random single mutations of what `inputs.make_inputs` writes: one seed always gives the same."""

from __future__ import annotations

import random

from tests.jobs.mutated_files import checkpoint_mutation, config_mutation, tokenizer_mutation
from tests.jobs.mutated_samples import image_mutation, row_mutation
from tests.jobs.mutation import Mutation

FAMILIES = (
    row_mutation, image_mutation, config_mutation, tokenizer_mutation, checkpoint_mutation,
    row_mutation, checkpoint_mutation, config_mutation,
)  # fmt: skip


def draw(seed: int) -> Mutation:
    """The mutation of a seed; the FAMILIES take turns."""
    return FAMILIES[seed % len(FAMILIES)](random.Random(seed))
