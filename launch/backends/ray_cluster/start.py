"""Which Ray a configuration means, and all that is settled before the first word to it.

A Ray of our own lives on loopback, asks everyone for a token, and keeps its files in a private folder: whoever can
write into Ray's folders, or reach its ports without a token, runs code as us.
"""

import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fmtrain.errors import ConfigError
from fmtrain.schema.launch import LocalRay, Slurm
from launch.backends.environment import environment

LISTEN_WAIT = 10.0  # seconds for something to listen at a given address
RAY_PATH = 68  # bytes that Ray adds to its folder in the longest path of a UNIX socket; those end at 107
_HOME = "fmtrain-xxxxxxxx/r"  # what we add to a folder for temporary files
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # of 15, Ray's own: a rank is what this machine is for; read where a raylet starts
    "RAY_gcs_rpc_server_reconnect_timeout_s": "15",  # of 60: a Ray whose head is gone is gone
    "RAY_prestart_worker_first_driver": "0",  # else who joins waits for workers, also for those that cannot start
}


@dataclass(frozen=True)
class Start:
    """What the keeper is to do: join `address`, or start a Ray of our own with `options` in the private folder `home`,
    where all that it starts keeps temporary files too: what libraries leave behind goes with it. The reaper makes that
    folder, with the token: whoever makes it must be there to remove it."""

    address: str = ""
    named: bool = False  # by launch.address
    home: str = ""
    options: dict[str, int | bool | None] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def token(self) -> str:
        """The file that holds the token of a Ray of our own."""
        return self.env.get("RAY_AUTH_TOKEN_PATH", "") if self.home else ""


def settle(config: LocalRay | Slurm, check: Callable[[], None]) -> Start:
    """What `config` asks for. ConfigError where it cannot be had; `check` is called while we wait, and may raise."""
    given = os.environ.get("RAY_ADDRESS", "") if "FMTRAIN_JOB" in os.environ else ""
    address = given or (config.address or "" if isinstance(config, LocalRay) else "")
    env = {**environment("ray"), **SETTINGS}  # what launch.env names goes to the stages alone, with each command
    if address:
        _await_listener(address, f"launch.address={address}" if not given else f"RAY_ADDRESS={given}", check)
        return Start(address=address, named=not given, env=env | {"RAY_ADDRESS": address})
    if not isinstance(config, LocalRay):
        raise ConfigError("launch=slurm runs on the Ray of its job, and RAY_ADDRESS is not set; use `fmtrain run`")
    return _own(config, {name: value for name, value in env.items() if not _of_another(name)})


def _of_another(name: str) -> bool:
    """What a shell says of some other Ray, of its address, its token, or the job that we run in there."""
    return name in ("RAY_ADDRESS", "RAY_NAMESPACE") or name.startswith(("RAY_AUTH_", "RAY_JOB_", "RAY_RAYLET_"))


def _own(config: LocalRay, env: dict[str, str]) -> Start:
    if config.auth not in ("disabled", "token"):
        raise ConfigError(f"launch.auth={config.auth}: expected token or disabled")
    short, wanted = _short_folder(), tempfile.gettempdir()
    home = os.path.join(short, f"fmtrain-{secrets.token_hex(4)}")
    env |= {
        "RAY_AUTH_MODE": config.auth,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # what keeps Ray on loopback; Linux too, whatever its name
        "TMPDIR": home,
    }
    warnings = [] if short == wanted else [f"TMPDIR={wanted} is too long for Ray's sockets; {home} is used instead"]
    if config.auth == "token":
        env["RAY_AUTH_TOKEN_PATH"] = os.path.join(home, "token")
    else:
        warnings += [
            "warning: launch.auth=disabled: every user of this machine, and every page that a browser here has open, "
            "can run commands as you through this Ray; leave launch.auth out"
        ]
    options: dict[str, int | bool | None] = {
        "num_cpus": config.num_cpus,
        "object_store_mb": config.object_store_mb,
        "dashboard": config.dashboard,
    }
    return Start(home=home, options=options, env=env, warnings=warnings)


def _short_folder() -> str:
    """TMPDIR where Ray's sockets fit in there, else the next of the usual folders."""
    tried = [tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"]
    for folder in tried:
        long = len(os.fsencode(os.path.join(folder, _HOME))) + RAY_PATH > 107
        if not long and os.access(folder, os.W_OK | os.X_OK):
            return folder
    most = 107 - RAY_PATH - len(_HOME) - 1
    raise ConfigError(
        f"Ray's sockets need a folder for temporary files whose path has {most} letters at most, and none of "
        f"{', '.join(tried)} is one that can be written; set TMPDIR, e.g. TMPDIR=/tmp, or use launch=inline"
    )


def _await_listener(address: str, what: str, check: Callable[[], None]) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(
            f"{what}: expected HOST:PORT, as `ray start --head` prints it, e.g. launch.address=10.0.0.1:6379"
        )
    deadline = time.monotonic() + LISTEN_WAIT
    while True:
        check()
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
            return
        except (OSError, OverflowError) as e:
            if time.monotonic() >= deadline:
                raise ConfigError(
                    f"{what}: no Ray listens there ({e}; tried for {LISTEN_WAIT:.0f} s). See on its head node whether "
                    "it is up (`ray status`), and whether it is reached from here, or leave launch.address out"
                ) from e
        time.sleep(0.2)
