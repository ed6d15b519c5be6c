"""Another user of the machine, who speaks to every socket that a run listens on for as long as it runs.

`with strangers(pids, marker) as met:` enumerates the listening sockets of `pids` and of what descends from them, and
lets user `nobody` speak to each, again and again: noise, HTTP, a pickle for torch's store that would write `marker`.
`met` fills with who was spoken to. Processes with a network of their own, a node of a test cluster, are spoken to from
there. Needs root, to be somebody else. The opening words of gloo are left out: whoever
says them before a rank's peer does stands in the peer's place, which docs/security.md names.
"""

import contextlib
import inspect
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from launch.backends.reaper import descendants

NOBODY = 65534
AGAIN = 0.3  # seconds between two visits to one socket


def listeners(pids: Sequence[int]) -> dict[tuple[str, int], str]:
    """(address, port) -> the command that listens there, of `pids` and all below them."""
    sockets: dict[str, str] = {}
    for process in [each for pid in pids for each in (pid, *descendants(pid))]:
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            for fd in Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(OSError):
                    target = os.readlink(fd)
                    if target.startswith("socket:["):
                        sockets[target[8:-1]] = command
    found = {}
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in _lines(pids, table):
            words = line.split()
            if words[3] == "0A" and words[9] in sockets:
                address, port = words[1].split(":")
                raw = bytes.fromhex(address)
                raw = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))  # words of the host's order
                found[socket.inet_ntop(family, raw), int(port, 16)] = sockets[words[9]]
    return found


def _lines(pids: Iterable[int], table: str) -> set[str]:
    """Of the kernel's table of sockets, in the networks of `pids`."""
    found = set[str]()
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            found.update(Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:])
    return found


def speak(marker: str, run_ids: str, user: int) -> None:
    """In the stranger's process: for each line `ADDRESS PORT` on stdin, say all that we know to say there."""
    import base64
    import encodings.idna  # noqa: F401 - what a connection needs, while the interpreter can be read
    import os
    import pickle
    import socket
    import struct
    import sys

    os.setgroups([])  # not by Popen: the interpreter itself may lie where nobody may look
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)

    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"id -u >> {marker}",)

    def text(data: bytes) -> bytes:
        return struct.pack("<Q", len(data)) + data

    pickled = base64.b64encode(pickle.dumps(Code()))
    hello = b"\0" + struct.pack("<I", 0x3C85F7CE)  # torch's store: VALIDATE, and below SET, ADD
    keys = [f"/torch.rendezvous.{n}" for n in run_ids.split(",")] + ["/init/", "/worker/0", "/default_pg/0//0//0"]
    said = [
        os.urandom(4096),
        b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"POST /api/jobs/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 17\r\n\r\n{'entrypoint':''}",
        hello + b"".join(b"\1" + text(key.encode()) + text(pickled) for key in keys),
        hello + b"".join(b"\4" + text(key.encode()) + struct.pack("<q", 7) for key in keys[-3:]),
        pickle.dumps(Code()),
    ]
    for line in sys.stdin:
        address, port = line.split()
        for words in said:
            try:
                with socket.create_connection((address, int(port)), timeout=0.5) as s:
                    s.sendall(words)
                    s.settimeout(0.02)
                    s.recv(4096)
            except OSError:
                pass
        print(address, port, flush=True)


@contextlib.contextmanager
def strangers(pids: Sequence[int], marker: Path) -> Iterator[dict[tuple[str, int], str]]:
    """See above; `marker` must be a path that every user may write; all of `pids` are on one network."""
    theirs, ours = (Path(f"/proc/{who}/ns/net") for who in (pids[0], "self"))
    enter = ["nsenter", f"--net={theirs}"] if theirs.readlink() != ours.readlink() else []
    code = f"{inspect.getsource(speak)}\nspeak({str(marker)!r}, {','.join(map(str, [*pids, os.getpid()]))!r}, {NOBODY})"
    stranger = subprocess.Popen(
        [*enter, sys.executable, "-I", "-S", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
    )
    met: dict[tuple[str, int], str] = {}
    done = threading.Event()

    def visit() -> None:
        assert stranger.stdin is not None and stranger.stdout is not None
        while not done.is_set():
            for (address, port), command in listeners(pids).items():
                where = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
                print(where, port, file=stranger.stdin, flush=True)
                stranger.stdout.readline()
                met[address, port] = command
            time.sleep(AGAIN)

    thread = threading.Thread(target=visit)
    thread.start()
    try:
        yield met
    finally:
        done.set()
        thread.join()
        stranger.communicate()
    assert stranger.returncode == 0
