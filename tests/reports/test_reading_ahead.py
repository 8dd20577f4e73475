import threading
import time
from itertools import count

import pytest

from wsi_her2.reports.reading_ahead import read_ahead


def test_order_is_kept_and_reads_overlap():
    changing, under_way, most = threading.Lock(), 0, 0

    def read(item):
        nonlocal under_way, most
        with changing:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.001)
        with changing:
            under_way -= 1
        return item

    assert list(read_ahead(read, range(2000))) == list(range(2000))
    assert most > 4


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
