"""METHOD's guide terms in plain Python loops over float64 numbers, one sample at a time."""

from __future__ import annotations

import math

import numpy as np


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of two vectors."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(a @ b / (math.sqrt(a @ a) * math.sqrt(b @ b)))


def paper(image: np.ndarray, retrieved: np.ndarray | None, caption: np.ndarray) -> tuple:
    """(pair, hinge) of one sample's states [L, D]; hinge None without retrieved text."""
    pair, hinge = 0.0, 0.0
    for j in range(len(image)):
        to_image = cosine(image[j], caption[j])
        pair += -to_image
        if retrieved is not None:
            hinge += math.log(1 + math.exp(-(to_image - cosine(retrieved[j], caption[j]))))
    return pair, None if retrieved is None else hinge


def released(image: np.ndarray, retrieved: np.ndarray | None, caption: np.ndarray, t: float):
    """(pair, hinge) of the released form at progress t."""
    pair, hinge = 0.0, 0.0
    for j in range(len(image)):
        to_image = cosine(image[j], caption[j])
        pair += math.exp(-to_image) / len(image)
        if retrieved is not None:
            hinge += math.exp(cosine(retrieved[j], caption[j]) - to_image) / len(image)
    hinge = 0.1 * (1 - t) ** 2 * hinge
    return 0.25 * (1 - t) * pair, None if retrieved is None else hinge


def answer(image: np.ndarray, caption: np.ndarray) -> float:
    """The answer term of one sample's states [L, D]."""
    return -sum(cosine(image[j], caption[j]) for j in range(len(image)))
