"""What ships: every folder is a package, the wheel finds its configs and templates, and runs outside the checkout."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MOVED = {"conf": "fmtrain/conf", "slurm": "launch/templates"}
DATA = {".py", ".yaml", ".jinja", ".html", ".sbatch", ".sh", ".bash", ".zsh", ".txt", ".typed"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tracked and new files, so that nothing is left in the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(out), str(source)]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("fmtrain-*.whl")
    return path


def test_the_wheel_holds_every_file(wheel: Path) -> None:
    shipped = set(zipfile.ZipFile(wheel).namelist())
    missing = []
    for top in ("fmtrain", "data_pipelines", "launch", "conf", "slurm"):
        for path in (ROOT / top).rglob("*"):
            if path.is_file() and path.suffix in DATA and "__pycache__" not in path.parts:
                name = path.relative_to(ROOT / top).as_posix()
                missing += [] if f"{MOVED.get(top, top)}/{name}" in shipped else [f"{top}/{name}"]
    assert missing == []


def test_every_folder_of_modules_is_a_package() -> None:
    for top in ("fmtrain", "data_pipelines", "launch", "conf", "slurm"):
        for path in (ROOT / top).rglob("*.*"):
            if path.suffix in (".py", ".yaml"):
                assert (path.parent / "__init__.py").is_file(), path.parent


def test_a_wheel_in_an_empty_environment_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """Dependencies come from this environment by a path file, which does not bring its editable install along."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "env")}))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(tmp_path / "env/bin/python"), "install", "-q", "--no-deps"]
    done = subprocess.run([*pip, "--no-index", "--ignore-installed", str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def command(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(tmp_path / "env/bin/fmtrain"), *args], capture_output=True, text=True, cwd=tmp_path, env=env
        )

    where = subprocess.run(
        [str(tmp_path / "env/bin/python"), "-c", "import fmtrain, launch; print(fmtrain.__file__, launch.__file__)"],
        capture_output=True, text=True, cwd=tmp_path, env=env,
    )  # fmt: skip
    assert where.stdout.count(str(tmp_path)) == 2, where.stdout + where.stderr
    off = [f"stages.{s}=null" for s in ("examples", "pretrain", "sft", "reference", "dpo", "evaluate", "publish")]
    done = command("run", "recipe=quickstart_tiny", "launch=inline", *off)
    assert done.returncode == 0 and "tokens@v1" in done.stdout, done.stdout + done.stderr
    script = command("run", "launch=slurm", "launch.dry_run=true", "launch.nodes=2")
    assert script.returncode == 0 and "#SBATCH --nodes=2" in script.stdout, script.stderr


def test_ci_installs_what_the_test_cluster_needs() -> None:
    listed = (ROOT / ".ci" / "packages.txt").read_text().splitlines()
    (named,) = re.findall(r"^PACKAGES=\((.*)\)$", (ROOT / "slurm/testing/cluster.sh").read_text(), re.M)
    assert set(named.split()) <= set(listed)


def test_constraints_pin_what_the_package_needs() -> None:
    pinned = {
        re.split(r"[=<>]", line)[0].lower().replace("-", "_")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    needed = re.findall(r'^\s+"([A-Za-z0-9_-]+)', (ROOT / "pyproject.toml").read_text().split("[tool")[0], re.M)
    assert {n.lower().replace("-", "_") for n in needed} - {"setuptools", "wheel"} <= pinned | {"fmtrain"}
