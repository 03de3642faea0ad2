"""What a daemon does by itself, apart from Ray and a broker."""

from pathlib import Path

import pytest

from podium.daemon import only_one
from protocol.errors import Conflict


def test_who_finds_the_folder_taken_is_told_what_to_do(tmp_path: Path) -> None:
    with (
        only_one(tmp_path),
        pytest.raises(Conflict, match="a deployment is running") as caught,
        only_one(tmp_path),
    ):
        pass
    for cure in ("wait for it", "--folder", "`podium up` first"):
        assert cure in caught.value.hint
