"""Golden logs: runs as each released version really recorded them, which have to be read for ever.

::

    logs/<version>/<story>/manifest.json         what it is, and what has to come of it
                           <run>.commits.jsonl   the original bytes, one message a line
                           <run>.inbox.jsonl
                           prompts.jsonl         what policies were shown, one prompt a line
                           blobs/<sha256>
    must_fail/<what>/...                         the same; has to fail, for the reasons it names
    old_form/<what>/...                          the same, with events that need an upcaster

Nothing here is ever edited. ``python -m tests.golden.record VERSION`` adds a version's logs, and
refuses to touch those that are there; `spoil` made the other two. Every line is JSON, which needs
no Podium to be read.
"""
