"""What users import: complete, sorted, and quick."""

import asyncio
import subprocess
import sys

import pytest

import podium
from protocol import errors

HEAVY = ("ray", "nats", "openai", "torch", "asyncio", "rich", "jsonschema_rs")


def test_every_public_name_is_there() -> None:
    for name in podium.__all__:
        assert getattr(podium, name) is not None
        assert name in dir(podium)


def test_names_are_sorted_and_have_homes() -> None:
    assert list(podium.__all__) == sorted(podium.__all__)
    assert sorted(podium._HOMES) == podium.__all__
    assert list(podium._HOMES) == podium.__all__


def test_the_whole_error_tree_is_public() -> None:
    tree = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.PodiumError)
    }
    assert tree <= set(podium.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'orchestra'"):
        _ = podium.orchestra  # type: ignore[attr-defined]


async def test_run_says_what_to_use_inside_a_loop() -> None:
    assert asyncio.get_running_loop().is_running()
    with pytest.raises(podium.Usage) as caught:
        podium.run("x")
    assert "await podium.run_async" in caught.value.hint


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_importing_podium_loads_nothing_heavy() -> None:
    code = f"import podium, sys; print([m for m in {HEAVY} if m in sys.modules])"
    assert python(code).strip() == "[]"


def test_help_loads_neither_servers_nor_clients() -> None:
    heavy = ("ray", "nats", "openai", "asyncio", "jsonschema_rs")
    code = (
        "import sys; from podium.cli import main; code = main(['--help']);"
        f"print(code, [m for m in {heavy} if m in sys.modules])"
    )
    assert python(code).splitlines()[-1] == "0 []"


@pytest.mark.parametrize(
    ("message", "hint", "whole"),
    [
        ("it has no template", "publish a whole one", "it has no template; publish a whole one"),
        ("It has none.", "Write one.", "It has none. Write one."),
        ("several\nlines", "Mend them.", "several\nlines\nMend them."),
        ("it is gone", "", "it is gone"),
    ],
)
def test_an_error_as_one_text(message: str, hint: str, whole: str) -> None:
    assert errors.PodiumError(message, hint=hint).whole() == whole
