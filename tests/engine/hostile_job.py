"""A job that tries to get out. It runs in the image, prints one JSON object, and needs the standard library only.

Each attempt does what a program would that has the right to: it is refused with an `OSError`, whose name is
reported, or it reports what it got. Nothing here harms a machine on which it succeeds.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import resource
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
GIVEN = json.loads(os.environ["GIVEN"])
OWN_FOLDERS = ("/workspace", "/tmp", "/home/replay", "/dev/shm", "/dev/mqueue", "/dev/pts")

WATCHED_BY_ALL = ("/proc/pressure",)  # writing there asks to be told, no more


def refused(attempt: Callable[[], object]) -> str:
    """The name of the error, or what the attempt got."""
    try:
        return f"got {attempt()!r}"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


def call(number: int, *arguments: object) -> int:
    ctypes.set_errno(0)
    result: int = LIBC.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def write_to(path: str, flags: int = 0) -> str:
    os.close(os.open(path, os.O_WRONLY | flags))
    return path


# --- network -------------------------------------------------------------------------------------------------


def connect(family: int, kind: int, address: object) -> str:
    with socket.socket(family, kind) as opened:
        opened.settimeout(2)
        opened.connect(address)  # type: ignore[arg-type]
        opened.send(b"x")
    return str(address)


def network() -> dict[str, str]:
    tcp, udp, unix = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.AF_UNIX
    port = GIVEN["port"]
    found = {
        f"{name} {host}:{number}": refused(lambda h=host, n=number, k=kind: connect(socket.AF_INET, k, (h, n)))
        for name, kind in (("tcp", tcp), ("udp", udp))
        for host, number in (
            ("127.0.0.1", port), (GIVEN["gateway"], port), ("169.254.169.254", 80), ("192.0.2.1", 53)
        )
        if (name, host) != ("udp", "127.0.0.1")  # to itself a datagram can always be sent
    }  # fmt: skip
    found |= {f"socket {path}": refused(lambda p=path: connect(unix, tcp, p)) for path in GIVEN["sockets"]}
    return found | {
        "dns": refused(lambda: socket.getaddrinfo("example.org", 80)),
        "ipv6": refused(lambda: connect(socket.AF_INET6, tcp, ("2001:db8::1", 80))),
        "abstract socket of the host": refused(lambda: connect(unix, tcp, "\0" + GIVEN["abstract"])),
        "raw socket": refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)),
        "packet socket": refused(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
        "other interfaces": str(sorted(set(os.listdir("/sys/class/net")) - {"lo"})),
    }


# --- the host's files ----------------------------------------------------------------------------------------


def processes() -> Iterator[Path]:
    return (folder for folder in Path("/proc").iterdir() if folder.name.isdigit())


def files() -> dict[str, str]:
    """What the host has, looked for everywhere that a path of it may lead."""
    sources = {line.split()[3] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    roots = ["", "/proc/1/root", "/proc/self/root", "/proc/self/cwd" + "/.." * 9, *(f"{p}/root" for p in processes())]
    found = {
        f"{root}{path}": refused(lambda p=root + path: os.listdir(p) if os.path.isdir(p) else os.open(p, os.O_RDONLY))
        for root in roots
        for path in (*GIVEN["paths"], *(source for source in sources if source.startswith(GIVEN["store"])))
    }
    for process in processes():
        for name in ("environ", "cmdline"):
            try:
                text = (process / name).read_bytes()
            except OSError:
                continue
            if GIVEN["marker backwards"][::-1].encode() in text:
                found[f"{process}/{name}"] = "got the marker"
    for path in ("/dev/mem", "/dev/kmem", "/dev/port", "/dev/kmsg", "/dev/fuse", "/dev/loop0", "/dev/vda", "/dev/sda"):
        found[path] = refused(lambda p=path: os.open(p, os.O_RDONLY))
    for path in ("/proc/kcore", "/proc/kmsg", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"):
        found[path] = refused(lambda p=path: Path(p).read_bytes()[:9] or masked())
    for path in ("/sys/firmware", "/proc/acpi", "/proc/scsi"):
        found[path] = refused(lambda p=path: os.listdir(p) or masked())
    return found


def masked() -> None:
    raise OSError(errno.EPERM, "nothing in it")


def writable() -> list[str]:
    """Every place, outside of what is the job's own, that can be written to."""
    found = []
    for top, folders, names in os.walk("/"):
        if top == "/proc":
            folders[:] = [name for name in folders if not name.isdigit() and name not in ("self", "thread-self")]
        folders[:] = [name for name in folders if os.path.join(top, name) not in (*OWN_FOLDERS, *WATCHED_BY_ALL)]
        paths = [os.path.join(top, name) for name in names]
        found += [path for path in paths if os.access(path, os.W_OK) and not is_usual(path)]
        if not refused(lambda t=top: write_to(f"{t}/planted", os.O_CREAT)).startswith("E"):
            found.append(top)
    return found


def is_usual(path: str) -> bool:
    """Devices that every process has, and what the kernel refuses although the mode allows it."""
    mode = os.stat(path).st_mode
    return stat.S_ISCHR(mode) or os.path.islink(path) or refused(lambda: write_to(path)).startswith("E")


def switches() -> dict[str, str]:
    """Files that change the machine, or have it run a program."""
    groups = [f"/sys/fs/cgroup/{name}" for name in os.listdir("/sys/fs/cgroup")]
    places = [f"{group}/{name}" for group in groups for name in ("release_agent", "cgroup.procs", "devices.allow")]
    places += (
        "/proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/kernel/hostname /proc/sys/vm/drop_caches "
        "/proc/sys/fs/binfmt_misc/register /proc/sysrq-trigger /sys/kernel/uevent_helper /sys/power/state "
        "/sys/kernel/security /sys/fs/cgroup/cgroup.procs /etc/passwd /etc/group /etc/shadow /etc/hosts "
        "/etc/resolv.conf /etc/ld.so.preload /usr/bin/planted /planted /dev/planted"
    ).split()
    return {path: refused(lambda p=path: write_to(p, os.O_CREAT)) for path in places}


# --- rights --------------------------------------------------------------------------------------------------

NEW = {"user": 0x10000000, "mount": 0x00020000, "net": 0x40000000, "pid": 0x20000000, "cgroup": 0x02000000}
CAPABLE = struct.pack("5I", 1 << 25, 1, 0, 0, 0)
X86_64 = {
    "mount": (165, b"none", b"/mnt", b"tmpfs", 0, 0),
    "umount": (166, b"/etc/passwd", 2),
    "pivot_root": (155, b"/tmp", b"/tmp"),
    "fsopen": (430, b"tmpfs", 0),
    "open_tree": (428, -100, b"/", 1),
    "bpf": (321, 5, ctypes.create_string_buffer(128), 128),
    "perf_event_open": (298, ctypes.create_string_buffer(128), 0, -1, -1, 0),
    "userfaultfd": (323, 0),
    "keyctl": (250, 0, -3, 0),
    "add_key": (248, b"user", b"planted", b"x", 1, -3),
    "request_key": (249, b"user", b"planted", None, -3),
    "open_by_handle_at": (304, 0, ctypes.create_string_buffer(struct.pack("Ii8s", 8, 1, b"\2"), 16), 0),
    "init_module": (175, b"", 0, b""),
    "finit_module": (313, 0, b"", 0),
    "delete_module": (176, b"none", 0),
    "kexec_load": (246, 0, 0, None, 0),
    "iopl": (172, 3),
    "ioperm": (173, 0x80, 1, 1),
    "reboot": (169, 0, 0, 0, None),
    "swapon": (167, b"/none", 0),
    "acct": (163, b"/none"),
    "quotactl": (179, 0, None, 0, None),
    "syslog": (103, 3, ctypes.create_string_buffer(64), 64),
    "sethostname": (170, b"planted", 7),
    "fanotify_init": (300, 0, 0),
    "process_vm_readv of init": (310, 1, None, 0, None, 0, 0),
}


def in_new_namespace(flag: int) -> str:
    """By `clone`, whose child leaves at once."""
    child = call(56, flag | 17, None, None, None, None)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "a process"


def unshared(flag: int) -> str:
    child = os.fork()
    if child == 0:
        os._exit(LIBC.syscall(272, flag) and ctypes.get_errno())
    if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise OSError(code, "refused")
    return "a namespace"


def rights() -> dict[str, str]:
    own = Path("/tmp/own")
    own.write_text("x")
    found = {f"unshare {name}": refused(lambda f=flag: unshared(f)) for name, flag in NEW.items()}
    found |= {f"clone {name}": refused(lambda f=flag: in_new_namespace(f)) for name, flag in NEW.items()}
    found |= {name: refused(lambda a=arguments: call(*a)) for name, arguments in X86_64.items()}
    version = ctypes.create_string_buffer(struct.pack("II", 0x20080522, 0), 8)
    everything = ctypes.create_string_buffer(struct.pack("6I", *[0xFFFFFFFF] * 6), 24)
    return found | {
        "setns": refused(lambda: call(308, os.open("/proc/1/ns/net", os.O_RDONLY), 0)),
        "setuid": refused(lambda: os.setuid(0)),
        "setgid": refused(lambda: os.setgid(0)),
        "setgroups": refused(lambda: os.setgroups([0])),
        "capset": refused(lambda: call(126, version, everything)),
        "set the clock": refused(lambda: time.clock_settime(time.CLOCK_REALTIME, time.time())),
        "chown to root": refused(lambda: os.chown(own, 0, 0)),
        "file capability": refused(lambda: os.setxattr(own, "security.capability", CAPABLE)),
        "trusted attribute": refused(lambda: os.setxattr(own, "trusted.x", b"x")),
        "mknod character device": refused(lambda: os.mknod("/tmp/mem", stat.S_IFCHR | 0o666, os.makedev(1, 1))),
        "mknod block device": refused(lambda: os.mknod("/tmp/disk", stat.S_IFBLK | 0o666, os.makedev(254, 0))),
        "real time": refused(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))),
        "a better priority": refused(lambda: os.setpriority(os.PRIO_PROCESS, 0, -5)),
        "core files": refused(lambda: limit(resource.RLIMIT_CORE)),
        "a better place when memory ends": refused(lambda: Path("/proc/self/oom_score_adj").write_text("-1")),
        "chroot": refused(lambda: os.chroot("/tmp")),
    }  # fmt: skip


def limit(which: int) -> str:
    try:
        resource.setrlimit(which, (1, 1))
    except ValueError as error:
        raise OSError(errno.EPERM, str(error)) from error
    return "raised"


# --- others --------------------------------------------------------------------------------------------------


def others() -> dict[str, object]:
    """Namespaces, and whatever of other processes can be seen through them."""
    return {
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")},
        "processes": len(list(processes())),
        "shared memory": os.listdir("/dev/shm"),
        "message queues": os.listdir("/dev/mqueue"),
        "system v": Path("/proc/sysvipc/shm").read_text().splitlines()[1:],
        "abstract sockets": [word for word in Path("/proc/net/unix").read_text().split() if word[0] == "@"],
        "cgroup": Path("/proc/self/cgroup").read_text(),
        "devices": sorted(os.listdir("/dev")),
        "status": dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines()),
        "left to the engine": {
            "vsock": refused(lambda: socket.socket(40, socket.SOCK_STREAM)),
            "io_uring": refused(lambda: call(425, 4, ctypes.create_string_buffer(256))),
        },
    }  # fmt: skip


if __name__ == "__main__":
    assert platform.machine() == "x86_64", "the numbers of system calls are those of x86-64"
    print(
        json.dumps(
            {
                "network": network(),
                "files": files(),
                "writable": writable(),
                "switches": switches(),
                "others": others(),
                "rights": rights(),
            }
        )
    )
