"""Two hosts on one machine: network namespaces that a virtual cable connects. They share the disk, as hosts must."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

HAS_NAMESPACES = sys.platform == "linux" and os.geteuid() == 0 and shutil.which("ip") is not None
_DEVICE = "eth0"  # of each host, its end of the cable


class Hosts:
    """Two connected hosts, and the commands that run on them.

    Attributes:
        names: of their namespaces.
    """

    def __init__(self) -> None:
        self.names = [f"coattn-{os.getpid()}-{host}" for host in (0, 1)]
        self._started: list[subprocess.Popen[str]] = []

    def start(self, host: int, *command: object, hosts: int = 2) -> subprocess.Popen[str]:
        """Start a Python program or module of `torchrun` on a host, as one of `hosts`."""
        launch = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nproc-per-node", "1"]
        rendezvous = ["--nnodes", hosts, "--node-rank", host, "--master-addr", "10.77.0.1", "--master-port", 29477]
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": _DEVICE, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.names[host], *launch, *map(str, rendezvous), *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def run(self, *command: object) -> list[tuple[int, str, str]]:
        """Run a command on both hosts together: status, standard output and errors of each."""
        processes = [self.start(host, *command) for host in (0, 1)]
        return [(p.returncode, *output) for p in processes for output in [p.communicate(timeout=500)]]

    def cut(self) -> None:
        """Cut the cable; neither side is told."""
        _ip("-n", self.names[1], "link", "set", _DEVICE, "down")

    def mend(self) -> None:
        """Connect the hosts again."""
        _ip("-n", self.names[1], "link", "set", _DEVICE, "up")

    def power_off(self, host: int) -> None:
        """End everything that runs on a host at once."""
        found = subprocess.run(["ip", "netns", "pids", self.names[host]], capture_output=True, text=True, check=False)
        for process in map(int, found.stdout.split()):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


@contextmanager
def two_hosts() -> Iterator[Hosts]:
    """Make two hosts; whatever happens, their processes and namespaces are removed afterwards."""
    hosts = Hosts()
    _remove_leftovers()
    try:
        for name in hosts.names:
            _ip("netns", "add", name)
        first, second = hosts.names
        _ip("link", "add", _DEVICE, "netns", first, "type", "veth", "peer", "name", _DEVICE, "netns", second)
        for host, name in enumerate(hosts.names):
            _ip("-n", name, "addr", "add", f"10.77.0.{host + 1}/24", "dev", _DEVICE)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", _DEVICE, "up")
        yield hosts
    finally:
        for host, name in enumerate(hosts.names):
            hosts.power_off(host)
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        for process in hosts._started:
            process.communicate()


def _remove_leftovers() -> None:
    """Remove the namespaces of tests that were killed."""
    for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else ():
        prefix, _, rest = name.partition("-")
        if prefix == "coattn" and not os.path.exists(f"/proc/{rest.partition('-')[0]}"):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
