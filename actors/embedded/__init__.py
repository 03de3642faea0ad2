"""What Podium brings along when nothing is configured: a broker on loopback.

    with NatsServer.start(Path(".podium/nats")) as server:
        user, password = server.credentials("conductor")
        broker = await nats.connect(server.url, user=user, password=password)

`NatsServer` starts or finds the server; `nats_config` says who may say what to it; `launch` gets
it going; `guard` is the process that takes it down when nobody needs it any more, and does the same
for what Ray's driver leaves; `probe` is one look at a server.
"""

from actors.embedded.nats_config import Role
from actors.embedded.nats_server import NatsServer

__all__ = ["NatsServer", "Role"]
