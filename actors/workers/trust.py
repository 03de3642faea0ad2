"""Whom the workers' connections trust: the host's own certificate authorities.

Or those that ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` name, as everywhere.
"""

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


@functools.cache
def trusted() -> "ssl.SSLContext":
    """What a client is given to verify servers by.

    Read once, which takes tens of milliseconds and blocks: in a coroutine, have a thread ask first.
    """
    import httpx2

    return httpx2.create_ssl_context()
