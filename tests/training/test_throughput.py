"""Figures of the log: rates a window, utilisation, memory."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from tga_jax.training import throughput
from tga_jax.training.throughput import Meter, peak_flops, peak_memory_bytes


@pytest.mark.parametrize(
    ("kind", "tera"),
    [
        ("TPU v5 lite", 197),
        ("TPU v5", 459),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("cpu", None),
    ],
)
def test_peak_of_a_device(kind: str, tera: float | None) -> None:
    peak = peak_flops(SimpleNamespace(device_kind=kind))  # type: ignore[arg-type]
    assert peak == (None if tera is None else tera * 1e12)


def test_rates_of_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 104.0, 104.0, 105.0, 105.0])
    monkeypatch.setattr(throughput.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    meter = Meter(peak_flops=1e12)
    for _ in range(2):
        meter.add(tokens=1000, images=8, flops=1e12)
    meter.waited(1.0)
    read = meter.read()
    del read["peak_memory_bytes"]
    assert read == {
        "tokens_per_second": 500,
        "tokens_per_second_per_device": 250,
        "images_per_second_per_device": 2,
        "step_seconds": 2,
        "mfu": 0.25,  # 2e12 in 4 s, of 2e12 a second
        "data_wait_fraction": 0.25,
        "compilations": 0,
    }
    assert meter.read()["tokens_per_second"] == 0  # a new window


def test_compilations_are_counted_between_readings() -> None:
    meter, shapes = Meter(peak_flops=None), iter(np.arange(2, 9))
    step = jax.jit(lambda x: x * 3.7 + 1)
    for fresh in (2, 0, 1):
        for _ in range(fresh):
            step(np.ones(next(shapes), np.float32))
        step(np.ones(2, np.float32))  # known by now
        assert meter.read()["compilations"] == fresh


def test_no_utilisation_without_a_known_peak() -> None:
    meter = Meter(peak_flops=None)
    meter.add(tokens=1, images=0, flops=1.0)
    assert meter.read()["mfu"] is None


@pytest.mark.slow
def test_memory_is_the_fullest_devices_or_the_processs(monkeypatch: pytest.MonkeyPatch) -> None:
    before = peak_memory_bytes()
    block = np.ones(before, np.uint8)
    assert peak_memory_bytes() > max(before, block.nbytes)
    fake = [SimpleNamespace(memory_stats=lambda n=n: {"peak_bytes_in_use": n}) for n in (5, 7)]
    monkeypatch.setattr(jax, "local_devices", lambda: fake)
    assert peak_memory_bytes() == 7
