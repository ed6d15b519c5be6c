"""Repositories of a Hugging Face hub, of models and of rows: what a name stands for, its files, fetching them.

A name is OWNER/NAME[@REVISION] and stands for a commit, which one request with a time limit tells, with the hash of
every file. Files lie in the hub's own cache (HF_HOME), as its client lays them out, so that what other tools have
fetched is not fetched again; a hub that does not answer is replaced by what is cached of the same name. What cannot be
had is told apart: gated, missing or private, another revision, a network that is down. HF_TOKEN is the client's affair.
huggingface_hub is imported where a name is met.
"""

import contextlib
import errno
import hashlib
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fmtrain.artifacts.inside import inside
from fmtrain.artifacts.remote import hub_failure
from fmtrain.artifacts.storage import read_left, sha256_file, users_files, write_json, write_text
from fmtrain.errors import InputError, StoreError, Unavailable

Kind = Literal["model", "dataset"]
SECONDS = 10.0  # that the hub may take to say what a name stands for
CARD = "README.md"
_AT_A_TIME = 8  # files
_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([A-Za-z0-9][^\s@:?*\\^~\[]*))?")
_ADDRESS = re.compile(r"hf://datasets/([^@]+)@([0-9a-f]{40})/(.+)")
_PLACE = re.compile(r"/(?:models|datasets)--([^/]+)/snapshots/([0-9a-f]{40})/(.+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DISK = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR, errno.EEXIST,
    errno.EISDIR,
)  # fmt: skip
_REFUSED = (400, 401, 403)  # the hub's own words without a name; its 404 says what is not there


@dataclass(frozen=True)
class Entry:
    """A file of a repository: `sha256` where the hub tells it, `oid` what its cache calls it (that, or git's hash)."""

    size: int  # bytes
    sha256: str
    oid: str


@dataclass(frozen=True)
class Repo:
    """A repository at a commit; `away` says why the cache had to tell of it in the hub's place."""

    kind: Kind
    name: str
    asked: str  # the branch, tag or commit that was given; main where none was
    commit: str
    files: dict[str, Entry] = field(repr=False)
    parameters: int | None = None  # of a model, where the hub has counted them
    away: str = ""
    listed: bool = True  # whether `files` are all that it has, not those that somebody has fetched

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.commit}"

    @property
    def snapshot(self) -> Path:
        """The folder in the cache that its files lie in once they are fetched."""
        return cache(self.kind, self.name) / "snapshots" / self.commit

    def said(self, given: str) -> str:
        """What a plan says where the cache speaks for the hub."""
        return f"{given} is {self.name}@{self.commit[:12]}, as it is cached: the hub does not answer ({self.away})"

    def lacks(self, names: Iterable[str]) -> list[str]:
        """Those of the files that are not in the cache."""
        return [name for name in names if not (self.snapshot / name).is_file()]


def parse(given: str) -> tuple[str, str | None] | None:
    """(OWNER/NAME, REVISION) where `given` may be a name on the hub, else None."""
    found = _NAME.fullmatch(given)
    return (found[1], found[2]) if found else None


def is_commit(revision: str) -> bool:
    return _COMMIT.fullmatch(revision) is not None


def at(path: str) -> tuple[str, str, str] | None:
    """(OWNER/NAME, commit, file) of what lies on a hub at hf://datasets/OWNER/NAME@COMMIT/FILE, or in the cache."""
    if found := _ADDRESS.match(path):
        return found[1], found[2], found[3]
    if found := _PLACE.search(path):
        return found[1].replace("--", "/", 1), found[2], found[3]
    return None


def cache(kind: Kind, name: str) -> Path:
    """The folder of a repository in the hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}"


def find(
    kind: Kind, name: str, revision: str | None, given: str, whole: Callable[[Repo], bool] = lambda repo: False
) -> Repo:
    """What a name stands for now; a commit that is cached `whole` is not asked about. `given` begins the messages.

    Where the hub does not answer, what is cached of that name. InputError says which of all that may be wrong it is;
    Unavailable where the hub is away and nothing is cached.
    """
    asked = revision or "main"
    if is_commit(asked) and (known := _cached(kind, name, asked, "")) is not None and whole(known):
        return known
    try:
        return _told(kind, name, asked)
    except failures() as e:
        _check_disk(kind, name, e)
        if (why := away(e)) is None:
            raise refusal(kind, name, asked, given, e) from None
        if (known := _cached(kind, name, asked, why)) is not None:
            return known
        raise _nothing(kind, name, asked, given, why) from None


def _told(kind: Kind, name: str, asked: str) -> Repo:
    """The hub's own word."""
    from huggingface_hub import HfApi

    ask: Any = HfApi().model_info if kind == "model" else HfApi().dataset_info
    info = ask(name, revision=asked, files_metadata=True, timeout=SECONDS)
    files = {}
    for one in info.siblings or []:
        sha256 = one.lfs.sha256 if one.lfs is not None else ""
        size = one.lfs.size if one.lfs is not None else one.size
        files[one.rfilename] = Entry(int(size or 0), sha256, sha256 or str(one.blob_id or ""))
    if not is_commit(str(info.sha)):
        raise ValueError(f"its answer names the commit {info.sha!r}")
    counted = getattr(getattr(info, "safetensors", None), "total", None)
    found = Repo(kind, name, asked, info.sha, files, counted)
    with contextlib.suppress(OSError), users_files():  # a cache that is only read
        place = _listing(kind, name, info.sha)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, {"parameters": counted, "files": {key: asdict(entry) for key, entry in files.items()}})
    return found


def _listing(kind: Kind, name: str, commit: str) -> Path:
    """Where the hub's word on a commit is kept, in the cache: what a snapshot lacks it cannot say itself."""
    return cache(kind, name) / ".fmtrain" / f"{commit}.json"


def _cached(kind: Kind, name: str, asked: str, why: str) -> Repo | None:
    """What the cache has of a name: the commit that a branch stood for when it was fetched, and the files of it."""
    folder, commit = cache(kind, name), asked
    if not is_commit(asked):
        try:
            commit = (folder / "refs" / asked).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
    if not is_commit(commit):
        return None
    said = read_left(_listing(kind, name, commit), dict)
    try:
        files = {key: Entry(**entry) for key, entry in said["files"].items()}
        return Repo(kind, name, asked, commit, files, said["parameters"], why)
    except (KeyError, TypeError, AttributeError):  # another tool has fetched it
        snapshot = folder / "snapshots" / commit
        files = {path.relative_to(snapshot).as_posix(): _entry(path) for path in _files(snapshot)}
        return Repo(kind, name, asked, commit, files, None, why, listed=False) if files else None


def _files(snapshot: Path) -> Iterator[Path]:
    for root, _, names in os.walk(snapshot):
        yield from (path for name in sorted(names) if (path := Path(root, name)).is_file())


def _entry(path: Path) -> Entry:
    """A cached file: its link leads to a blob that is called as the hub knows the content."""
    called = os.path.basename(os.readlink(path)) if path.is_symlink() else ""
    sha256 = called if _SHA256.fullmatch(called) else "" if is_commit(called) else sha256_file(path)
    return Entry(path.stat().st_size, sha256, called or sha256)


def fetch(repo: Repo, names: Iterable[str], given: str) -> None:
    """Put the files into the cache, several at a time; what lies there is left, and nothing is asked about it."""
    from huggingface_hub import hf_hub_download

    def one(name: str) -> None:
        _tidy(repo, name)
        hf_hub_download(repo.name, name, repo_type=repo.kind, revision=repo.commit)

    try:
        with users_files(), _quietly(), ThreadPoolExecutor(_AT_A_TIME) as pool:
            list(pool.map(one, repo.lacks(names)))
    except failures() as e:
        _check_disk(repo.kind, repo.name, e)
        if (why := away(e)) is None:
            raise refusal(repo.kind, repo.name, repo.asked, given, e) from None
        raise _nothing(repo.kind, repo.name, repo.asked, given, why) from None


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the client's bars: how far a fetch is, a run says itself."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _tidy(repo: Repo, name: str) -> None:
    """Take away what a killed process had fetched of a file: the client begins anew and never looks at it again.

    Under the client's own lock, so that nobody is just writing it.
    """
    from filelock import FileLock, Timeout

    oid, folder = repo.files[name].oid, cache(repo.kind, repo.name)
    left = list((folder / "blobs").glob(f"{oid}.*.incomplete")) if oid else []
    if not left:
        return
    lock = folder.parent / ".locks" / folder.name / f"{oid}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            for path in left:
                path.unlink(missing_ok=True)
    except Timeout:
        return


def note(repo: Repo) -> None:
    """Remember in the cache what commit the name stood for, as the hub's client does: offline it is asked there."""
    ref = cache(repo.kind, repo.name) / "refs" / repo.asked
    if not is_commit(repo.asked):
        with contextlib.suppress(OSError), users_files():  # a cache that is only read
            ref.parent.mkdir(parents=True, exist_ok=True)
            write_text(ref, repo.commit)


def check(repo: Repo, name: str, given: str) -> None:
    """InputError where a cached file is not what the hub has under that name."""
    path, entry = repo.snapshot / name, repo.files[name]
    if entry.sha256:
        expected, found = entry.sha256, sha256_file(path)
    elif is_commit(entry.oid):
        expected, found = entry.oid, _git_hash(path)
    else:
        return
    if expected != found:
        how = f"its hash is {found[:12]}.., and {expected[:12]}.. is expected"
        raise InputError(f"{given}: {damaged(str(path), how)}")


def damaged(path: str, how: str) -> str:
    """What to say of a file in the cache that is not as the hub has it."""
    where = at(path)
    assert where is not None, path
    name, commit, file = where
    files = " ".join(shlex.quote(one) for one in dict.fromkeys((os.path.realpath(path), path)))
    return (
        f"{file} in the cache is not what the hub has as {name}@{commit}: {how}. It was damaged; take it away, and the "
        f"same command fetches it again: rm {files}"
    )


def _git_hash(path: Path) -> str:
    """What git calls a file's content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def licence(repo: Repo) -> str:
    """What the card says of the licence; "" where it is not there or says nothing."""
    return licence_in(card(repo.snapshot))


def card(folder: Path) -> dict[str, Any]:
    """The YAML head of the card in a folder; empty where there is none."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    try:
        return dict(metadata_load(inside(folder, CARD)) or {}) if (folder / CARD).exists() else {}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError, YAMLError, InputError):
        return {}  # no YAML, or none that is a table


def licence_in(said: dict[str, Any]) -> str:
    """`license`, of several all; where that is `other` its name."""
    found = said.get("license")
    if found == "other":
        found = said.get("license_name") or found
    return ", ".join(map(str, found)) if isinstance(found, list) else str(found or "")


def failures() -> tuple[type[BaseException], ...]:
    """What the client raises of a request that fails, or of an answer that is no hub's."""
    from huggingface_hub.errors import HfHubHTTPError, SafetensorsParsingError

    answers = (ValueError, TypeError, KeyError, SafetensorsParsingError)
    return (HfHubHTTPError, hub_failure(), OSError, *answers)


def _check_disk(kind: Kind, name: str, error: BaseException) -> None:
    """StoreError where it is the cache that cannot be used: full, somebody else's, no folder."""
    if isinstance(error, OSError) and error.errno in _DISK:
        raise StoreError(
            f"{cache(kind, name).parent}, the cache of the hub, cannot be used: {error.strerror}"
            f"{f' ({error.filename})' if error.filename else ''}. Mend that, or give another place: HF_HOME=DIR"
        ) from None


def away(error: BaseException) -> str | None:
    """Why nobody answered, where that is what an error means: the same may be answered a minute later."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        return away(error.__cause__)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code if error.response is not None else 500
        is_hubs = type(error) is not HfHubHTTPError or status in _REFUSED  # else a proxy's, say
        return None if is_hubs else f"it says {status}"
    if not isinstance(error, (OSError, hub_failure())):  # an answer, if none that was expected
        return None
    return f"{type(error).__name__}: {_first_line(error)}"


def refusal(kind: Kind, name: str, asked: str, given: str, error: BaseException) -> InputError:
    """What the hub's answer means, and what mends it."""
    from huggingface_hub import constants, errors, get_token

    page, token = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}", get_token()
    response = error.response if isinstance(error, errors.HfHubHTTPError) else None
    status = response.status_code if response is not None else 0
    what = "data set" if kind == "dataset" else kind
    if isinstance(error, errors.GatedRepoError):
        mend = "the account of the token that is set has not been let in" if token else "and give its token in HF_TOKEN"
        return InputError(f"{given}: {name} is gated: accept its terms with your account at {page}; {mend}")
    if isinstance(error, errors.RepositoryNotFoundError):
        why = (
            "and the token that is set may not see a private one" if token else "or a private one, which needs HF_TOKEN"
        )
        return InputError(
            f"{given}: the hub has no {what} {name}, {why}. Check the name at {page}; a folder on this machine is "
            f"./{name}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(
            f"{given}: {name} has no branch, tag or commit {asked!r}; those that it has stand at {page}/tree/main"
        )
    if status in (401, 403):
        return InputError(f"{given}: the hub refuses the token that is set (HF_TOKEN): {_first_line(error)}")
    return InputError(f"{given}: the hub does not say what {name} at {asked!r} is: {_first_line(error)}")


def _nothing(kind: Kind, name: str, asked: str, given: str, why: str) -> Unavailable:
    """The hub is away, and what is needed is not cached."""
    of = " --repo-type dataset" if kind == "dataset" else " --exclude '*.bin' --exclude '*/*'"
    at = "" if asked == "main" else f" --revision {shlex.quote(asked)}"
    return Unavailable(
        f"{given}: the hub does not answer ({why}), and {name} at {asked!r} is not whole in the cache "
        f"{cache(kind, name).parent} (HF_HOME names another). Where there is a network: hf download {name}{of}{at}; "
        f"or is a folder meant? There is no ./{name}"
    )


def get(repo: Repo, names: list[str], given: str) -> None:
    """Have small files in the cache: fetched where they are not, and compared with what the hub says of them."""
    if repo.away and (lacking := repo.lacks(names)):
        raise incomplete(repo, lacking, given)
    fetch(repo, names, given)
    for name in names:
        check(repo, name, given)


def incomplete(repo: Repo, lacking: list[str], given: str) -> InputError:
    """The hub is away, and of what is cached something is missing."""
    error = _nothing(repo.kind, repo.name, repo.asked, given, repo.away or "it was not asked")
    return Unavailable(f"{error} (of {repo.commit[:12]} it lacks {', '.join(lacking[:4])})")


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__
