"""The trainer: the log becomes data sets, data sets become a better conductor.

::

    records     what a rollout is: what the policy was asked, said, and what came of it
    fold        a run's log → a `Rollout`, in one go or in pieces
    rewards/    named channels of a rollout, re-scored from the log at any time; presets of papers
    advantages  groups of rollouts → one advantage a rollout
    rows        a rollout's tokens → rows: each sampled token once, under its own prefix
    reinforcing groups of rollouts → one batch: rewards, advantages, and what they were like
    specfile    a TOML file, flags over it → what a data set or a training is asked to be
    datasets/   selections of runs → columnar files with a manifest, in one format a module
    learner/    rows → weights: one packed loss of weighted ``ce`` + ``pg`` + ``ref_kl``
    training/   data sets, or live runs → the next version of a model: `podium train`
    rollouts/   where rollouts come from: a log, live actors, or the fast lane in this process
    gym/        checkable tasks over real data, their pools, an oracle, baselines and scores
    small/      a small model from scratch: vocabulary, template, weights
    conductor/  a conductor from a seed: teaching, practice, exams, the table of all of it, and
                into the package
    versions/   which version of a model answers: what each did, and a gate against a worse one

Only `rollouts` and `gym` know the actors. Nothing is imported by this module: whoever reads a log
needs no torch.
"""
