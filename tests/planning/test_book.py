"""One job after the other through the book of a desk: what is done about each answer, in whatever order they come."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TypeVar

import pytest

from ray_qjm.errors import InvalidTransitionError
from ray_qjm.options import Budget, Quota, RetryPolicy
from ray_qjm.planning.book import MISSES, Book
from ray_qjm.planning.errands import Changed, Errand, Intend, Look, Poll, Revoke, Seen, Send
from ray_qjm.planning.quota import Cost
from ray_qjm.planning.tickets import FINAL, NOBODY, TRANSITIONS, Ticket, TicketState
from ray_qjm.planning.verdicts import Verdict, What

T = TypeVar("T", bound=Errand)
RETRY = RetryPolicy(lost_grace_s=60.0, attempts=3)
UNWANTED = Verdict("cancelled", "TaskCancelledError", "the user has cancelled it")


def verdict(what: What, retry_after_s: float | None = None) -> Verdict:
    """Of an error that means this."""
    return Verdict(what, "ServiceError", f"it said {what}", retry_after_s)


def state(ticket: Ticket) -> str:
    """As it is now: the type checker takes it for unchanged otherwise."""
    return ticket.state


class Scene:
    """A book, its time, and the errands that it gives."""

    def __init__(self, quota: Quota | None = None) -> None:
        self.book = Book(Quota() if quota is None else quota, {"a": (1.0, 60.0)}, jitter=lambda: 1.0)
        self.now = 0.0

    def job(self, tag: str = "x", client: str = "c", cost: Cost | None = None, **facts: object) -> Ticket:
        """Hand in a job."""
        cost = Cost(1, 10, 1.0) if cost is None else cost
        self.book.enqueue(Ticket(tag, "a", client, cost, RETRY, **facts))  # type: ignore[arg-type]
        return self.book.tickets[tag]

    def sent(self, tag: str = "x", **facts: object) -> Ticket:
        """A job that is on its way to the service."""
        ticket = self.job(tag, **facts)  # type: ignore[arg-type]
        self.go()
        self.book.intended(tag, self.now)
        assert Send(tag) in self.go()
        return ticket

    def submitted(self, tag: str = "x", **facts: object) -> Ticket:
        """A job that was accepted."""
        ticket = self.sent(tag, **facts)
        self.book.accepted(tag, f"id-{tag}", self.now)
        self.go()
        return ticket

    def go(self, seconds: float = 0.0) -> list[Errand]:
        """Let time pass; give the errands."""
        self.now += seconds
        self.book.step(self.now, may_send=True)
        return self.book.actions()

    def until(self, kind: type[T], within_s: float = 1e4) -> T:
        """Let time pass until there is such an errand."""
        over = self.now + within_s
        while True:
            for errand in self.go():
                if isinstance(errand, kind):
                    return errand
            wake = self.book.wake_at(self.now)
            assert self.now < wake <= over, f"no {kind.__name__} until {wake}"
            self.now = wake

    def told(self, tag: str, state: str | None, **facts: object) -> None:
        """The service says how a job is."""
        self.book.polled("a", {tag: Seen(state, **facts)}, self.now)  # type: ignore[arg-type]


def test_nothing_is_sent_before_its_intent_is_safe() -> None:
    scene = Scene()
    scene.job()
    assert scene.go() == [Intend("x")]
    assert scene.go(1000.0) == []
    scene.book.intended("x", scene.now)
    assert scene.go() == [Send("x")]


def test_fourth_pending_job_waits_for_a_slot() -> None:
    scene = Scene(Quota(max_pending=3))
    for tag in "abc":
        scene.submitted(tag)
    scene.job("d")
    assert Intend("d") not in scene.go(100.0)
    scene.told("b", "done")
    assert Intend("d") in scene.go()


def test_clients_take_turns() -> None:
    scene = Scene(Quota(max_pending=1))
    for number in range(3):
        scene.job(f"a{number}", client="a")
    scene.job("b0", client="b")
    order: list[str] = []
    for _ in range(4):
        tag = scene.until(Intend).tag
        order.append(tag)
        scene.book.intended(tag, scene.now)
        scene.book.accepted(tag, f"id-{tag}", scene.now)
        scene.told(tag, "done")
    assert order == ["a0", "b0", "a1", "a2"]


def test_without_a_fence_nothing_is_sent() -> None:
    scene = Scene()
    scene.job()
    scene.book.step(0.0, may_send=False)
    assert scene.book.actions() == []
    assert scene.book.wake_at(0.0) == math.inf


@pytest.mark.parametrize("began", [0.0, 5.0])
def test_lost_reply_is_looked_up_until_the_grace_is_over_then_sent_again(began: float) -> None:
    scene = Scene()
    scene.now = began
    scene.sent()
    scene.book.rejected("x", verdict("unknown"), scene.now)
    looks = 0
    while scene.book.tickets["x"].state == "unknown":
        scene.until(Look)
        looks += 1
        scene.book.found("x", [], scene.now)
    assert 4 < looks < 12
    assert scene.now == began + RETRY.lost_grace_s
    assert scene.until(Intend).tag == "x"


def test_an_answer_that_was_on_its_way_when_the_grace_ended_is_too_old() -> None:
    scene = Scene()
    ticket = scene.sent()
    scene.book.rejected("x", verdict("unknown"), 0.0)
    scene.until(Look)
    scene.now = 100.0
    scene.book.found("x", [], scene.now)  # asked at 0 s
    assert state(ticket) == "unknown"
    assert scene.until(Look, within_s=0.0) == Look("x")
    scene.book.found("x", [], scene.now)
    assert ticket.state == "queued"


def test_lost_reply_is_looked_up_not_resubmitted() -> None:
    scene = Scene()
    ticket = scene.sent()
    scene.book.rejected("x", verdict("unknown"), 0.0)
    scene.until(Look)
    scene.book.found("x", ["id"], scene.now)
    assert (ticket.state, ticket.job_id, ticket.attempts) == ("submitted", "id", 1)


def test_a_job_that_was_lost_is_looked_for_once_more_for_its_twin() -> None:
    scene = Scene()
    ticket = scene.sent()
    scene.book.rejected("x", verdict("unknown"), 0.0)
    scene.until(Look)
    scene.book.found("x", ["id"], scene.now)
    scene.go()
    assert scene.until(Look) == Look("x") and scene.now == RETRY.lost_grace_s
    scene.book.found("x", ["id", "late twin"], scene.now)
    assert Revoke("x~late twin", "late twin") in scene.go()
    assert ticket.state == "submitted" and ticket.past == ("late twin",)
    assert scene.book.meter.pending == 2


def test_a_twin_is_cancelled_paid_for_and_never_taken_for_the_job() -> None:
    scene = Scene()
    ticket = scene.sent()
    scene.book.rejected("x", verdict("unknown"), 0.0)
    scene.until(Look)
    scene.book.found("x", ["one", "two"], 0.0)
    assert Revoke("x~two", "two") in scene.go()
    scene.book.revoked("x~two", True, 0.0)
    scene.told("x~two", "cancelled", usage_s=0.5)
    scene.book.forget("x~two")
    scene.told("x", "failed", verdict=verdict("again"), usage_s=0.25)
    assert (ticket.state, ticket.past) == ("queued", ("two", "one"))
    assert scene.book.purse.spent == Cost(2, 20, 0.75)
    assert scene.until(Intend).tag == "x"
    scene.book.intended("x", scene.now)
    scene.book.rejected("x", verdict("unknown"), scene.now)
    scene.until(Look)
    scene.book.found("x", ["one", "two", "three"], scene.now)
    assert ticket.job_id == "three" and set(scene.book.tickets) == {"x"}


def test_the_twin_of_a_job_that_was_forgotten_meanwhile_is_cancelled() -> None:
    scene = Scene()
    scene.sent()
    scene.book.rejected("x", verdict("unknown"), 0.0)
    scene.until(Look)
    scene.book.found("x", ["one"], 0.0)
    scene.told("x", "done")
    assert Look("x") in scene.go()
    scene.book.forget("x")
    scene.book.found("x", ["one", "two"], 1.0)
    assert Revoke("x~two", "two") in scene.go()


def test_a_late_answer_to_an_earlier_submission_says_nothing_about_the_next() -> None:
    """A call hung; the job was looked for, was absent, and is sent again: then the first call fails."""
    scene = Scene()
    ticket = scene.sent()
    first = ticket.sends
    scene.book.rejected("x", verdict("unknown"), 0.0, sends=first)
    while ticket.state == "unknown":
        scene.until(Look)
        scene.book.found("x", [], scene.now)
    scene.until(Intend)
    scene.book.intended("x", scene.now)
    assert Send("x") in scene.go()
    scene.book.rejected("x", verdict("again"), scene.now, sends=first)
    assert ticket.state == "intended"


def test_a_late_acceptance_stops_the_next_submission() -> None:
    scene = Scene()
    ticket = scene.sent()
    scene.book.rejected("x", verdict("unknown"), 0.0)
    while ticket.state == "unknown":
        scene.until(Look)
        scene.book.found("x", [], scene.now)
    scene.until(Intend)
    scene.book.accepted("x", "late", scene.now)  # while the second intent is being written
    scene.book.intended("x", scene.now)
    assert Send("x") not in scene.go()
    assert (ticket.state, ticket.job_id) == ("submitted", "late")


def test_a_job_that_landed_after_all_leaves_the_queue() -> None:
    scene = Scene(Quota(max_pending=1))
    ticket = scene.sent()
    scene.book.rejected("x", verdict("unknown"), 0.0)
    while ticket.state == "unknown":
        scene.until(Look)
        scene.book.found("x", [], scene.now)
    scene.book.accepted("x", "late", scene.now)
    assert ticket.state == "submitted" and scene.book.meter.pending == 1
    assert not any(isinstance(errand, Intend) for errand in scene.go(1000.0))


def test_a_token_is_held_while_the_request_may_still_land() -> None:
    scene = Scene(Quota(9, 1))
    ticket = scene.sent()
    scene.book.rejected("x", verdict("unknown"), 0.0)
    scene.job("y")
    while ticket.state == "unknown":
        scene.until(Look)
        scene.book.found("x", ["id"] if scene.now > 30.0 else [], scene.now)
    assert scene.until(Intend).tag == "y"
    assert scene.now >= 90.0


def test_full_service_is_tried_again_as_soon_as_a_place_is_free() -> None:
    scene = Scene()
    scene.submitted("a")
    scene.sent()
    scene.book.rejected("x", verdict("wait"), 0.0)
    assert Intend("x") not in scene.go()
    scene.told("a", "done")
    assert Intend("x") in scene.go()


def test_throttled_jobs_wait_as_long_as_the_service_asks_even_if_a_place_comes_free() -> None:
    scene = Scene()
    scene.submitted("a")
    scene.sent()
    scene.book.rejected("x", verdict("wait", 45.0), 0.0)
    scene.told("a", "done")
    scene.job("y")
    assert scene.go(44.0) == [Changed("x"), Changed("a")]
    assert {errand.tag for errand in scene.go(2.0) if isinstance(errand, Intend)} == {"x", "y"}


def test_waiting_for_a_full_service_uses_up_no_attempt() -> None:
    scene = Scene()
    ticket = scene.job()
    for _ in range(20):
        scene.until(Intend)
        scene.book.intended("x", scene.now)
        scene.book.rejected("x", verdict("wait"), scene.now)
    assert ticket.state == "queued" and ticket.attempts == 0


def test_errors_that_may_pass_are_tried_so_often_then_told() -> None:
    scene = Scene()
    ticket = scene.job()
    for _ in range(RETRY.attempts):
        scene.until(Intend)
        scene.book.intended("x", scene.now)
        scene.book.rejected("x", verdict("again"), scene.now)
    assert ticket.state == "refused" and ticket.verdict is not None
    assert (ticket.verdict.what, ticket.attempts) == ("elsewhere", 3)
    assert scene.book.purse.used == Cost() and scene.book.meter.pending == 0


def test_jobs_that_fail_for_a_passing_reason_are_paid_for_each_time() -> None:
    scene = Scene()
    ticket = scene.submitted()
    scene.told("x", "failed", verdict=verdict("again"), usage_s=0.25)
    scene.until(Intend)
    scene.book.intended("x", scene.now)
    scene.book.accepted("x", "second", scene.now)
    scene.told("x", "done")
    assert ticket.state == "done"
    assert scene.book.purse.spent == Cost(2, 20, 1.25)  # the second was not told: as estimated


def test_job_beyond_the_budget_is_refused_unsent() -> None:
    scene = Scene(Quota(budget=Budget(jobs=1)))
    scene.submitted()
    ticket = scene.job("y")
    scene.go()
    assert ticket.state == "refused" and ticket.verdict is not None
    assert ticket.verdict.what == "no credit" and "budget" in ticket.verdict.reason


@pytest.mark.parametrize("when", ["queued", "intended", "sent", "unknown", "submitted", "running"])
def test_a_job_is_cancelled_in_any_state(when: str) -> None:
    scene = Scene(Quota(max_pending=1))
    if when == "queued":
        scene.submitted("other")
    ticket = scene.job() if when in ("queued", "intended") else scene.sent()
    scene.go()
    if when == "unknown":
        scene.book.rejected("x", verdict("unknown"), 0.0)
    if when in ("submitted", "running"):
        scene.book.accepted("x", "id", 0.0)
    if when == "running":
        scene.told("x", "running")
    scene.book.cancel("x", UNWANTED, 0.0)
    if when == "intended":
        scene.book.intended("x", 0.0)
    if when == "sent":
        scene.book.accepted("x", "id", 0.0)
    while ticket.state == "unknown":
        scene.until(Look)
        scene.book.found("x", [], scene.now)
    if ticket.job_id is not None:
        assert Revoke("x", "id") in scene.go()
        assert ticket.state == "cancelling"
        scene.book.revoked("x", True, scene.now)
        scene.told("x", "cancelled")
    assert (ticket.state, ticket.verdict) == ("cancelled", UNWANTED)


def test_a_result_that_came_before_the_cancel_is_kept() -> None:
    scene = Scene()
    ticket = scene.submitted()
    scene.book.cancel("x", UNWANTED, 0.0)
    scene.book.revoked("x", False, 0.0)
    scene.told("x", "done")
    assert ticket.state == "done"


def test_a_cancel_that_fails_is_repeated_ever_more_rarely() -> None:
    scene = Scene()
    scene.submitted()
    scene.book.cancel("x", UNWANTED, 0.0)
    times: list[float] = []
    for _ in range(6):
        scene.until(Revoke)
        times.append(scene.now)
        scene.book.revoked("x", False, scene.now)
    gaps = [b - a for a, b in pairwise(times)]
    assert gaps == sorted(gaps) and gaps[-1] >= 8 * gaps[0]


def test_a_job_that_the_service_cancelled_is_sent_again() -> None:
    scene = Scene()
    ticket = scene.submitted()
    scene.told("x", "cancelled")
    assert ticket.state == "queued"
    assert scene.until(Intend).tag == "x"


def test_a_job_that_takes_too_long_is_cancelled() -> None:
    scene = Scene()
    ticket = scene.submitted(timeout_s=100.0)
    assert scene.until(Revoke).tag == "x"
    assert scene.now == 100.0
    scene.told("x", "cancelled")
    assert ticket.verdict is not None and ticket.verdict.error_type == "JobTimeoutError"


def test_a_job_is_out_of_time_when_the_book_said_that_it_would_be() -> None:
    """Floats: 62.6 + 20.0 - 62.6 is less than 20.0. Whoever wakes the book at its word must not do so for nothing."""
    scene = Scene()
    scene.now = 62.6
    scene.submitted(timeout_s=20.0)
    scene.until(Poll)  # no answer: nothing else is due from here on
    assert scene.book.wake_at(scene.now) == 62.6 + 20.0
    scene.now = 62.6 + 20.0
    assert Revoke("x", "id-x") in scene.go()


def test_a_job_that_is_over_wakes_nobody() -> None:
    scene = Scene()
    scene.submitted(timeout_s=100.0)
    scene.told("x", "done")
    scene.go()
    assert scene.book.wake_at(1000.0) == math.inf


def test_a_job_that_the_service_has_forgotten_is_lost_only_after_a_while() -> None:
    scene = Scene()
    ticket = scene.submitted()
    for _ in range(MISSES + 3):
        scene.told("x", None)
    assert state(ticket) == "submitted"
    scene.now = RETRY.lost_grace_s
    scene.told("x", None)
    assert ticket.state == "lost" and ticket.verdict is not None


def test_an_attempt_is_not_lost_for_what_the_service_said_of_the_one_before() -> None:
    scene = Scene()
    ticket = scene.submitted()
    ticket.retry = RetryPolicy(lost_grace_s=60.0, lost="resubmit")
    scene.now = RETRY.lost_grace_s
    for _ in range(MISSES):
        scene.told("x", None)
    assert state(ticket) == "queued"
    scene.until(Intend)
    scene.book.intended("x", scene.now)
    scene.book.accepted("x", "second", scene.now)
    scene.now += RETRY.lost_grace_s
    for _ in range(MISSES - 1):
        scene.told("x", None)
    assert (state(ticket), ticket.job_id) == ("submitted", "second")
    scene.told("x", None)
    assert state(ticket) == "queued"


def test_a_job_that_nobody_understands_is_lost_for_that_reason() -> None:
    scene = Scene()
    ticket = scene.submitted()
    scene.now = RETRY.lost_grace_s
    odd = Verdict("give up", "JobLostError", "its status means nothing")
    for _ in range(MISSES):
        scene.book.polled(ticket.counter, {"x": Seen(None, odd)}, scene.now)
    assert state(ticket) == "lost" and ticket.verdict == odd


@pytest.mark.parametrize("lost", ["fail", "resubmit"])
def test_a_lost_job_of_a_service_that_cannot_be_asked_ends_as_the_user_wants(lost: str) -> None:
    scene = Scene()
    ticket = scene.sent()
    ticket.retry = RetryPolicy(lost="fail" if lost == "fail" else "resubmit")
    scene.book.rejected("x", verdict("unknown"), 0.0)
    while ticket.state == "unknown":
        scene.until(Look)
        scene.book.found("x", None, scene.now)
    assert ticket.state == ("lost" if lost == "fail" else "queued")
    assert scene.book.purse.spent == Cost(1, 10, 1.0)  # it may have run


def test_looking_for_a_job_ends_when_trying_does() -> None:
    scene = Scene()
    ticket = scene.sent()
    scene.book.rejected("x", verdict("unknown"), 0.0)
    scene.until(Look)
    scene.now = ticket.retry.give_up_s
    scene.book.look_failed("x", scene.now)
    assert ticket.state == "lost" and scene.book.meter.pending == 0


def test_a_restored_job_keeps_slot_token_and_reservation_until_it_is_found_absent() -> None:
    scene = Scene(Quota(1, 1, Budget(jobs=1)))
    ticket = Ticket("x", "a", "c", Cost(1), RETRY)
    scene.book.restore(ticket, 0.0)
    assert scene.book.meter.free_at(0.0) == math.inf and scene.book.purse.used == Cost(1)
    while ticket.state == "unknown":
        scene.until(Look)
        scene.book.found("x", [], scene.now)
    # Nobody has brought its circuits: they are packed again.
    assert ticket.state == "refused" and ticket.verdict is not None and ticket.verdict.what == "again"
    assert scene.book.meter.pending == 0 and scene.book.purse.used == Cost()


def test_a_restored_job_is_sent_again_once_somebody_has_its_circuits() -> None:
    scene = Scene()
    ticket = Ticket("x", "a", "old session", Cost(1), RETRY)
    scene.book.restore(ticket, 0.0)
    scene.book.hand_over("x", "new session")
    ticket.resend = True
    while ticket.state == "unknown":
        scene.until(Look)
        scene.book.found("x", [], scene.now)
    assert scene.until(Intend).tag == "x"


def test_a_restored_twin_is_cancelled() -> None:
    scene = Scene()
    scene.book.restore(Ticket("x~two", "a", NOBODY, Cost(1), RETRY, job_id="two"), 0.0)
    assert Revoke("x~two", "two") in scene.go()
    assert not any(isinstance(errand, Look) for errand in scene.go(1000.0))


def test_a_queued_job_is_found_under_its_new_client() -> None:
    scene = Scene(Quota(max_pending=1))
    scene.submitted("other")
    ticket = scene.job()
    scene.book.hand_over("x", "new session")
    scene.book.cancel("x", UNWANTED, 0.0)
    assert ticket.state == "cancelled"


def test_polls_come_no_more_often_than_they_may_and_back_off_on_errors() -> None:
    scene = Scene()
    scene.submitted()
    times: list[float] = []
    for number in range(8):
        scene.until(Poll)
        times.append(scene.now)
        if number < 4:
            scene.told("x", "submitted")
        else:
            scene.book.polled("a", None, scene.now)
    gaps = [b - a for a, b in pairwise(times)]
    assert min(gaps) >= 1.0 and gaps[-1] > gaps[-2] > gaps[-3]


def test_jobs_that_end_together_make_no_more_polls_than_one() -> None:
    """Three slots of 1000 s each, filled and freed together: a poll every 20 s loses 1 % of the slots' time."""
    scene = Scene()
    for bunch in range(6):
        tags = [f"{bunch}-{number}" for number in range(3)]
        for tag in tags:
            scene.submitted(tag)
        scene.now += 1000.0
        scene.book.polled("a", dict.fromkeys(tags, Seen("done")), scene.now)
    scene.submitted("last")
    before = scene.now
    scene.until(Poll)
    assert scene.now - before == pytest.approx(20.0, rel=0.05)


def test_a_pause_without_jobs_is_no_measure_of_how_often_to_poll() -> None:
    scene = Scene()
    for tag in ("a", "b"):
        scene.submitted(tag)
        scene.now += 10.0
        scene.told(tag, "done")
    scene.now += 100_000.0
    for tag in ("c", "d"):
        scene.submitted(tag)
        scene.now += 10.0
        scene.told(tag, "done")
    scene.submitted("e")
    before = scene.now
    scene.until(Poll)
    assert scene.now - before == 1.0


def test_what_is_not_in_the_table_of_transitions_raises() -> None:
    for state in FINAL:
        assert not any(before == state for before, _ in TRANSITIONS)
    for what in {what for _, what in TRANSITIONS}:
        ticket = Ticket("x", "a", "c", Cost())
        ticket.state = "done"
        with pytest.raises(InvalidTransitionError, match="x while it is 'done'"):
            ticket.move(what)


def test_every_state_can_be_left_but_the_final_ones() -> None:
    states: set[TicketState] = {state for state, _ in TRANSITIONS} | set(TRANSITIONS.values())
    assert {state for state in states if not any(before == state for before, _ in TRANSITIONS)} == FINAL
