"""The grammar of arithmetic: numbers and looked-up figures, joined by signs or by words."""

import re
from collections.abc import Callable
from typing import Final, TypeAlias, cast

from actors.policies.rules.entities import NUMERIC, EntityParser
from actors.policies.rules.lexer import Token
from actors.policies.rules.tree import (
    Calculate,
    Entity,
    Fact,
    Number,
    Operation,
    Operator,
    Property,
    Quantity,
    Query,
    Tell,
)

Operand: TypeAlias = Callable[[], Quantity | None]
"""A rule of the grammar: reads at the parser's position, and leaves it after what it read."""

MAX_NESTING: Final = 24
"""Parentheses and functions within each other."""

_MARKED: Final = {
    "total": "sum",
    "average": "average",
    "difference": "difference",
    "ratio": "/",
    "percent": "percent",
}
"""Markers of the lexicon that are functions in an expression."""

_FUNCTIONS: Final = (
    "abs|ceil|floor|round|sqrt|cbrt|log10|log2|log|ln|exp|factorial|min|max|sum|mean|median|"
    "average|pi"
)

_PURE: Final = re.compile(
    rf"(?:what(?:'s|’s| is| does)|how much is|calculate|compute|evaluate|"
    rf"work out|solve|please|value of|the|result of|\s)*"
    rf"(?P<expression>(?:[-+*/×÷−^%().,\d\s]|\b(?:{_FUNCTIONS})\b)+?)"
    rf"(?:equals?|equal|=|\?|\.|!|\s)*",
    re.IGNORECASE,
)


def pure(text: str) -> Calculate | None:
    """The expression, if the text is nothing but arithmetic in signs."""
    match = _PURE.fullmatch(" ".join(text.split()))
    if match is None:
        return None
    expression = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", match["expression"]).strip()
    if not re.search(r"\d", expression) or not re.search(r"[-+*/×÷−^%(]", expression[1:]):
        return None
    return Calculate(expression)


def read(tokens: list[Token]) -> Query | None:
    """The arithmetic that a sentence asks for, or None."""
    quantity = _Parser(tokens).sentence()
    return Tell((quantity,)) if isinstance(quantity, Operation) else None


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        # Filler carries nothing here; "is" is what "X is what percentage of Y" needs.
        self.entities = EntityParser(tokens)
        self.at = self.entities.at
        self.count = len(tokens)
        self.i = 0
        self.depth = 0
        self.property: Property | None = None
        """The property named last, for "that of Belgium"."""

    def sentence(self) -> Quantity | None:
        self.skip_filler("is", "as", "to", "by", "for")
        verb = self.at(self.i)
        if verb.kind == "verb":
            self.i += 1
            quantity = self.imperative(verb.value)
        else:
            quantity = self.expression()
            if quantity is not None and self.is_percentage():
                quantity = self.as_percentage(quantity)
        self.skip_filler("is")
        return quantity if self.i >= self.count else None

    def imperative(self, operator: str) -> Quantity | None:
        """As in "divide A by B", "subtract A from B"."""
        first = self.expression()
        between = self.at(self.i)
        wanted = {"/": {"by"}, "*": {"by", "with", "and"}, "+": {"to", "and"}, "-": {"from"}}
        if first is None or between.value not in wanted[operator]:
            return None
        self.i += 1
        second = self.expression()
        if second is None:
            return None
        pair = (second, first) if operator == "-" else (first, second)
        return Operation(cast(Operator, operator), pair)

    def is_percentage(self) -> bool:
        """As in "A is what percentage of B", "A as a percentage of B"."""
        start = self.i
        self.skip_filler("is", "as")
        if self.at(self.i) == Token("marker", "percent"):
            return True
        self.i = start
        return False

    def as_percentage(self, part: Quantity) -> Quantity | None:
        self.i += 1
        self.skip_filler("of")
        whole = self.expression()
        return None if whole is None else Operation("percent", (part, whole))

    def skip_filler(self, *words: str) -> None:
        while self.at(self.i).kind == "filler" or self.entities.is_word(self.i, *words):
            self.i += 1

    def expression(self) -> Quantity | None:
        return self.chain(self.term, {"+", "-"})

    def term(self) -> Quantity | None:
        return self.chain(self.power, {"*", "/", "//", "%"})

    def chain(self, operand: Operand, operators: set[str]) -> Quantity | None:
        left = operand()
        while left is not None and self.operator() in operators:
            operator = cast(Operator, self.at(self.i).value)
            self.i += 1
            right = operand()
            if right is None:
                return None
            left = Operation(operator, (left, right))
        return left

    def operator(self) -> str:
        token = self.at(self.i)
        return token.value if token.kind in {"operator", "op"} else ""

    def power(self) -> Quantity | None:
        base = self.primary()
        while base is not None and self.at(self.i).kind == "after":
            base = Operation("**", (base, Number(self.at(self.i).value)))
            self.i += 1
        if base is not None and self.operator() == "**":
            self.i += 1
            exponent = self.nested(self.power)
            return None if exponent is None else Operation("**", (base, exponent))
        return base

    def nested(self, rule: Operand) -> Quantity | None:
        if self.depth >= MAX_NESTING:
            return None
        self.depth += 1
        quantity = rule()
        self.depth -= 1
        return quantity

    def primary(self) -> Quantity | None:
        return self.nested(self._primary)

    def _primary(self) -> Quantity | None:
        self.skip_filler()
        token = self.at(self.i)
        match token.kind:
            case "number":
                return self.number()
            case "open":
                self.i += 1
                inside = self.expression()
                return inside if self.take("close") else None
            case "operator" if token.value == "-":
                self.i += 1
                operand = self.primary()
                return None if operand is None else Operation("-", (Number("0"), operand))
            case "multiple":
                self.i += 1
                self.skip_filler("of")
                operand = self.primary()
                return operand and Operation("*", (Number(token.value), operand))
            case "function":
                return self.function(token.value)
            case "marker" if token.value in _MARKED:
                return self.function(_MARKED[token.value])
        return self.figure()

    def take(self, kind: str) -> bool:
        found = self.at(self.i).kind == kind
        self.i += found
        return found

    def number(self) -> Quantity | None:
        number: Quantity = Number(self.at(self.i).value)
        self.i += 1
        while self.at(self.i).kind == "scale":
            number = Operation("*", (number, Number(self.at(self.i).value)))
            self.i += 1
        sign = self.at(self.i)
        percent = sign in (Token("operator", "%"), Token("marker", "percent"))
        if percent and self.entities.is_word(self.i + 1, "of"):
            self.i += 2
            whole = self.primary()
            share = Operation("/", (number, Number("100")))
            return None if whole is None else Operation("*", (share, whole))
        return number

    def function(self, name: str) -> Quantity | None:
        """A function and what it is of: "the sum of 1, 2 and 3", "the mean area of A and B"."""
        self.i += 1
        if name == "sqrt":
            self.skip_filler("of")
            operand = self.primary()
            return None if operand is None else Operation("sqrt", (operand,))
        start = self.i
        if self.at(start).kind == "property" and name in {"sum", "average", "difference"}:
            figures = self.figures()
            if len(figures) > 1:
                return self.applied(name, figures)
            self.i = start
            return self.figure() if name == "sum" else None
        self.skip_filler("of", "between", "from")
        parenthesis = self.take("open")
        operands = self.operands()
        if parenthesis and not self.take("close"):
            return None
        if name == "percent" and len(operands) == 1:
            self.skip_filler("is")
            part = self.expression()
            return None if part is None else Operation("percent", (part, operands[0]))
        return self.applied(name, operands)

    def applied(self, name: str, operands: list[Quantity]) -> Quantity | None:
        if name == "product":
            product = operands[0] if len(operands) > 1 else None
            for factor in operands[1:]:
                product = product and Operation("*", (product, factor))
            return product
        pair = name in {"difference", "/", "percent"}
        if len(operands) < 2 or (pair and len(operands) != 2):
            return None
        return Operation(cast(Operator, name), tuple(operands))

    def operands(self) -> list[Quantity]:
        """Quantities joined by commas, "and" and "to"."""
        found: list[Quantity] = []
        while (quantity := self.expression()) is not None:
            found.append(quantity)
            end = self.i
            while self.at(self.i).kind == "separator" or self.entities.is_word(self.i, "to"):
                self.i += 1
            if self.i == end:
                break
        return found

    def figures(self) -> list[Quantity]:
        """A property of several places: "population of Norway, Sweden and Denmark"."""
        name = self.numeric(self.i)
        if name is None:
            return []
        self.i += 1
        self.skip_filler("of", "in", "between")
        entities, self.i = self.entities.entity_list(self.i)
        return [figure_of(entity, name) for entity in entities]

    def figure(self) -> Quantity | None:
        """A looked-up number: "the population of France", "Spain's area", "that of Belgium"."""
        name = self.numeric(self.i)
        start = self.i
        if name is not None:
            self.i += 1
            self.skip_filler("of", "in", "on", "for")
        elif self.entities.is_word(self.i, "that", "of"):
            self.i += 1
            self.skip_filler("of", "in")
        read = self.entities.entity(self.i)
        if read is None:
            self.i = start
            return None
        self.i = read.after
        if name is None:
            trailing = self.i + (self.at(self.i).kind == "possessive")
            name = self.numeric(trailing)
            if name is not None:
                self.i = trailing + 1
        if name is None:
            self.i += self.at(self.i).kind == "possessive"
            name = self.property
        if name is None:
            return None
        self.property = name
        return figure_of(read.entity, name)

    def numeric(self, i: int) -> Property | None:
        token = self.at(i)
        is_number = token.kind == "property" and token.value in NUMERIC
        return cast(Property, token.value) if is_number else None


def figure_of(entity: Entity, name: Property) -> Fact:
    """The fact that is a number."""
    return Fact(entity, name)
