"""What a fixed small set of runs gives in every format."""
