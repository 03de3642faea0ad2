"""Runs in the formats of others: pure projections of the log, one module each.

`common` reads a run with the runs below it; `atif` makes an agent trajectory of it (ATIF 1.8),
`orchestration` a trace of who asked whom (the schema of arXiv 2605.02801). What agents wrote is
named by its hash unless it is asked for.
"""
