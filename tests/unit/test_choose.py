"""Which files a rewrite takes: few rewrites per row, few files left, the hot end untouched."""

from __future__ import annotations

import math
import random

import pytest

from lakehouse.maintenance.choose import FAN_IN, MAX_FILES, Limits, choose, simulate
from lakehouse.maintenance.view import LiveFile

MIB = 2**20
LIMITS = Limits(target=128 * MIB, min_age_ms=10_000)
NOW = 1_000_000_000


def written(number: int, *, size: int = 10_000, age_ms: int = 60_000, tier: int = 0, window: int = 0) -> LiveFile:
    return LiveFile(f"f{number}-{tier}", size, 100, NOW - age_ms - number, tier, (window, window + 1))


def test_fewer_than_ten_files_are_left_alone() -> None:
    assert choose([written(n) for n in range(FAN_IN - 1)], LIMITS, NOW) is None


def test_the_hot_end_is_left_alone() -> None:
    old, young = [written(n) for n in range(12)], [written(n + 100, age_ms=0) for n in range(50)]
    young = [file for file in young if file.modified_ms > NOW - LIMITS.min_age_ms]
    run = choose([*young, *old], LIMITS, NOW)
    assert run is not None
    assert {file.path for file in run.files} == {file.path for file in old}
    assert run.tier == 1


def test_a_run_is_in_the_order_of_writing_and_stays_below_the_target() -> None:
    files = [written(n, size=30 * MIB) for n in range(10)]
    run = choose(random.Random(1).sample(files, 10), LIMITS, NOW)
    assert run is not None
    assert [file.path for file in run.files] == [f"f{n}-0" for n in (9, 8, 7, 6)]


def test_a_run_has_a_bounded_number_of_files() -> None:
    run = choose([written(n, size=100) for n in range(5 * MAX_FILES)], LIMITS, NOW)
    assert run is not None
    assert len(run.files) == MAX_FILES


def test_full_files_and_forbidden_ones_are_not_taken() -> None:
    full = [written(n, size=64 * MIB) for n in range(20)]
    small = [written(n + 50) for n in range(10)]
    assert choose(full, LIMITS, NOW) is None
    assert choose([*full, *small], LIMITS, NOW, but={small[0].path}) is None


def test_partials_of_the_same_windows_come_together_once_it_is_worth_it() -> None:
    limits = Limits(LIMITS.target, LIMITS.min_age_ms, overlapping=True)
    late = [written(n, size=MIB, window=5) for n in range(10)]
    full, far = written(90, size=9 * MIB, tier=3, window=5), written(91, size=1, tier=3, window=500)
    large = written(92, size=90 * MIB, tier=6, window=5)
    run = choose([*late, full, far, large], limits, NOW)
    assert run is not None
    assert full in run.files
    assert far not in run.files
    assert large not in run.files
    assert run.tier == 3


@pytest.mark.parametrize("overlapping", [False, True])
def test_files_stay_few_and_rows_are_rewritten_a_logarithmic_number_of_times(*, overlapping: bool) -> None:
    limits = Limits(LIMITS.target, LIMITS.min_age_ms, overlapping=overlapping)
    live: list[LiveFile] = []
    rewritten = arrived = 0
    passes, per_pass = 500, 80
    for turn in range(passes):
        now = NOW + 10_000 * turn
        live += [
            LiveFile(f"{turn}-{n}", 10_000, 100, now - 10_001, 0, (turn * 10 - (n % 20 == 0), turn * 10 + 9))
            for n in range(per_pass)
        ]
        arrived += per_pass
        runs, left = simulate(live, limits, now)
        rewritten += sum(len(run.files) if run.tier == 1 else run.bytes / 10_000 for run in runs)
        live = [
            LiveFile(f"{turn}:{file.path}", *_rest(file)) if file.path.split("-")[0].isdecimal() and file.tier else file
            for file in left
        ]
        assert len(live) < FAN_IN * (2 + math.ceil(math.log10(arrived)))
        assert sum(file.size for file in live) == pytest.approx(arrived * 10_000, rel=0.01)
    tiers = math.ceil(math.log10(arrived / per_pass)) + 1
    assert rewritten / arrived <= tiers * (2 if overlapping else 1)


def _rest(file: LiveFile) -> tuple[int, int | None, int, int, tuple[int, int] | None]:
    return file.size, file.rows, file.modified_ms, file.tier, file.window
