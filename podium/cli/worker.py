"""`podium worker check`: try every worker of a pool file for real."""

import asyncio
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from podium.cli.options import COMMON, Common
from podium.cli.output import Output


def check(
    file: Annotated[Path, Parameter(help="A pool file (TOML).")],
    /,
    *,
    common: Common = COMMON,
) -> int:
    """Try every worker of a pool file: imports, schemas, keys, endpoints, the sandbox.

    Ends with 0 if all of them work, with 2 if one does not.
    """
    import msgspec

    from podium import poolcheck
    from podium.render_rich import table

    output = Output(common.json)
    findings = asyncio.run(poolcheck.check(file, common.load().config.secrets.place()))
    counts = {"ok": 0, "warning": 0, "failed": 0}
    for finding in findings:
        counts[finding.state] += 1
    lines = [[each.worker, each.adapter, each.state, each.found] for each in findings]
    output.read(
        [msgspec.to_builtins(finding) for finding in findings],
        table(["worker", "adapter", "state", "found"], lines, wide="found"),
        counts=counts,
    )
    output.cures((finding.worker, finding.hint) for finding in findings)
    if counts["failed"]:
        return 2
    output.hint(f'use it: podium run --pool {file} "…"')
    return 0
