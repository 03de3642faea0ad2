"""`podium effects`: what an event led to, across runs."""

from podium.cli.causes import PAGE, Content, Cursor, Limit, tell
from podium.cli.options import COMMON, Common


def effects(
    event: str,
    /,
    *,
    limit: Limit = PAGE,
    cursor: Cursor = 0,
    content: Content = False,
    common: Common = COMMON,
) -> int:
    """What an event led to, the nearest first.

    Parameters
    ----------
    event
        RUN@NUMBER, such as yspt9@57.
    """
    return tell(event, "effects", (limit, cursor), content, common)
