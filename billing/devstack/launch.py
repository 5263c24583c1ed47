"""Become a server process that does not outlive its parent: `python -I -S launch.py PARENT SIGNAL UID GID COMMAND…`.

A program of its own instead of a `preexec_fn`, which is unsafe with threads. The order matters: the kernel forgets
the death signal when the user changes, so the user comes first. PARENT 0: the server may outlive its parent;
UID -1: the user stays. Linux only for the death signal; elsewhere a leftover is stopped by the next start.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
ORPHANED = 3  # exit code: the parent had gone before the death signal was armed


def main(arguments: list[str]) -> None:
    parent, death_signal, uid, gid = (int(argument) for argument in arguments[:4])
    command = arguments[4:]
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if parent and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(ORPHANED)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
