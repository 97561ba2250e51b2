"""Connecting to IBM Quantum Platform: which account, and how requests travel."""

from __future__ import annotations

import copy
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ray_qjm.backends.codes import causes, words
from ray_qjm.backends.ibm_place import IbmPlace, key_hash, local_accounts
from ray_qjm.backends.overheard import Overheard, struck
from ray_qjm.errors import BackendLoadError, RayQjmError

#: Seconds to connect, and for a silence in the middle of a reply. A GET is tried up to six times.
CONNECT_S = 5.0
GET_S = 15.0
#: For the reply to a submission, which may carry 300 MB. With the next one less than ``RetryPolicy.call_s``.
POST_S = 70.0
#: What comes before the submission itself (usage, status of the backend) may take so long; then nothing is sent:
#: whoever asked for it is about to give up waiting, and to look whether the job is there.
HELD_UP_S = 45.0
#: All that is asked to get to know an account and its backend, most of which the client asks without a deadline.
CONNECTED_S = 90.0
#: A service that asks for more patience than this is asked again all the same, or given up, by whoever asks.
MAX_RETRY_AFTER_S = 20.0
#: A job has at most 8 tags, and ours are two of them.
MAX_OWN_TAGS = 6

#: Around every call of the client.
OVERHEARD = Overheard("qiskit_ibm_runtime", "ray_qjm.backends.ibm")


class NotSentError(Exception):
    """A submission ended before the request that creates the job was sent; the cause says why."""


@dataclass
class Outbox:
    """What has become of the submission that a thread is about to make."""

    _local: threading.local = field(default_factory=threading.local)

    def begin(self) -> None:
        """This thread begins with a submission."""
        self._local.began, self._local.posted, self._local.trouble = time.monotonic(), False, None

    def failed(self, trouble: Exception) -> None:
        """A request of this thread has failed for good."""
        self._local.trouble = trouble

    @property
    def trouble(self) -> Exception | None:
        """The last request of this thread that failed: the client keeps some of its troubles to itself."""
        found: Exception | None = getattr(self._local, "trouble", None)
        return found

    def post(self) -> None:
        """This thread is about to send the request that creates the job.

        Raises:
            NotSentError: It is too late for that.
        """
        held_up = time.monotonic() - getattr(self._local, "began", time.monotonic())
        if held_up > HELD_UP_S:
            raise NotSentError(f"not submitted: what comes before took {held_up:.0f} s")
        self._local.posted = True

    @property
    def posted(self) -> bool:
        """Whether this thread has sent it, or tried to."""
        return bool(getattr(self._local, "posted", False))


@dataclass(frozen=True)
class Connection:
    """A backend of one account, and what is needed to talk about its jobs.

    Attributes:
        service: ``QiskitRuntimeService``, of one instance only: one that has two mixes them up between threads.
        client: The part of it that sends requests.
        backend: ``IBMBackend``.
        kind: Class of the sampler.
        options: Of the sampler; copied before use.
        executor: Whether the sampler is ``executor_sampler.Sampler``.
        outbox: Of ``client``.
        secret: The API key, so that it can be struck out of messages.
    """

    service: Any
    client: Any
    backend: Any
    kind: Any
    options: Any
    executor: bool
    outbox: Outbox
    secret: str = field(repr=False)

    def clean(self, text: str) -> str:
        """A text without the API key."""
        return struck(text, self.secret)

    @contextmanager
    def cleaning(self) -> Iterator[None]:
        """Around calls whose errors others will read: one that quotes the API key is replaced by one that doesn't.

        Raises:
            Exception: Whatever is raised inside; where it quotes the key, another one of an equal name.
        """
        try:
            yield
        except Exception as error:
            text = str(error)
            if self.clean(text) == text:
                raise
            name, kind = type(error).__name__, type(error)
            stand_in = kind if isinstance(error, RayQjmError) else type(name, (Exception,), {})
            # Not ``from error``: a traceback would show what was struck out here.
            raise stand_in(self.clean(text)) from None


def connect(place: IbmPlace, sampler_options: Mapping[str, Any]) -> Connection:
    """Find an account, and the backend by it.

    Args:
        place: Of the backend.
        sampler_options: On top of the place's own.

    Raises:
        BackendLoadError: There is no account, it is another one, it is refused, or it doesn't have the backend.
    """
    secret = ""
    try:
        name, account = _account(place)
        secret = str(account.get("token") or "")
        OVERHEARD.keep_out(secret)
        return _in_time(lambda: _connect(place, name, account, secret, sampler_options))
    except RayQjmError:
        raise
    except ImportError as error:
        raise BackendLoadError(
            f"{place.backend} needs qiskit-ibm-runtime ({error}): pip install 'ray-qjm[ibm]'"
        ) from error
    except Exception as error:
        told = "; ".join(dict.fromkeys(f"{type(cause).__name__}: {words(cause)}" for cause in causes(error)))
        told = struck(told, secret)
        # Not ``from error``: a traceback would show what was struck out here.
        raise BackendLoadError(f"can't connect to {place.backend} at IBM Quantum Platform: {told}") from None


def _in_time(call: Callable[[], Connection]) -> Connection:
    """Run a call that may hang: the client asks for its backends without any deadline.

    Raises:
        TimeoutError: It took too long.
        Exception: Whatever it raises.
    """
    ended: queue.SimpleQueue[Connection | Exception] = queue.SimpleQueue()

    def run() -> None:
        try:
            with OVERHEARD:
                ended.put(call())
        except Exception as error:
            ended.put(error)

    threading.Thread(target=run, name="ray_qjm ibm", daemon=True).start()
    try:
        found = ended.get(timeout=CONNECTED_S)
    except queue.Empty:
        raise TimeoutError(f"no answer in {CONNECTED_S:g} s") from None
    if isinstance(found, Exception):
        raise found
    return found


def _account(place: IbmPlace) -> tuple[str | None, Mapping[str, Any]]:
    """The account of this process with the place's API key; by its name if it isn't the default one."""
    known = list(local_accounts(place.channel))
    for name, account in known:
        if place.key is None or key_hash(str(account.get("token"))) == place.key:
            return name, account
    if not known:
        raise BackendLoadError(
            f"no account of IBM Quantum Platform is known to the process that submits jobs to {place.backend}: save "
            "the account or set QISKIT_IBM_TOKEN on its node."
        )
    raise BackendLoadError(
        f"{place.backend} was given with an API key that the process which submits its jobs doesn't have: a key given "
        "as token=... stays in the process that has it. On the node of that process, save the account or set "
        "QISKIT_IBM_TOKEN."
    )


def _connect(
    place: IbmPlace,
    name: str | None,
    account: Mapping[str, Any],
    secret: str,
    sampler_options: Mapping[str, Any],
) -> Connection:
    service = _service(place, name, account, place.instance)
    backend = _backend(service, place)
    crn = getattr(backend, "_instance", None)
    if crn is not None and len(service._get_api_clients()) > 1:
        service = _service(place, name, account, crn)
        backend = _backend(service, place)
    used = (service.active_account() or {}).get("token")
    if place.key is not None and (used is None or key_hash(used) != place.key):
        raise BackendLoadError(
            f"{place.backend} would be reached by another account than it was given with: save the account or set "
            "QISKIT_IBM_TOKEN."
        )
    client = service._get_api_client(crn)
    outbox = Outbox()
    transport = _transport(outbox)
    for one in {id(one): one for one in (client, *service._get_api_clients().values())}.values():
        one._session.mount("https://", transport)
        one._session.mount("http://", transport)
    kind, executor = _sampler(place)
    options = kind(mode=backend, options=copy.deepcopy(place.options)).options
    if sampler_options:
        options.update(**sampler_options)
    if len(options.environment.job_tags or ()) > MAX_OWN_TAGS:
        raise BackendLoadError(
            f"job_tags holds more than {MAX_OWN_TAGS} tags: a job has 8, and two are ours."
        )
    if getattr(options.execution, "meas_type", None) in ("kerneled", "avg_kerneled"):
        raise BackendLoadError(
            f"meas_type is {options.execution.meas_type!r}: only 'classified' ones can be counted."
        )
    return Connection(service, client, backend, kind, options, executor, outbox, secret)


def _service(place: IbmPlace, name: str | None, account: Mapping[str, Any], instance: str | None) -> Any:
    from qiskit_ibm_runtime import QiskitRuntimeService

    if name is not None:
        return QiskitRuntimeService(name=name, instance=instance)
    if place.url in (None, account.get("url")):
        return QiskitRuntimeService(channel=place.channel, instance=instance)
    # The client takes a URL only with a token; it is this process's own.
    return QiskitRuntimeService(
        channel=place.channel or account.get("channel"),
        token=account.get("token"),
        url=place.url,
        instance=instance,
        proxies=account.get("proxies"),
        verify=account.get("verify"),
        private_endpoint=account.get("private_endpoint"),
    )


def _backend(service: Any, place: IbmPlace) -> Any:
    further = {} if place.calibration_id is None else {"calibration_id": place.calibration_id}
    return service.backend(place.backend, use_fractional_gates=place.use_fractional_gates, **further)


def _sampler(place: IbmPlace) -> tuple[Any, bool]:
    from qiskit_ibm_runtime import SamplerV2

    if place.sampler == "sampler":
        return SamplerV2, False
    try:
        from qiskit_ibm_runtime.executor_sampler import Sampler
    except ImportError:
        if place.sampler == "executor":
            raise
        return SamplerV2, False
    return Sampler, True


def _transport(outbox: Outbox) -> Any:
    """How requests are sent: each with a deadline, and none twice that changes something.

    The client itself sends POST again after 502 and its like: one ``run`` then makes two jobs, or six.
    """
    from qiskit_ibm_runtime.api.session import STATUS_FORCELIST
    from requests.adapters import HTTPAdapter
    from requests.exceptions import HTTPError
    from urllib3.util.retry import Retry

    class Patience(Retry):
        def get_retry_after(self, response: Any) -> float | None:
            asked = super().get_retry_after(response)
            return None if asked is None else min(asked, MAX_RETRY_AFTER_S)

    class Transport(HTTPAdapter):
        def send(self, request: Any, *given: Any, **further: Any) -> Any:
            creates = request.method == "POST" and urlsplit(request.url).path.endswith("/jobs")
            further["timeout"] = (CONNECT_S, POST_S if creates else GET_S)
            if creates:
                outbox.post()
            try:
                response = super().send(request, *given, **further)
            except Exception as error:
                outbox.failed(error)
                raise
            page = "html" in response.headers.get("Content-Type", "")
            if page or response.status_code >= 400:
                told = f"{response.status_code} {response.reason}{' (a page)' if page else ''}"
                outbox.failed(HTTPError(f"{told} for {request.method} {request.url}", response=response))
            return response

    # As the client has it, but for POST.
    retries = Patience(total=5, connect=3, backoff_factor=0.5, status_forcelist=STATUS_FORCELIST)
    return Transport(max_retries=retries)
