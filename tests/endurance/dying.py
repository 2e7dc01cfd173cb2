"""A command that kills itself at a moment: `python dying.py MOMENT REPORT ARGUMENT...`

Moments are what a process does to the world: opening a file to write, renaming, linking, removing, making a folder,
changing a mode, forcing to the disk, starting a program, connecting. They are counted; before the one with the number
MOMENT the process sends itself SIGKILL, which nothing can catch. With 0 it lives, and the names of all moments are
written to REPORT, one a line, their paths after tabs. With threads the order varies a little between runs, the spread
does not.

A moment `+N` is in the middle of a write instead: the kernel ends the process when it makes any file longer than N
bytes. So SQLite, whose writes Python does not see, is cut off too.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from pathlib import Path
from typing import Any

EVENTS = frozenset(
    "os.rename os.link os.symlink os.remove os.rmdir os.mkdir os.chmod os.chown os.utime os.truncate "
    "subprocess.Popen socket.connect sqlite3.connect shutil.rmtree shutil.copyfile".split()
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Moments:
    def __init__(self, last: int) -> None:
        self.last = last
        self.names: list[str] = []
        self.lock = threading.Lock()

    def pass_one(self, name: str, *paths: str) -> None:
        with self.lock:
            self.names.append("\t".join([name, *paths]))
            if len(self.names) == self.last:
                os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event: str, given: tuple[Any, ...]) -> None:
        if event in EVENTS or (event == "open" and isinstance(given[2], int) and given[2] & WRITING):
            self.pass_one(event, *(os.fsdecode(one) for one in given if isinstance(one, str | bytes | os.PathLike)))


def main() -> None:
    moment, report, arguments = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    from runner.cli.main import run

    in_a_write = moment.startswith("+")
    moments, fsync = Moments(-1 if in_a_write else int(moment)), os.fsync

    def counted_fsync(descriptor: int) -> None:
        moments.pass_one("os.fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    os.fsync = counted_fsync  # there is no audit event for it
    os.umask(0o022)
    sys.addaudithook(moments.audit)
    if in_a_write:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(moment), int(moment)))
    code = run(arguments)
    names = list(moments.names)
    if moment == "0":
        report.write_text("".join(f"{name}\n" for name in names))
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
