"""Tiny Shakespeare, which everybody begins with: alone and beside other text, from the file to held-out bits."""

import json
from pathlib import Path

import pytest

from tests.conftest import fmtrain

SMALL = [
    "recipe=quickstart", "data=local", "launch=inline", "launch.ranks=1", "model=llama_tiny",
    "tokenizer.vocab_size=768", "stages.pretrain.steps=40", "stages.pretrain.sequence_length=128",
    "stages.evaluate.max_bytes=20000", "stages.evaluate.bootstrap=200", "stages.evaluate.samples=1",
    "stages.evaluate.sample_tokens=16",
]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("beside", [[], ["gutenberg.jsonl.gz"]], ids=["alone", "beside Gutenberg"])
def test_a_single_text_file_trains_with_a_split(shared_data: Path, tmp_path: Path, beside: list[str]) -> None:
    folder = shared_data / "pretrain"
    files = ",".join(str(folder / name) for name in ["tinyshakespeare.txt", *beside])
    command = [*SMALL, f"data.files=[{files}]", f"store={tmp_path / 'store'}"]
    without = fmtrain("plan", *command)
    assert "one document, tinyshakespeare.txt" in without.stdout + without.stderr
    assert "data.split=paragraphs" in without.stdout + without.stderr
    assert without.returncode == (0 if beside else 2)
    done = fmtrain("run", *command, "data.split=paragraphs")
    assert done.returncode == 0, done.stdout + done.stderr

    def manifest(kind: str) -> dict[str, dict[str, float]]:
        (path,) = (tmp_path / "store/artifacts" / kind).glob("*/v0001/manifest.json")
        found: dict[str, dict[str, float]] = json.loads(path.read_text())
        return found

    counts = manifest("corpus")["counts"]
    assert counts["train_documents"] > 200 and counts["heldout_documents"] >= 10
    card = json.loads(next((tmp_path / "store/artifacts/corpus/corpus/v0001").glob("card.json")).read_text())
    assert card["sources"]["tinyshakespeare"]["kept"] > 200
    assert 0 < manifest("evaluation")["metrics"]["pretrain_bits_per_byte"] < 8
