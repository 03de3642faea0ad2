"""The learner: examples → weights. One packed loss, so that SFT, RL and mixes are one path.

::

    example      what it is given: tokens, and how much each counts in which part of the loss
    options      what it is told: the objective, the optimiser, an adapter
    weighing     weights over normalisers of the whole batch, before it is cut into passes
    packing      passes: examples behind one another in a row, or padded below one another
    attention    of a packed row: each example for itself
    loading      a model and its tokenizer from a folder; adapters
    network      a model as the learner reads with it; how it may be read is tried on it
    loss         weighted ``ce + pg + ref_kl``
    muon         momentum whose singular values are all made about one
    stepping     AdamW and Muon, schedules, the norm of a gradient, an average of the weights
    learner      a batch in, an update out; published, saved and resumed
    checkpoints  folders from which training goes on to the bit
    order        which examples come when, a function of ``(seed, step)``
    fit          the loop, with a bar, metrics and checkpoints
    sinks        where metrics go: a file, OpenTelemetry
    observed     what a step's rollouts were like, for its metrics
    report       curves of trainings, drawn from their metrics

A training in a few lines::

    from trainer.learner.example import imitated
    from trainer.learner.fit import fit
    from trainer.learner.learner import Learner
    from trainer.learner.options import Objective, Options, Steps
    from trainer.learner.order import Shuffled
    from trainer.learner.sinks import FileSink

    options = Options(objective=Objective(per="token"), steps=Steps(kind="muon", rate=3e-3))
    learner = Learner.open(folder, options)
    source = Shuffled([imitated(row) for row in rows], size=64, seed=0)
    fit(learner, source, 500, checkpoints=kept, sinks=[FileSink(kept / "metrics.jsonl", "sft")])
    learner.write(empty_folder)

Nothing is imported by this module: `example` needs no torch. ``docs/learner.md`` says what each
option and each metric means.
"""
