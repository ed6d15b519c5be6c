"""The examples stage: five files, rows sorted and set apart by module or prompt, nothing lost without a count."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import zstandard

from data_pipelines.corpus_reader import Document
from data_pipelines.stages import examples
from fmtrain.artifacts.stage import INPUTS
from fmtrain.errors import InputError
from fmtrain.kinds.examples import ExamplesJob, ExamplesStage
from fmtrain.schema.sources import Rows, Stdlib
from tests.data_pipelines import made

modules, corpus, tokenizer_folder = made.modules, made.corpus, made.tokenizer_folder

FILES = [f"{kind}.{split}.jsonl" for kind in ("sft", "preference") for split in ("train", "heldout")] + ["unfit.jsonl"]
TRAINED = {"other_body", "undefined_name", "missing_bracket"}


def from_corpus(folder: Path, corpus: Path, tokenizer: Path, seed: int = 1, **stage: Any) -> made.Ran:
    job = ExamplesJob(seed, Stdlib(), ExamplesStage(**stage))
    return made.run_stage(examples.run, folder, job, {"corpus": corpus, "tokenizer": tokenizer})


def from_rows(folder: Path, *files: Path, stage: ExamplesStage | None = None, **data: Any) -> made.Ran:
    job = ExamplesJob(1, Rows(**data), stage or ExamplesStage())
    return made.run_stage(examples.run, folder, job, sources=files)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, corpus: Path, tokenizer_folder: Path) -> made.Ran:
    return from_corpus(tmp_path_factory.mktemp("examples"), corpus, tokenizer_folder)


def test_files_and_their_rows(ran: made.Ran) -> None:
    assert sorted(p.name for p in ran.out.iterdir()) == sorted(FILES)
    for name in FILES[:4]:
        rows = ran.rows(name)
        assert rows == sorted(rows, key=lambda r: r["id"]) and len({r["id"] for r in rows}) == len(rows) > 20
    for row in ran.rows("sft.train.jsonl"):
        assert list(row) == ["id", "group", "messages"]
        assert [m["role"] for m in row["messages"]] == ["user", "assistant"]
    for row in ran.rows("preference.heldout.jsonl"):
        assert list(row) == ["id", "group", "kind", "prompt", "chosen", "rejected"]
        assert [m["role"] for m in row["prompt"]] == ["user"] and row["chosen"] != row["rejected"]


def test_rows_are_set_apart_by_module_and_kind(ran: made.Ran) -> None:
    heldout = {"argparse", "logging", "textwrap"}
    for kind in ("sft", "preference"):
        assert {r["group"] for r in ran.rows(f"{kind}.heldout.jsonl")} == heldout
        assert not {r["group"] for r in ran.rows(f"{kind}.train.jsonl")} & heldout
    assert {r["kind"] for r in ran.rows("preference.train.jsonl")} == TRAINED
    assert {r["kind"] for r in ran.rows("preference.heldout.jsonl")} == TRAINED | {"foreign_name"}
    prompts = [r["prompt"][0]["content"] + r["chosen"] for r in ran.rows("preference.train.jsonl")]
    assert len(set(prompts)) == len(prompts)  # one kind a function


def test_counts_add_up(ran: made.Ran, modules: list[Document]) -> None:
    counts = ran.result.counts
    assert counts["documents"] == len(modules)
    for name in FILES[:4]:
        assert counts[name.removesuffix(".jsonl").replace(".", "_")] == len(ran.rows(name))
    for split in ("train", "heldout"):
        kinds = Counter(r["kind"] for r in ran.rows(f"preference.{split}.jsonl"))
        assert counts["synthetic_corruptions"][split] == dict(kinds)
        assert counts[f"sft_{split}"] == counts[f"functions_{split}"]
    unfit = ran.rows("unfit.jsonl")
    assert counts["left_out"] == dict(Counter(r["reason"] for r in unfit))
    assert list(unfit[0]) == ["file", "line", "reason"]
    assert max(Counter(r["kind"] for r in ran.rows("preference.train.jsonl")).values()) < counts["preference_train"] / 2


def test_samples_are_by_hash_and_limits_hold(
    tmp_path: Path, ran: made.Ran, corpus: Path, tokenizer_folder: Path
) -> None:
    limits = {"max_sft_rows": 20, "max_preference_rows": 15, "max_heldout_rows": 6}
    small, again, seeded = (
        from_corpus(tmp_path / str(i), corpus, tokenizer_folder, seed, **limits) for i, seed in enumerate((1, 1, 2))
    )
    assert small.digest() == again.digest() != seeded.digest()
    counts = small.result.counts
    assert [counts[k] for k in ("sft_train", "preference_train", "sft_heldout", "preference_heldout")] == [
        20,
        15,
        6,
        24,
    ]
    assert set(counts["synthetic_corruptions"]["heldout"].values()) == {6}
    for name in FILES[:4]:
        full = {r["id"]: r for r in ran.rows(name)}
        rows = small.rows(name)
        assert all(full[r["id"]] == r for r in rows)
        if "train" in name:
            assert {r["id"] for r in rows} != set(sorted(full)[: len(rows)])
            assert {r["id"] for r in rows} != {r["id"] for r in seeded.rows(name)}


FUNCTION = '''def f{n}(x):
    """A docstring that is long enough for the limits."""
    return [g(x, {n}), "a body that is long enough for them too", x, {n}]
'''


def test_repeats_are_dropped_and_counted(tmp_path: Path, tokenizer_folder: Path) -> None:
    one, two, three = (FUNCTION.format(n=n) for n in (1, 2, 3))
    corpus = made.write_corpus(
        tmp_path / "corpus",
        [Document("a.py", one + two, "a"), Document("b.py", "\n" + one, "b")],
        [Document("c.py", two + three, "c")],
    )
    ran = from_corpus(tmp_path, corpus, tokenizer_folder)
    counts = ran.result.counts
    assert (counts["functions_train"], counts["functions_heldout"]) == (2, 1)
    assert (counts["repeated"], counts["heldout_in_train"]) == (1, 1)
    assert [r["id"] for r in ran.rows("sft.train.jsonl")] == ["a.py:1:f1", "a.py:4:f2"]
    assert [r["id"] for r in ran.rows("sft.heldout.jsonl")] == ["c.py:4:f3"]


def test_a_corpus_without_functions_is_an_input_error(tmp_path: Path, tokenizer_folder: Path) -> None:
    corpus = made.write_corpus(tmp_path / "corpus", [Document("a", "No Python in here.", "a")])
    with pytest.raises(InputError, match=r"none of its 1 documents .*1 document does not parse.*stages\.stage=null"):
        from_corpus(tmp_path, corpus, tokenizer_folder)


ROWS: list[Any] = [
    {"messages": [{"role": "user", "content": "q <eos>"}, {"role": "assistant", "content": "é\u2028"}]},
    {"prompt": "p", "completion": "c"},
    {"prompt": "p", "completion": "c", "again": True},
    {"prompt": "p2", "chosen": "a", "rejected": "b"},
    {"prompt": "p3", "chosen": "a", "rejected": "b"},
    b"",
    b"{broken",
    b'{"prompt": "\xff", "completion": "c"}',
    b'{"prompt": "\\ud800", "completion": "c"}',
    {"instruction": "q"},
]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_rows_of_every_form_from_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    file = made.write_rows(tmp_path / f"rows.jsonl{suffix}", ROWS)
    if suffix:
        pack = gzip.compress if suffix == ".gz" else zstandard.ZstdCompressor().compress
        file.write_bytes(pack(b"\xef\xbb\xbf" + file.read_bytes()))
    ran = from_rows(tmp_path, file, max_bad_fraction=0.5)
    counts = ran.result.counts
    assert (counts["read"], counts["repeated"], counts["unfit"]) == (9, 1, 4)
    assert (tmp_path / "said.txt").read_text() == (
        "9 rows: 4 unfit (unfit.jsonl says why), 1 repeated, 1 SFT rows held out, 1 SFT rows to train on, "
        "1 preference rows held out, 1 preference rows to train on\n"
    )
    assert (counts["sft_train"], counts["sft_heldout"]) == (1, 1)
    assert (counts["preference_train"], counts["preference_heldout"]) == (1, 1)
    unfit = ran.rows("unfit.jsonl")
    assert [(r["file"], r["line"]) for r in unfit] == [(file.name, n) for n in (7, 8, 9, 10)]
    assert [r["reason"][:8] for r in unfit] == ["not JSON"] * 3 + ["fits no "]
    sft = ran.rows("sft.train.jsonl") + ran.rows("sft.heldout.jsonl")
    assert ROWS[0]["messages"] in [r["messages"] for r in sft]
    assert {r["kind"] for r in ran.rows("preference.train.jsonl")} == {"given"}


def test_one_prompt_is_never_in_both_splits(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i % 40}", "completion": f"c{i}"} for i in range(200)]
    pairs = [{"prompt": f"p{i % 40}", "chosen": f"c{i}", "rejected": f"r{i}"} for i in range(80)]
    ran = from_rows(tmp_path, made.write_rows(tmp_path / "r.jsonl", rows + pairs), heldout_modulus=4)
    prompts = {s: {r["messages"][0]["content"] for r in ran.rows(f"sft.{s}.jsonl")} for s in ("train", "heldout")}
    asked = {s: {r["prompt"][0]["content"] for r in ran.rows(f"preference.{s}.jsonl")} for s in ("train", "heldout")}
    assert prompts == asked
    assert not prompts["train"] & prompts["heldout"] and 2 <= len(prompts["heldout"]) <= 20


@pytest.mark.parametrize("prompts", [2, 1])
@pytest.mark.parametrize("modulus", [1, 20, 10**9])
def test_two_rows_give_one_each(tmp_path: Path, prompts: int, modulus: int) -> None:
    rows = [{"prompt": f"p{i % prompts}", "completion": f"c{i}"} for i in range(2)]
    ran = from_rows(tmp_path, made.write_rows(tmp_path / "r.jsonl", rows), heldout_modulus=modulus)
    assert (ran.result.counts["sft_train"], ran.result.counts["sft_heldout"]) == (1, 1)


def test_the_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "completion": "c"} for i in range(60)]
    limits = ExamplesStage(max_sft_rows=10, max_heldout_rows=2)
    one = from_rows(tmp_path / "a", made.write_rows(tmp_path / "r.jsonl", rows), stage=limits)
    two = from_rows(tmp_path / "b", made.write_rows(tmp_path / "r.jsonl", rows[::-1]), stage=limits)
    for made_of in (one, two):
        (made_of.out / INPUTS).unlink()  # which says how the file looked
    assert one.digest() == two.digest()
    assert (one.result.counts["sft_train"], one.result.counts["sft_heldout"]) == (10, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "hold no row at all. Expected JSON lines"),
        (b'{"q": "x", "a": "y"}\n' * 3, r"none of the 3 rows .*fits no form.*3 rows with the keys a, q\. Expected"),
        (b"\n" + b'[\n {"prompt": "x"}\n]\n', r"is a JSON array.* -c "),
        (b'[{"prompt": "x", "completion": "y"}]', r"is a JSON array.* -c "),
    ],
)  # fmt: skip
def test_files_without_a_usable_row(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        from_rows(tmp_path, file)


def test_too_many_unfit_rows(tmp_path: Path) -> None:
    file = made.write_rows(tmp_path / "r.jsonl", [{"prompt": "p", "completion": "c"}] + [{"x": i} for i in range(4)])
    said = r"4 of 5 rows are unusable \(80\.0%\).*max_bad_fraction=0\.1 .*first r.jsonl line 2.*keys x.*0\.8"
    with pytest.raises(InputError, match=said):
        from_rows(tmp_path, file)
    assert from_rows(tmp_path, file, max_bad_fraction=0.8).result.counts["unfit"] == 4
    assert (tmp_path / "said.txt").read_text() == ("5 rows: 4 unfit (unfit.jsonl says why), 1 SFT rows to train on\n")


def test_a_modulus_of_0_holds_nothing_out(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "completion": "c"} for i in range(9)]
    counts = from_rows(tmp_path, made.write_rows(tmp_path / "r.jsonl", rows), heldout_modulus=0).result.counts
    assert (counts["sft_train"], counts["sft_heldout"]) == (9, 0)


def test_a_cut_file_is_an_input_error(tmp_path: Path) -> None:
    whole = made.write_rows(tmp_path / "r", [{"prompt": f"p{i}", "completion": "c"} for i in range(999)]).read_bytes()
    for name, packed in (("r.jsonl.gz", gzip.compress(whole)), ("r.jsonl.zst", zstandard.compress(whole))):
        (tmp_path / name).write_bytes(packed[:-9])
        with pytest.raises(InputError, match=f"{name} is cut short"):
            from_rows(tmp_path, tmp_path / name)


@pytest.mark.parametrize(
    ("name", "keys", "rows"),
    [
        ("gsm8k_train__train.jsonl.gz", ("question", "answer"), 7473),
        ("mbpp__mbpp.jsonl.gz", ("text", "code"), 974),
        ("dolly_hhrlhf__dolly_hhrlhf_train_small.jsonl.gz", ("prompt", "response"), 1000),
    ],
)
def test_real_rows(tmp_path: Path, shared_data: Path, name: str, keys: tuple[str, str], rows: int) -> None:
    ran = from_rows(tmp_path, shared_data / "sft" / name, prompt_key=keys[0], completion_key=keys[1])
    counts = ran.result.counts
    assert counts["read"] == rows
    assert counts["sft_train"] + counts["sft_heldout"] + counts["repeated"] + counts["unfit"] == rows
    assert counts["unfit"] + counts["repeated"] < 0.02 * rows
    assert 0.02 * rows < counts["sft_heldout"] < 0.08 * rows


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("oasst__en_100_tree.jsonl.gz", "none of the 100 rows"),
        ("self_instruct__seed_tasks.jsonl.gz", r"none of the 175 rows .*keys id, instances, instruction"),
        ("gpteacher_code__codegen-instruct.json.gz", "is a JSON array"),
    ],
)
def test_real_rows_of_other_forms_are_refused(tmp_path: Path, shared_data: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_rows(tmp_path, shared_data / "sft" / name)


def test_real_preference_pairs(tmp_path: Path, shared_data: Path) -> None:
    """Pairs of right and wrong solutions by models, as TRL would have them: conversational, the prompt implicit."""
    rows = []
    with gzip.open(shared_data / "preference" / "gsm8k_model_solutions.jsonl.gz", "rt") as f:
        for row in map(json.loads, f):
            given = [v for v in row.values() if isinstance(v, dict)]
            right, wrong = ([v["solution"] for v in given if str(v["is_correct"]) == b] for b in ("True", "False"))
            ask = {"role": "user", "content": row["question"]}
            chat = lambda text, ask=ask: [ask, {"role": "assistant", "content": text}]  # noqa: E731
            rows += [{"chosen": chat(r), "rejected": chat(w)} for r in right for w in wrong]
    ran = from_rows(tmp_path, made.write_rows(tmp_path / "pairs.jsonl", rows))
    counts = ran.result.counts
    assert counts["read"] == len(rows) > 2000
    assert counts["preference_train"] + counts["preference_heldout"] + counts["repeated"] + counts["unfit"] == len(rows)
    assert counts["preference_heldout"] > 50 and counts["unfit"] < 20


@pytest.mark.parametrize("modulus", [2, 3, 1_000_000])
@pytest.mark.parametrize(("sft", "preference"), [("ab", "bc"), ("ab", "ab"), ("a", "ab"), ("abcdefgh", "efghijkl")])
def test_a_prompt_is_on_one_side_of_both_kinds(tmp_path: Path, sft: str, preference: str, modulus: int) -> None:
    rows: list[Any] = [{"prompt": p, "completion": "c"} for p in sft]
    rows += [{"prompt": p, "chosen": "a", "rejected": "b"} for p in preference]
    ran = from_rows(tmp_path, made.write_rows(tmp_path / "rows.jsonl", rows), heldout_modulus=modulus)
    groups = {name: {r["group"] for r in ran.rows(name)} for name in FILES[:4]}
    for kind, prompts in (("sft", sft), ("preference", preference)):
        assert groups[f"{kind}.train.jsonl"]
        assert bool(groups[f"{kind}.heldout.jsonl"]) == (len(prompts) > 1)
    assert not groups["sft.heldout.jsonl"] & groups["preference.train.jsonl"]
    assert not groups["preference.heldout.jsonl"] & groups["sft.train.jsonl"]
