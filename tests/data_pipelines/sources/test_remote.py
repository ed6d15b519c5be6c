"""Files behind URLs, on real servers: found, planned and read; cut connections, wrong keys, changes."""

import gzip
import hashlib
import http.server
import io
import itertools
import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from data_pipelines import sources
from data_pipelines.document import Document
from data_pipelines.sources import Hashes
from data_pipelines.tasks import MAX_RETRIES, Failure, Retries
from fmtrain.artifacts import remote
from fmtrain.artifacts.sources import identify
from fmtrain.errors import ConfigError, InputError, Unavailable
from fmtrain.schema.sources import Local
from launch.sources import sources as plan
from tests.data_pipelines.sources.remote_servers import Files, Proxy
from tests.data_pipelines.sources.test_reading import PACK, lines_of, texts

BODY = lines_of(50_000)  # 10 MB: three blocks


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """moto's S3 on a free port: (port, client)."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    client = boto3.client(
        "s3", endpoint_url=f"http://127.0.0.1:{port}", aws_access_key_id="x", aws_secret_access_key="x",
        region_name="us-east-1",
    )  # fmt: skip
    client.create_bucket(Bucket="bucket")
    for name in ("data/a.jsonl", "data/b.jsonl.gz", "data/deep/c.jsonl.zst"):
        pack = PACK.get("." + name.rpartition(".")[2], PACK[""])
        client.put_object(Bucket="bucket", Key=name, Body=pack(BODY if name == "data/a.jsonl" else lines_of(100)))
    yield port, client
    server.stop()


@pytest.fixture
def reach(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Point the environment at a store on a port of this machine; the waits between attempts are short."""

    def at(port: int) -> None:
        for name, value in (("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}"), ("AWS_ACCESS_KEY_ID", "x"),
                            ("AWS_SECRET_ACCESS_KEY", "x"), ("AWS_DEFAULT_REGION", "us-east-1")):  # fmt: skip
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()

    monkeypatch.setattr(remote, "WAITS", (0.01, 0.01, 0.01, 0.01))
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)  # else its own retries, seconds apart, hide ours
    yield at
    s3fs.S3FileSystem.clear_instance_cache()


def read(found: list[Any], tasks: int = 2) -> tuple[list[Any], Hashes]:
    hashes = Hashes()
    units = itertools.chain(*sources.deal(Local(), found, tasks))
    return [r for unit in units for r in sources.read(Local(), unit, hashes.add)], hashes


def test_globs_names_and_reading(s3: Any, reach: Any) -> None:
    reach(s3[0])
    found = plan(Local(files=["s3://bucket/data/**/*.jsonl*", "s3://bucket/data/a.jsonl"]))
    assert [(s.path, s.name) for s in found] == [
        ("s3://bucket/data/a.jsonl", "a.jsonl"),
        ("s3://bucket/data/b.jsonl.gz", "b.jsonl.gz"),
        ("s3://bucket/data/deep/c.jsonl.zst", "deep/c.jsonl.zst"),
    ]
    assert (found[0].size, found[0].sha256) == (len(BODY), "") and found[1].sha256
    records, hashes = read(found)
    assert len(texts(records)) == len(records) == 50_200
    assert hashes["a.jsonl"] == hashlib.sha256(BODY).hexdigest() and len(hashes) == 3
    assert {r.source for r in records if isinstance(r, Document)} == {"a", "b", "deep"}
    with pytest.raises(InputError, match=r"no file matches 's3://bucket/data/\*\.parquet'"):
        plan(Local(files=["s3://bucket/data/*.parquet"]))
    with pytest.raises(InputError, match="is a folder"):
        plan(Local(files=["s3://bucket/data"]))


def test_ranges_are_read_apart(s3: Any, reach: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.local, "RANGES", 1)
    reach(s3[0])
    records, hashes = read(plan(Local(files=["s3://bucket/data/a.jsonl"])), 4)
    assert len({r.line for r in records}) == 50_000 and hashes["a.jsonl"] == hashlib.sha256(BODY).hexdigest()


def test_a_cut_connection_is_taken_up_again(s3: Any, reach: Any) -> None:
    """Every connection ends after a megabyte, a quarter of what is asked for; no byte is read twice or missed."""
    proxy = Proxy(s3[0])
    reach(proxy.port)
    found = plan(Local(files=["s3://bucket/data/a.jsonl"]))
    proxy.cut = lambda: 1_000_000
    records, hashes = read(found, 1)
    proxy.close()
    assert proxy.cuts >= 10
    assert len(texts(records)) == 50_000 and hashes["a.jsonl"] == hashlib.sha256(BODY).hexdigest()


def test_a_store_that_stays_away_is_an_error(s3: Any, reach: Any) -> None:
    proxy = Proxy(s3[0])
    reach(proxy.port)
    (found,) = plan(Local(files=["s3://bucket/data/a.jsonl"]))
    proxy.cut = lambda: 0
    with pytest.raises(Unavailable, match=r"s3://bucket/data/a\.jsonl cannot be read: .*AWS_ENDPOINT_URL"):
        read([found])
    proxy.close()


def test_an_outage_that_ends_is_over_with_the_task_s_next_attempt(s3: Any, reach: Any) -> None:
    proxy = Proxy(s3[0])
    reach(proxy.port)
    (found,) = plan(Local(files=["s3://bucket/data/a.jsonl"]))
    proxy.cut = lambda: 0
    retries = Retries("read")
    with pytest.raises(Unavailable) as error:
        read([found])
    retries.failed(0, Failure(str(error.value), "here", "", error.value))
    proxy.cut = lambda: None
    assert len(read([found])[0]) == 50_000
    for _ in range(MAX_RETRIES - 1):
        retries.failed(0, Failure("", "here", "", error.value))
    with pytest.raises(Unavailable):
        retries.failed(0, Failure("", "here", "", error.value))
    with pytest.raises(InputError, match="not there"):  # which the next attempt would not mend
        retries.failed(1, Failure("", "here", "", InputError("not there")))
    proxy.close()


def test_an_outage_is_no_damage_of_a_parquet_file(s3: Any, reach: Any) -> None:
    """Arrow asks us for the bytes, and passes our error on."""
    file = io.BytesIO()
    rows = [json.loads(line)["text"] for line in BODY.splitlines()]
    pq.write_table(pa.table({"text": rows}), file, row_group_size=5000, use_dictionary=False)
    s3[1].put_object(Bucket="bucket", Key="tables/a.parquet", Body=file.getvalue())
    proxy = Proxy(s3[0])
    reach(proxy.port)
    (found,) = plan(Local(files=["s3://bucket/tables/a.parquet"]))
    records = sources.read(Local(), sources.Unit(found, 1, 0, 0))
    assert isinstance(next(records), Document)
    proxy.cut = lambda: 0
    with pytest.raises(Unavailable):
        list(records)
    proxy.close()


def test_wrong_key_and_missing_names(s3: Any, reach: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reach(s3[0])
    for url in ("s3://nosuch/a.jsonl", "s3://bucket/nosuch.jsonl"):
        with pytest.raises(InputError, match=rf"{url} is not there: .*AWS_ENDPOINT_URL"):
            plan(Local(files=[url]))
    set_auth(s3[0], 0)
    try:
        for files in (["s3://bucket/data/a.jsonl"], ["s3://bucket/data/*.jsonl"]):
            s3fs.S3FileSystem.clear_instance_cache()
            with pytest.raises(InputError, match=r"cannot be read: .*set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
                plan(Local(files=files))
    finally:
        set_auth(s3[0], float("inf"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(InputError, match=r"redentials.*set AWS_ACCESS_KEY_ID"):
        plan(Local(files=["s3://bucket/data/a.jsonl"]))


def set_auth(port: int, free: float) -> None:
    """After `free` requests moto asks for a key that it knows."""
    address, kind = f"http://127.0.0.1:{port}/moto-api/reset-auth", {"Content-Type": "text/plain"}
    urlopen(Request(address, str(free).encode(), kind, method="POST")).read()


@pytest.mark.parametrize("body", [lines_of(50_000, 7), BODY[:-7]])
def test_a_change_after_the_plan_is_an_error(s3: Any, reach: Any, body: bytes) -> None:
    reach(s3[0])
    s3[1].put_object(Bucket="bucket", Key="changes/a.jsonl", Body=BODY)
    found = plan(Local(files=["s3://bucket/changes/a.jsonl"]))
    assert plan(Local(files=["s3://bucket/changes/a.jsonl"])) == found
    s3[1].put_object(Bucket="bucket", Key="changes/a.jsonl", Body=body)
    with pytest.raises(InputError, match="has changed since this run was planned"):
        read(found)


def test_a_change_in_the_middle_of_reading_is_an_error(s3: Any, reach: Any) -> None:
    reach(s3[0])
    s3[1].put_object(Bucket="bucket", Key="changes/b.jsonl", Body=BODY)
    (found,) = plan(Local(files=["s3://bucket/changes/b.jsonl"]))
    records = sources.read(Local(), sources.Unit(found, 1, 0, 0))
    next(records)
    other = bytearray(BODY)
    other[5_000_000] ^= 1
    s3[1].put_object(Bucket="bucket", Key="changes/b.jsonl", Body=bytes(other))
    with pytest.raises(InputError, match="has changed"):
        list(records)


@pytest.fixture
def web() -> Iterator[Any]:
    """An HTTP server: (its port, the class of its answers)."""
    answers = type("Answers", (Files,), {"files": {"/x/a.jsonl": BODY, "/x/b.jsonl.gz": gzip.compress(lines_of(9))}})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], answers
    server.shutdown()
    server.server_close()


def test_http(web: Any, reach: Any) -> None:
    port, _ = web
    base = f"http://127.0.0.1:{port}/x"
    found = plan(Local(files=[f"{base}/a.jsonl?key=secret", f"{base}/b.jsonl.gz"]))
    assert [s.name for s in found] == ["a.jsonl", "b.jsonl.gz"]
    records, hashes = read(found, 1)
    assert len(texts(records)) == 50_009 and hashes["a.jsonl"] == hashlib.sha256(BODY).hexdigest()
    with pytest.raises(ConfigError, match="http has no listing"):
        plan(Local(files=[f"{base}/*.jsonl"]))
    with pytest.raises(InputError, match=r"none\.jsonl is not there"):
        plan(Local(files=[f"{base}/none.jsonl"]))


@pytest.mark.parametrize(
    ("status", "kind"), [(403, InputError), (410, InputError), (429, Unavailable), (503, Unavailable)]
)
def test_http_that_refuses(web: Any, reach: Any, status: int, kind: type[InputError]) -> None:
    """What a server refuses is final; where it is only busy, a later attempt may do."""
    port, answers = web
    answers.status = status
    with pytest.raises(InputError, match=r"x/a\.jsonl (cannot be read|is not there)") as error:
        plan(Local(files=[f"http://127.0.0.1:{port}/x/a.jsonl?signature=secret"]))
    assert type(error.value) is kind and "secret" not in str(error.value)


def test_http_that_is_cut(web: Any, reach: Any) -> None:
    proxy = Proxy(web[0])
    proxy.cut = lambda: 1_000_000
    records, hashes = read(plan(Local(files=[f"http://127.0.0.1:{proxy.port}/x/a.jsonl"])), 1)
    proxy.close()
    assert proxy.cuts and hashes["a.jsonl"] == hashlib.sha256(BODY).hexdigest() and len(records) == 50_000


def test_http_without_ranges_serves_small_files_only(web: Any, reach: Any) -> None:
    port, answers = web
    answers.ranges = False
    small = plan(Local(files=[f"http://127.0.0.1:{port}/x/b.jsonl.gz"]))
    assert len(texts(read(small)[0])) == 9
    with pytest.raises(InputError, match=r"range requests.*Copy the file here"):
        plan(Local(files=[f"http://127.0.0.1:{port}/x/a.jsonl"]))


def test_what_is_no_url_of_a_store(reach: Any) -> None:
    with pytest.raises(InputError, match=r"nosuch.*expected a path, or a URL"):
        plan(Local(files=["nosuch://b/a.jsonl"]))


def test_a_file_on_s3_is_known_by_its_content_and_etag(s3: Any, reach: Any) -> None:
    reach(s3[0])
    for name, size in (("small", 1000), ("large", 3 << 20)):
        s3[1].put_object(Bucket="bucket", Key=name, Body=b"a" * size)
        first = identify(f"s3://bucket/{name}", name)
        s3[1].put_object(Bucket="bucket", Key=name, Body=b"a" * (size // 2) + b"b" + b"a" * (size - size // 2 - 1))
        second = identify(f"s3://bucket/{name}", name)
        assert first.stamp != second.stamp and first.size == second.size == size
        assert bool(first.sha256) == (name == "small")
