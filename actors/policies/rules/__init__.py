"""The rules policy: plans simple questions by a grammar, without a model.

It is what `podium run` uses offline where the shipped conductor has not learned a question, and
the hand-written baseline that a trained conductor has
to beat. How it works: `lexer` (text to tokens, with the words of `lexicon` and `names`), `frame`,
`entities` and `arithmetic` (tokens to the tree of `tree`), `plan`
(the tree against the observations: what is known, what to ask next), `answer` and
`wording` (the figures in sentences), `policy` (all of it, as the port wants it).
"""

from actors.policies.rules.policy import (
    CANNOT_PARSE,
    FAMILIES,
    VERSION,
    Reading,
    RulesPolicy,
    reading,
)

__all__ = ["CANNOT_PARSE", "FAMILIES", "VERSION", "Reading", "RulesPolicy", "reading"]
