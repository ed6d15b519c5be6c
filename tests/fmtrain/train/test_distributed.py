"""How ranks meet: on machines of their own (network namespaces), each with Debian's 127.0.1.1 and a bridge beside the
network between them; and what they say to each other."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.backends.command import Command, meeting, of_command, rank_env
from launch.backends.environment import environment, module
from launch.backends.node import place
from tests.fmtrain.train.spawning import ROOT

RANK = """
import json, socket, sys
from datetime import timedelta
from pathlib import Path
import torch
from fmtrain.errors import StoreError
from fmtrain.train import distributed
distributed.TIMEOUT = timedelta(seconds=20)
group = distributed.start(torch.device("cpu"))
told = group.gather({"rank": group.rank, "text": "\u00fc" * (group.rank * 1000), "none": None})
assert [t["rank"] for t in told] == [0, 1] and [len(t["text"]) for t in told] == [0, 1000] and told[1]["none"] is None
assert group.sum([1.5, group.rank]) == [3.0, 1.0]
rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
said = {
    "host": socket.gethostname(),
    "hostname is": socket.gethostbyname(socket.gethostname()),
    "listening": sorted({row[1].partition(":")[0] for row in rows if row[3] == "0A"}),
}
Path(sys.argv[1], f"said{group.rank}").write_text(json.dumps(said))
"""


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@contextlib.contextmanager
def two_machines(folder: Path) -> Iterator[list[list[str]]]:
    """Two network namespaces with two cables between them, fabric0 (10.77.0.1 and .2) and slow0 (10.78.0.1 and .2); the
    words that start a command on each."""
    names = [f"fmtrain-{os.getpid()}-{i}" for i in range(2)]
    try:
        for i, name in enumerate(names):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("ip", "-n", name, "link", "add", "bridge0", "type", "bridge")
            run("ip", "-n", name, "addr", "add", f"172.17.{i}.1/24", "dev", "bridge0")
            run("ip", "-n", name, "link", "set", "bridge0", "up")
            (folder / f"hosts{i}").write_text(f"127.0.0.1 localhost\n127.0.1.1 node{i}\n")
        for net, cable in (("10.77.0", "fabric0"), ("10.78.0", "slow0")):
            run("ip", "-n", names[0], "link", "add", cable, "type", "veth", "peer", "name", cable, "netns", names[1])
            for i, name in enumerate(names):
                run("ip", "-n", name, "addr", "add", f"{net}.{i + 1}/24", "dev", cable)
                run("ip", "-n", name, "link", "set", cable, "up")
        hosts = 'hostname node$0 && mount --bind "$1" /etc/hosts && shift && exec "$@"'
        yield [
            ["ip", "netns", "exec", name, "unshare", "-m", "-u", "sh", "-c", hosts, str(i), str(folder / f"hosts{i}")]
            for i, name in enumerate(names)
        ]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.mark.root
@pytest.mark.parametrize(("interface", "net"), [(None, 77), ("slow0", 78)])
def test_ranks_on_two_machines_meet_by_the_network_between_them(
    interface: str | None, net: int, tmp_path: Path
) -> None:
    """By which the first is reached, or which launch.interface names; Ray's head on a node of a queue listens there."""
    with two_machines(tmp_path) as machines, meeting(tmp_path / "logs" / "a stage") as file:
        assert file.stat().st_mode & 0o077 == 0
        started = []
        for rank, machine in enumerate(machines):
            own = rank_env(rank, 0, 2, 1, file, "10.77.0.1")
            named = of_command(Command("pretrain", [], tmp_path, interface=interface))
            env = {**environment("compute"), "PYTHONPATH": str(ROOT), **named, **own}
            argv = [*machine, sys.executable, "-P", "-c", RANK, str(tmp_path)]
            with open(tmp_path / f"log{rank}", "wb") as log:
                started.append(subprocess.Popen(argv, env=env, stdout=log, stderr=log))
        codes = [process.wait(120) for process in started]
        ask = [*machines[0], *module("launch.backends.node", "place", f"--interface={interface or ''}", "10.77.0.2")]
        head = subprocess.run(ask, env=environment("compute"), cwd=ROOT, capture_output=True, text=True)
        assert head.stdout.startswith(f"10.{net}.0.1:"), head.stderr
    assert codes == [0, 0], "\n".join((tmp_path / f"log{rank}").read_text() for rank in range(2))
    for rank in range(2):
        said = json.loads((tmp_path / f"said{rank}").read_text())
        assert said["hostname is"] == "127.0.1.1" and said["host"] == f"node{rank}"
        assert said["listening"] == [f"{rank + 1:02X}00{net:02X}0A"], "on the cable's address, and nowhere else"
    assert not file.exists()


def test_an_interface_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(OSError, match="launch.interface=absent0 has no IPv4 address on .*, which has .*lo"):
        place(["127.0.0.1"], "absent0")
