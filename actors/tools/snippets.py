"""Small programs run in this process: a part of Python, interpreted, with a bound on every step.

Assignments, loops, conditions, lists, comprehensions, arithmetic and `print`, without imports,
attributes or functions of one's own: what counting and adding up takes. Nothing is ever given to
Python to run, so no program can reach anything. The sandbox is for all else.
"""

import ast
import operator
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from actors.tools.calculator import CalculatorError, apply, operate

MAX_STEPS: Final = 20_000
"""Nodes of the program that are evaluated, each time anew: about 20 ms."""

MAX_ITEMS: Final = 5_000
"""Items of a list, and numbers of a range."""

MAX_PRINTED_CHARS: Final = 50_000
"""Characters of all that a program prints: what a report holds without a blob."""

MAX_CODE_CHARS: Final = 2_000
"""Characters of one program: what a task of the gym has is far shorter."""

Value: TypeAlias = Any
"""A number, a text, a truth value, or a list of them: one of lists could double at each step."""

COMPARISONS: Final[dict[type[ast.cmpop], Callable[[Value, Value], bool]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
}

LISTS: Final[dict[str, Callable[..., Value]]] = {
    "len": len,
    "list": list,
    "max": max,
    "min": min,
    "range": range,
    "sorted": sorted,
    "sum": sum,
}
"""Functions that may be used besides those of the calculator."""


class SnippetError(ValueError):
    """The program can't be run; the text says why."""


def run(code: str) -> list[str]:
    """The lines that a program prints. Raises `SnippetError`."""
    if len(code) > MAX_CODE_CHARS:
        raise SnippetError(f"The program has {len(code)} characters; {MAX_CODE_CHARS} at most.")
    try:
        tree = ast.parse(code)
        machine = _Machine()
        machine.block(tree.body)
    except (SnippetError, CalculatorError) as error:
        raise SnippetError(str(error)) from None
    except SyntaxError as error:
        raise SnippetError(f"This is no program (line {error.lineno}).") from None
    except (ArithmeticError, LookupError, MemoryError, RecursionError) as error:
        raise SnippetError(f"{type(error).__name__}: {error}.") from None
    except (TypeError, ValueError) as error:
        raise SnippetError(f"{type(error).__name__}: {error}.") from None
    return machine.printed


class _Machine:
    def __init__(self) -> None:
        self.names: dict[str, Value] = {}
        self.printed: list[str] = []
        self._steps, self._room = 0, MAX_PRINTED_CHARS

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise SnippetError(f"The program takes more than {MAX_STEPS} steps.")

    def block(self, body: Iterable[ast.stmt]) -> None:
        for statement in body:
            self._step()
            self._statement(statement)

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.names[name] = self.value(value)
            case ast.AugAssign(target=ast.Name(id=name), op=sign, value=value):
                self.names[name] = _operated(sign, self._name(name), self.value(value))
            case ast.For(target=ast.Name(id=name), iter=iterable, body=body, orelse=[]):
                for item in _items(self.value(iterable)):
                    self.names[name] = item
                    self.block(body)
            case ast.While(test=test, body=body, orelse=[]):
                while self.value(test):
                    self.block(body)
            case ast.If(test=test, body=body, orelse=orelse):
                self.block(body if self.value(test) else orelse)
            case ast.Expr(value=ast.Call(func=ast.Name(id="print"), args=args, keywords=[])):
                self._step()
                self._print([self.value(arg) for arg in args])
            case ast.Expr(value=value):
                self.value(value)
            case _:
                raise SnippetError(f"{type(node).__name__} can't be used here; the sandbox has it.")

    def _print(self, values: list[Value]) -> None:
        for value in values:
            self._room -= sum(
                len(str(each)) for each in (value if type(value) is list else [value])
            )
            if self._room < 0:
                raise SnippetError(f"It prints more than {MAX_PRINTED_CHARS} characters.")
        self.printed.append(" ".join(map(str, values)))

    def value(self, node: ast.expr) -> Value:
        self._step()
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as constant):
                return constant
            case ast.Name(id=name):
                return self._name(name)
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [_single(self.value(item)) for item in items]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self.value(operand)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self.value(operand)
            case ast.BinOp(left=left, op=sign, right=right):
                return _operated(sign, self.value(left), self.value(right))
            case ast.BoolOp(op=ast.And(), values=values):
                return all(self.value(each) for each in values)
            case ast.BoolOp(op=ast.Or(), values=values):
                return any(self.value(each) for each in values)
            case ast.Compare(left=left, ops=[sign], comparators=[right]):
                compare = COMPARISONS.get(type(sign))
                if compare is not None:
                    return compare(self.value(left), self.value(right))
            case ast.Subscript(value=inner, slice=index):
                return self.value(inner)[self.value(index)]
            case (
                ast.ListComp(elt=item, generators=[generator])
                | ast.GeneratorExp(elt=item, generators=[generator])
            ):
                return self._comprehension(item, generator)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return _called(name, [self.value(arg) for arg in args])
        raise SnippetError(f"{type(node).__name__} can't be used here; the sandbox has it.")

    def _name(self, name: str) -> Value:
        if name not in self.names:
            raise SnippetError(f"NameError: {name} has no value.")
        return self.names[name]

    def _comprehension(self, item: ast.expr, generator: ast.comprehension) -> list[Value]:
        if not isinstance(generator.target, ast.Name):
            raise SnippetError("A comprehension has one name; the sandbox takes more.")
        found = []
        for each in _items(self.value(generator.iter)):
            self.names[generator.target.id] = each
            if all(self.value(test) for test in generator.ifs):
                found.append(_single(self.value(item)))
        return found


def _operated(sign: ast.operator, left: Value, right: Value) -> Value:
    if isinstance(left, int | float) and isinstance(right, int | float):
        return operate(sign, left, right)
    if isinstance(sign, ast.Add) and type(left) is type(right) and isinstance(left, str | list):
        if len(left) + len(right) > MAX_ITEMS:
            raise SnippetError(f"This is longer than {MAX_ITEMS}.")
        return left + right
    raise SnippetError("TypeError: operators take numbers, and + two texts or two lists.")


def _called(name: str, arguments: list[Value]) -> Value:
    function = LISTS.get(name)
    if function is None:
        if not all(isinstance(each, int | float) for each in arguments):
            raise SnippetError(f"TypeError: {name} takes numbers.")
        return apply(name, arguments)
    found = function(*arguments)
    if name == "sum":
        return operate(ast.Add(), found, 0)
    return list(_items(found)) if isinstance(found, range | list) else found


def _single(value: Value) -> Value:
    """A value that may stand in a list."""
    if isinstance(value, list):
        raise SnippetError("A list of lists can't be made here; the sandbox has it.")
    return value


def _items(value: Value) -> Iterable[Value]:
    if not isinstance(value, range | list | str):
        raise SnippetError("TypeError: this can't be gone through item by item.")
    if len(value) > MAX_ITEMS:
        raise SnippetError(f"This has more than {MAX_ITEMS} items.")
    return value
