"""Order, repeats and checkpoints of a stream of edits."""

from easyedit_neuron.lifelong.stream import Stream, cut


def request(prompt, target, subject="Ann"):
    return {"prompt": prompt, "subject": subject, "target_new": target}


def test_order():
    requests = [request(str(i), "x") for i in range(20)]
    plain = Stream.of(requests)
    assert plain.records == list(range(20)) and plain.requests == requests
    mixed = Stream.of(requests, "shuffled", seed=3)
    assert mixed.records != plain.records and sorted(mixed.records) == plain.records
    assert [requests[record] for record in mixed.records] == mixed.requests
    assert (
        mixed.records
        == Stream.of(requests, "shuffled", seed=3).records
        != Stream.of(requests, "shuffled", seed=4).records
    )


def test_batches():
    stream = Stream.of([request(str(i), "x") for i in range(5)], batch_size=2)
    assert [list(stream.batch(first)) for first in (0, 2, 4)] == [[0, 1], [2, 3], [4]]


def test_the_last_edit_of_a_fact_wins():
    stream = Stream.of(
        [
            request("Ann lives in", "Oslo"),
            request("Bob lives in", "Rome", "Bob"),
            request("Ann lives in", "Paris"),
            request("Ann works in", "Rome"),
            request("Ann lives in ", " Paris"),
            request("Bob lives in", "Rome", "Bob"),
        ]
    )
    assert stream.superseded() == {0: 4, 1: 5, 2: 4}
    assert stream.superseded(3) == {0: 2} and stream.superseded(2) == {}
    assert stream.repeats() == (2, 1)


def test_checkpoints_are_cut_at_the_end():
    assert cut([10, 100, 500], 100) == [10, 100]
    assert cut([10, 100, 500], 150) == [10, 100, 150]
    assert cut([10], 3) == [3] and cut([], 7) == [7]


def test_records_of_a_sample_are_positions_in_the_data():
    requests = [request(str(number), "x") for number in (4, 9, 11)]
    stream = Stream.of(requests, "shuffled", seed=3, numbers=[4, 9, 11])
    assert sorted(stream.records) == [4, 9, 11]
    assert [part["prompt"] for part in stream.requests] == [
        request(str(n), "x")["prompt"] for n in stream.records
    ]
