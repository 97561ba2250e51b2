"""A cluster that can't be reached is told of within seconds: how long it was tried, and what to look at."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from ray_qjm.cluster import session
from ray_qjm.cluster.reach import listens, reach
from ray_qjm.cluster.session import Wish, cluster_address, wish


@pytest.fixture
def silent() -> Iterator[str]:
    """Something that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed() -> str:
    """A port at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def test_nothing_listens(closed: str) -> None:
    message = f"no Ray cluster answers at {closed}: Connection refused, tried for 1 s. Look at the address"
    with pytest.raises(ConnectionError, match=message):
        reach(closed, try_s=1.0)


def test_a_head_node_that_is_being_started_is_waited_for(closed: str) -> None:
    """Once it listens, it is asked whether it is Ray."""
    servers: list[socket.socket] = []
    address, port = closed.split(":")
    timer = threading.Timer(0.6, lambda: servers.append(socket.create_server((address, int(port)))))
    timer.start()
    with pytest.raises(ConnectionError, match=r"something listens at .*, and didn't answer as a Ray"):
        reach(closed, try_s=20.0, answer_s=0.5)
    timer.join()
    servers[0].close()


def test_something_else_listens(silent: str) -> None:
    with pytest.raises(
        ConnectionError, match=rf"something listens at my:1 .{silent}., and didn't .* within 0.5 s"
    ):
        reach(silent, "my:1", answer_s=0.5)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:six"])
def test_what_is_no_port(address: str) -> None:
    with pytest.raises(ConnectionError, match="is no port, which is 1 to 65535"):
        reach(address)


def test_a_name_that_nobody_knows_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    with pytest.raises(ConnectionError, match="Name or service not known, tried for 0 s"):
        reach("nowhere.invalid:6379", try_s=1000)


@pytest.fixture
def wished() -> Iterator[None]:
    """Wishes of the test don't outlive it."""
    yield
    wish(Wish())


@pytest.mark.usefixtures("wished")
def test_addresses_that_are_none_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    wish(Wish("nonsense"))
    with pytest.raises(ConnectionError, match="'nonsense' is no address of a Ray cluster"):
        cluster_address()
    wish(Wish("http://10.0.0.1:8265"))
    with pytest.raises(ConnectionError, match="address of a dashboard, which takes jobs: `ray job submit"):
        cluster_address()
    wish(Wish("local"))
    assert cluster_address() is None
    wish(Wish())
    monkeypatch.setenv("RAY_ADDRESS", "10.1.2.3:6379")
    assert cluster_address() == "10.1.2.3:6379"


@pytest.mark.usefixtures("wished")
def test_a_cluster_that_was_left_behind(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes are gone, and `ray stop` wasn't called: Ray goes on to join it."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda temp_dir: closed)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr(session, "reach", partial(reach, try_s=0.0))
    with pytest.raises(ConnectionError, match="the address that `ray start` left on this machine"):
        session.connect()


@pytest.mark.usefixtures("wished")
def test_what_was_given_stands_in_the_message(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr(session, "reach", partial(reach, try_s=0.0))
    wish(Wish(f"localhost:{closed.rpartition(':')[2]}"))
    with pytest.raises(ConnectionError, match="answers at localhost:"):
        session.connect()


@pytest.mark.usefixtures("wished")
def test_a_proxy_of_ray_client_that_isnt_there(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray says "ray client connection timeout" after half a minute."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr(session, "listens", partial(listens, within_s=0.0))
    wish(Wish(f"ray://{closed}"))
    with pytest.raises(ConnectionError, match=f"answers at ray://{closed}: Connection refused.*10001 unless"):
        session.connect()


OWN_HANDLER = """
import os, signal, sys, time
from ray_qjm.cluster.session import Wish, connect, wish
heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append("mine"))
wish(Wish("local", num_cpus=1))
assert connect()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(4)  # Ray's native code would end the process after 3 s
import ray
print(heard, ray.cluster_resources()["CPU"])
"""


def test_a_programs_own_handler_of_sigterm_stays() -> None:
    """Ray puts one of its own there, and programs that are to end in good order wouldn't."""
    done = subprocess.run(
        [sys.executable, "-c", OWN_HANDLER],
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("['mine'] 1.0\n", "", 0)
