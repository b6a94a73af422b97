"""Who works on a partition: a lease with a heartbeat.

`<table>/leases/<partition>/lease.<n>` is created exclusively and names its holder; while the holder lives,
`beat.<n>` is written anew beside it. A lease is dead when its process is gone, which only a run on the same
machine can see, or without a beat for `EXPIRY_SECONDS`: the next run creates lease n + 1. What a dead holder
might still write is fenced out by the generation of its commit.

Work that several processes do one after the other keeps its lease between them: `kept.<n>` names the holder and until
when; whoever takes lease n + 1 before that must come under the same name, also when lease n was released or its process
died. A lease that ends without having been kept again is free for all.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from features import storage
from features.errors import HeldError

BEAT_SECONDS = 10.0
EXPIRY_SECONDS = 60.0
LEASE_PATTERN = re.compile(r"^lease\.(\d{6})$")


class Lease:
    """A lease on some partitions of one table; a context manager.

    Raises:
        HeldError: on entering, when another live run holds one of them: who, since when.
    """

    def __init__(self, folder: str, partitions: Sequence[str], holder: str) -> None:
        self._folder = folder
        self._partitions = tuple(partitions)
        self._holder = holder
        self._numbers: dict[str, int] = {}
        self._stop = threading.Event()
        self._lost: str | None = None
        self._thread = threading.Thread(target=self._beat, name="lease-heartbeat", daemon=True)

    def __enter__(self) -> Self:
        try:
            for partition in self._partitions:
                self._numbers[partition] = self._take(partition)
        except HeldError:
            self._release()
            raise
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._release()

    def keep(self, time: datetime.timedelta) -> None:
        """Leave it to nobody but those of the same holder for `time` from now, whatever becomes of this process."""
        until = datetime.datetime.now(datetime.UTC) + time
        named = {"holder": self._holder, "until": until.isoformat(timespec="seconds")}
        for partition, number in self._numbers.items():
            storage.create_exclusively(self._url(partition, "kept", number), json.dumps(named).encode())

    def check(self) -> None:
        """Raise HeldError when the lease was lost while working."""
        if self._lost is not None:
            raise HeldError(self._lost)

    def _describe(self) -> bytes:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        named = {"holder": self._holder, "host": socket.gethostname(), "pid": os.getpid(), "since": now}
        return json.dumps(named | {"machine": machine(), "started": start_mark(os.getpid())}).encode()

    def _latest(self, partition: str) -> tuple[int, storage.FileEntry | None]:
        entries = storage.list_files(f"{self._folder}/{partition}")
        leases = [(int(match.group(1)), entry) for entry in entries if (match := LEASE_PATTERN.match(entry.name))]
        return max(leases, key=lambda item: item[0], default=(0, None))

    def _take(self, partition: str) -> int:
        number, entry = self._latest(partition)
        if entry is not None and not self._is_over(partition, number, entry):
            raise HeldError(self._held_message(partition, number, entry))
        if not storage.create_exclusively(self._url(partition, "lease", number + 1), self._describe()):
            taken, winner = self._latest(partition)
            raise HeldError(self._held_message(partition, taken, winner))
        return number + 1

    def _kept(self, partition: str, number: int) -> dict[str, str] | None:
        """By whom and until when, if that is another holder and not past."""
        url = self._url(partition, "kept", number)
        if not storage.exists(url):
            return None
        kept: dict[str, str] = json.loads(storage.read_bytes(url))
        is_past = datetime.datetime.fromisoformat(kept["until"]) <= datetime.datetime.now(datetime.UTC)
        return None if is_past or kept["holder"] == self._holder else kept

    def _is_over(self, partition: str, number: int, entry: storage.FileEntry) -> bool:
        if self._kept(partition, number) is not None:
            return False
        if storage.exists(self._url(partition, "released", number)):
            return True
        if is_gone(json.loads(storage.read_bytes(entry.url))):
            return True
        beats = [
            e.mark for e in storage.list_files(f"{self._folder}/{partition}") if e.name.startswith(f"beat.{number:06d}")
        ]
        newest = max([entry.mark, *beats])
        return time.time_ns() - newest > EXPIRY_SECONDS * 1e9

    def _held_message(self, partition: str, number: int, entry: storage.FileEntry | None) -> str:
        kept = self._kept(partition, number)
        if kept is not None:
            return (
                f"{self._folder.rsplit('/', 2)[1]} {partition} is kept for run {kept['holder']} until {kept['until']}. "
                "Wait for its end, or end it: docs/airflow.md"
            )
        who = json.loads(storage.read_bytes(entry.url)) if entry is not None else {}
        return (
            f"{self._folder.rsplit('/', 2)[1]} {partition} is held by run {who.get('holder')} "
            f"(host {who.get('host')}, pid {who.get('pid')}, since {who.get('since')}). "
            f"Wait for it, or, if it died on another machine, for {EXPIRY_SECONDS:.0f} s"
        )

    def _url(self, partition: str, kind: str, number: int) -> str:
        return f"{self._folder}/{partition}/{kind}.{number:06d}"

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            for partition, number in self._numbers.items():
                if self._latest(partition)[0] != number:
                    self._lost = f"{partition}: the lease of run {self._holder} expired and another run took it"
                    return
                storage.write_bytes(self._url(partition, "beat", number), b"")

    def _release(self) -> None:
        for partition, number in self._numbers.items():
            storage.create_exclusively(self._url(partition, "released", number), b"")
        self._numbers = {}


def live_holders(folder: str) -> set[str]:
    """Holders of the leases of a table (`folder`: its leases) that are not over."""
    holders = set()
    for partition in storage.list_folders(folder):
        asked = Lease(folder, [partition], holder="")
        number, entry = asked._latest(partition)
        if entry is not None and not asked._is_over(partition, number, entry):
            holders.add(str(json.loads(storage.read_bytes(entry.url))["holder"]))
    return holders


def is_gone(holder: Mapping[str, object]) -> bool:
    """Whether a lease's process is known to have ended; False where that cannot be known from here."""
    here, pid = machine(), holder.get("pid")
    if here is None or holder.get("machine") != here or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's: it lives
        return False
    return start_mark(pid) != holder.get("started")


def machine() -> str | None:
    """What must be equal for two processes to see each other's pids: boot and pid namespace (Linux), else None."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def start_mark(pid: int) -> int | None:
    """When a process started, in clock ticks since boot, so that a reused pid is not taken for it.

    None when it has ended; one that its parent has not waited for yet has ended too.
    """
    try:
        # The second field is the program's name in brackets, and may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
