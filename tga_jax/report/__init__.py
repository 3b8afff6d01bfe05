"""A run's results as one self-contained page, and as tables for a paper."""
