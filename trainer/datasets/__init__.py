"""Data sets: selections of runs as columnar files with a manifest, in one format a module."""
