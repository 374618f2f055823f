"""All processes end at the same call, wherever each is when the notice reaches it."""

import threading

import pytest

from ape_jax.parallel.notices import Notices


class Run:
    """Threads in the place of processes; no step of one ends before all have begun it."""

    def __init__(self, count):
        self.posted, self.told = {}, threading.Condition()
        self.steps = threading.Barrier(count, timeout=20)
        self.count, self.ended = count, {}
        self.all = [Notices(lambda at, i=i: self.put(i, at), self.positions) for i in range(count)]

    def put(self, index, position):
        with self.told:
            self.posted[index] = position
            self.told.notify_all()

    def positions(self):
        with self.told:
            assert self.told.wait_for(lambda: len(self.posted) == self.count, timeout=20)
            return list(self.posted.values())

    def process(self, index, hears):
        notices = self.all[index]
        notices.enter()
        for call in range(1, 40):
            if call == hears:  # What the watch does, while the main thread begins a step.
                assert notices.take()
            self.steps.wait()
            if notices.due():
                self.ended[index] = call
                break
        notices.leave()


@pytest.mark.parametrize("hears", [(3, 3), (3, 4), (9, 8), (5, 6, 5, 6)])
def test_all_end_at_the_same_call(hears):
    run = Run(len(hears))
    threads = [threading.Thread(target=run.process, args=x) for x in enumerate(hears)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    (call,) = set(run.ended.values())
    assert len(run.ended) == len(hears) and call >= max(hears)


def test_a_process_that_has_not_begun_to_ask_does_not_take_it():
    notices = Notices(lambda position: None, lambda: [0])
    assert not notices.take()
    notices.enter()
    assert notices.take() and notices.due()
    notices.leave()
    assert notices.take()  # It ends already.
