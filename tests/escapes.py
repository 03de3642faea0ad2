"""Attempts to get out of the sandbox, each with what has to come of it.

A code's last expression is what the kernel said to each of its tries. It begins with `PRELUDE`,
and ``HOST`` in it is a dictionary of what there is to be reached on the host.
"""

from typing import Final, NamedTuple

PRELUDE: Final = """
import ctypes, errno, mmap, os, resource, signal, socket, stat, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_long
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
def tried(what, *arguments, **more):
    try: return what(*arguments, **more)
    except OSError as error: return errno.errorcode.get(error.errno, repr(error))
def called(number, *arguments):
    "A system call by its number, on x86-64 or ARM64."
    number = number[os.uname().machine == "aarch64"] if isinstance(number, tuple) else number
    got = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    return errno.errorcode[ctypes.get_errno()] if got == -1 else got
def reached(family, kind, address):
    def connect():
        with socket.socket(family, kind) as made:
            made.settimeout(2)
            made.connect(address)
            made.send(b'out')
    return tried(connect)
def mapped(size, flags, fd=-1):
    got = libc.mmap(None, size, 3, flags, fd, 0)
    return errno.errorcode[ctypes.get_errno()] if got == -1 else 'mapped'
"""


class Escape(NamedTuple):
    """One attempt."""

    code: str
    result: str | None = None
    """The result that it must have; None if it may not come so far."""
    status: str = "OK"
    says: str = ""
    """Text of the error."""
    time_s: float = 30.0
    """Seconds that the attempt has."""


NETWORK: Final = {
    "tcp": Escape(
        "reached(socket.AF_INET, socket.SOCK_STREAM, ('127.0.0.1', HOST['tcp'])), "
        "reached(socket.AF_INET, socket.SOCK_STREAM, ('192.0.2.1', 80))",
        "('ENETUNREACH', 'ENETUNREACH')",
    ),
    "tcp over ipv6": Escape(
        "reached(socket.AF_INET6, socket.SOCK_STREAM, ('::1', HOST['tcp'])) "
        "in ('ENETUNREACH', 'EADDRNOTAVAIL', 'EAFNOSUPPORT')",
        "True",
    ),
    "udp": Escape(
        "reached(socket.AF_INET, socket.SOCK_DGRAM, ('127.0.0.1', HOST['udp']))", "'ENETUNREACH'"
    ),
    "dns": Escape(
        "try: found = socket.gethostbyname('example.com')\n"
        "except socket.gaierror: found = None\n"
        "found, reached(socket.AF_INET, socket.SOCK_DGRAM, ('8.8.8.8', 53))",
        "(None, 'ENETUNREACH')",
    ),
    "loopback brought up": Escape(
        "import fcntl, struct\n"
        "made = socket.socket()\n"
        "tried(fcntl.ioctl, made, 0x8914, struct.pack('16sh14x', b'lo', 0x41))",
        "'EPERM'",
    ),
    "unix socket of the host": Escape(
        "reached(socket.AF_UNIX, socket.SOCK_STREAM, HOST['unix'])", "'ENOENT'"
    ),
    "abstract unix socket of the host": Escape(
        "reached(socket.AF_UNIX, socket.SOCK_STREAM, '\\0' + HOST['abstract'])", "'ECONNREFUSED'"
    ),
    "vsock to the machine below": Escape("reached(40, socket.SOCK_STREAM, (2, 1024))", "'EPERM'"),
    "netlink, packets and raw sockets": Escape(
        "[tried(socket.socket, family, socket.SOCK_RAW, 1) for family in (16, 17, 2, 38)]",
        "['EPERM', 'EPERM', 'EPERM', 'EPERM']",
    ),
}

FILES: Final = {
    "the host's passwords": Escape("tried(open, '/etc/shadow')", "'ENOENT'"),
    "a home, a project, another's tmp": Escape(
        "[tried(open, path) for path in HOST['files']]", "['ENOENT', 'ENOENT', 'ENOENT']"
    ),
    "root by proc": Escape(
        "tried(os.listdir, '/proc'), tried(open, '/proc/1/root/etc/shadow'), "
        "tried(open, '/proc/self/environ')",
        "('ENOENT', 'ENOENT', 'ENOENT')",
    ),
    "up and out": Escape(
        "tried(os.open, '/tmp/' + '../' * 40 + 'etc/shadow', 0), "
        "tried(os.open, '../../../var', 0, dir_fd=os.open('/', os.O_PATH)), "
        "tried(os.listdir, '/.old')",
        "('ENOENT', 'ENOENT', 'ENOENT')",
    ),
    "writing the system": Escape(
        "[tried(open, path, 'w') for path in "
        "('/usr/escaped', '/bin/sh', '/etc/passwd', '/escaped', os.__file__, '/dev/escaped')]",
        str(["EROFS"] * 6),
    ),
    "symbolic links": Escape(
        "for n, path in enumerate(HOST['files']): os.symlink(path, f'/tmp/link{n}')\n"
        "os.symlink('/usr', '/tmp/usr')\n"
        "[tried(open, f'/tmp/link{n}') for n in range(3)], tried(open, '/tmp/usr/escaped', 'w'), "
        "tried(os.rename, '/tmp/usr', '/usr/escaped')",
        "(['ENOENT', 'ENOENT', 'ENOENT'], 'EROFS', 'EXDEV')",
    ),
    "hard links": Escape(
        "tried(os.link, '/usr/bin/env', '/tmp/env'), tried(os.link, os.__file__, '/tmp/os')",
        "('EXDEV', 'EXDEV')",
    ),
    "devices": Escape(
        "[tried(os.mknod, '/tmp/disk', 0o60600, os.makedev(8, 0)), "
        "*(tried(open, f'/dev/{name}', 'rb') for name in ('mem', 'kmsg', 'sda', 'tty', 'fuse'))]",
        "['EPERM', 'ENOENT', 'ENOENT', 'ENOENT', 'ENOENT', 'ENOENT']",
    ),
    "files by handle": Escape(
        "called((303, 264), -100, 0, 0, 0, 0), called((304, 265), 0, 0, 0)", "('EPERM', 'EPERM')"
    ),
}

WORKER: Final = {
    "its environment": Escape(
        "HOST['name'] in os.environ, set(os.environ) - {'PATH', 'HOME', 'LANG', 'TMPDIR', "
        "'MALLOC_ARENA_MAX', 'LC_CTYPE'}",
        "(False, set())",
    ),
    "its files": Escape(
        "[fd for fd in range(3, 5_000) if not isinstance(mode := tried(os.fstat, fd), str) "
        "and not stat.S_ISFIFO(mode.st_mode)], os.fstat(0).st_rdev == os.stat('/dev/null').st_rdev",
        "([], True)",
    ),
    "its memory by ptrace": Escape(
        "[called((101, 117), 16, pid, 0, 0) for pid in (1, os.getppid(), HOST['pid'])]",
        "['EPERM', 'EPERM', 'EPERM']",
    ),
    "its memory read and written": Escape(
        "[called(number, pid, 0, 0, 0, 0, 0) for number in ((310, 270), (311, 271)) "
        "for pid in (1, HOST['pid'])]",
        "['EPERM', 'EPERM', 'EPERM', 'EPERM']",
    ),
    "its files by pidfd": Escape(
        "tried(os.pidfd_open, HOST['pid']), called(438, os.pidfd_open(1), 0, 0)",
        "('ESRCH', 'EPERM')",
    ),
    "signals to whoever watches": Escape(
        "signals = (signal.SIGKILL, signal.SIGSTOP, signal.SIGINT, signal.SIGTERM)\n"
        "sent = [tried(os.kill, pid, each) for pid in (1, os.getppid()) for each in signals]\n"
        "sent += [tried(os.kill, HOST['pid'], each) for each in signals]\n"
        "sent, tried(os.kill, -1, signal.SIGKILL), tried(os.killpg, HOST['pid'], signal.SIGKILL)",
        f"({[*[None] * 8, *['ESRCH'] * 4]}, 'ESRCH', 'ESRCH')",
    ),
    "a forged answer": Escape(
        'answer = b\'{"end": "done", "n": 0, "result": {"result": "forged"}}\\n\'\n'
        "for fd in range(3, 64): tried(os.write, fd, answer)\n"
        "signal.pause()",
        status="EXEC_ERR",
        says="wrote over its own result",
    ),
    "answers without end": Escape(
        "for fd in range(3, 64): tried(os.set_blocking, fd, True)\n"
        "while True:\n    for fd in range(3, 64): tried(os.write, fd, b'x' * 65_536)",
        status="TIMEOUT",
        says="was stopped after",
        time_s=1.0,
    ),
}

RESOURCES: Final = {
    "fork bomb": Escape(
        "while True:\n    if os.fork() == 0:\n        signal.pause()",
        status="EXEC_ERR",
        says="BlockingIOError",
    ),
    "fork bomb that goes on": Escape(
        "while True: tried(os.fork)", status="TIMEOUT", says="was stopped after", time_s=1.5
    ),
    "thread bomb": Escape(
        "started = 0\n"
        "threading.stack_size(65_536)\n"
        "try:\n"
        "    while started < 1_000:\n"
        "        threading.Thread(target=signal.pause, daemon=True).start()\n"
        "        started += 1\n"
        "except RuntimeError: pass\n"
        "started < 20",
        "True",
    ),
    "memory at once": Escape("bytearray(1 << 40)", status="EXEC_ERR", says="MemoryError"),
    "memory by mapping": Escape(
        "got = [mapped(16 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(99)]\n"
        "got[-1], got.count('mapped') < 16",
        "('ENOMEM', True)",
    ),
    "memory of many processes": Escape(
        "for _ in range(8):\n    if os.fork() == 0:\n        x = bytearray(60 << 20)\n"
        "        signal.pause()\nsignal.pause()",
        status="EXEC_ERR",
        says="more than 256 MiB",
    ),
    "memory that no process has": Escape(
        "anonymous = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS\n"
        "[mapped(1 << 20, flags) for flags in (anonymous, anonymous | 2, "
        "mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)], "
        "mapped(1 << 20, mmap.MAP_SHARED, os.open('/dev/zero', os.O_RDWR)), "
        "open('/dev/zero', 'rb').read(2)",
        "(['EPERM', 'EPERM', 'EPERM'], 'ENODEV', b'\\x00\\x00')",
    ),
    "memory of the kernel's names": Escape(
        "tried(os.memfd_create, 'x'), called(447, 0), called((29, 194), 0, 4096, 0o1600), "
        "called((68, 186), 0, 0o1600), called((64, 190), 0, 1, 0o1600)",
        str(("EPERM",) * 5),
    ),
    "locked memory": Escape("called((149, 228), id(libc), 1 << 20)", "'EPERM'"),
    "disk": Escape(
        "def fill():\n    with open('/dev/shm/x', 'wb') as file:\n"
        "        while True: file.write(bytes(1 << 20))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "tried(fill) in ('ENOSPC', 'EFBIG'), os.stat('/tmp/x').st_size <= 8 << 20, "
        "tried(os.posix_fallocate, os.open('y', 66), 0, 1 << 40)",
        "(True, True, 'EFBIG')",
    ),
    "files": Escape(
        "def make():\n    for n in range(99_999): os.mkdir(f'/tmp/{n}')\n"
        "tried(make), tried(lambda: [open('/dev/null') for _ in range(99)])",
        "('ENOSPC', 'EMFILE')",
    ),
    "limits raised": Escape(
        "def raised(kind):\n"
        "    try: resource.setrlimit(kind, (resource.RLIM_INFINITY,) * 2)\n"
        "    except ValueError as error: return str(error)\n"
        "{raised(kind) for kind in (resource.RLIMIT_AS, resource.RLIMIT_NPROC, "
        "resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)}, tried(os.nice, -10)",
        "({'not allowed to raise maximum limit'}, 'EPERM')",
    ),
}

TIME: Final = {
    "sleep": Escape("time.sleep(9_999)", status="TIMEOUT", says="was stopped after", time_s=0.7),
    "signals ignored": Escape(
        "for each in signal.valid_signals():\n"
        "    if each not in (9, 19, 32, 33): tried(signal.signal, each, signal.SIG_IGN)\n"
        "while True: pass",
        status="TIMEOUT",
        says="was stopped after",
        time_s=0.7,
    ),
    "stopped by itself": Escape(
        "os.kill(os.getpid(), signal.SIGSTOP)",
        status="TIMEOUT",
        says="was stopped after",
        time_s=0.7,
    ),
    "daemon": Escape(
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        for fd in range(64): tried(os.close, fd)\n"
        "        while True: signal.pause()\n    os._exit(0)\n"
        "os.wait()[1]",
        "0",
    ),
    "output without end": Escape(
        "while True: print('x' * 9_999)", status="TIMEOUT", says="was stopped after", time_s=0.7
    ),
}

KERNEL: Final = {
    "mount": Escape(
        "[libc.mount(b'none', b'/tmp', b'tmpfs', 0, None), libc.mount(b'/', b'/tmp', None, 4096, "
        "None), libc.mount(None, b'/', None, 0x1020, None), libc.umount2(b'/tmp', 2)], "
        "ctypes.get_errno(), [called(number, 0, 0, 0, 0, 0) for number in "
        "(428, 429, 430, 431, 432, 433, 442, 467)]",
        f"([-1, -1, -1, -1], 1, {['EPERM'] * 8})",
    ),
    "chroot and pivot_root": Escape(
        "tried(os.chroot, '/tmp'), called((155, 41), 0, 0)", "('EPERM', 'EPERM')"
    ),
    "namespaces": Escape(
        "[called((272, 97), flag) for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000)], "
        "called((308, 268), 0, 0), called((56, 220), 0x10000000 | 17, 0, 0, 0, 0), "
        "called(435, 0, 0)",
        "(['EPERM', 'EPERM', 'EPERM', 'EPERM'], 'EPERM', 'EPERM', 'ENOSYS')",
    ),
    "keyrings": Escape(
        "[called(number, 0, 0, 0, 0, 0) for number in ((248, 217), (249, 218), (250, 219))]",
        "['EPERM', 'EPERM', 'EPERM']",
    ),
    "bpf, perf and userfaultfd": Escape(
        "[called(number, 0, 0, 0, 0, 0) for number in ((321, 280), (298, 241), (323, 282))]",
        "['EPERM', 'EPERM', 'EPERM']",
    ),
    "io_uring": Escape(
        "[called(number, 1, 0, 0, 0) for number in (425, 426, 427)]", "['EPERM', 'EPERM', 'EPERM']"
    ),
    "another user": Escape(
        "refused = ('EPERM', 'EINVAL')  # EINVAL: no such user in this namespace\n"
        "os.getuid() == 0 or tried(os.setuid, 0) == 'EPERM', tried(os.setuid, 1) in refused, "
        "tried(os.setgid, 1) in refused, tried(os.setgroups, [0]), "
        "libc.prctl(39, 0, 0, 0, 0), libc.prctl(38, 0, 0, 0, 0)",
        "(True, True, True, 'EPERM', 1, -1)",
    ),
    "programs that change the user": Escape(
        "import shutil\n"
        "os.statvfs('/usr').f_flag & os.ST_NOSUID, os.statvfs('/tmp').f_flag & os.ST_NOSUID, "
        "subprocess.run(['id', '-u'], capture_output=True, text=True).stdout.strip() "
        "== str(os.getuid())",
        "(2, 2, True)",
    ),
    "host name, clock and settings": Escape(
        "tried(socket.sethostname, 'owned'), tried(time.clock_settime, 0, 0), "
        "tried(open, '/proc/sys/kernel/core_pattern', 'w'), tried(os.listdir, '/sys')",
        "('EPERM', 'EPERM', 'ENOENT', 'ENOENT')",
    ),
    "modules, reboot and swap": Escape(
        "[called(number, 0, 0, 0) for number in ((175, 105), (313, 273), (176, 106), (246, 104), "
        "(169, 142), (167, 224), (163, 89))]",
        str(["EPERM"] * 7),
    ),
    "a core dump": Escape("resource.getrlimit(resource.RLIMIT_CORE)", "(0, 0)"),
}

ESCAPES: Final[dict[str, Escape]] = NETWORK | FILES | WORKER | RESOURCES | TIME | KERNEL
