"""The process that turns HTML pages into text for html.py: a page in, its main text out, over pipes.

A process of its own, since lxml cannot be interrupted: a page that takes longer than its CPU seconds, or that kills the
parser, costs that page and nothing else. CPU seconds, not seconds by the clock: a busy machine drops no more pages than
an idle one. Imports nothing of this repository, so that it starts at once; run by path with `python -P`.

Messages are a length (8 bytes, little-endian) and as many bytes of UTF-8; lone surrogates pass. The first says READY.
"""

import json
import logging
import resource
import struct
import sys
from typing import IO, Any

from trafilatura import extract
from trafilatura.deduplication import LRUCache

LENGTH, READY = struct.Struct("<Q"), "ready"


def receive(stream: IO[bytes]) -> str | None:
    """The next message, or None where the stream has ended."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    return stream.read(LENGTH.unpack(head)[0]).decode("utf-8", "surrogatepass")


def send(stream: IO[bytes], text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    stream.write(LENGTH.pack(len(data)) + data)
    stream.flush()


def limit(seconds: int) -> None:
    """From now on, `seconds` of CPU until the kernel ends this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def options(settings: dict[str, Any]) -> dict[str, Any]:
    """trafilatura's own names for the settings of filter.html."""
    return {
        "favor_precision": settings["favour"] == "precision",
        "favor_recall": settings["favour"] == "recall",
        "include_comments": settings["comments"],
        "include_tables": settings["tables"],
    }


def main() -> None:
    settings = json.loads(sys.argv[1])
    chosen = options(settings)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # a library that prints must not break the messages
    logging.disable(logging.CRITICAL)  # a word on every odd page would be all that the log holds
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    send(sink, READY)
    while (page := receive(source)) is not None:
        limit(settings["max_seconds"])
        # trafilatura's own cache lives as long as the process: a page's text would depend on the pages before it
        repeats = LRUCache(maxsize=4096) if settings["deduplicate"] else False
        send(sink, extract(page, deduplicate=repeats, **chosen) or "")


if __name__ == "__main__":
    main()
