"""Models of ours: a folder of Transformers that answers many runs at once.

::

    question    what a model is asked
    serving     how it is hosted
    versions    the folder: versions published whole, and which one is current. No torch
    loading     a version, loaded and tried
    rows        keys and values of a batch, whose rows come and go
    sampler     the batch: one token for every row at a time
    server      `PolicyServer`: takes questions, gives replies, swaps versions
    remote      the same over NATS: one server, many conductors
    context     the tokens that a run's log ends with

Only ``loading``, ``rows`` and ``sampler`` need the extra ``local``, and they are loaded by who
hosts a model, never by a conductor.
"""
