"""The command line: `main` runs a command and gives its exit code.

`app` has the tree of commands, `output` the shapes of what is printed, `world` what commands need
of the outside. Exit codes: 0 ok, 1 failed, 2 usage, 3 diverged, 4 not found or ambiguous, 5 busy or
unreachable (try again), 130 interrupted.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from podium.cli.world import World

EXIT_INTERRUPTED: Final = 130

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None, world: "World | None" = None) -> int:
    """Run one command.

    Args:
        arguments: Of the command line; those of the process by default.
        world: What it has to do with; the real one by default.

    Returns:
        The exit code.
    """
    from podium.cli.output import Output
    from podium.cli.world import World, enter
    from protocol.errors import Internal, PodiumError

    tokens = list(sys.argv[1:] if arguments is None else arguments)
    world = world or World()
    enter(world)
    as_json = "--json" in tokens[: tokens.index("--") if "--" in tokens else None]
    try:
        return _run(tokens, world)
    except PodiumError as error:
        Output(as_json, world).error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough. Closed here, or Python complains at its end.
        sys.stderr.close()
        return 1
    except Exception as error:
        import traceback

        world.stderr.write(traceback.format_exc())
        text = f"{type(error).__name__}: {error}"
        hint = "this is a bug: please report it with the lines above"
        Output(as_json, world).error(Internal(text, hint=hint))
        return Internal.exit_code


def _run(tokens: list[str], world: "World") -> int:
    from cyclopts import CycloptsError
    from rich.console import Console

    from podium.cli.app import make
    from protocol.errors import Usage

    app = make()
    colours = world.stdout.isatty() and not world.environment.get("NO_COLOR")
    console = Console(file=world.stdout, no_color=not colours, highlight=False)
    try:
        code = app(
            tokens,
            console=console,
            print_error=False,
            exit_on_error=False,
            result_action="return_value",
        )
    except CycloptsError as error:
        command = " ".join(["podium", *(error.command_chain or ())])
        raise Usage(str(error), hint=f"see what is possible: {command} --help") from None
    return code if isinstance(code, int) else 0
