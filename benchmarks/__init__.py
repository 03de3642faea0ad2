"""Benchmarks: what Podium costs beside a floor with no logic, and what it does beside its peers.

    python -m benchmarks floor|throughput|peers|inflight [--json] [--save]

`contender` says what is compared and how they take turns; `serving` is the measuring loop that all
of them share; `report` is what comes out. How to run and read them: ``docs/benchmarks.md``.

This module imports nothing: the peers load it in a virtual environment that holds nothing of
Podium's.
"""
