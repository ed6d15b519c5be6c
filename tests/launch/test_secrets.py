"""Planted keys are nowhere but where they were given: not in the store, not in what is printed, not in any argv."""

import base64
import contextlib
import gzip
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import zstandard

from fmtrain import redact
from launch.cli import main
from launch.compose import compose
from launch.graph import build
from launch.plan import plan
from launch.status import store_at
from tests.data_pipelines.sources.remote_servers import Files

CANARY = {
    "password": "canary-Pass.w0rd", "signature": "canarySIGNATURE0123456789abcdef", "query": "canary-other-value",
    "sas": "canaryAZUREsas%2Bx%3D", "hf": "hf_canaryCanaryCanaryCanary", "aws": "canaryAWSsecretKey", "wandb":
    "canaryWANDBkey", "setup": "canary-of-the-setup", "hub": "canary-private/dataset-name",
}  # fmt: skip
BAD = b'{"id": "x", "text": "fine"}\n' + b"no JSON\n" * 9


def holds(data: bytes) -> list[str]:
    """The names of the canaries in some bytes, plain or as a URL or base64 has them."""
    forms = {name: {text, text.replace("%2B", "+").replace("%3D", "=")} for name, text in CANARY.items()}
    forms["password"].add(base64.b64encode(f"user:{CANARY['password']}".encode()).decode())
    return sorted(name for name, texts in forms.items() if any(text.encode() in data for text in texts))


def found_under(folder: Path) -> dict[str, list[str]]:
    """File -> the canaries in its name or content, packed or not."""
    found = {}
    for path in (p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if path.suffix == ".gz":
            data += gzip.decompress(data)
        if path.suffix == ".zst":
            data += zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
        if path.suffix == ".parquet":
            data += str(pq.read_table(path).to_pylist()).encode()
        if names := holds(data + os.fsencode(path)):
            found[str(path.relative_to(folder))] = names
    return found


class Guarded(Files):
    """Answers those alone who bring a password or a signature."""

    files: dict[str, bytes] = {}

    def _answer(self, body: bool) -> None:
        basic = base64.b64encode(f"user:{CANARY['password']}".encode()).decode()
        known = self.headers.get("Authorization") == f"Basic {basic}" or CANARY["sas"] in self.path
        self.status = 0 if known else 403
        super()._answer(body)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    rows = [json.dumps({"id": f"d{n}", "text": f"a text of its own, number {n}"}) + "\n" for n in range(40)]
    Guarded.files = {
        "/a.jsonl": "".join(rows[:20]).encode(),
        "/b.jsonl": "".join(rows[20:]).encode(),
        "/bad.jsonl": BAD,
    }
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def environment(server: str, folder: Path) -> dict[str, str]:
    for name in ("home", "tmp"):
        (folder / name).mkdir(parents=True)
    return {
        **os.environ, "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "HF_HUB_OFFLINE": "1",
        "FMTRAIN_STORE": str(folder / "store"), "GIVEN_URL": f"http://{server}/b.jsonl?sv=1&sig={CANARY['sas']}",
        "HF_TOKEN": CANARY["hf"], "AWS_SECRET_ACCESS_KEY": CANARY["aws"], "WANDB_API_KEY": CANARY["wandb"],
        "GIVEN_SETUP": CANARY["setup"], "GIVEN_HUB": CANARY["hub"],
    }  # fmt: skip


def url(server: str, name: str) -> str:
    query = f"X-Amz-Signature={CANARY['signature']}&download={CANARY['query']}"
    return f"http://user:{CANARY['password']}@{server}/{name}?{query}"


def children(pid: int) -> Iterator[Path]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield Path(f"/proc/{child}")
            yield from children(int(child))


@pytest.mark.parametrize(("name", "code", "said"), [("a.jsonl", 0, "corpus_web@v1"), ("bad.jsonl", 3, "error: corpus")])
def test_no_run_leaves_a_key_behind(name: str, code: int, said: str, server: str, tmp_path: Path) -> None:
    words = ["run", "launch=inline", "recipe=corpus_web", "filter=none", "dedup=exact"]
    words += [f"data.files=['{url(server, name)}','${{oc.env:GIVEN_URL}}']"]
    env = environment(server, tmp_path)
    seen: dict[str, list[str]] = {}
    with subprocess.Popen(
        [sys.executable, "-m", "launch.cli", *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as run:
        while run.poll() is None:
            for process in children(run.pid):
                with contextlib.suppress(OSError):
                    argv = (process / "cmdline").read_bytes()
                    if argv in (b"", Path(f"/proc/{run.pid}/cmdline").read_bytes()):
                        continue  # forked, and not yet another program, or just becoming one
                    seen[f"{process.name} {argv!r}"] = holds(argv)
                    keys = set(holds((process / "environ").read_bytes()))
                    if b"data_pipelines" in argv:  # it reads from the network
                        keys -= {"hf", "aws"}
                    seen[f"{process.name} {argv!r} environment"] = sorted(keys)
            time.sleep(0.02)
        assert run.stdout is not None
        out = run.stdout.read()
    assert run.returncode == code and said.encode() in out, out.decode()
    assert len(seen) >= 2 and not any(seen.values()), seen
    assert not holds(out), out.decode()
    assert found_under(tmp_path) == {}
    (config,) = (tmp_path / "store").glob("runs/*/config.json")
    files = json.loads(config.read_text())["data"]["files"]
    assert files[1] == "${oc.env:GIVEN_URL}" and files[0].startswith("http://***@127.0.0.1:")
    state = json.loads(config.with_name("run.json").read_text())
    assert "${oc.env:GIVEN_URL}" in state["overrides"][-1] and "X-Amz-Signature=***" in state["overrides"][-1]


def test_a_new_signature_makes_no_new_corpus(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prints = set()
    for sv in ("1", "2"):
        monkeypatch.setenv("GIVEN_URL", f"http://{server}/b.jsonl?sv={sv}&sig={CANARY['sas']}")
        root = compose(["recipe=corpus_web", "data.files='${oc.env:GIVEN_URL}'"])
        prints.add(plan(build(root), store_at(str(tmp_path)))[0].fingerprint)
    assert len(prints) == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["plan", "recipe=corpus_web", "data.files='http://user:{password}@{server}/none.jsonl?sig={signature}'"], 3),
        (["plan", "recipe=corpus_web", "data.files='http://{server}/a.jsonl?token={signature}'"], 3),  # 403
        (["plan", "recipe=corpus_web", "data.filez=http://user:{password}@{server}/a.jsonl?sig={signature}"], 2),
        (["plan", "recipe=corpus_web", "data.files=http://user:{password}@{server}/a.jsonl?sig={signature}&x=[("], 2),
        (["plan", "recipe=corpus_web", "seed=https://user:{password}@host/x"], 2),
        (["plan", "recipe=corpus_web", "data=hub", "data.path='${{oc.env:GIVEN_HUB}}'"], 3),
        (["plan", "recipe=corpus_web", "data=hub", "data.path='https://user:{hf}@host/datasets/x'"], 3),
        (["run", "recipe=corpus_web", "data.files=[]", "launch=slurm", "launch.dry_run=true",
          "launch.setup='export KEY=${{oc.env:GIVEN_SETUP}}'"], 0),
        (["generate", "https://user:{password}@host/model?sig={signature}", "x"], 2),
        (["{hf}"], 2),
    ],
)  # fmt: skip
def test_no_message_shows_a_key(
    words: list[str], code: int, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name, value in environment(server, tmp_path).items():
        monkeypatch.setenv(name, value)
    try:
        ended: Any = main([word.format(server=server, **CANARY) for word in words])
    except SystemExit as e:
        ended = e.code
    out, err = capfd.readouterr()
    assert ended == code, out + err
    assert not holds((out + err).encode()), out + err
    assert found_under(tmp_path) == {}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("see https://a.b/c?x=1&sig=abc%2B&se=2 now", "see https://a.b/c?x=1&sig=***&se=2 now"),
        ("s3://KEY:secret@bucket/x", "s3://***@bucket/x"),
        ("Authorization: Bearer abcdefghij.k", "Authorization: Bearer ***"),
        ("https://a.b/@user/x?page=2 me@c.d", "https://a.b/@user/x?page=2 me@c.d"),
        ("https://a.b?access_token=x;y", "https://a.b?access_token=***"),
        ("authorization: basic dXNlcjpwYXNz", "authorization: basic ***"),
        ("Basic arithmetic. A basic self-attention, basic understanding", None),
    ],
)
def test_forms_that_are_secret_wherever_they_stand(text: str, wanted: str | None) -> None:
    assert redact.shown(text) == (wanted or text)


def test_what_is_learnt_is_no_common_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "_known", {})
    monkeypatch.setattr(redact, "_compiled", [])
    monkeypatch.setattr(os, "environ", {"TOKENIZER": "a-tokenizer", "HF_TOKEN": "a-real-token"})
    redact.learn_environment()
    redact.learn("d=%41%42")
    assert redact.shown("a-tokenizer d=AB a-real-token d=%41%42") == "a-tokenizer d=AB $HF_TOKEN ***"


def test_a_document_of_one_word_is_shown_at_once() -> None:
    begun = time.process_time()
    assert redact.shown(word := "a" * 300_000) == word  # for every letter all that follow: 300 s
    assert time.process_time() - begun < 20


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://u:p@h:1/a?b#c", "https://h:1/a"), ("s3://k:s@bucket/a?b.jsonl", "s3://bucket/a?b.jsonl"),
        ("/home/me@here/a?b", "/home/me@here/a?b"), ("hf://datasets/o/n@rev", "hf://datasets/o/n@rev"),
    ],
)  # fmt: skip
def test_a_url_is_known_without_who_asks(url: str, wanted: str) -> None:
    assert redact.plain_url(url) == wanted
