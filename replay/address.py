"""Addresses of servers as they may be shown: what may stand in a URL is no secret on a screen."""


def shown(url: str) -> str:
    """The address, or those of a cluster, without users, passwords and tokens."""
    return ",".join(_one(each) for each in url.split(","))


def _one(url: str) -> str:
    scheme, between, rest = url.rpartition("://")
    return f"{scheme}{between}{rest.rpartition('@')[2]}"
