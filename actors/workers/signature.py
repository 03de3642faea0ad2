"""The parameters of a Python function as a JSON Schema, and arguments as the function wants them.

msgspec does both, from one type built from the signature, so that what the schema promises is what
the function gets: nested structs and dataclasses arrive as such.
"""

import copy
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from protocol.actions import Json
from protocol.errors import InvalidData

_MUTABLE: Final = (list, dict, set, bytearray)


class Seen(dict[str, Json]):
    """What a call may see of others: the values of those that are OK, by the id of their call.

    A tool has a parameter of this type to be given it. It is no part of the tool's schema: whoever
    makes the call names the others in its ``sees``.
    """

    def __init__(
        self, values: Mapping[str, Json] | None = None, failed: Mapping[str, Json] | None = None
    ) -> None:
        super().__init__(values or {})
        self.failed = dict(failed or {})
        """What those say that are not OK, by call."""


class Signature:
    """The parameters of one function.

    Args:
        function: What is called; every parameter must be annotated and passable by name.

    Raises:
        InvalidData: A parameter has no JSON form; names function, parameter and cure.
    """

    def __init__(self, function: Callable[..., object]) -> None:
        check_shape(function)
        self._name = _name(function)
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except Exception as error:
            raise InvalidData(
                f"An annotation of {self._name} can't be resolved: {error}.",
                hint="Import the type at the top of the module, outside `if TYPE_CHECKING`.",
            ) from error
        every = inspect.signature(function).parameters.values()
        seen = [parameter.name for parameter in every if hints[parameter.name] is Seen]
        if len(seen) > 1:
            raise InvalidData(
                f"{self._name} has several parameters for what a call sees: {', '.join(seen)}.",
                hint="Keep one of them.",
            )
        self.seen = next(iter(seen), "")
        """The parameter that is given what the call sees; "" if there is none."""
        self._parameters = [parameter for parameter in every if parameter.name != self.seen]
        for parameter in self._parameters:
            self._check(parameter, hints[parameter.name])
        self._type = msgspec.defstruct(
            "Arguments",
            [_field(parameter, hints[parameter.name]) for parameter in self._parameters],
            forbid_unknown_fields=True,
            kw_only=True,
        )
        self._docs = _described(function)

    def schema(self) -> dict[str, Json]:
        """JSON Schema (draft 2020-12) of the arguments, an object without further properties."""
        _, components = msgspec.json.schema_components([self._type], ref_template="#/$defs/{name}")
        top: dict[str, Json] = components.pop("Arguments")
        top.pop("title", None)
        for name, text in self._docs.items():
            if name in top["properties"]:
                top["properties"][name].setdefault("description", text)
        if components:
            top["$defs"] = components
        return top

    def convert(self, arguments: Mapping[str, Json]) -> dict[str, Any]:
        """The arguments as the function's types.

        Raises:
            msgspec.ValidationError: They don't fit; the text names the place.
        """
        made = msgspec.convert(arguments, self._type)
        return {parameter.name: getattr(made, parameter.name) for parameter in self._parameters}

    def _check(self, parameter: inspect.Parameter, hint: Any) -> None:
        try:
            msgspec.json.schema_components([hint])
            msgspec.json.schema(msgspec.defstruct("Arguments", [_field(parameter, hint)]))
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise InvalidData(
                f"Parameter {parameter.name!r} of {self._name} has no JSON Schema: {reason}",
                hint="Use str, int, float, bool, list[...], dict[str, ...], Literal, None, "
                "a dataclass or a msgspec.Struct, with defaults that are such values.",
            ) from error


def check_shape(function: Callable[..., object]) -> None:
    """Refuse, without resolving types, a function that can't be called by named arguments."""
    if not inspect.isfunction(function):
        raise InvalidData(
            f"{function!r} is no plain function, and only such can be tools.",
            hint="Wrap it: def name(x: int) -> int: return it(x)",
        )
    name = _name(function)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidData(
            f"{name} is a generator, and a tool has one result.",
            hint="Return a list of what it yields.",
        )
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            cure = f"remove the '/' after {parameter.name!r}: arguments are passed by name"
        elif parameter.kind is parameter.VAR_POSITIONAL:
            cure = f"replace '*{parameter.name}' by a parameter such as {parameter.name}: list[str]"
        elif parameter.kind is parameter.VAR_KEYWORD:
            cure = f"replace '**{parameter.name}' by named parameters, or one dict[str, ...]"
        elif parameter.annotation is parameter.empty:
            cure = f"annotate it, such as {parameter.name}: str"
        else:
            continue
        raise InvalidData(
            f"Parameter {parameter.name!r} of {name} can't be described to a policy.",
            hint=f"In {name}, {cure}.",
        )


def first_paragraph(function: Callable[..., object]) -> str:
    """The first paragraph of a function's docstring, as one line."""
    text = inspect.getdoc(function) or ""
    return " ".join(text.split("\n\n")[0].split())


def _name(function: Callable[..., object]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _field(parameter: inspect.Parameter, hint: Any) -> tuple[str, Any] | tuple[str, Any, Any]:
    default = parameter.default
    if default is parameter.empty:
        return parameter.name, hint
    if isinstance(default, _MUTABLE):
        return (
            parameter.name,
            hint,
            msgspec.field(default_factory=lambda: copy.deepcopy(default)),
        )
    return parameter.name, hint, default


def _described(function: Callable[..., object]) -> dict[str, str]:
    """What the docstring says of each parameter (Google, NumPy or reST style)."""
    import docstring_parser

    try:
        parsed = docstring_parser.parse(inspect.getdoc(function) or "")
    except docstring_parser.ParseError:
        return {}
    return {
        param.arg_name: " ".join(param.description.split())
        for param in parsed.params
        if param.description
    }
