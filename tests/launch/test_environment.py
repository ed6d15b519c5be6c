"""What passes from the environment of whoever starts us to what we start, by kind of process."""

import os
import sys
from pathlib import Path

import pytest

import launch
from fmtrain.errors import ConfigError
from launch.backends.environment import environment, misleading, module, travelling

GIVEN = {
    "PATH": "/bin", "HOME": "/home/x", "LC_ALL": "C", "TMPDIR": "/t", "LD_PRELOAD": "libjemalloc.so",
    "CUDA_VISIBLE_DEVICES": "1", "NCCL_DEBUG": "INFO", "HF_HOME": "/cache", "HF_HUB_OFFLINE": "1",
    "HF_TOKEN": "secret", "AWS_SECRET_ACCESS_KEY": "secret", "https_proxy": "http://user:secret@proxy",
    "WANDB_API_KEY": "secret", "GITHUB_TOKEN": "secret", "MY_KEY": "secret", "RAY_AUTH_TOKEN": "secret",
    "RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "10.0.0.1", "SLURM_PROCID": "3",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "PYTHONOPTIMIZE": "2", "PYTHONWARNINGS": "error", "PYTHONHOME": "/other", "FMTRAIN_JOB": "7",
}  # fmt: skip
EVERYWHERE = {
    "HOME",
    "LC_ALL",
    "TMPDIR",
    "LD_PRELOAD",
    "CUDA_VISIBLE_DEVICES",
    "NCCL_DEBUG",
    "HF_HOME",
    "HF_HUB_OFFLINE",
}
OURS = {"PATH", "PYTHONPATH", "PYTHONSAFEPATH", "PYTHONUTF8", "PYTHONUNBUFFERED"}


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("compute", set()),
        ("network", {"HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "https_proxy"}),
        ("ray", {"RAY_AUTH_TOKEN"}),
    ],
)
def test_each_kind_gets_what_its_list_names(kind: str, more: set[str]) -> None:
    found = environment(kind, given=GIVEN)  # type: ignore[arg-type]
    assert found.keys() == EVERYWHERE | OURS | more
    assert {name: found[name] for name in EVERYWHERE | more} == {name: GIVEN[name] for name in EVERYWHERE | more}
    away = travelling(kind, given=GIVEN)  # type: ignore[arg-type]
    assert away.keys() == {"NCCL_DEBUG", "HF_HOME", "HF_HUB_OFFLINE"} | more  # paths and GPUs are a machine's own


def test_more_by_name() -> None:
    assert environment("compute", ["MY_KEY"], GIVEN)["MY_KEY"] == "secret"
    assert travelling("compute", ["MY_KEY"], GIVEN)["MY_KEY"] == "secret"
    assert misleading(GIVEN) == ["MASTER_ADDR", "RANK", "WORLD_SIZE"] and misleading({"HOME": "/"}) == []
    with pytest.raises(ConfigError, match="RANK is not passed on"):
        environment("compute", ["RANK"], GIVEN)
    with pytest.raises(ConfigError, match="ABSENT is not set"):
        environment("compute", ["ABSENT"], GIVEN)


def test_the_working_directory_is_no_place_to_import_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = environment("compute", given={"PYTHONPATH": ":plugins::/abs:"})
    folders = found["PYTHONPATH"].split(os.pathsep)
    assert folders[:2] == [str(tmp_path / "plugins"), "/abs"] and "" not in folders and str(tmp_path) not in folders
    assert folders[2:] in ([], [str(Path(launch.__file__).resolve().parents[1])])
    assert module("fmtrain.train", "x") == [sys.executable, "-P", "-m", "fmtrain.train", "x"]
