"""Jobs of a line as rows of the table of jobs, before they have ended."""

from __future__ import annotations

from ray_qjm.backends.desk_messages import Told
from ray_qjm.cluster.line_jobs import Sent, open_row
from ray_qjm.planning.orders import Order, Run

ORDER = Order(3, (Run(0, 4, 10), Run(8, 10, 10)))


def told(state: str, job_id: str | None) -> Told:
    return Told("t-3", state, job_id, 1, None, {"submitted": 5.0}, {})


def test_a_job_that_waits_for_a_permit_has_no_id_yet() -> None:
    row = open_row("torino", Sent(ORDER, "t-3"))
    assert (row.job_id, row.state, row.start, row.stop, row.circuits, row.shots) == (
        None,
        "queued",
        0,
        10,
        6,
        60,
    )
    assert (row.submitted, row.ended, row.seconds, row.reason) == (None, None, None, None)


def test_a_job_in_the_queue_tells_its_place() -> None:
    sent = Sent(ORDER, "t-3", "submitted", told=told("submitted", "d1"), position=17, eta_s=540)
    row = open_row("torino", sent)
    assert (row.job_id, row.state, row.ended) == ("d1", "submitted", None)
    assert row.reason == "position 17, starts in about 9 min"


def test_a_job_that_is_tried_again_tells_why() -> None:
    """Its last attempt stands in the table of jobs under the id that it had."""
    sent = Sent(ORDER, "t-3", job_id="d1", told=told("queued", None), trouble="the machine was recalibrated")
    row = open_row("torino", sent)
    assert (row.job_id, row.reason) == (None, "the machine was recalibrated")


def test_a_job_that_has_ended_before_its_circuits_were_prepared_anew() -> None:
    news = told("done", "d1")
    row = open_row("torino", Sent(ORDER, "t-3", "done", told=news, news=news, awaited=[(0, 4)]))
    assert (row.job_id, row.state) == ("d1", "done") and row.ended is not None
