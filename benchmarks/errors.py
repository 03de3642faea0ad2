"""What the benchmarks raise for the person who runs them."""


class BenchmarkError(Exception):
    """A benchmark could not run. The message says why, and what to do next."""
