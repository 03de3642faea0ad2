"""Arithmetic on a text of a stranger: only listed names, and a bound on every operation.

Python's own parser reads the text, and a walk over its tree does the sums, so that precedence and
number formats are those that everybody knows. Nothing is ever evaluated as Python.
"""

import ast
import math
import operator
import re
from collections.abc import Callable
from typing import Final, TypeAlias

Number: TypeAlias = int | float

MAX_EXPRESSION_CHARS: Final = 2_000
"""Characters of one expression: a sum over a full round of 64 calls fits with room."""

MAX_DIGITS: Final = 1_000
"""Decimal digits of any number on the way: checked before a power is computed, which else could
take hours."""

MAX_FACTORIAL: Final = 450
"""450! has exactly `MAX_DIGITS` digits or a little more."""

MAX_EXACT_FLOAT: Final = 2**53
"""Up to here a float that is whole is that whole number exactly."""

SIGNIFICANT_DIGITS: Final = 15
"""Digits that a float is sure of; rounding to them turns 0.30000000000000004 into 0.3."""


class CalculatorError(ValueError):
    """The expression can't be calculated; the text says why and how to mend it."""


def _total(*values: Number) -> Number:
    return sum(values)


def _mean(*values: Number) -> Number:
    return sum(values) / len(values)


def _median(*values: Number) -> Number:
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _round(value: Number, digits: Number = 0) -> Number:
    return round(value, int(max(-MAX_DIGITS, min(MAX_DIGITS, digits))))


def _factorial(value: Number) -> int:
    if value != int(value) or not 0 <= value <= MAX_FACTORIAL:
        raise CalculatorError(f"factorial takes a whole number from 0 to {MAX_FACTORIAL}.")
    return math.factorial(int(value))


FUNCTIONS: Final[dict[str, Callable[..., Number]]] = {
    "abs": abs,
    "average": _mean,
    "cbrt": math.cbrt,
    "ceil": math.ceil,
    "cos": math.cos,
    "exp": math.exp,
    "factorial": _factorial,
    "floor": math.floor,
    "ln": math.log,
    "log": math.log,
    "log10": math.log10,
    "log2": math.log2,
    "max": max,
    "mean": _mean,
    "median": _median,
    "min": min,
    "round": _round,
    "sin": math.sin,
    "sqrt": math.sqrt,
    "sum": _total,
    "tan": math.tan,
}
"""Functions that may be used. All take numbers; min, max, sum, mean and median any count of
them."""

VARIADIC_OF_ONE: Final = frozenset({"max", "min"})
"""Python's own want two numbers or more; of one number they are that number."""

CONSTANTS: Final[dict[str, Number]] = {"e": math.e, "pi": math.pi, "tau": math.tau}

_GLUED: Final = re.compile(r"(?<![A-Za-z_\d.])\d[\d.]*(?![eE][-+]?\d)[A-Za-z_]")
"""A number with a letter at its end. Python's parser reads some of these, with a warning."""

SPELLINGS: Final = str.maketrans({"×": "*", "÷": "/", "−": "-", "–": "-", "·": "*"})
"""Signs as people type them. The caret is translated too: a power, as on every pocket
calculator."""


def calculate(expression: str) -> Number:
    """The value of ``expression``. Raises `CalculatorError`."""
    if len(expression) > MAX_EXPRESSION_CHARS:
        raise CalculatorError(
            f"The expression has {len(expression)} characters; {MAX_EXPRESSION_CHARS} is the limit."
        )
    text = expression.translate(SPELLINGS).replace("^", "**").strip().rstrip("=?").strip()
    if not text:
        raise CalculatorError("The expression is empty. Give one such as 17 * (3 + 4).")
    if _GLUED.search(text):
        raise CalculatorError("A number stands right before a letter. Put a sign between them.")
    try:
        tree = ast.parse(text, mode="eval")
        return _tidy(_value(tree.body))
    except CalculatorError:
        raise
    except SyntaxError as error:
        raise CalculatorError(
            f"This is no expression (near character {error.offset}). Write it such as 17 * (3 + 4)."
        ) from None
    except ZeroDivisionError:
        raise CalculatorError("This divides by zero.") from None
    except OverflowError:
        raise CalculatorError("The result is too large.") from None
    except (ArithmeticError, MemoryError, RecursionError, TypeError, ValueError) as error:
        raise CalculatorError(f"This can't be calculated: {error}.") from None


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=bool() | complex()):
            raise CalculatorError("Only plain numbers can be used.")
        case ast.Constant(value=int() | float() as number):
            return _checked(number)
        case ast.Name(id=name):
            if name.casefold() in CONSTANTS:
                return CONSTANTS[name.casefold()]
            raise CalculatorError(f'"{name}" is no number. Known names: {", ".join(CONSTANTS)}.')
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=sign, right=right):
            return operate(sign, _value(left), _value(right))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return apply(name.casefold(), [_value(argument) for argument in arguments])
    raise CalculatorError(
        "Only numbers, + - * / // % **, parentheses and functions can be used: "
        f"{', '.join(sorted(FUNCTIONS))}."
    )


PLAIN_OPERATORS: Final[dict[type[ast.operator], Callable[[Number, Number], Number]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def operate(sign: ast.operator, left: Number, right: Number) -> Number:
    """One operation, bounded. Raises `CalculatorError` and Python's arithmetic errors."""
    if isinstance(sign, ast.Pow):
        return _power(left, right)
    plain = PLAIN_OPERATORS.get(type(sign))
    if plain is None:
        raise CalculatorError("Operators are + - * / // % and **.")
    return _checked(plain(left, right))


def _power(base: Number, exponent: Number) -> Number:
    if base and abs(base) != 1 and abs(math.log10(abs(base)) * exponent) > MAX_DIGITS:
        raise CalculatorError(f"This power has more than {MAX_DIGITS} digits.")
    result: Number | complex = base**exponent
    if isinstance(result, complex):
        raise CalculatorError("A root of a negative number is no real number.")
    return _checked(result)


def apply(name: str, arguments: list[Number]) -> Number:
    """One of `FUNCTIONS`, bounded. Raises as `operate` does."""
    function = FUNCTIONS.get(name)
    if function is None:
        raise CalculatorError(
            f'There is no function "{name}". Known are: {", ".join(sorted(FUNCTIONS))}.'
        )
    if not arguments:
        raise CalculatorError(f"{name} needs a number in its parentheses.")
    if len(arguments) == 1 and name in VARIADIC_OF_ONE:
        return arguments[0]
    return _checked(function(*arguments))


def _checked(number: Number) -> Number:
    if isinstance(number, float):
        if not math.isfinite(number):
            raise CalculatorError("The result is too large, or no number.")
    elif abs(number) >= 10**MAX_DIGITS:
        raise CalculatorError(f"A number here has more than {MAX_DIGITS} digits.")
    return number


def _tidy(number: Number) -> Number:
    if isinstance(number, int):
        return number
    rounded = float(f"{number:.{SIGNIFICANT_DIGITS}g}")
    if rounded.is_integer() and abs(rounded) <= MAX_EXACT_FLOAT:
        return int(rounded)
    return rounded
