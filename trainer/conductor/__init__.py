"""A conductor from a seed: taught by an imperfect teacher, corrected, practised, and measured.

::

    plan       all that it is made by, one file
    drilling   some questions to one small pool, of each whom to ask first
    teaching   the teacher's runs → conversations → examples, made beside the training
    correcting the model's own runs, and what the teacher would have done in them → examples
    practising groups of the model's own runs → rewards → advantages → examples
    stages     vocabulary, weights, SFT, correction, RL: each resumed where it stopped
    exam       how well it does on the gym's sets
    study      several seeds, with and without each stage, beside every baseline
    results    what a study found: joined, in pairs, as tables
    shipping   one of them into the package, through the gate: `make conductor`
"""
