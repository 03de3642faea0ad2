"""What Linux offers to lock code in, called without any helper program: for wardens only.

The walls of a sandbox are five layers, each of which has to be there: namespaces (user, mount, pid,
net, ipc, uts), a root of its own in which all but ``/tmp`` is read-only, no capabilities, no new
privileges, and a filter of system calls. The kernel must be 5.14 or newer: processes are counted
per user namespace since then.

The standard library only, since it is loaded by an isolated interpreter. Raises `Refused` with the
layer that is missing; nothing is ever left out silently.
"""

import contextlib
import ctypes
import errno
import os
import platform
import resource
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

NOBODY: Final = 65534
"""The user and group that code runs as, where the worker is root and can choose."""

OLD_ROOT: Final = "/.old"

SYSTEM_PATHS: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
"""What programs and libraries need; mounted read-only. Nothing else of the host is visible."""

SYSTEM_FILES: Final = ("/etc/ld.so.cache", "/etc/localtime")

DEVICES: Final = {
    "null": "null",
    "zero": "full",
    "full": "full",
    "random": "random",
    "urandom": "urandom",
}
"""Devices by name, and which of the host's each is. Shared memory can be had from ``zero`` by
mapping it, and no limit counts that once it is unmapped; ``full`` gives zeros, and can't be."""

_CLONE_NEW: Final = {
    "user": 0x10000000,
    "mount": 0x00020000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
}
_ANY_NEW: Final = 0x7E020080
"""Every CLONE_NEW* flag, those of time and cgroup namespaces included."""

_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_MNT_DETACH: Final = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 1, 4, 22, 24
_PR_SET_SECUREBITS, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 28, 36, 38, 47
_SECCOMP_MODE_FILTER: Final = 2
_SECUREBITS: Final = 0b101111
"""No privileges from being user 0, nor from changing to it; locked."""
_CAP_VERSION_3: Final = 0x20080522
_MAX_CAPABILITIES: Final = 64
_MOUNT_SETATTR: Final = 442
"""The same number on every architecture, as all system calls since Linux 5.1."""

_SIGKILL: Final = 9

_ARCHITECTURES: Final = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""The kernel's mark of each, and its column in `_DENIED`."""

_PIVOT_ROOT: Final = (155, 41)

_ABSENT: Final = 0xFFFFFFFF
"""The number of a system call that an architecture doesn't have."""

_DENIED: Final = {
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": _PIVOT_ROOT,
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "syslog": (103, 116),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "personality": (135, 92),
    "modify_ldt": (154, _ABSENT),
    "iopl": (172, _ABSENT),
    "ioperm": (173, _ABSENT),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "fanotify_init": (300, 262),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "open_tree_attr": (467, 467),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
}
"""System calls that change namespaces or mounts, look into other processes, hold memory that no
limit of ours counts, or are doors into the kernel that plain code never needs."""

_CLONE, _CLONE3, _SOCKET, _SOCKETPAIR = (56, 220), 435, (41, 198), (53, 199)
_MMAP: Final = (9, 222)
_MAP_SHARED, _MAP_ANONYMOUS, _MAP_HUGETLB = 0x1, 0x20, 0x40000
_FAMILIES: Final = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
"""Kinds of sockets that may be made. Others, such as AF_VSOCK, reach beyond a net namespace."""


class Refused(Exception):
    """A layer of the isolation is not to be had; the text says which, and the kernel's reason."""


_libc: Final = ctypes.CDLL(None, use_errno=True)


def new_namespaces() -> bool:
    """Enter namespaces of our own; the next fork gives the first process of the pid namespace.

    Returns:
        Whether there is an unprivileged user to change to (the worker is root).
    """
    uid, gid = os.geteuid(), os.getegid()
    write_maps = _helper(os.getpid()) if uid == 0 else None
    flags = sum(flag for name, flag in _CLONE_NEW.items() if name != "mount")
    try:
        _call("unshare", _libc.unshare, flags)
    except OSError as error:
        raise Refused(f"namespaces of users, processes and networks: {error}") from error
    if write_maps is not None and write_maps():
        return True
    try:
        with contextlib.suppress(FileNotFoundError):
            Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise Refused(f"the map of users: {error}") from error
    return False


def new_root(tmp_bytes: int, tmp_files: int) -> None:
    """Make a root of our own: the system and Python read-only, ``/tmp`` empty and bounded."""
    try:
        _call("unshare", _libc.unshare, _CLONE_NEW["mount"])
        _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
        with contextlib.suppress(OSError):  # the filter of system calls forbids it as well
            Path("/proc/sys/user/max_user_namespaces").write_text("0")
        binds = _binds()
        _mount("tmpfs", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755,size=1m")
        os.mkdir(f"/tmp{OLD_ROOT}")
        _pivot("/tmp", f"/tmp{OLD_ROOT}")
        os.chdir("/")
        _furnish(tmp_bytes, tmp_files)
        for source, target in binds:
            _bind(source, target)
        _call("umount2", _libc.umount2, OLD_ROOT.encode(), _MNT_DETACH)
        os.rmdir(OLD_ROOT)
        _restrict("/", recursive=False)
        os.chdir("/tmp")
    except OSError as error:
        raise Refused(f"a root of its own: {error}") from error


def drop_privileges(*, to_nobody: bool) -> None:
    """Give up every capability for good, and every system call that plain code never needs."""
    try:
        _prctl(_PR_SET_SECUREBITS, _SECUREBITS)
        for capability in range(_MAX_CAPABILITIES):
            try:
                _prctl(_PR_CAPBSET_DROP, capability)
            except OSError as error:
                if error.errno != errno.EINVAL:  # EINVAL: the kernel has no more of them
                    raise
                break
        if to_nobody:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        _prctl(_PR_CAP_AMBIENT, 4)  # clear all
        header = (ctypes.c_uint32 * 2)(_CAP_VERSION_3, 0)
        _call("capset", _libc.capset, header, (ctypes.c_uint32 * 6)())
        no_new_privileges()
        _prctl(_PR_SET_DUMPABLE, 0)
        _filter_calls()
    except OSError as error:
        raise Refused(f"dropping privileges: {error}") from error


def die_with_parent() -> None:
    """Be killed when the parent ends. Call it last: a change of credentials undoes it."""
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)


def no_new_privileges() -> None:
    """Gain nothing from starting a program, in this process and all that it starts."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        raise Refused("a list of descendants: /proc/PID/task/PID/children is missing")
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def limit(limits: Mapping[int, int]) -> None:
    """Set limits (``resource.RLIMIT_*``), soft and hard, for good.

    That of CPU ends code with a signal of its own, and a second later whoever ignores that.
    """
    for kind, value in limits.items():
        grace = 1 if kind == resource.RLIMIT_CPU else 0
        hard = resource.getrlimit(kind)[1]
        most = value + grace if hard == resource.RLIM_INFINITY else min(value + grace, hard)
        resource.setrlimit(kind, (max(grace, most - grace), most))


def _helper(pid: int) -> Callable[[], bool]:
    """A child outside the new user namespace: only from there can two users be mapped."""
    go_read, go_write = os.pipe()
    done_read, done_write = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(go_write)
        answer = b"n"
        if os.read(go_read, 1):
            with contextlib.suppress(OSError):
                for kind in ("gid_map", "uid_map"):
                    Path(f"/proc/{pid}/{kind}").write_text(f"0 0 1\n{NOBODY} {NOBODY} 1\n")
                answer = b"y"
        os.write(done_write, answer)
        os._exit(0)

    def write_maps() -> bool:
        os.write(go_write, b"g")
        answer = os.read(done_read, 1)
        os.waitpid(helper, 0)
        for fd in (go_read, go_write, done_read, done_write):
            os.close(fd)
        return answer == b"y"

    return write_maps


def _binds() -> list[tuple[str, str]]:
    """What of the host is to be seen: (where it really is, where it shall be)."""
    library = os.path.dirname(os.__file__)
    wanted = [*SYSTEM_PATHS, *SYSTEM_FILES, sys.base_prefix, sys.base_exec_prefix, library]
    binds: list[tuple[str, str]] = []
    for path in dict.fromkeys(wanted):
        covered = any(path == target or path.startswith(f"{target}/") for _, target in binds)
        if os.path.exists(path) and not covered:
            binds.append((os.path.realpath(path), path))
    return binds


def _bind(source: str, target: str) -> None:
    old = OLD_ROOT + source
    if os.path.isdir(old):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        Path(target).touch()
    _mount(old, target, None, _MS_BIND | _MS_REC)
    _restrict(target, recursive=True)


def _furnish(tmp_bytes: int, tmp_files: int) -> None:
    """The few things that programs expect besides libraries: ``/tmp``, devices, a user's name."""
    os.mkdir("/tmp", 0o1777)
    options = f"mode=1777,size={tmp_bytes},nr_inodes={tmp_files}"
    _mount("tmpfs", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, options)
    os.mkdir("/dev")
    for name, device in DEVICES.items():
        Path(f"/dev/{name}").touch()
        _mount(f"{OLD_ROOT}/dev/{device}", f"/dev/{name}", None, _MS_BIND)
    os.symlink("/tmp", "/dev/shm")
    os.mkdir("/etc")
    Path("/etc/passwd").write_text(f"nobody:x:{NOBODY}:{NOBODY}:nobody:/tmp:/bin/sh\n")
    Path("/etc/group").write_text(f"nogroup:x:{NOBODY}:\n")
    Path("/etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")


def _restrict(path: str, *, recursive: bool) -> None:
    """Make a mount, and those below it, read-only, without set-user-id programs and devices."""
    attributes = (ctypes.c_uint64 * 4)(_ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    _call(
        "mount_setattr",
        _libc.syscall,
        ctypes.c_long(_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        path.encode(),
        ctypes.c_uint(flags),
        attributes,
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )


def _filter_calls() -> None:
    """Install it: ``EPERM`` for `_DENIED`, new namespaces, odd sockets, memory nobody counts."""
    mark, column = _architecture()
    deny, unknown = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill = 0x7FFF0000, 0x80000000
    number, architecture, first_argument, fourth_argument = 0, 4, 16, 40
    program = [(load, 0, 0, architecture), (equal, 1, 0, mark), (give, 0, 0, kill)]
    program += [(load, 0, 0, number)]
    if column == 0:  # the x32 twins of the calls have numbers of their own
        program += [(at_least, 0, 1, 0x40000000), (give, 0, 0, deny)]
    for numbers in _DENIED.values():
        program += [(equal, 0, 1, numbers[column]), (give, 0, 0, deny)]
    # clone3 hides its flags behind a pointer: libraries fall back to clone, which shows them.
    program += [(equal, 0, 1, _CLONE3), (give, 0, 0, unknown)]
    program += [(equal, 0, 4, _CLONE[column]), (load, 0, 0, first_argument)]
    program += [(any_bit, 0, 1, _ANY_NEW), (give, 0, 0, deny), (give, 0, 0, allow)]
    # Shared memory without a file, and huge pages: no limit counts them once they are unmapped.
    program += [(equal, 0, 6, _MMAP[column]), (load, 0, 0, fourth_argument)]
    program += [(any_bit, 3, 0, _MAP_HUGETLB), (any_bit, 0, 1, _MAP_ANONYMOUS)]
    program += [(any_bit, 1, 0, _MAP_SHARED), (give, 0, 0, allow), (give, 0, 0, deny)]
    program += [(equal, 1, 0, _SOCKET[column]), (equal, 0, 5, _SOCKETPAIR[column])]
    program += [(load, 0, 0, first_argument)]
    program += [(equal, 3 - index, 0, family) for index, family in enumerate(_FAMILIES)]
    program += [(give, 0, 0, deny), (give, 0, 0, allow)]

    class Instruction(ctypes.Structure):
        _fields_ = (
            ("code", ctypes.c_uint16),
            ("jt", ctypes.c_uint8),
            ("jf", ctypes.c_uint8),
            ("k", ctypes.c_uint32),
        )

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(Instruction)))

    instructions = (Instruction * len(program))(*(Instruction(*line) for line in program))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, Program(len(program), instructions))


def _architecture() -> tuple[int, int]:
    machine = platform.machine()
    if machine not in _ARCHITECTURES or sys.maxsize < 2**32:
        raise Refused(f"a filter of system calls for {machine}: none has been written")
    return _ARCHITECTURES[machine]


def _pivot(root: str, old: str) -> None:
    number = _PIVOT_ROOT[_architecture()[1]]
    _call("pivot_root", _libc.syscall, ctypes.c_long(number), root.encode(), old.encode())


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    _call(
        f"mount {target}",
        _libc.mount,
        source.encode() if source else None,
        target.encode(),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )


def _prctl(option: int, value: int, pointer: object = 0) -> None:
    """All but the first two arguments must be zero unless they mean something."""
    third = ctypes.byref(pointer) if isinstance(pointer, ctypes.Structure) else ctypes.c_ulong(0)
    zero = ctypes.c_ulong(0)
    _call(f"prctl {option}", _libc.prctl, option, ctypes.c_ulong(value), third, zero, zero)


def _call(name: str, function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
