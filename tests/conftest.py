"""Programs of these tests run for milliseconds and compile for seconds, so compiling is made cheap.

All of it is set in the environment before JAX is imported: module fixtures and child processes have
it too. What the user's own compile cache holds is neither read nor filled.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

CHEAP = {
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_COMPILATION_CACHE_DIR": str(Path(tempfile.gettempdir()) / "tga_jax_test_programs"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    # Tests run side by side, one thread each.
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
for _name, _value in CHEAP.items():
    os.environ.setdefault(_name, _value)
