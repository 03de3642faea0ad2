"""The simulator: the real conductor, worker and log client on virtual time, with every fault.

Begin with `world`, which puts a deployment together, and `check`, which says what has to be true of
it. `run` plays histories by seed and makes a failing one small; `every` leaves no step out. Below
them stand the loop (`loop`), the broker (`server`, `streams`, `client`, `wire`), what goes wrong
(`faults`) and what is asked for (`scenario`, `user`). docs/simulator.md says what was found.
"""
