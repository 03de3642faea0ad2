"""What runs in the peers' own virtual environment; of ours it imports `benchmarks.serving` only."""
