"""A pipe that ends with the parent, so that no child outlives it, not even after kill -9.

The supervisor holds the write end and never writes; the kernel closes it when the supervisor is
gone, whatever the reason, and the child that watches the read end takes its own process down.
"""

from __future__ import annotations

import os
import signal
import threading
import time

GRACE_S = 10.0  # between asking this process to stop and ending it


def watch_parent(read_fd: int) -> None:
    """Stop this process as soon as the other end of `read_fd` is closed."""
    os.set_inheritable(read_fd, False)
    threading.Thread(target=_wait_for_end, args=(read_fd,), name="lifeline", daemon=True).start()


def _wait_for_end(read_fd: int) -> None:
    while os.read(read_fd, 1):
        pass  # nobody writes; a byte would only mean that the parent is alive
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os.killpg(os.getpgrp(), signal.SIGKILL)  # a group of our own: see supervisor
