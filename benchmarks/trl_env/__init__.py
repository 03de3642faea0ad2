"""What runs in TRL's own virtual environment; of ours it imports `benchmarks.serving` only."""
