"""Where metrics of training go: a file of JSON lines, OpenTelemetry, or whatever has `put`."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from protocol import semconv
from protocol.actions import Json
from protocol.errors import InvalidData
from replay.disk import fault, reading

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

Line = Mapping[str, Json]
"""Metrics of one step, by name; ``step`` counts from 1, and ``stage`` says what was trained."""


class Sink(Protocol):
    """Takes metrics."""

    def begin(self, step: int) -> None:
        """So many steps are done: those that were reported beyond them will come again."""

    def put(self, line: Line) -> None:
        """One step's."""


class FileSink:
    """A file of JSON lines, one a step.

    Args:
        path: Made with its folder. What it holds stays, but for steps that come again.
        stage: Written into each line, such as ``sft`` or ``rl``.
    """

    def __init__(self, path: Path, stage: str = "") -> None:
        self.path, self._stage = path, stage

    def begin(self, step: int) -> None:
        """Drop this stage's lines beyond a step, and one that was cut short.

        Raises:
            InvalidData: It holds what is no line of metrics.
            Denied, DiskFault: It can't be read or written.
        """
        kept = [
            line
            for line in lines(self.path)
            if line.get("stage", "") != self._stage or int(line["step"]) <= step
        ]
        draft = self.path.with_name(f".{self.path.name}.draft")
        with self._writing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in kept))
            draft.replace(self.path)

    def put(self, line: Line) -> None:
        """Append a line, in one write. Raises `Denied` or `DiskFault` if it can't."""
        named = {**line, "stage": self._stage} if self._stage else line
        with self._writing():
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, msgspec.json.encode(named) + b"\n")
            finally:
                os.close(descriptor)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise fault(f"{self.path} can't be written", error) from None


def lines(path: Path) -> list[dict[str, Any]]:
    """The metrics of a file, in its order; none if there is no file.

    Raises:
        InvalidData: A line that is not the last is none.
        Denied, DiskFault: It can't be read.
    """
    with contextlib.suppress(FileNotFoundError), reading(path):
        found: list[dict[str, Any]] = []
        told = path.read_bytes().split(b"\n")
        for number, line in enumerate(told, 1):
            if not line:
                continue
            try:
                one = msgspec.json.decode(line, type=dict[str, Any])
                one["step"] = int(one["step"])
            except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
                if number == len(told):  # its writer was killed within it
                    break
                raise InvalidData(
                    f"{path}:{number} is no line of metrics", hint="remove that line"
                ) from None
            found.append(one)
        return found
    return []


class OtelSink:
    """OpenTelemetry's instruments: those of `semconv.TRAIN_GAUGES`, and tokens as a counter.

    Args:
        meter: Of whatever provider exports them.
        attributes: Of each value, such as the policy's name.
    """

    def __init__(self, meter: "Meter", attributes: Mapping[str, str] | None = None) -> None:
        self._attributes = dict(attributes or {})
        self._gauges = {
            name: meter.create_gauge(name, unit=unit, description=description)
            for name, (unit, description) in semconv.TRAIN_GAUGES.items()
        }
        unit, description = semconv.TRAIN_COUNTERS[semconv.TRAIN_TOKENS]
        self._tokens = meter.create_counter(
            semconv.TRAIN_TOKENS, unit=unit, description=description
        )

    def begin(self, step: int) -> None:
        """Nothing: what was exported stays."""

    def put(self, line: Line) -> None:
        """Record a step."""
        for name, gauge in self._gauges.items():
            value = line.get(name.removeprefix(semconv.TRAIN))
            if isinstance(value, int | float):
                gauge.set(value, self._attributes)
        if isinstance(tokens := line.get("tokens"), int | float):
            self._tokens.add(tokens, self._attributes)
