"""Trainings: a data set, or a deployment's actors, and a model's folder → its next version.

::

    spec      what a training is asked to be: a TOML file, flags over it
    job       a training's own folder: what it is made by, checkpoints, metrics; what it publishes
    rows      a data set's rows as batches, each once an epoch
    tasks     what a live training asks: tasks of a file, or the gym's
    live      groups played by the actors with the newest version → rewards → a batch, and so on
    run       the three kinds of training, from beginning to end
    begin     an untrained small model, with a vocabulary of its texts

Whatever ends a training, the same call goes on with it. `podium train` is the shell around it.
"""
