"""A command whose disk fills at a moment: `python failing.py MOMENT FOLDER REPORT ARGUMENT...`

Moments are what takes space below FOLDER: opening a file to write, making a folder, a link. They are counted; the one
with the number MOMENT fails, and so does every later one, with ENOSPC. With 0 none fails, and how many there were is
written to REPORT. That a full disk also lets writes to open files fail is tried on file systems that are really full.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
TAKES_SPACE = {"os.mkdir": 0, "os.link": 1, "os.symlink": 1}


class Disk:
    def __init__(self, full_at: int, folder: str) -> None:
        self.full_at = full_at
        self.folder = folder
        self.taken = 0
        self.lock = threading.Lock()

    def audit(self, event: str, given: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(given[2], int) and given[2] & WRITING:
            self.take(given[0])
        elif event in TAKES_SPACE:
            self.take(given[TAKES_SPACE[event]])

    def take(self, path: Any) -> None:
        if isinstance(path, int) or not os.fsdecode(path).startswith(self.folder):
            return
        with self.lock:
            self.taken += 1
            if 0 < self.full_at <= self.taken:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def main() -> None:
    moment, folder, report, arguments = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4:]
    from runner.cli.main import run

    disk = Disk(moment, folder)
    os.umask(0o022)
    sys.addaudithook(disk.audit)
    code = run(arguments)
    disk.folder = "/nowhere"
    report.write_text(str(disk.taken))
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
