"""Claims: of many processes, on many machines, one does a piece of work; a claim outlives no crash. No torch here.

A claim is a file created exclusively, which is atomic on local and on network file systems. Its owner touches
it every few seconds. Clocks of two machines are never trusted against each other: a claim that looks old is
watched first, and only one that nobody touches while we watch is taken over. Its owner may be alive all the same (a
suspended process, a laptop that slept): it finds another token in the file, or none, and must not write.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eva_bench.system.errors import UserError

HEARTBEAT_S = 5.0
STALE_S = 60.0  # a heartbeat this old needs a closer look
POLL_S = 0.2


class Busy(Exception):
    """Another live process holds the claim."""


class ClaimLost(Exception):
    """Another process took the claim over while this one stood still: the work is no longer ours to write."""


class Claim:
    """A claim that this process made."""

    def __init__(self, path: Path, owner: str):
        self.path, self.owner = path, owner
        self._seen = time.monotonic()

    def check(self, now: bool = True) -> None:
        """Make sure that the claim is still ours.

        Args:
            now: look at the file; otherwise only where the last look is longer ago than a heartbeat.

        Raises:
            ClaimLost: it is gone, or another's.
        """
        if not now and time.monotonic() - self._seen < HEARTBEAT_S:
            return
        try:
            ours = self.path.read_text() == self.owner
        except FileNotFoundError:
            ours = False
        except OSError:
            return  # a network file system's bad moment
        if not ours:
            raise ClaimLost(self.path.stem)
        self._seen = time.monotonic()

    def beat(self) -> bool:
        """Touch the claim, never one of somebody else; whether it is still ours."""
        try:
            with self.path.open() as file:  # the very file that is touched: a successor's is another
                if file.read() == self.owner:
                    os.utime(file.fileno())
                    return True
        except FileNotFoundError:
            pass
        except OSError:
            return True  # a network file system's bad moment
        return False

    def release(self) -> None:
        """Remove the claim, if it is still ours."""
        with contextlib.suppress(OSError):
            if self.path.read_text() == self.owner:
                self.path.unlink()


@contextmanager
def claim(path: Path, wait: bool, on_wait: Callable[[], None] = lambda: None) -> Iterator[Claim]:
    """Hold the claim on `path`; a claim whose owner died is taken over.

    Raises:
        Busy: somebody else holds it and `wait` is false.
        UserError: the claim cannot be written; nothing is left of it.
    """
    owner = json.dumps({"host": _host(), "pid": os.getpid(), "token": uuid.uuid4().hex})
    told = False
    while not _created(path, owner):
        if _is_dead(path):
            _bury(path)
            continue
        if not wait and path.exists():
            raise Busy(path.stem)
        if not told:
            on_wait()
            told = True
        time.sleep(POLL_S)
    held, done = Claim(path, owner), threading.Event()
    heart = threading.Thread(target=_beat, args=(held, done), daemon=True)
    heart.start()
    try:
        yield held
    finally:
        done.set()
        heart.join()
        held.release()


def is_running(path: Path) -> bool:
    """Whether a claim is there and looks alive, at a glance: may be wrong after a crash on another machine."""
    owner, age = _read(path)
    return owner is not None and not _owner_is_gone(owner) and abs(age) <= STALE_S


def _created(path: Path, owner: str) -> bool:
    try:
        return _create(path, owner)
    except OSError as error:
        raise UserError(f"The results folder '{path.parent.parent}' cannot be written: {error.strerror}.") from error


def _create(path: Path, owner: str) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = path.open("x")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(owner)
    except OSError:  # a full disk
        path.unlink(missing_ok=True)
        raise
    return True


def _read(path: Path) -> tuple[dict[str, Any] | None, float]:
    """Owner and age in seconds; (None, 0) for a file that is just being written or removed."""
    try:
        age = time.time() - path.stat().st_mtime
        owner = json.loads(path.read_text() or "null")
    except (OSError, ValueError):
        return None, 0.0
    if owner is None and abs(age) > STALE_S:
        owner = {}  # its owner died between creating and writing the file
    return owner, age


def _is_dead(path: Path) -> bool:
    """The owner is a process of this machine that is gone, or nobody touched the claim while we watched."""
    owner, age = _read(path)
    if owner is None:
        return False
    if _owner_is_gone(owner):
        return True
    return abs(age) > STALE_S and _lies_still(path)


def _owner_is_gone(owner: dict[str, Any]) -> bool:
    if owner.get("host") != _host() or not isinstance(owner.get("pid"), int):
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _host() -> str:
    """Within one host name and process namespace (containers share names), a process id means one process."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _lies_still(path: Path) -> bool:
    """No heartbeat for two and a half of its periods, by our own steady clock."""
    before = _touched(path)
    deadline = time.monotonic() + 2.5 * HEARTBEAT_S
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        if _touched(path) != before:
            return False
    return before is not None


def _touched(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino


def _bury(path: Path) -> None:
    """Remove a dead claim. One process at a time, so that nobody removes the claim of a quicker successor."""
    lock = path.with_name(f"{path.name}.takeover")
    try:
        lock.open("x").close()
    except FileExistsError:
        with contextlib.suppress(OSError):
            if abs(time.time() - lock.stat().st_mtime) > STALE_S:
                lock.unlink()  # whoever was burying died
        time.sleep(POLL_S)
        return
    try:
        if _is_dead(path):
            path.unlink(missing_ok=True)
    finally:
        lock.unlink(missing_ok=True)


def _beat(held: Claim, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT_S) and held.beat():
        pass
