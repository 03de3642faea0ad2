"""The package's public names: sorted, all there, and paid for only when used."""

import subprocess
import sys

import pytest

import protocol


@pytest.mark.parametrize("name", protocol.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(protocol, name) is not None


def test_each_name_has_one_home_and_every_home_is_listed() -> None:
    homes = [name for names in protocol._HOMES.values() for name in names]
    assert sorted(homes) == sorted(protocol.__all__)
    assert len(set(homes)) == len(homes)


@pytest.mark.parametrize("name", ["Orchestra", "step_", ""])
def test_a_name_that_there_is_not(name: str) -> None:
    with pytest.raises(AttributeError, match=f"'protocol' has no attribute '{name}'"):
        getattr(protocol, name)


def test_the_errors_load_nothing_else() -> None:
    code = "import sys, protocol.errors; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "protocol.errors" in loaded
    assert not {"msgspec", "jsonschema_rs", "protocol.run"} & set(loaded)
