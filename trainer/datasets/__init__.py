"""Data sets: selections of runs as columnar files with a manifest, in one format a module.

::

    spec          what is asked for: which runs, of what kind, in which format
    facts         what the choice among runs goes by, a few numbers a run
    scoring       what a rollout is worth: a channel or a preset of `trainer.rewards`
    plan          facts → which runs are kept, in which order, and why the others are not
    sorting       more of them than memory holds: sorted, or in a queue, on the disk
    conversation  a rollout → messages, each reply with whether it is trained
    chat          messages → tokens, by a tokenizer's own template, with an exact mask
    made          kept rollouts → rows: of `sft`, `rl`, `preference`
    formats/      rows → bytes, one format a module
    parts         files that are there whole or not at all, and the ledger beside them
    manifest      what a data set is made of, and the hash of all of it
    build         all of it: incremental, and the same bytes however often it was cut short
    reader        rows again, as the learner takes them
    preview       rows as a person reads them

Two passes: the first reads each new run once and keeps its facts; the second reads what is kept
and writes it, a unit at a time.
"""
