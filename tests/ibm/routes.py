"""What each address of the service answers. Nothing here knows of HTTP connections or of faults."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from tests.ibm.jobs import PENDING, Job, JobBook, RefusedError, now
from tests.ibm.running import read_submission
from tests.ibm.script import Script

PLAN = "plan-of-loopback"
API = "/experimental/api/v1"


@dataclass(frozen=True)
class Request:
    """A request without its connection. `parts` are the names in braces of the route."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    parts: dict[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        return json.loads(self.body)

    def one(self, name: str) -> str | None:
        return next(iter(self.query.get(name, [])), None)


@dataclass(frozen=True)
class Answer:
    """A reply; `job` is the one that the request made."""

    status: int = 200
    content: Any = None
    job: str | None = None


def error(status: int, code: int, message: str) -> Answer:
    """The real service's form of an error."""
    told = {"code": code, "message": message, "solution": "See the documentation.", "more_info": ""}
    return Answer(status, {"errors": [told], "trace": "loopback"})


def stamp(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


class Routes:
    """All routes of the client, over one book of jobs."""

    def __init__(self, script: Script, book: JobBook) -> None:
        self.script = script
        self.book = book
        self._tokens: dict[str, float] = {}

    def table(self) -> dict[str, Callable[[Request], Answer]]:
        """Route to function. The first that matches counts."""
        return {
            "POST /identity/token": self.token,
            "POST /v3/resources/search": self.search,
            "GET /catalog/api/v1/{plan}": self.plan,
            "GET /v2/resource_instances": self.resource_instances,
            "GET /versions": self.versions,
            "GET /instances/usage": self.usage,
            "GET /backends": self.backends,
            "GET /backends/{name}/configuration": self.configuration,
            "GET /backends/{name}/properties": self.properties,
            "GET /backends/{name}/status": self.status,
            "POST /jobs": self.submit,
            "GET /jobs": self.list_jobs,
            "GET /jobs/{id}": self.get_job,
            "DELETE /jobs/{id}": self.delete_job,
            "GET /jobs/{id}/results": self.results,
            "POST /jobs/{id}/cancel": self.cancel,
            "GET /jobs/{id}/logs": self.logs,
            "GET /jobs/{id}/metrics": self.metrics,
            "PUT /jobs/{id}/tags": self.update_tags,
            "POST /sessions": self.open_session,
            "GET /sessions/{id}": self.get_session,
            "PATCH /sessions/{id}": self.close_session,
            "DELETE /sessions/{id}/close": self.cancel_session,
        }

    # Accounts

    def token(self, request: Request) -> Answer:
        key = parse_qs(request.body.decode()).get("apikey", [""])[0]
        if key not in self.script.api_keys:
            return Answer(
                400, {"errorCode": "BXNIM0415E", "errorMessage": "Provided API key could not be found."}
            )
        begin, life = int(time.time()), int(self.script.token_s)
        claims = {"sub": key, "iat": begin, "exp": begin + life, "n": len(self._tokens)}
        pieces = ({"alg": "RS256", "typ": "JWT"}, claims)
        text = [
            base64.urlsafe_b64encode(json.dumps(piece).encode()).rstrip(b"=").decode() for piece in pieces
        ]
        token = ".".join([*text, "c2lnbmVk"])
        self._tokens[token] = time.time() + self.script.token_s
        told = {"access_token": token, "refresh_token": "not_supported", "token_type": "Bearer"}
        return Answer(200, {**told, "expires_in": life, "expiration": begin + life})

    def authorise(self, request: Request) -> None:
        """Refuse a request without a token of this service, or for an instance that it doesn't have."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        valid = kind == "Bearer" and self._tokens.get(token, 0.0) > time.time()
        if not valid or self.script.revoked:
            raise RefusedError(401, 1200, "You are not authorized to perform this action.")
        crn = request.headers.get("service-crn")
        if request.path.startswith(API) and crn not in self.script.instances:
            raise RefusedError(403, 1201, f"No access to the instance {crn}")

    def search(self, request: Request) -> Answer:
        items = [
            {
                "crn": crn,
                "name": crn.split(":")[-3].rpartition("/")[2],
                "service_plan_unique_id": PLAN,
                "tags": [],
                "doc": {"extensions": {"backends": [name for name, _ in self.script.backends]}},
            }
            for crn in self.script.instances
        ]
        return Answer(200, {"items": items, "limit": 100})

    def plan(self, request: Request) -> Answer:
        shown = {"en": {"display_name": "Premium"}}
        return Answer(
            200,
            {"id": PLAN, "name": "premium", "overview_ui": shown, "metadata": {"pricing": {"type": "paid"}}},
        )

    def resource_instances(self, request: Request) -> Answer:
        found = [{"crn": crn, "id": crn} for crn in self.script.instances]
        return Answer(200, {"rows_count": len(found), "resources": found})

    def versions(self, request: Request) -> Answer:
        return Answer(200, {"versions": ["2026-04-15"]})

    def usage(self, request: Request) -> Answer:
        crn = request.headers["service-crn"]
        told: dict[str, Any] = {"instance_id": crn, "plan_id": PLAN}
        told["usage_consumed_seconds"] = self.book.consumed(crn)
        told["usage_limit_reached"] = self.book.over_limit(crn)
        if self.script.usage_limit_s is not None:
            told["usage_limit_seconds"] = self.script.usage_limit_s
        return Answer(200, told)

    # Backends

    def backends(self, request: Request) -> Answer:
        devices = []
        for name, device in self.script.backends:
            conf = device_data(device, "conf")
            queue = len(self.book.pending(backend=name))
            status = {"name": "online", "reason": "available"}
            devices.append(
                {"name": name, "status": status, "qubits": conf["n_qubits"], "queue_length": queue}
            )
        return Answer(200, {"devices": devices})

    def configuration(self, request: Request) -> Answer:
        name = request.parts["name"]
        return Answer(200, {**device_data(self._device(name), "conf"), "backend_name": name})

    def properties(self, request: Request) -> Answer:
        name = request.parts["name"]
        return Answer(200, {**device_data(self._device(name), "props"), "backend_name": name})

    def status(self, request: Request) -> Answer:
        self._device(request.parts["name"])
        queue = len(self.book.pending(backend=request.parts["name"]))
        told = {"state": True, "status": "active", "message": "available", "backend_version": "1.0.0"}
        return Answer(200, {**told, "length_queue": queue})

    def _device(self, name: str) -> str:
        device = dict(self.script.backends).get(name)
        if device is None:
            raise RefusedError(404, 1007, f"Backend {name} not found")
        return device

    # Jobs

    def submit(self, request: Request) -> Answer:
        self.book.check_rate()
        try:
            asked = {key: value for key, value in request.json().items() if key != "params"}
            self._device(asked["backend"])
            submission = read_submission(request.body)
        except RefusedError:
            raise
        except Exception as problem:
            raise RefusedError(400, 1002, f"The job isn't valid: {problem}") from problem
        session = self.book.sessions.get(asked["session_id"]) if asked.get("session_id") else None
        if asked.get("session_id") and (session is None or not session["accepting_jobs"]):
            raise RefusedError(400, 1217, f"Session {asked['session_id']} has been closed")
        job = self.book.accept(request.headers["service-crn"], asked, request.body, submission)
        return Answer(200, {"id": job.id, "backend": job.backend}, job=job.id)

    def list_jobs(self, request: Request) -> Answer:
        limit, offset = int(request.one("limit") or 10), int(request.one("offset") or 0)
        if not 0 < limit <= 200:
            raise RefusedError(400, 1003, f"limit is 1 to 200, not {limit}")
        jobs = [
            job for job in list(self.book.jobs.values()) if job.instance == request.headers["service-crn"]
        ]
        tests: dict[str, Callable[[Job, str], bool]] = {
            "backend": lambda job, value: job.backend == value,
            "program": lambda job, value: job.asked["program_id"] == value,
            "session_id": lambda job, value: job.asked.get("session_id") == value,
            "pending": lambda job, value: (job.state in PENDING) == (value == "true"),
            "created_after": lambda job, value: job.created >= datetime.fromisoformat(value),
            "created_before": lambda job, value: job.created <= datetime.fromisoformat(value),
            "tags": lambda job, value: value in job.tags,
        }
        for name, test in tests.items():
            for value in request.query.get(name, []):
                jobs = [job for job in jobs if test(job, value)]
        if request.one("sort") != "ASC":
            jobs.reverse()
        page = [self._told(job) for job in jobs[offset : offset + limit]]
        return Answer(200, {"jobs": page, "count": len(jobs), "limit": limit, "offset": offset})

    def get_job(self, request: Request) -> Answer:
        job = self._job(request)
        told = self._told(job)
        if request.one("exclude_params") != "true" and not job.asked.get("private"):
            told["params"] = json.loads(job.body)["params"]
        return Answer(200, told)

    def delete_job(self, request: Request) -> Answer:
        job = self._job(request)
        if job.state in PENDING:
            raise RefusedError(400, 1292, f"Job {job.id} has not ended")
        del self.book.jobs[job.id]
        return Answer(204)

    def results(self, request: Request) -> Answer:
        job = self._job(request)
        if job.state != "Completed":
            return Answer(200, job.reason or "") if job.state == "Failed" else Answer(204)
        result = job.result
        if job.asked.get("private"):  # "the results can only be read once"
            job.result = ""
        return Answer(200, result)

    def cancel(self, request: Request) -> Answer:
        self.book.cancel(self._job(request))
        return Answer(204)

    def logs(self, request: Request) -> Answer:
        return Answer(200, f"log of {self._job(request).id}")

    def metrics(self, request: Request) -> Answer:
        job = self._job(request)
        times = {
            "created": stamp(job.created),
            "running": stamp(job.started),
            "finished": stamp(job.finished),
        }
        usage = {
            "quantum_seconds": job.seconds,
            "seconds": job.seconds,
            "qpu_charge_time_seconds": job.seconds,
        }
        told: dict[str, Any] = {"timestamps": times, "executions": job.executions, "caller": "loopback"}
        told["usage"] = {**usage, "status": "pending" if job.state in PENDING else "final"}
        told["num_circuits"] = len(job.circuits)
        if job.state == "Queued":
            queued = [other.id for other in self.book.pending(backend=job.backend) if other.state == "Queued"]
            if job.id in queued:  # it may have started meanwhile
                told["position_in_queue"] = queued.index(job.id) + 1
                told["estimated_start_time"] = stamp(now())
        return Answer(200, told)

    def update_tags(self, request: Request) -> Answer:
        self._job(request).asked["tags"] = request.json()["tags"]
        return Answer(204)

    def _job(self, request: Request) -> Job:
        job = self.book.jobs.get(request.parts["id"])
        if job is None or job.instance != request.headers["service-crn"]:
            raise RefusedError(404, 1291, f"Job not found. Job ID: {request.parts['id']}")
        return job

    def _told(self, job: Job) -> dict[str, Any]:
        state: dict[str, Any] = {"status": job.state}
        if job.reason is not None:
            state["reason"] = job.reason
        if job.code is not None:
            state["reason_code"] = job.code
        return {
            "id": job.id,
            "backend": job.backend,
            "status": job.state,
            "state": state,
            "created": stamp(job.created),
            "ended": stamp(job.finished),
            "program": {"id": job.asked["program_id"]},
            "runtime": job.asked.get("runtime"),
            "tags": job.tags,
            "session_id": job.asked.get("session_id"),
            "cost": job.asked.get("cost"),
            "private": bool(job.asked.get("private")),
            "usage": {"seconds": job.seconds},
            "estimated_running_time_seconds": self.script.usage_s_per_job
            + job.executions * self.script.usage_s_per_execution,
        }

    # Sessions

    def open_session(self, request: Request) -> Answer:
        asked = request.json()
        session = {
            "id": self.book.new_id("s"),
            "backend_name": asked.get("backend"),
            "mode": asked.get("mode"),
            "max_ttl": asked.get("max_ttl"),
            "interactive_ttl": 60,
            "active_ttl": 28800,
            "state": "open",
            "accepting_jobs": True,
            "elapsed_time": 0,
            "started_at": stamp(now()),
        }
        self.book.sessions[session["id"]] = session
        return Answer(201, session)

    def get_session(self, request: Request) -> Answer:
        session = self._session(request)
        seconds = [
            job.seconds
            for job in list(self.book.jobs.values())
            if job.asked.get("session_id") == session["id"]
        ]
        return Answer(200, {**session, "elapsed_time": sum(seconds)})

    def close_session(self, request: Request) -> Answer:
        session = self._session(request)
        session.update(state="closed", accepting_jobs=False, closed_at=stamp(now()))
        return Answer(204)

    def cancel_session(self, request: Request) -> Answer:
        self.close_session(request)
        for job in self.book.pending():
            if job.asked.get("session_id") == request.parts["id"] and job.state == "Queued":
                self.book.cancel(job, "The session was closed")
        return Answer(204)

    def _session(self, request: Request) -> dict[str, Any]:
        session = self.book.sessions.get(request.parts["id"])
        if session is None:
            raise RefusedError(404, 1216, f"Session {request.parts['id']} not found")
        return session


def device_data(device: str, what: str) -> dict[str, Any]:
    """Configuration ("conf") or properties ("props") of one of the client's fake devices, as the real ones are told."""
    package = find_spec("qiskit_ibm_runtime")  # looked up, not imported
    if package is None or package.origin is None:
        raise RuntimeError("qiskit-ibm-runtime isn't installed")
    folder = Path(package.origin).parent / "fake_provider" / "backends" / device
    loaded: dict[str, Any] = json.loads((folder / f"{what}_{device}.json").read_text())
    return loaded
