"""The rules of the house that a linter can't say, each breach a line ``path:line: message``.

One pass over the syntax tree of every module: imports between our packages, the purity of
`protocol`, sizes, docstrings, sleeps. What a package loads when it is imported is asked of a fresh
interpreter. Each rule is shown a planted breach too, so that none can pass by finding nothing.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent

MAX_MODULE_LINES: Final = 500
"""Lines. Longer modules are where other projects of this kind say they suffer."""

MAX_FUNCTION_LINES: Final = 70
"""Lines: one screen."""

MAX_LINE_CHARS: Final = 100
"""Characters: two modules fit side by side."""

IMPORT_TIMEOUT_S: Final = 60
"""Seconds for a fresh interpreter to import one package on a busy machine."""

LIBRARY: Final = frozenset({"protocol", "replay", "actors", "trainer", "podium"})

MAY_IMPORT: Final[dict[str, frozenset[str]]] = {
    "protocol": frozenset(),
    "replay": frozenset({"protocol"}),
    "actors": frozenset({"protocol", "replay"}),
    "trainer": frozenset({"protocol", "replay"}),
    "trainer/gym": frozenset({"protocol", "replay", "actors"}),
    "trainer/rollouts": frozenset({"protocol", "replay", "actors"}),
    "podium": frozenset({"protocol", "replay", "actors", "trainer"}),
    "examples": frozenset({"podium"}),
    "deploy": LIBRARY,
    "benchmarks": LIBRARY,
    "tests": LIBRARY | {"benchmarks", "examples", "deploy"},
}
"""Which of our packages a package, or a folder of one, may import besides itself: arrows point one
way, and of the trainer only its gym and its rollouts know the actors."""

PROTOCOL_LIBRARIES: Final = frozenset({"msgspec", "jsonschema_rs"})
"""All that `protocol` may import beyond the standard library."""

IMPURE_MODULES: Final = frozenset(
    {"asyncio", "logging", "os", "pathlib", "random", "secrets", "socket", "subprocess"}
    | {"tempfile", "threading", "time", "uuid"}
)
"""Clocks, randomness, the environment, input and output: they reach `protocol` inside commands."""

IMPURE_CALLS: Final = frozenset(
    {"print", "input", "open", "datetime.date.today"}
    | {f"datetime.datetime.{name}" for name in ("now", "utcnow", "today")}
)

SLEEPS: Final = frozenset({"time.sleep", "asyncio.sleep"})

Breach = tuple[int, str]


def package_of(path: Path) -> str:
    """The top-level folder of a path relative to the root."""
    return path.parts[0]


def modules(root: Path) -> Iterator[Path]:
    """Every Python file below ``root``, relative to it; no hidden, built or installed ones."""
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in {"__pycache__", "build", "dist"}
            and not (here / name / "pyvenv.cfg").exists()
        )
        yield from ((here / name).relative_to(root) for name in sorted(files) if name[-3:] == ".py")


def names_of(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for, such as ``{"sleep": "time.sleep"}``."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """The full name of what is called, such as ``asyncio.sleep``; empty if it has none."""
    match node:
        case ast.Name(id=name):
            return names.get(name, name)
        case ast.Attribute(value=value, attr=attr):
            owner = dotted(value, names)
            return f"{owner}.{attr}" if owner else ""
        case _:
            return ""


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and top-level name of each import, those by a constant string included."""
    names = names_of(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                yield from ((node.lineno, alias.name.partition(".")[0]) for alias in aliases)
            case ast.ImportFrom(module=str(module), level=0):
                yield node.lineno, module.partition(".")[0]
            case ast.Call(func=func, args=[ast.Constant(value=str(module)), *_]) if dotted(
                func, names
            ) in {"importlib.import_module", "__import__"}:
                yield node.lineno, module.partition(".")[0]


def arrows(path: Path, tree: ast.Module, _lines: list[str]) -> Iterator[Breach]:
    """Imports between our packages go as ``MAY_IMPORT`` says."""
    package = package_of(path)
    if package not in MAY_IMPORT:
        yield 1, f"{package} is not in MAY_IMPORT of tests/test_tidy.py: say what it may import"
        return
    folder = "/".join(path.parts[:2])
    may = MAY_IMPORT.get(folder, MAY_IMPORT[package])
    for line, name in imported(tree):
        if name in MAY_IMPORT and name != package and name not in may:
            allowed = ", ".join(sorted(may)) or "nothing of ours"
            yield line, f"{package} may not import {name} (only {allowed})"


def purity(path: Path, tree: ast.Module, _lines: list[str]) -> Iterator[Breach]:
    """`protocol` imports no library but its two, and touches nothing outside its arguments."""
    if package_of(path) != "protocol":
        return
    for line, name in imported(tree):
        if name in IMPURE_MODULES:
            yield line, f"protocol may not use {name}: it arrives inside commands"
        elif name not in sys.stdlib_module_names | PROTOCOL_LIBRARIES | MAY_IMPORT.keys():
            yield line, f"protocol may not import {name} (only msgspec, jsonschema_rs)"
    names = names_of(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (name := dotted(node.func, names)) in IMPURE_CALLS:
            yield node.lineno, f"protocol may not call {name}: it arrives inside commands"


def sizes(_path: Path, tree: ast.Module, lines: list[str]) -> Iterator[Breach]:
    """Modules, functions and lines are short enough to be read at once."""
    if len(lines) > MAX_MODULE_LINES:
        yield 1, f"module has {len(lines)} lines, at most {MAX_MODULE_LINES}: split it"
    for number, text in enumerate(lines, start=1):
        if len(text) > MAX_LINE_CHARS:
            yield number, f"line has {len(text)} characters, at most {MAX_LINE_CHARS}"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield node.lineno, f"{node.name} has {length} lines, at most {MAX_FUNCTION_LINES}"


def docstrings(_path: Path, tree: ast.Module, _lines: list[str]) -> Iterator[Breach]:
    """Every module says what it is and why it exists."""
    if not (ast.get_docstring(tree) or "").strip():
        yield 1, "module has no docstring: say what it is and why it exists"


def sleeps(path: Path, tree: ast.Module, _lines: list[str]) -> Iterator[Breach]:
    """No test waits for a length of time; it waits for the thing itself."""
    if package_of(path) != "tests":
        return
    names = names_of(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or (name := dotted(node.func, names)) not in SLEEPS:
            continue
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        if any(isinstance(value, ast.Constant) and value.value for value in values):
            yield node.lineno, f"{name} in a test: wait for the thing itself, with a deadline"


RULES: Final[tuple[Callable[[Path, ast.Module, list[str]], Iterator[Breach]], ...]] = (
    arrows,
    purity,
    sizes,
    docstrings,
    sleeps,
)


def breaches(root: Path) -> list[str]:
    """All breaches below ``root``, in the order of files and lines."""
    found: list[str] = []
    for path in modules(root):
        text = (root / path).read_text(encoding="utf-8")
        try:
            tree = ast.parse(text)
        except SyntaxError as error:
            found.append(f"{path}:{error.lineno or 1}: does not parse: {error.msg}")
            continue
        lines = text.splitlines()
        here = sorted(breach for rule in RULES for breach in rule(path, tree, lines))
        found += [f"{path}:{line}: {message}" for line, message in here]
    return found


def test_the_house_is_tidy() -> None:
    found = breaches(ROOT)
    if found:
        pytest.fail("\n".join([f"{len(found)} breaches", *found]), pytrace=False)


PLANTED: Final = [
    ("protocol/a.py", "import replay.log", "a.py:2: protocol may not import replay"),
    ("replay/a.py", "from actors import ports", "a.py:2: replay may not import actors"),
    ("actors/a.py", "def f():\n    import podium", "a.py:3: actors may not import podium"),
    (
        "actors/a.py",
        "import importlib as il\nil.import_module('podium.cli')",
        "a.py:3: actors may not import podium",
    ),
    ("trainer/a.py", "import actors", "a.py:2: trainer may not import actors"),
    ("trainer/datasets/a.py", "import actors", "a.py:2: trainer may not import actors"),
    ("trainer/gym/a.py", "import podium", "a.py:2: trainer may not import podium"),
    ("podium/a.py", "import tests.conftest", "a.py:2: podium may not import tests"),
    ("examples/a.py", "import actors", "a.py:2: examples may not import actors (only podium)"),
    ("scripts/a.py", "", "a.py:1: scripts is not in MAY_IMPORT"),
    ("protocol/a.py", "import nats", "a.py:2: protocol may not import nats"),
    ("protocol/a.py", "from time import time", "a.py:2: protocol may not use time"),
    ("protocol/a.py", "import uuid", "a.py:2: protocol may not use uuid"),
    ("protocol/a.py", "import random as r", "a.py:2: protocol may not use random"),
    ("protocol/a.py", "from os import getenv", "a.py:2: protocol may not use os"),
    ("protocol/a.py", "print('x')", "a.py:2: protocol may not call print"),
    (
        "protocol/a.py",
        "from datetime import datetime as dt\ndt.now()",
        "a.py:3: protocol may not call datetime.datetime.now",
    ),
    ("replay/a.py", "x = 1\n" * MAX_MODULE_LINES, "a.py:1: module has 501 lines, at most 500"),
    (
        "replay/a.py",
        "async def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES,
        "a.py:2: f has 71 lines, at most 70",
    ),
    ("replay/a.py", "x = '" + "é" * 95 + "'", "a.py:2: line has 101 characters, at most 100"),
    ("tests/a.py", "import time\ntime.sleep(0.1)", "a.py:3: time.sleep in a test"),
    ("tests/a.py", "from time import sleep as s\ns(1)", "a.py:3: time.sleep in a test"),
    ("tests/a.py", "import asyncio\nasyncio.sleep(delay=1)", "a.py:3: asyncio.sleep in a test"),
    ("replay/a.py", "def f(:", "a.py:2: does not parse"),
]


@pytest.mark.parametrize(("name", "body", "expected"), PLANTED)
def test_a_planted_breach_is_found(tmp_path: Path, name: str, body: str, expected: str) -> None:
    _write(tmp_path / name, f'"""What, why."""\n{body}')
    found = breaches(tmp_path)
    assert len(found) == 1, found
    assert expected in found[0]


def test_a_module_without_a_docstring_is_found(tmp_path: Path) -> None:
    _write(tmp_path / "replay/a.py", "x = 1\n")
    assert breaches(tmp_path) == [
        "replay/a.py:1: module has no docstring: say what it is and why it exists"
    ]


def test_what_is_allowed_is_no_breach(tmp_path: Path) -> None:
    _write(tmp_path / "protocol/a.py", '"""x"""\nimport hashlib, msgspec, jsonschema_rs\n')
    _write(tmp_path / "replay/a.py", '"""x"""\nimport time, nats\nfrom protocol import run\n')
    _write(tmp_path / "trainer/rollouts/a.py", '"""x"""\nimport actors\n')
    _write(tmp_path / "replay/b.py", '"""x"""\ntime = 1\n' + "x = 1\n" * (MAX_MODULE_LINES - 2))
    _write(tmp_path / "tests/a.py", '"""x"""\nimport asyncio, podium\nasyncio.sleep(0)\n')
    _write(tmp_path / ".hidden/a.py", "import podium")
    _write(tmp_path / "env/pyvenv.cfg", "")
    _write(tmp_path / "env/a.py", "import podium")
    assert breaches(tmp_path) == []


IMPORT_AND_LIST_REFUSED: Final = """
import importlib, pkgutil, sys

package, deep, refused = sys.argv[1], sys.argv[2] == "deep", sys.argv[3].split(",")
asked = set()

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            asked.add(name)

sys.meta_path.insert(0, Watch())
root = importlib.import_module(package)
if deep:
    for found in pkgutil.walk_packages(root.__path__, package + "."):
        importlib.import_module(found.name)
print(*sorted(asked))
"""
"""Imports a package and says which refused modules were asked for, installed or not."""


def asked_for(root: Path, package: str, *, deep: bool, refused: str) -> str:
    """Which of the ``refused`` modules, comma-separated, importing a package looks for."""
    command = [sys.executable, "-c", IMPORT_AND_LIST_REFUSED, package]
    done = subprocess.run(
        [*command, "deep" if deep else "shallow", refused],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=IMPORT_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_protocol_loads_no_ray_nats_or_torch() -> None:
    assert asked_for(ROOT, "protocol", deep=True, refused="ray,nats,torch,openai,uvloop") == ""


def test_podium_loads_no_torch() -> None:
    assert asked_for(ROOT, "podium", deep=False, refused="torch,transformers,trainer") == ""


@pytest.mark.parametrize("module", ["actors.programs", "podium.daemon", "podium.poolcheck"])
def test_only_who_hosts_a_model_loads_torch_and_only_a_driver_ray(module: str) -> None:
    assert asked_for(ROOT, module, deep=False, refused="torch,transformers,tokenizers,ray") == ""


def test_a_planted_load_is_found(tmp_path: Path) -> None:
    _write(tmp_path / "planted/__init__.py", '"""x"""\n')
    _write(tmp_path / "planted/a.py", '"""x"""\ntry:\n    import heavy\nexcept ImportError: ...\n')
    assert asked_for(tmp_path, "planted", deep=False, refused="ray,heavy") == ""
    assert asked_for(tmp_path, "planted", deep=True, refused="ray,heavy") == "heavy"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
