"""The service on HTTP: routing, faults, the journal, and the admin addresses that tests use."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.ibm.jobs import JobBook, RefusedError
from tests.ibm.journal import Journal
from tests.ibm.routes import API, Answer, Request, Routes, error
from tests.ibm.script import Fault, Picker, Script

HTML = "<html><body>We are doing maintenance.</body></html>"
OPEN = ("POST /identity/token",)  # the only route without a token


class Service:
    """Journal, jobs and faults behind the handlers, of which each connection has one."""

    def __init__(self, script: Script) -> None:
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._begin(script)

    def _begin(self, script: Script) -> None:
        self.journal = Journal()
        self.book = JobBook(self.journal, script)
        self.routes = Routes(script, self.book)
        self.faults = Picker(script.seed, script.faults)
        self.requests: Counter[str] = Counter()
        self._table = [
            (name, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", name) + r"\Z"), answer)
            for name, answer in self.routes.table().items()
        ]

    def close(self) -> None:
        """Let all threads that wait end."""
        self.ended.set()
        self.book.close()

    # What tests ask for

    def admin(self, request: Request) -> Answer:
        """Answer `/admin/...`; such requests aren't in the journal and meet no faults."""
        what = request.path.removeprefix("/admin/")
        if what == "journal":
            since, timeout_s = int(request.one("since") or 0), float(request.one("timeout_s") or 0)
            return Answer(200, self.journal.since(since, timeout_s))
        if what == "state":
            book = self.book
            return Answer(
                200,
                {
                    "jobs": [self.routes._told(job) for job in list(book.jobs.values())],
                    "pending": len(book.pending()),
                    "peak_pending": book.peak_pending,
                    "peak_running": book.peak_running,
                    "runs": dict(book.runs),
                    "violations": book.violations,
                    "requests": dict(self.requests),
                },
            )
        if what == "script":
            changes = request.json()
            script = self.routes.script.changed(changes)
            self.routes.script = script
            if "faults" in changes or "seed" in changes:
                self.faults = Picker(script.seed, script.faults)
            self.book.use(script, endings="endings" in changes or "seed" in changes)
            return Answer(204)
        if what == "reset":
            self.book.close()
            ids, tokens = self.book._ids, self.routes._tokens
            self._begin(Script().changed(request.json()))
            self.book._ids, self.routes._tokens = ids, tokens  # no id twice in a process
            return Answer(204)
        return error(404, 0, f"no {request.path}")

    # What the client asks for

    def meet(self, request: Request) -> tuple[Answer | None, float | None]:
        """Answer a request, or None to drop its connection; and what Retry-After says."""
        route, full = self._find(request)
        with self._lock:
            self.requests[route] += 1
        fault = self.faults.fault(route)
        # A request that is held up may come to its end after a reset: it belongs to what was before.
        journal = self.journal
        number = None if fault is None else self.routes.script.faults.index(fault)
        answer, retry_after_s, job = self._carry_out(route, full, fault)
        outcome = "dropped" if answer is None else answer.status
        journal.add(
            "request",
            method=request.method,
            path=request.path,
            route=route,
            outcome=outcome,
            fault=number,
            job=job,
            bytes=len(request.body),
        )
        return answer, retry_after_s

    def _find(self, request: Request) -> tuple[str, Request]:
        asked = f"{request.method} {request.path.removeprefix(API)}"
        for name, pattern, _ in self._table:
            match = pattern.match(asked)
            if match is not None:
                return name, replace(request, parts=match.groupdict())
        return asked, request

    def _carry_out(
        self, route: str, request: Request, fault: Fault | None
    ) -> tuple[Answer | None, float | None, str | None]:
        if fault is None:
            return self._answer(route, request)
        wrong: Answer | None = None
        if fault.html:
            wrong = Answer(fault.status or 200, HTML)
        elif fault.status is not None:
            wrong = error(fault.status, fault.code, fault.message)
        if fault.when == "late":
            timer = threading.Timer(fault.delay_s, self._late, (self.journal, route, request))
            timer.daemon = True
            timer.start()
            return None, None, None
        if fault.when == "before":
            self.ended.wait(fault.delay_s)
            if wrong is None and not fault.drop:
                return self._answer(route, request)
            return (None if fault.drop else wrong), fault.retry_after_s, None
        true, retry_after_s, job = self._answer(route, request)
        self.ended.wait(fault.delay_s)
        if fault.drop:
            return None, None, job
        return (true, retry_after_s, job) if wrong is None else (wrong, fault.retry_after_s, job)

    def _late(self, journal: Journal, route: str, request: Request) -> None:
        if not self.ended.is_set() and journal is self.journal:  # no reset meanwhile
            answer, _, job = self._answer(route, request)
            outcome = None if answer is None else answer.status
            journal.add("late", route=route, outcome=outcome, job=job)

    def _answer(self, route: str, request: Request) -> tuple[Answer | None, float | None, str | None]:
        try:
            for name, _, answer in self._table:
                if name == route:
                    if name not in OPEN:
                        self.routes.authorise(request)
                    given = answer(request)
                    return given, None, given.job
            return error(404, 0, f"no {request.path}"), None, None
        except RefusedError as refused:
            return error(refused.status, refused.code, refused.message), refused.retry_after_s, None


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body in one packet
    service: Service  # set by `serve`

    def _do(self) -> None:
        address = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, address.path, parse_qs(address.query), headers, body)
        if address.path.startswith("/admin/"):
            self._reply(self.service.admin(request), None)
            return
        try:
            answer, retry_after_s = self.service.meet(request)
        except Exception as problem:  # a mistake of this service, which tests should see
            self.service.journal.add("broken", path=request.path, error=repr(problem))
            self._reply(error(599, 0, repr(problem)), None)
            return
        if answer is None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self._reply(answer, retry_after_s)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _do  # noqa: N815 - names of the standard library

    def _reply(self, answer: Answer, retry_after_s: float | None) -> None:
        content = b""
        kind = "application/json"
        if isinstance(answer.content, str):
            content = answer.content.encode()
            kind = "text/html" if answer.content == HTML else "text/plain"
        elif answer.content is not None:
            content = json.dumps(answer.content).encode()
        self.send_response(answer.status)
        if retry_after_s is not None:
            self.send_header("Retry-After", f"{retry_after_s:g}")
        if answer.status != 204:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if answer.status != 204:
            self.wfile.write(content)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """The journal has it."""


class Server(ThreadingHTTPServer):
    """Takes many connections at once, and forgets those that clients have left open when it ends."""

    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of this service's mistakes."""


def serve(script: Script) -> tuple[Server, Service]:
    """Start serving on a free port of loopback, in threads."""
    service = Service(script)
    handler = type("BoundHandler", (Handler,), {"service": service})
    server = Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server, service
