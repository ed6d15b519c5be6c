"""Real servers on loopback for the tests of URLs: an S3 (moto), an HTTP server with ranges, a proxy that cuts."""

import contextlib
import http.server
import re
import socket
import threading
from collections.abc import Callable


class Files(http.server.BaseHTTPRequestHandler):
    """Serves `files`, by ranges unless `ranges` is unset, with an ETag of the content."""

    files: dict[str, bytes]
    ranges = True
    status = 0  # of every answer, where it is set

    def _answer(self, body: bool) -> None:
        content = self.files.get(self.path.partition("?")[0])
        if content is None or self.status:
            self.send_error(self.status or 404)
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if self.ranges else None
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", f'"{hash(content)}"')
        part = content
        if wanted:
            start, end = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
            part = content[start : end + 1]
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if body:
            with contextlib.suppress(ConnectionError):
                self.wfile.write(part)

    def do_GET(self) -> None:
        self._answer(True)

    def do_HEAD(self) -> None:
        self._answer(False)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Proxy:
    """Passes connections on; `cut` decides of each whether it is cut, and after how many bytes of the answer."""

    def __init__(self, port: int) -> None:
        self.target = ("127.0.0.1", port)
        self.cut: Callable[[], int | None] = lambda: None
        self.cuts = 0
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self.target) as server:
            threading.Thread(target=self._copy, args=(client, server, None), daemon=True).start()
            self._copy(server, client, self.cut())

    def _copy(self, source: socket.socket, target: socket.socket, limit: int | None) -> None:
        passed = 0
        try:
            while data := source.recv(1 << 16):
                if limit is not None and passed + len(data) > limit:
                    target.sendall(data[: limit - passed])
                    self.cuts += 1
                    break
                target.sendall(data)
                passed += len(data)
            target.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        self.server.close()
