"""Files that are there whole or not at all, and what a disk refuses as one clear error."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from palimpsest.errors import StoreError


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """A full disk or a forbidden folder becomes one clear error."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            got, do = (
                "no space left on the disk",
                "free some space or choose another folder, then run the same command again",
            )
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            got, do = error.strerror or "a refusal", "choose a folder that you may write to"
        else:
            raise
        raise StoreError(f"{where}: got {got}, expected a folder with room to write; {do}") from error


HOST = hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()
DAY = 24 * 3600.0


def mark() -> str:
    """The end of a scratch file's or folder's name: the process and the machine that write it, and nothing else that has it."""
    return f"{os.getpid()}-{HOST}-{uuid.uuid4().hex}"


def abandoned(scratch: Path) -> bool:
    """Whether the process that a scratch file or folder is named after is gone, or is this one, which writes nothing now."""
    return scratch.name.rpartition(".")[2].startswith(f"{os.getpid()}-{HOST}-") or gone(scratch)


def gone(scratch: Path) -> bool:
    """Whether the process that a scratch file or folder is named after runs no more.

    Of another machine, whose processes cannot be seen from here: whether nothing was written to it for a day. What is named after
    no process is nobody's leftover: it stays.
    """
    owner, *others = scratch.name.rpartition(".")[2].split("-")
    if not owner.isdecimal():
        return False
    if len(others) == 2 and others[0] != HOST:
        try:
            return time.time() - scratch.stat().st_mtime > DAY
        except FileNotFoundError:
            return False
    return not alive(int(owner))


def alive(process: int) -> bool:
    """Whether a process of this number runs."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # somebody else's
    return True


def write_atomically(path: Path, data: bytes) -> None:
    """The file holds either its old bytes or all of the new ones, whenever the process dies."""
    scratch = path.with_name(f".{path.name}.{mark()}")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


_SCRATCH = re.compile(r"^\..+\.\d+-([0-9a-f]{8}-)?[0-9a-f]{32}$")


def clear_scratch(folder: Path) -> None:
    """Removes what `write_atomically` left below a folder in processes that were killed in the middle of it."""
    for path in folder.rglob(".*"):
        if _SCRATCH.match(path.name) and path.is_file() and abandoned(path):
            path.unlink(missing_ok=True)
