"""What an earlier run had finished and not committed counts only as long as it is as the worker left it."""

from pathlib import Path

import pytest

from fmtrain.artifacts.storage import list_files, write_sealed
from launch.driver import _is_finished


@pytest.mark.parametrize("where", ["out/weights", "result.json", "nothing"])
def test_a_byte_that_changed_before_the_commit_is_made_again(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not _is_finished(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "weights").write_text("sound")
    write_sealed(tmp_path / "result.json", {"counts": {"steps": 10}, "files": list_files(tmp_path / "out")})
    if where == "nothing":
        assert _is_finished(tmp_path)
        return
    path = tmp_path / where
    path.write_text(path.read_text().replace("sound", "souns").replace("10", "11"))
    assert not _is_finished(tmp_path) and not (tmp_path / "result.json").exists()
    assert "is made again" in capsys.readouterr().err
