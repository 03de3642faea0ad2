"""What a warden's interpreter begins with: it makes known the modules beside this one.

Run as ``python -I -S isolated.py sandbox_child``. Such an interpreter has the standard library and
no path to anything of ours, so the packages around those modules are empty here: what they import
elsewhere, libraries and all, is never loaded.
"""

import importlib
import os
import sys
import types

PACKAGE = "actors.workers.processes"
"""Where this module and those beside it are."""


def main(name: str) -> None:
    """Run the ``main`` of a module beside this one, and end."""
    folder = os.path.dirname(os.path.abspath(__file__))
    for package in ("actors", "actors.workers", PACKAGE):
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = [folder] if package == PACKAGE else []
    run = importlib.import_module(f"{PACKAGE}.{name}").main
    for each in [each for each in sys.modules if each.partition(".")[0] == "actors"]:
        del sys.modules[each]  # code that is run in this interpreter has nothing to import here
    run()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
