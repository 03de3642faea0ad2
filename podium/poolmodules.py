"""The Python modules of a pool: imported from the folder of its file, and no other."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from protocol.actions import WorkerSpec
from protocol.errors import PodiumError, Usage
from protocol.registry import Registry


def tools(name: str, folder: Path) -> list[WorkerSpec]:
    """The functions of a module that are marked as tools, in their order."""
    from actors.workers.function import is_tool, spec_of

    module = _imported(name, folder)
    tools = [item for item in vars(module).values() if is_tool(item)]
    return [spec_of(item) for item in dict.fromkeys(tools)]


def _imported(name: str, folder: Path) -> ModuleType:
    own(name, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise Usage(
                f"there is no module {name!r}: no {name.replace('.', '/')}.py beside the pool file",
                hint=f"Write {folder / (name.replace('.', '/') + '.py')}, or correct the name.",
            ) from None
        raise Usage(
            f"it imports {error.name!r}, which is not installed",
            hint=f"pip install {error.name}",
        ) from None
    except PodiumError:
        raise
    except Exception as error:
        from actors.workers.outcomes import describe

        raise Usage(
            f"it can't be imported: {describe(error)}",
            hint=f"Try it: cd {folder} && python -c 'import {name}'",
        ) from None


def own(name: str, folder: Path) -> None:
    """Refuse a module that Python finds elsewhere although the pool's folder has one."""
    top = name.partition(".")[0]
    own = folder / f"{top}.py" if (folder / f"{top}.py").is_file() else folder / top / "__init__.py"
    loaded = sys.modules.get(top)
    file = getattr(loaded, "__file__", None)
    if loaded is not None and own.is_file() and file and Path(file).resolve() != own.resolve():
        raise Usage(
            f"the module {top!r} is {file} already, and the pool has another in {own}",
            hint="Give the pool's module a name of its own.",
        )


def import_from_all(folders: Sequence[str]) -> None:
    """Let Python import from several folders, the first of them first: see `import_from`."""
    for folder in reversed(folders):
        import_from(Path(folder))


def import_registered(registry: Registry, specs: Sequence[WorkerSpec]) -> Path | None:
    """Let Python import here what deployments imported for workers of just these definitions.

    Returns:
        The folder that is imported from first; None if none of them was ever registered.
    """
    known = registry.registered.values()
    folders = dict.fromkeys(each.folder for each in known if each.folder and each.spec in specs)
    for folder in folders:
        import_from(Path(folder))
    return Path([*folders][-1]) if folders else None


def import_from(folder: Path) -> None:
    """Let Python import from a folder first, here and in processes that are started from here."""
    text = str(folder)
    sys.path[:] = (text, *(path for path in sys.path if path != text))
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    others = (path for path in paths if path not in ("", text))
    os.environ["PYTHONPATH"] = os.pathsep.join((text, *others))
    importlib.invalidate_caches()
