"""How fast a stage is: step time, tokens and images a second, MFU, data wait, memory, and how
many programs were compiled on the way."""

from __future__ import annotations

import ctypes
import functools
import resource
import time

import jax

from tga_jax.parallel.devices import by_kind

Figures = dict[str, float | int | None]


def peak_flops(device: jax.Device) -> float | None:
    """The device's bfloat16 peak, FLOP/s; None where it is not known (CPUs)."""
    known = by_kind(device.device_kind)
    return None if known is None else known.peak_flops


def peak_memory_bytes() -> int:
    """The most that a device of this process held; where it does not tell, this process itself."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
    # Linux counts in KiB.
    return max(peaks) if peaks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def return_freed_memory() -> None:
    """Give what was freed back to the system, where the C library can (glibc).

    Compiling a step leaves hundreds of megabytes freed but held; they would stand beside the
    step's own buffers for the rest of the run.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another C library
        pass


@functools.cache
def compilations() -> list[float]:
    """The list of seconds of every compilation of this process since the first call, kept current.

    Those from a cache are included.
    """
    seconds: list[float] = []

    def note(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seconds.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(note)
    return seconds


class Meter:
    """Steps, tokens and time since the last reading; saving and compiling are left out.

    Compilations are counted between readings, restarts or not: a few at the start, then none.
    """

    def __init__(self, peak_flops: float | None) -> None:
        self._peak, self._compiled = peak_flops, len(compilations())
        self.restart()

    def restart(self) -> None:
        """Begin to count anew, for the next line of the log."""
        self._began = time.monotonic()
        self._wait = self._flops = 0.0
        self._tokens = self._images = self._steps = 0

    def waited(self, seconds: float) -> None:
        """Time spent waiting for data."""
        self._wait += seconds

    def add(self, *, tokens: int, images: int, flops: float) -> None:
        """Count a step that was dispatched.

        Args:
            tokens: real ones of the main sequences.
            images: that the vision tower encodes, the filling of rows with fewer included.
            flops: model FLOPs, on all devices together.
        """
        self._tokens += tokens
        self._images += images
        self._flops += flops
        self._steps += 1

    def read(self) -> Figures:
        """Figures of the window, which ends here."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        devices, peak, compiled = jax.device_count(), self._peak, len(compilations())
        out: Figures = {
            "tokens_per_second": self._tokens / seconds,
            "tokens_per_second_per_device": self._tokens / seconds / devices,
            "images_per_second_per_device": self._images / seconds / devices,
            "step_seconds": seconds / max(self._steps, 1),
            "mfu": None if peak is None else self._flops / seconds / (peak * devices),
            "data_wait_fraction": min(self._wait / seconds, 1.0),
            "peak_memory_bytes": peak_memory_bytes(),
            "compilations": compiled - self._compiled,
        }
        self._compiled = compiled
        self.restart()
        return out
