"""The label of a token that the model is not to predict, as Hugging Face and torch have it."""

IGNORE_INDEX = -100
