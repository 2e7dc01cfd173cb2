"""An SSH server of its own process: it knows one key, and gives SFTP over the files of this machine.

    python ssh_server.py FOLDER PORT

Its host key and the user's are in the folder, `host` and `user`, with `user.pub` beside it. A limit on the size of
files ends it.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import asyncssh


async def serve(folder: Path, port: int) -> None:
    await asyncssh.listen(
        "127.0.0.1",
        port,
        server_host_keys=[str(folder / "host")],
        authorized_client_keys=str(folder / "user.pub"),
        sftp_factory=True,
    )
    await asyncio.Event().wait()


if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
