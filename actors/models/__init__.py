"""Models of ours: a folder of Transformers that answers many runs at once.

::

    question    what a model is asked
    serving     how it is hosted
    loading     a version, loaded and tried
    rows        keys and values of a batch, whose rows come and go
    decoder     the same for small models of the Llama family, faster, and from earlier turns on
    sampler     the batch: one token for every row at a time
    replies     a question to a row, and an ended row to a reply
    hosted      which versions are loaded, and which of them answers a question
    server      `PolicyServer`: takes questions, gives replies
    stepped     models that are driven by whoever asks them: no thread, no clock
    remote      the same over NATS: one server, many conductors
    context     the tokens that a run's log ends with

The folder, its versions and what was said of them are in `replay.model_folder` and
`replay.model_versions`. Only those that sample need the extra ``local``: ``loading``, ``rows``,
``decoder``, ``sampler``, ``replies``, ``stepped``. They are loaded by who hosts a model, never by a
conductor.
"""
