"""deploy/systemd: the unit's directives, and its confinement of a process without systemd."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from pathlib import Path

from tests.support.deploy_tools import need

UNIT = Path(__file__).resolve().parents[2] / "deploy/systemd/external-task-bridge.service"
CURE = "apt-get install systemd"
_DENY_EPERM = 0x00050000 | 1  # SCMP_ACT_ERRNO(EPERM) of seccomp.h
_ALLOW = 0x7FFF0000  # SCMP_ACT_ALLOW
_PR_SET_NO_NEW_PRIVS, _PR_SET_MDWE, _REFUSE_EXEC_GAIN = 38, 65, 1  # linux/prctl.h
_UNKNOWN_CALL = -1  # of another architecture


def directives() -> dict[str, list[str]]:
    """Every directive's values, in the order in which they stand."""
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


def only(key: str) -> str:
    """The value of a directive that stands there once."""
    (value,) = directives()[key]
    return value


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`systemd-analyze`; it looks at files and asks no running systemd."""
    return subprocess.run(
        [need("systemd-analyze", CURE), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""},
    )


def allowed_calls() -> set[str]:
    """The system calls that SystemCallFilter= leaves, its groups written out."""
    calls = _calls("@default")  # which every list of allowed calls begins with
    for value in directives()["SystemCallFilter"]:
        named = {call for group in value.lstrip("~").split() for call in _calls(group)}
        calls = calls - named if value.startswith("~") else calls | named
    return calls


def _calls(name: str) -> set[str]:
    if not name.startswith("@"):
        return {name}
    lines = analyze("syscall-filter", name).stdout.splitlines()[1:]
    members = [line.strip() for line in lines if line.strip() and "#" not in line]
    return {call for member in members for call in _calls(member)}


def confine() -> None:
    """Put this process, for good, under the unit's system call filter and its ban on memory that
    is writable and executable.  Raises OSError where the kernel cannot.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    allowed = allowed_calls()
    for option, value in ((_PR_SET_NO_NEW_PRIVS, 1), (_PR_SET_MDWE, _REFUSE_EXEC_GAIN)):
        if libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), f"prctl {option}")
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(_DENY_EPERM)))
    for call in sorted(allowed):
        number = seccomp.seccomp_syscall_resolve_name(call.encode())
        if number != _UNKNOWN_CALL:
            seccomp.seccomp_rule_add(context, ctypes.c_uint32(_ALLOW), number, 0)
    if failed := seccomp.seccomp_load(context):
        raise OSError(-failed, "seccomp_load")
