"""Is a model safe on images: benchmarks, refusal judges and metrics. Pure functions and files."""
