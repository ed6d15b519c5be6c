"""A whole run beside another user of the machine who speaks to every socket that it listens on. Inline the same is
asked, of the ranks alone, in tests/fmtrain/train/test_started_inline.py."""

import os
from pathlib import Path

import pytest

from fmtrain.artifacts.storage import sha256_file
from tests.strangers import strangers
from tests.test_ranks_killed import start, store

__all__ = ["store"]


@pytest.mark.long
@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be another user")
@pytest.mark.parametrize("launch", ["local"])
def test_a_stranger_changes_nothing(launch: str, tiny_store: Path, store: Path) -> None:
    marker = Path("/tmp") / f"fmtrain-stranger-{os.getpid()}"
    run = start(store, launch=launch)
    try:
        with strangers([run.pid], marker) as met:
            said, errors = run.communicate(timeout=500)
        assert run.returncode == 0, said + errors
        assert not marker.exists(), f"a stranger's code ran as user {marker.read_text()}"
    finally:
        run.kill()
        marker.unlink(missing_ok=True)
    assert len(met) > 4, "Ray's own sockets are among them"
    assert {address for address, _ in met} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, met
    weights = [s.glob("artifacts/model/pretrain/v*/model.safetensors") for s in (store, tiny_store)]
    assert len({sha256_file(path) for paths in weights for path in paths}) == 1
