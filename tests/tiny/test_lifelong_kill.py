"""Runs that are killed and continued end with the weights and results of one that was not, bit for bit."""

import random
import time

import pytest

from helpers.lifelong_runs import Child, make_world, outcome, warm_up
from helpers.long import IS_LONG

METHODS: dict[str, dict] = {
    "AlphaEdit": {},
    "MEMIT": {},
    "NMKE": {"mask_stage": "solve", "solve_preserve": "covariance"},
    "FiNE": {},
    "KNE": {},
    "PNKE": {},
}
KILLS = 17 if IS_LONG else 1
"""Of each method; ``make kill-test`` kills 102 times in all, and 20 more below."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    warm_up()
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """``whole(method, ...) -> (outcome, seconds)`` of an uninterrupted run in a process of its own."""

    def run(**options):
        out = tmp_path_factory.mktemp("whole") / "run"
        started = time.monotonic()
        assert Child(world, out, **options).end() == "finished"
        return outcome(out), time.monotonic() - started

    return run


def killed(world, folder, times, seconds, seed, **options):
    """Outcomes of runs that were killed ``times`` times in all at random moments, and then left to finish.

    How far a run gets between two kills hangs on the machine: where one is finished before its time another
    begins.
    """
    chance, kills, ended = random.Random(seed), 0, []
    while kills < times:
        child = Child(world, folder / str(len(ended)), **options)
        child.kill_after(chance.uniform(0, seconds))
        end = child.end()
        assert end in (None, "finished"), end
        kills += end is None
        if end == "finished":
            ended.append(outcome(folder / str(len(ended))))
    assert Child(world, folder / str(len(ended)), **options).end() == "finished"
    return [*ended, outcome(folder / str(len(ended)))]


def test_killed_at_twenty_random_moments(world, whole, tmp_path):
    """Noise from all global generators, failing edits, repeated facts, 60 edits."""
    expected, seconds = whole(method="Noisy")
    statuses = [line["status"] for line in expected["edits.jsonl"]]
    reasons = {line["reason"].split(":")[0] for line in expected["edits.jsonl"] if line["reason"]}
    assert len(statuses) == 60 and reasons == {"StateError", "RuntimeError"}
    assert all(result == expected for result in killed(world, tmp_path, 20, seconds / 3, 1, method="Noisy"))


@pytest.mark.parametrize("method", METHODS)
def test_killed_at_random_moments(world, whole, tmp_path, method):
    """The buffers, the solvers and the statistics are in the state; the times of the saves are not."""
    options = dict(method=method, changes=METHODS[method], edits=8, checkpoints=[4], measure={"fluency": 0})
    expected, seconds = whole(**options, save_every_edits=None)
    results = killed(world, tmp_path, KILLS, seconds / 1.5, 2, **options, save_every_edits=2)
    assert all(result == expected for result in results)
    assert not list(tmp_path.glob("*/**/*.part"))
    print(f"\n{method}: {KILLS} kills, {len(results)} runs continued to the same bits", end="")


@pytest.mark.parametrize("function, sign", [("replace", 1), ("replace", -1)])
def test_killed_at_the_writes(world, whole, tmp_path, function, sign):
    """Dead right before a rename (so with the data written) and right after it, at one write after the
    other."""
    options = dict(
        method="Noisy", edits=8, checkpoints=[4], save_every_edits=2, measure={"fluency": 0, "perplexity": 0}
    )
    expected, _ = whole(**options)
    kills = 0
    for number in range(1, 100):
        end = Child(world, tmp_path / "run", fault=(function, sign * number), **options).end()
        kills += end is None
        if end == "finished":
            break
    assert kills >= 8
    assert outcome(tmp_path / "run") == expected


def test_disk_full(world, whole, tmp_path):
    """Writes that the system refuses: the message says so, the earlier state is kept, and with more room the
    run goes on."""
    options = dict(method="Dummy", edits=30, save_every_edits=5)
    expected, _ = whole(**options)
    out, messages = tmp_path / "run", []
    for limit in (3000, 21_000, 25_000):
        messages.append(Child(world, out, limit=limit, **options).end())
    assert all("cannot be written" in message and "same command again" in message for message in messages)
    assert not list(out.rglob("*.part"))
    assert len(list((out / "state").iterdir())) == 1
    assert Child(world, out, **options).end() == "finished"
    assert outcome(out) == expected
