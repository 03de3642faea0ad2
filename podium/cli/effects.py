"""`podium effects`: what an event led to, across runs."""

from podium.cli.causes import FIRST, Page, tell


def effects(event: str, /, *, page: Page = FIRST) -> int:
    """What an event led to, the nearest first.

    Parameters
    ----------
    event
        RUN@NUMBER, such as yspt9@57.
    """
    return tell(event, "effects", page)
