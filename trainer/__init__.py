"""The trainer: the log becomes data sets, data sets become a better conductor.

::

    records     a `Rollout`: what a run's policy was asked, what it said, and what came of it
    fold        a run's log → its rollout, in one go or in pieces
    rewards/    named channels of a rollout, re-scored from the log at any time; presets of papers
    advantages  groups of rollouts → one advantage a rollout
    rows        a rollout's tokens → rows: each sampled token once, under its own prefix
    datasets/   selections of runs → columnar files with a manifest, in one format a module
    learner/    rows → weights: one packed loss of weighted ``ce`` + ``pg`` + ``ref_kl``
    rollouts/   where rollouts come from: a log, live actors, or the fast lane in this process
    gate        two versions' scores, figure by figure → whether one does worse (intervals)
    promoting   a version through the gate, and all of it said in the model's log
    live        figures of a deployment's runs, by the version that made their replies
    training/   a training from beginning to end: by a data set, or as live actors play
    small/      a small model from scratch, that speaks the compact dialect
    gym/        checkable tasks over real data, their pools, an oracle, baselines and scores

Only `rollouts` and `gym` know the actors. Nothing is imported by this module: whoever reads a log
needs no torch.
"""
