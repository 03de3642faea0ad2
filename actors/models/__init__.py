"""Models of ours: a folder of Transformers that answers many runs at once.

::

    question    what a model is asked
    serving     how it is hosted
    loading     a version, loaded and tried
    rows        keys and values of a batch, whose rows come and go
    sampler     the batch: one token for every row at a time
    hosted      which versions are loaded, and which of them answers a question
    server      `PolicyServer`: takes questions, gives replies
    remote      the same over NATS: one server, many conductors
    context     the tokens that a run's log ends with

The folder, its versions and what was said of them are in `replay.model_folder` and
`replay.model_versions`. Only ``loading``, ``rows`` and ``sampler`` need the extra
``local``, and they are loaded by who hosts a model, never by a conductor.
"""
