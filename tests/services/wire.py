"""Requests to a process on loopback: what a client of a service is made of. A connection a request, any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

import cloudpickle


@dataclass(frozen=True)
class Where:
    """A process that ``serve`` runs in.

    Attributes:
        port: On loopback.
        key: Known to it and to whoever may ask.
    """

    port: int
    key: bytes = field(repr=False)

    def ask(self, what: str, *values: Any) -> Any:
        """Call one of its functions; raises what that raises."""
        with Client(("127.0.0.1", self.port), authkey=self.key) as wire:
            # By value: a script is full of functions that only its test knows.
            wire.send_bytes(cloudpickle.dumps((what, values)))
            well, answer = wire.recv()
        if not well:
            raise answer
        return answer


def serve(functions: Mapping[str, Callable[..., Any]], key: bytes, ready: Callable[[int], object]) -> None:
    """Answer requests for ever.

    Args:
        functions: What may be called, by name.
        key: See ``Where``.
        ready: Is told the port.
    """
    with Listener(("127.0.0.1", 0), backlog=64, authkey=key) as listener:
        ready(listener.address[1])
        while True:
            try:
                wire = listener.accept()
            except Exception:  # who asked has died meanwhile
                continue
            threading.Thread(target=_answer, args=(wire, functions), daemon=True).start()


def _answer(wire: Connection[Any, Any], functions: Mapping[str, Callable[..., Any]]) -> None:
    with wire:
        try:
            what, values = cloudpickle.loads(wire.recv_bytes())
            answer = True, functions[what](*values)
        except Exception as error:
            answer = False, error
        with suppress(OSError):  # nobody is there to hear it
            wire.send(answer)
