import threading
import time
from itertools import count

import pytest

from wsi_her2.reports.reading_ahead import read_ahead


def test_order_is_kept_and_reads_overlap():
    started = time.perf_counter()
    assert list(read_ahead(lambda item: (time.sleep(0.001), item)[1], range(2000))) == list(range(2000))
    assert time.perf_counter() - started < 2000 * 0.001 / 3


def test_what_is_read_before_it_is_asked_for_is_bounded():
    taken = count()
    reading = read_ahead(lambda item: time.sleep(0.001), taken)
    for _ in range(20):
        next(reading)
    assert next(taken) < 1000
    reading.close()


def test_quick_reads_need_no_threads():
    before = threading.active_count()
    reading = read_ahead(lambda item: item, range(1000))
    assert [next(reading) for _ in range(500)] == list(range(500))
    assert threading.active_count() == before


@pytest.mark.parametrize("seconds", [0.0, 0.001])
def test_an_error_reaches_the_caller_and_no_thread_stays(seconds):
    before = threading.active_count()

    def read(item):
        time.sleep(seconds)
        if item == 500:
            raise ValueError("here")
        return item

    with pytest.raises(ValueError, match="here"):
        list(read_ahead(read, range(1000)))
    assert threading.active_count() == before
