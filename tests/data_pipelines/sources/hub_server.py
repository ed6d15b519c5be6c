"""A Hugging Face hub on loopback: data sets and models by name and commit, over the hub's own HTTP interface.

Serves what huggingface_hub and datasets ask for when a repository is resolved, listed and read: its info with the
hashes of its files, its file tree, its files whole and in ranges. Weights, Parquet and large files are known by their
SHA-256, as those that a hub keeps apart from git. Whoever uses it gives a process of its own `Hub.environment`.
"""

import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

_PIECE = 1 << 16  # bytes of a file that are sent at once


class Hub:
    """Serves what `add` is given, from under `folder`; `requests` are those answered so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heads: dict[str, str] = {}  # OWNER/NAME -> the commit that main stands for
        self.cuts: list[str] = []  # files of which the next answer breaks off, one for each time they are named
        self.gated: set[str] = set()  # whose files nobody gets who brings no token
        self.private: set[str] = set()  # of which such a one does not even hear
        self.slow = 0.0  # seconds between two pieces of a file
        self.counts: dict[str, int] = {}  # OWNER/NAME -> parameters that the hub has counted
        self.requests: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))

    @property
    def environment(self) -> dict[str, str]:
        url = f"http://127.0.0.1:{self.server.server_port}"
        home = str(self.folder / "home")
        caches = {name: home for name in ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE")}
        online = {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "HF_TOKEN": "", "NO_PROXY": "127.0.0.1"}
        return {"HF_ENDPOINT": url, **caches, **online}

    def add(self, name: str, files: dict[str, bytes]) -> str:
        """Commit these files to OWNER/NAME, in place of what main holds; the commit."""
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        for path, content in files.items():
            target = self.folder / name / commit / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        self.heads[name] = commit
        return commit

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        kind = self.headers["Content-Type"].partition(";")[0]
        self._answer(json.loads(body)["paths"] if kind == "application/json" else parse_qs(body)["paths"])

    def _answer(self, paths: list[str] | None = None) -> None:
        url = unquote(urlsplit(self.path).path)
        found = re.fullmatch(r"/(?:api/)?(?:datasets/|models/)?([^/]+/[^/]+)(?:/([^/]+)/([^/]+)(?:/(.*))?)?", url)
        name, verb, revision, rest = found.groups() if found else ("", "", "", "")
        stranger = "Authorization" not in self.headers
        if name not in self.hub.heads or (name in self.hub.private and stranger):
            return self._error("RepoNotFound", f"Repository {name} not found", 401 if stranger else 404)
        if name in self.hub.gated and verb == "resolve" and stranger:
            return self._error("GatedRepo", f"Access to model {name} is restricted", 401)
        commit = self.hub.heads[name] if revision in (None, "main") else revision
        root = self.hub.folder / name / commit
        if not root.is_dir():
            return self._error("RevisionNotFound", f"Invalid rev id: {revision}")
        files = [p for p in sorted(root.rglob("*")) if p.is_file()]
        asked = parse_qs(urlsplit(self.path).query)
        if verb == "resolve":
            return self._file(root / rest, commit)
        if verb == "tree":
            below = root / (rest or "")
            if not below.is_dir():
                return self._error("EntryNotFound", f"{rest} does not exist")
            inside = below.rglob("*") if asked.get("recursive", ["false"])[0].lower() == "true" else below.iterdir()
            return self._json([_entry(root, p) for p in sorted(inside)])
        if verb == "paths-info":
            return self._json([_entry(root, root / p) for p in paths or [] if (root / p).exists()])
        if verb in (None, "revision"):
            siblings = [_sibling(root, p) for p in files]
            info = {"id": name, "sha": commit, "siblings": siblings, "private": False, "tags": []}
            if name in self.hub.counts:
                info["safetensors"] = {"parameters": {"F32": self.hub.counts[name]}, "total": self.hub.counts[name]}
            return self._json(info)
        return self._error("EntryNotFound", f"no {verb} here")

    def _file(self, path: Path, commit: str) -> None:
        if not path.is_file():
            return self._error("EntryNotFound", "Entry not found")
        content = path.read_bytes()
        status, headers = 200, {"X-Repo-Commit": commit, "ETag": f'"{_called(path)}"', "Accept-Ranges": "bytes"}
        if (asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))) and content:
            first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
            status, headers["Content-Range"] = 206, f"bytes {first}-{last}/{len(content)}"
            content = content[first : last + 1]
        cut = self.command == "GET" and path.name in self.hub.cuts
        if cut:
            self.hub.cuts.remove(path.name)
        self._send(status, content, headers, cut)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, code: str, message: str, status: int = 404) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message, "Content-Type": "application/json"}
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str], cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            body = body[: len(body) // 2] if cut else body
            for at in range(0, len(body), _PIECE):
                self.wfile.write(body[at : at + _PIECE])
                time.sleep(self.hub.slow)
        self.close_connection |= cut


def _entry(root: Path, path: Path) -> dict[str, Any]:
    place = path.relative_to(root).as_posix()
    if path.is_dir():
        return {"type": "directory", "oid": "0" * 40, "size": 0, "path": place}
    found = {"type": "file", "oid": _oid(path), "size": path.stat().st_size, "path": place}
    return found | ({"lfs": _apart(path)} if _is_apart(path) else {})


def _sibling(root: Path, path: Path) -> dict[str, Any]:
    """A file as the info of a repository names it where its hashes are asked for."""
    found = {"rfilename": path.relative_to(root).as_posix(), "size": path.stat().st_size, "blobId": _oid(path)}
    return found | ({"lfs": _apart(path)} if _is_apart(path) else {})


def _is_apart(path: Path) -> bool:
    """Whether a hub keeps the file apart from git."""
    return path.suffix in (".safetensors", ".bin", ".parquet") or path.stat().st_size > 10_000_000


def _apart(path: Path) -> dict[str, Any]:
    sha256, size = hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size
    return {"sha256": sha256, "oid": sha256, "size": size, "pointerSize": 134}


def _called(path: Path) -> str:
    """The ETag of a file."""
    return str(_apart(path)["sha256"]) if _is_apart(path) else _oid(path)


def _oid(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
