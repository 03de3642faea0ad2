"""An explicit-state explorer of the ownership protocol: who may append, act and acknowledge.

``rules`` has one switch for each rule and the kinds of faults; ``mixes`` the scenarios; ``world``
runs the real decision code (`protocol.run`) on interned logs; ``broker``, ``conductor`` and
``moves`` say what can happen next in a ``state``; ``explore`` visits every state, checks the
invariants, and gives the shortest trace to a hole. ``docs/ownership.md`` explains the protocol and
what was found; ``python -m tests.model`` prints the tables of results.
"""
