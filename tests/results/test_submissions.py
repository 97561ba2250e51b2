"""What was submitted, written batch by batch, and read by whoever comes after a crash."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_qjm.results.objects import Entry, Objects
from ray_qjm.results.submissions import SubmissionLog, submissions

batches = st.lists(
    st.lists(
        st.fixed_dictionaries(
            {"tag": st.sampled_from("abcd")},
            optional={
                "state": st.sampled_from(["intended", "done"]),
                "job_id": st.integers(0, 9),
                "gone": st.just(True),
            },
        ),
        min_size=1,
        max_size=4,
    ),
    max_size=12,
)


class Dying(Objects):
    """A store whose process dies before it has removed all that it means to."""

    left = 0

    def remove(self, names: Any) -> None:
        """Remove the first few."""
        super().remove(list(names)[: self.left])


def known(written: Sequence[Sequence[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """What entries say in all: later ones add to earlier ones, and what is gone has never been."""
    found: dict[str, dict[str, Any]] = {}
    for entry in (entry for batch in written for entry in batch):
        if entry.get("gone"):
            found.pop(entry["tag"], None)
        else:
            found.setdefault(entry["tag"], {}).update(entry)
    return found


@given(batches, st.integers(2, 5), st.integers(0, 5))
def test_a_crash_while_batches_are_folded_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, written: list[list[dict[str, Any]]], many: int, left: int
) -> None:
    objects = Dying(tmp_path_factory.mktemp("store"))
    objects.left = left
    log = SubmissionLog(objects, "jobs/1", many)
    for number, batch in enumerate(written):
        log.write(batch)
        assert submissions(objects, "jobs") == known(written[: number + 1])


def test_many_batches_become_one(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    log = SubmissionLog(objects, "jobs/1", 10)
    written: list[int] = []
    put = objects.replace

    def count(name: str, data: bytes) -> None:
        written.append(len(data))
        put(name, data)

    objects.replace = count  # type: ignore[method-assign]
    for number in range(999):
        log.write([{"tag": f"job {number}", "state": "intended"}])
    assert len(objects.entries("jobs/1")) < 30
    assert len(submissions(objects, "jobs/1")) == 999
    # Each entry once as it came, and once for each fold: by ten and by a hundred, not for each fold that came after.
    assert sum(written) < 3 * 999 * written[0]


def test_jobs_that_are_gone_take_no_room(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    log = SubmissionLog(objects, "jobs/1", 10)
    for number in range(500):
        log.write([{"tag": f"job {number}", "state": "done"}, {"tag": f"job {number}", "gone": True}])
    assert sum(entry.size for entry in objects.entries("jobs/1")) < 10_000
    assert submissions(objects, "jobs") == {}


def test_a_job_that_is_taken_up_again_is_known_again(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    log = SubmissionLog(objects, "jobs/1")
    log.write([{"tag": "x", "state": "done", "job_id": "old"}])
    log.write([{"tag": "x", "gone": True}])
    log.write([{"tag": "x", "state": "intended"}])
    assert submissions(objects, "jobs") == {"x": {"tag": "x", "state": "intended"}}


def test_later_writers_add_to_what_earlier_ones_said(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    SubmissionLog(objects, "jobs/000001").write([{"tag": "x", "state": "intended", "runs": [[0, 5]]}])
    SubmissionLog(objects, "jobs/000002").write([{"tag": "x", "state": "done"}])
    assert submissions(objects, "jobs") == {"x": {"tag": "x", "state": "done", "runs": [[0, 5]]}}
    assert submissions(objects, "jobs/000001")["x"]["state"] == "intended"


def test_a_torn_batch_is_absent(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    log = SubmissionLog(objects, "jobs/1")
    log.write([{"tag": "x", "state": "intended"}])
    log.write([{"tag": "y", "state": "intended"}])
    last = tmp_path / objects.entries("jobs/1")[-1].name
    last.write_bytes(last.read_bytes()[:-10])
    assert list(submissions(objects, "jobs")) == ["x"]


class Watched(Objects):
    """A store whose writer folds its batches after somebody has listed them."""

    writer: SubmissionLog | None = None

    def entries(self, prefix: str) -> list[Entry]:
        """The names, of which some are gone at once."""
        found = super().entries(prefix)
        if self.writer is not None:
            writer, self.writer = self.writer, None
            writer.write([{"tag": "last", "state": "intended"}])
        return found


@pytest.mark.parametrize("before", [1, 3])
def test_batches_that_are_folded_while_they_are_read_are_not_missed(tmp_path: Path, before: int) -> None:
    """Else a driver that resumes would take all jobs for never submitted, and pay again."""
    objects = Watched(tmp_path)
    log = SubmissionLog(objects, "jobs/1", before + 1)
    for number in range(before):
        log.write([{"tag": f"job {number}", "state": "submitted"}])
    objects.writer = log
    assert set(submissions(objects, "jobs")) == {"last", *(f"job {number}" for number in range(before))}
