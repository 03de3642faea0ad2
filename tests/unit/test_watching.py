"""A warden's looks at what its family uses: no more than there is time for."""

import json
import subprocess
import sys
from typing import Final

CHUNKS: Final = 2_000

WATCHED: Final = f"""
import json, os, time
from actors.workers.processes import family
from actors.workers.processes.pipes import CHUNK, Lifeline, Streams
from actors.workers.processes.watching import LOOK_S, Watch

class Counting(Watch):
    looks = 0

    def excess(self):
        self.looks += 1
        return ""

streams = Streams({{"stdout": CHUNK}})
first = os.fork()
if first == 0:
    for _ in range({CHUNKS}):
        os.write(streams.write["stdout"], bytes(CHUNK))
    os._exit(0)
streams.leave()
watch = Counting(first, streams, Lifeline())
began = time.monotonic()
watch.watch(began + 60)
most = (time.monotonic() - began) / LOOK_S
family.bury(first)
streams.drain()
print(json.dumps([watch.end, streams.total["stdout"] // CHUNK, watch.looks, most]))
"""


def test_what_is_printed_brings_no_look_about() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WATCHED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        end, chunks, looks, most = json.loads(process.stdout.read())
    assert (end, chunks) == ("ended", CHUNKS)
    assert looks <= most
