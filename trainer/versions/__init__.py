"""Which version of a model answers: what each did in runs, and whether a new one does worse.

::

    live        what versions did in the runs of a log
    gate        whether a version does worse than another, figure by figure
    promoting   asks the gate, and says in the model's log which version is current
"""
