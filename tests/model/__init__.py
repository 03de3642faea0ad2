"""An explicit-state explorer of the ownership protocol: who may append, act and acknowledge, and when.

``rules`` has one switch for each rule and the mixes of faults; ``world`` runs the real decision code
(`protocol.run`) on interned logs; ``moves`` says what can happen next in a state; ``explore`` visits
every state, checks the invariants, and prints the shortest trace to a hole. ``docs/ownership.md``
explains the protocol and what was found; ``python -m tests.model`` prints the table of results.
"""
