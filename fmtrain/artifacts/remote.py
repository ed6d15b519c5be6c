"""Files behind URLs (s3://, gs://, https://), through fsspec: found, described, and read by ranges with retries.

fsspec is imported on the first URL only. Credentials come from the environment alone, as each store's own tools read
them (AWS_.., GOOGLE_APPLICATION_CREDENTIALS) or as fsspec does (FSSPEC_S3_KEY); none ever stands in a configuration.
"""

import importlib
import io
import re
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from fmtrain.errors import ConfigError, InputError, Unavailable
from fmtrain.redact import plain_url

BLOCK = 4 << 20  # bytes a request: what is held of a file, and the most that a cut connection costs
LEAST = 64 << 10  # bytes a request on a line that keeps being cut
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before each further attempt
PATIENCE = 60.0  # seconds after which no further one begins: some stores' clients try again on their own
_TAGS = ("ETag", "etag", "md5Hash", "Content-MD5", "Last-Modified", "LastModified", "mtime", "created")
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError)
_ENVIRONMENT = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN for temporary keys; FSSPEC_S3_ANON=1 for a "
    "public bucket), and AWS_ENDPOINT_URL where the store is not Amazon's",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (FSSPEC_GS_TOKEN=anon for a public bucket)",
}
T = TypeVar("T")


def is_url(path: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]*://", path) is not None


def scheme(url: str) -> str:
    head = url.partition("://")[0]
    return {"s3a": "s3", "gcs": "gs", "http": "https"}.get(head, head)


def plain(url: str) -> str:
    """The URL, or path, without user, password and query, which may hold a signature: what it is known by."""
    return plain_url(url)


def glob(pattern: str) -> list[str]:
    """The URLs of the files that a pattern matches, sorted; without wildcards the URL itself."""
    if scheme(pattern) == "https":
        if set("*[") & set(plain(pattern)):
            raise ConfigError(f"data.files: {plain(pattern)}: http has no listing to match against; give each URL")
        return [pattern]
    if not set("*?[") & set(pattern):
        return [pattern]
    files, path = filesystem(pattern)
    found = attempt(pattern, lambda: files.glob(path, detail=True))
    return sorted(files.unstrip_protocol(name) for name, info in found.items() if info["type"] == "file")


def filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it."""
    try:
        import fsspec

        options: dict[str, Any] = {}
        if scheme(url) == "s3" and "config_kwargs" not in fsspec.config.conf.get("s3", {}):
            options["config_kwargs"] = {"retries": {"max_attempts": 0}}  # s3fs tries again, and so do we
        return fsspec.core.url_to_fs(url, **options)  # type: ignore[no-any-return]
    except ImportError as e:
        raise InputError(f"{plain(url)}: {e}. Install that package beside fmtrain") from None
    except ValueError as e:
        raise InputError(f"{plain(url)}: {e}; expected a path, or a URL such as s3://bucket/*.jsonl.zst") from None


def describe(url: str) -> tuple[int, str]:
    """Size in bytes, and what the store gives to tell versions apart (an etag, or the time of the last change)."""
    files, path = filesystem(url)
    files.invalidate_cache()
    info = attempt(url, lambda: files.info(path))
    if info.get("type", "file") != "file":
        raise InputError(f"{plain(url)} is a folder; give its files, e.g. {plain(url)}/*.jsonl.zst")
    if info.get("size") is None:
        raise InputError(f"{plain(url)}: the server does not say how large it is; copy it here and give its path")
    return int(info["size"]), next((str(info[tag]) for tag in _TAGS if info.get(tag)), "")


def attempt(url: str, call: Callable[[], T]) -> T:
    """What `call` returns; a connection that fails is tried again, what cannot be mended so is an InputError.

    Unavailable where it still fails after all attempts.
    """
    begun = time.monotonic()
    for wait in (*WAITS, None):
        try:
            return call()
        except _failures() as raised:
            e = _behind(url, raised)
            if isinstance(e, _FINAL) or _is_final(e):
                raise refused(url, e) from None
            if wait is None or time.monotonic() > begun + PATIENCE:
                raise Unavailable(str(refused(url, e))) from None
        time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def refused(url: str, error: BaseException) -> InputError:
    """What to say of a URL that cannot be read, with the variables to set."""
    what = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if scheme(url) == "https":
        what = re.sub(r"\?[^\s'\"]*", "?..", what)  # clients quote the whole URL, and a query may hold a signature
    missing = isinstance(error, FileNotFoundError)
    mend = "Check the name" if missing else "Check the connection"
    if (variables := _ENVIRONMENT.get(scheme(url))) is not None:
        mend = f"Check the name of the bucket and of the file, and set {variables}"
    return InputError(f"{plain(url)} {'is not there' if missing else 'cannot be read'}: {what}. {mend}")


def _failures() -> tuple[type[BaseException], ...]:
    """What a request that fails raises in the clients that are loaded; not all of it is an OSError."""
    known = (
        ("aiohttp", "ClientError"),
        ("botocore.exceptions", "BotoCoreError"),
        ("gcsfs.retry", "HttpError"),
        ("google.auth.exceptions", "GoogleAuthError"),
    )
    return (
        OSError,
        NotImplementedError,
        *(getattr(sys.modules[module], name) for module, name in known if module in sys.modules),
    )


def _behind(url: str, error: BaseException) -> BaseException:
    """fsspec says of every HTTP failure that the file is not there: what happened is its cause."""
    cause = error.__cause__
    if scheme(url) != "https" or not isinstance(error, FileNotFoundError) or not isinstance(cause, _failures()):
        return error
    return error if getattr(cause, "status", None) in (404, 410) else cause


def _is_final(error: BaseException) -> bool:
    """Whether the same request would be refused again: credentials, or a server's answer that it is not to be had."""
    if any("Credentials" in cls.__name__ or cls.__name__ == "RefreshError" for cls in type(error).__mro__):
        return True
    status = str(getattr(error, "status", None) or getattr(error, "code", None) or "")  # aiohttp's, gcsfs'
    return re.fullmatch("4[0-9][0-9]", status) is not None and status not in ("408", "425", "429")


class RemoteFile(io.RawIOBase):
    """A file behind a URL, read by ranges: whatever fails is asked for again from the byte reached.

    InputError where the file changed between two requests; nothing is held but one block.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.size, self.tag = describe(url)
        self._at, self._start, self._block = 0, 0, b""  # position; the block held and where it starts
        self._file: Any = None
        self._ask = BLOCK  # bytes of the next request: less after a failure, so that a bad line still gets on

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        if self._at >= self.size:
            return 0
        if not self._start <= self._at < self._start + len(self._block):
            self._start = self._at
            self._block = attempt(self.url, lambda: self._fetch(self._at, min(self._at + self._ask, self.size)))
            self._ask = min(BLOCK, 2 * self._ask)
        begin = self._at - self._start
        part = self._block[begin : begin + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def _fetch(self, start: int, end: int) -> bytes:
        """One request; a connection is opened anew after a failure, and the file must still be the same."""
        try:
            if self._file is None:
                if describe(self.url) != (self.size, self.tag):
                    raise InputError(f"{plain(self.url)} has changed while it was read. Run the same command again")
                files, path = filesystem(self.url)
                self._file = files.open(path, "rb", block_size=BLOCK, cache_type="none")
            self._file.seek(start)
            data: bytes = self._file.read(end - start)
            if len(data) != end - start:
                raise ConnectionError(f"{len(data)} bytes came where {end - start} were asked for")
        except ValueError as e:  # fsspec's word for a server that ignores ranges
            raise InputError(f"{plain(self.url)}: {e}. Copy the file here and give its path") from None
        except BaseException:
            self._file, self._ask = None, max(LEAST, self._ask // 4)
            raise
        return data


def hub_failure() -> type[Exception]:
    """What the hub's client raises where the network fails: of the library that this huggingface_hub stands on."""
    from huggingface_hub import get_session

    client = importlib.import_module(type(get_session()).__module__.partition(".")[0])
    found: type[Exception] = getattr(client, "RequestException", None) or client.HTTPError  # requests, else httpx's
    return found
