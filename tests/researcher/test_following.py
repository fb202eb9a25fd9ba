"""What is said of a task whose sites have all answered and whose `master` says nothing more."""

import pytest

from v6_algorithm.researcher.cli.following import Quiet
from v6_algorithm.researcher.task import Look

ANSWERED = Look("active", [], ("train", 2), {"a": "completed", "b": "failed"})


def test_a_master_that_says_nothing_after_every_answer_is_remarked_on_once():
    quiet = Quiet(0.0)
    assert [quiet.is_remarkable(ANSWERED, now) for now in (1, 100, 180, 182, 400)] == [False, False, False, True, False]


@pytest.mark.parametrize(
    "news",
    [
        Look("active", ["round 2/4: "], ("train", 2), ANSWERED.sites),
        Look("active", [], ("train", 3), ANSWERED.sites),
        Look("active", [], ("train", 3), {"a": "completed", "b": "active"}),
        Look("active", [], None, {}),
        Look("pending", [], None, {}),
    ],
)
def test_a_line_another_call_or_a_site_at_work_is_news(news):
    quiet = Quiet(0.0)
    looks = [(ANSWERED, 1), (news, 170), (ANSWERED, 171), (ANSWERED, 300), (ANSWERED, 360)]
    assert [quiet.is_remarkable(look, now) for look, now in looks] == [False, False, False, False, True]
