"""`podium effects`: what an event led to, across runs."""

from podium.cli.causes import PAGE, At, Content, Cursor, Limit, tell, with_number
from podium.cli.options import COMMON, Common


def effects(
    event: str,
    /,
    *,
    at: At = None,
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
    return tell(with_number(event, at, "effects"), "effects", (limit, cursor), content, common)
