"""A conductor from a seed: taught by an imperfect teacher, practised in the gym, measured there.

::

    plan       all that it is made by, one file
    teaching   the teacher's runs → conversations → examples, made beside the training
    practising groups of the model's own runs → rewards → advantages → examples
    stages     vocabulary, weights, SFT, RL: each resumed where it stopped
    exam       how well it does on the gym's sets
    study      the table: several seeds, with and without each stage, beside every baseline
    shipping   one of them into the package, through the gate: `make conductor`
"""
