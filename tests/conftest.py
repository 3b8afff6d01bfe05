"""Programs of these tests run for milliseconds and compile for seconds, so compiling is made cheap.

All of it is set in the environment before JAX is imported: module fixtures and child processes have
it too. What the user's own compile cache holds is neither read nor filled. A test that gives a
child process flags of XLA's appends them to these (tests/child_environment.py).
"""

from __future__ import annotations

import gc
import getpass
import os
import tempfile
from pathlib import Path

CHEAP = {
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_COMPILATION_CACHE_DIR": str(
        Path(tempfile.gettempdir()) / f"tga_jax_test_programs_of_{getpass.getuser()}"
    ),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    # Tests run side by side, one thread each. The emitters of fusions take two thirds of the
    # compile time; without them XLA uses its older ones.
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
for _name, _value in CHEAP.items():
    os.environ.setdefault(_name, _value)
# Files are named from the repository's root, wherever pytest was started.
os.chdir(Path(__file__).parents[1])

# Tracing makes millions of short-lived objects beside the many that imported libraries keep: with
# the default thresholds the collector takes a fifth of the time.
gc.set_threshold(200_000, 20, 100)
