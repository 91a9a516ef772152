"""Ctrl-C: the process ends at once, with one line, and leaves no file half written."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable

from sim.files import UNFINISHED

INTERRUPTED = 130
LAST_WORDS: list[Callable[[], str]] = []  # what else is to be said
_NEW_LINE = "\r\x1b[2K\x1b[?25h"  # over a progress bar, which hides the cursor


def end_on_interrupt() -> None:
    """Ends the process on SIGINT from a thread of its own.

    An exception in the main thread would wait for a compilation under way, or be lost in it.
    """
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, lambda *_: None)
    threading.Thread(target=_wait, args=(reads,), daemon=True).start()


def say_interrupted(*notes: str) -> None:
    """The line on stderr, and what else there is to say."""
    if sys.stderr is not None:
        print(f"{_NEW_LINE if sys.stderr.isatty() else ''}roofcast: interrupted", file=sys.stderr, flush=True)
        for note in filter(None, notes):
            print(f"note: {note}", file=sys.stderr, flush=True)


def _wait(reads: int) -> None:
    while os.read(reads, 1) != bytes([signal.SIGINT]):  # other signals that have a handler are told as well
        pass
    with contextlib.suppress(Exception):
        say_interrupted(*(words() for words in LAST_WORDS))
        for file in list(UNFINISHED):
            file.unlink(missing_ok=True)
    os._exit(INTERRUPTED)
