"""Libraries of others, each in an environment of its own, that read what we write.

Their packages would fight with ours over versions. An environment is a ``.venv-NAME``, made at the
first use and kept; a script of `tests.loaders` runs in it and prints one JSON object.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.borrowed import ROOT, alone

LOADERS: Final = ROOT / "tests" / "loaders"

TRL: Final = ("trl==1.16.0", "datasets==5.2.0", "accelerate==1.15.0", "torch==2.13.0")
VERIFIERS: Final = ("verifiers==0.4.0",)
VERL: Final = ("verl==0.9.1", "torch==2.13.0", "qwen_vl_utils")


def python_of(name: str, *packages: str) -> Path:
    """The Python of an environment that has these packages."""
    home = ROOT / f".venv-{name}"
    python, stamp = home / "bin" / "python", home / ".packages"
    wanted = "\n".join(packages)
    with alone():
        if not stamp.exists() or stamp.read_text() != wanted:
            if not python.exists():
                subprocess.run([sys.executable, "-m", "venv", home], check=True)
            command = [str(python), "-m", "pip", "install", "--quiet", *packages]
            subprocess.run(command, check=True)
            stamp.write_text(wanted)
    return python


def loaded(python: Path, loader: str, *arguments: str | Path) -> Any:
    """What a script says of what it has read: the last line that it prints."""
    plain = {"TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    command = [str(python), str(LOADERS / f"{loader}.py"), *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4_000:]
    return json.loads(done.stdout.splitlines()[-1])
