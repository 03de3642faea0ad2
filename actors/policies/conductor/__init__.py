"""The conductor that the package ships: a small model for what it was trained on, rules else.

::

    policy    `ConductorPolicy`: who decides, by the view alone
    marking   a typed question → its entities, and whether it is one of those learned
    card      what a model's folder says of it
    words     its tokenizer, and
    network   its arithmetic, with NumPy alone
    model/    the model: weights, vocabulary, card; `make conductor` makes it
"""

from actors.policies.conductor.policy import BY_RULES, NAME, ConductorPolicy

__all__ = ["BY_RULES", "NAME", "ConductorPolicy"]
