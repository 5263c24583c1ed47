"""The benchmark's arithmetic: percentiles, coordinated omission, paces, tables."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from billing.lab.bench.counter import Counter
from billing.lab.bench.cpu import family_seconds, own_seconds
from billing.lab.bench.figures import CORES, Figure, Report
from billing.lab.bench.inflight_figures import FIGURES, latency_values, values_of
from billing.lab.bench.results import Loaded, Outcome, Steady, Written
from billing.lab.bench.series import Pace, Series
from billing.lab.bench.settle_figures import FIGURES as SETTLE_FIGURES
from billing.lab.bench.settle_figures import steady_values
from billing.lab.bench.settle_figures import values_of as settle_values_of
from billing.lab.bench.stats import Burst, Sighting, histogram_percentile, latencies, percentile, spread


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.01, 1), (0.5, 50), (0.505, 51), (0.99, 99), (0.999, 100), (1.0, 100)]
)
def test_a_percentile_is_the_nearest_rank(share: float, expected: int) -> None:
    assert percentile(range(1, 101), share) == expected


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


@pytest.mark.parametrize(
    ("values", "expected"), [([3.0], (3, 3, 3)), ([4.0, 1.0], (2.5, 1, 4)), ([9.0, 1.0, 2.0], (2, 1, 9))]
)
def test_runs_are_given_by_median_and_extremes(values: list[float], expected: tuple[float, ...]) -> None:
    assert spread(values) == expected


def test_a_stall_is_felt_by_every_record_that_it_held_up() -> None:
    """Ten records meant for every 10 ms; the consumer stands still from 20 to 100 ms. Whoever measured from the moment
    of sending, after the stall, would see one slow record; here the wait of all of them counts."""
    burst = Burst(500, [n / 100 for n in range(10)])
    looks = [Sighting(0.001, 501), Sighting(0.011, 502), *(Sighting(t / 100, 502) for t in range(2, 10))]
    found = latencies([burst], [*looks, Sighting(0.1, 510)])
    assert found[:2] == pytest.approx([0.001, 0.001])
    assert found[2:] == pytest.approx([0.08, 0.07, 0.06, 0.05, 0.04, 0.03, 0.02, 0.01])


def test_bursts_need_not_be_next_to_each_other_but_must_all_be_seen() -> None:
    looks = [Sighting(1.0, 3), Sighting(2.0, 9)]
    assert latencies([Burst(0, [0.5, 0.5]), Burst(7, [1.0])], looks) == pytest.approx([0.5, 0.5, 1.0])
    with pytest.raises(ValueError, match="offset 9 was never seen"):
        latencies([Burst(9, [1.0])], looks)


def test_a_histogram_is_interpolated_within_its_bucket() -> None:
    buckets = {0.001: 10.0, 0.002: 90.0, 0.004: 99.0, float("inf"): 100.0}
    assert histogram_percentile(buckets, 0.5) == pytest.approx(0.0015)
    assert histogram_percentile(buckets, 0.99) == pytest.approx(0.004)
    assert histogram_percentile(buckets, 0.999) == float("inf")
    with pytest.raises(ValueError, match="no observations"):
        histogram_percentile({}, 0.5)


def test_a_pace_is_that_of_the_steady_part() -> None:
    """Nothing for 3 s (start-up), then 1000 a second, the last 5% slowly."""
    series = Series()
    for tenth in range(31):
        series.add(tenth / 10, 500, {"consumer": 7.0})
    for tenth in range(1, 96):
        series.add(3 + tenth / 10, 500 + 100 * tenth, {"consumer": 7 + tenth / 20})
    series.add(30, 10_500, {"consumer": 20.0})
    pace = series.pace(500, 10_500)
    assert pace.per_second == pytest.approx(1000)
    assert pace.records == 9_000
    assert pace.cpu_micros["consumer"] == pytest.approx(500)
    assert pace.cores["consumer"] == pytest.approx(0.5)


def test_a_drain_that_was_over_at_once_or_never_got_there_has_no_pace() -> None:
    series = Series()
    series.add(0, 0)
    series.add(1, 50)
    with pytest.raises(ValueError, match="never reached"):
        series.pace(0, 100)


def test_several_drains_are_one_by_their_records_and_seconds() -> None:
    joined = Pace.joined([Pace(100, 10, 1_000, {"redis": 4.0}), Pace(200, 15, 3_000, {"redis": 8.0})])
    assert (joined.per_second, joined.records, joined.seconds) == (160, 4_000, 25)
    assert joined.cpu_micros == {"redis": 7.0}


REPORT = Report(
    "Title",
    (Figure("speed", "how fast", "events/s", asked="≥ 5"), Figure("ratio", "  against", "", 2), Figure("none", "not")),
    ({"speed": 1000.0, "ratio": 0.5}, {"speed": 3000.0, "ratio": 0.7}, {"speed": 2000.4, "ratio": 0.6}),
    {"cores": "2", "appendfsync": "everysec"},
)


def test_a_report_shows_medians_extremes_and_what_was_asked() -> None:
    assert REPORT.rows() == [
        ("how fast", "2,000 events/s", "1,000 – 3,000", "≥ 5"),  # noqa: RUF001
        ("  against", "0.60", "0.50 – 0.70", ""),  # noqa: RUF001
    ]
    console = Console(record=True, width=100, file=Path(os.devnull).open("w"))  # noqa: SIM115 - closed by the collector
    with console.file:
        console.print(REPORT.table())
    text = console.export_text()
    assert "medians of 3 runs" in text
    assert "2,000 events/s" in text


def test_a_report_is_markdown_ready_for_the_documentation() -> None:
    lines = REPORT.markdown().splitlines()
    assert lines[0] == "**Title** (medians of 3 runs)"
    assert lines[2:5] == [
        "| | median | lowest – highest | asked |",  # noqa: RUF001
        "|---|--:|--:|--:|",
        "| how fast | 2,000 events/s | 1,000 – 3,000 | ≥ 5 |",  # noqa: RUF001
    ]
    assert lines[-1] == "cores 2; appendfsync everysec."


def test_a_report_is_json_with_every_run() -> None:
    found = json.loads(json.dumps(REPORT.as_json()))
    assert found["figures"]["speed"]["runs"] == [1000.0, 3000.0, 2000.4]
    assert found["figures"]["speed"]["median"] == 2000.4
    assert "none" not in found["figures"]
    assert found["conditions"]["cores"] == "2"


def _pace(per_second: float, **cpu_micros: float) -> Pace:
    return Pace(per_second, 10, int(10 * per_second), cpu_micros)


OUTCOME = Outcome([0.001 * n for n in range(1, 101)], 50_000, 0.002, 0.004)

OF_THE_MACHINE = {figure.key for figure in CORES}


def test_inflight_gives_every_figure_that_it_names_and_names_every_one_that_it_gives() -> None:
    servers = {"consumer": 5.0, "redis": 4.0, "broker": 1.0, "postgres": 0.0}
    names = {"memory": 110e3, "packed": 150e3, "decode": 200e3, "naive": 5e3, "naive_commit": 500, "hot": 95e3}
    paces = {"uniform": _pace(100e3, **servers), **{name: _pace(rate, **servers) for name, rate in names.items()}}
    calls = {"p50": 2500.0, "p99": 3000.0, "p99.9": 4000.0, "p100": 4500.0, "records": 500.0, "micros": 5.0}
    values = values_of(paces, calls, {"p50": 5.0, "p99.9": 9.0}, Loaded(50e3, 140, 100))
    values |= latency_values(OUTCOME, 50e3)
    given = values.keys() | {"first_seconds"} | OF_THE_MACHINE
    assert given == {f.key for f in FIGURES if not f.key.startswith("stage_")}
    assert values["memory_ratio"] == pytest.approx(0.909, abs=0.001)
    assert (values["naive_ratio"], values["hot_ratio"], values["cores"]) == pytest.approx((20, 0.95, 1.0))
    assert (values["latency_p50"], values["latency_p99"], values["latency_max"]) == pytest.approx((50, 99, 100))
    assert values["call_p999"] == 4.0


def test_settle_gives_every_figure_that_it_names_and_names_every_one_that_it_gives() -> None:
    servers = {"consumer": 5.0, "postgres": 10.0, "broker": 1.0, "redis": 0.0}
    both = {"inflight": 5.0, "postflight": 5.0, "broker": 2.0, "redis": 4.0, "postgres": 9.0}
    paces = {"uniform": _pace(104e3, **servers), "hot": _pace(100e3, **servers), "both": _pace(45e3, **both)}
    paces |= {"naive": _pace(2e3, **servers), "naive_sessions": _pace(4e3, **servers)}
    written = [(Written(3_000, 1_000, 600_000, 10), 2_600, 1_000), (Written(3_000, 1_000, 600_000, 10), 2_600, 1_000)]
    steady = Steady(80e3, OUTCOME, {"consumer": 6.0, "postgres": 12.0})
    values = settle_values_of(paces, written, {1: 160e3, 4: 200e3}) | steady_values(steady, 104e3)
    of_tables = {"usage_bytes", "usage_rows", "opened_per_second"}
    assert values.keys() | of_tables | OF_THE_MACHINE == {f.key for f in SETTLE_FIGURES}
    assert values["sessions_per_second"] == pytest.approx(40e3)
    assert values["copy_ratio"] == pytest.approx(0.25)
    assert values["wal_per_session"] == 600
    assert (values["naive_ratio"], values["naive_sessions_ratio"]) == (52, 26)
    assert values["rows_per_second"] == pytest.approx(160e3)


def test_arms_that_were_left_out_have_no_figures() -> None:
    uniform = {"uniform": _pace(100e3, consumer=5.0, redis=4.0, broker=1.0, postgres=0.0)}
    calls = {"p50": 2500.0, "p99": 3000.0, "p99.9": 4000.0, "p100": 4500.0, "records": 500.0, "micros": 5.0}
    inflight = values_of(uniform, calls, {"p50": 5.0, "p99.9": 9.0}, Loaded(50e3, 140, 100))
    settle = settle_values_of(uniform, [(Written(3, 1, 600, 0), 26, 10)], {})
    assert inflight["cores"] == pytest.approx(1.0)
    assert settle["wal_per_session"] == 60
    for values in (inflight, settle):
        assert not [key for key in values if key.endswith("_ratio") or key.startswith(("hot", "naive", "both"))]


def test_a_counter_is_seen_by_whoever_maps_the_same_file(tmp_path: Path) -> None:
    one, other = Counter(tmp_path / "count"), Counter(tmp_path / "count")
    assert other.value == 0
    one.value += 7
    assert other.value == 7
    for each in (one, other):
        each.close()


def test_cpu_time_of_a_process_and_of_one_that_is_gone() -> None:
    before = own_seconds(os.getpid())
    while own_seconds(os.getpid()) < before + 0.02:
        sum(range(10_000))
    assert family_seconds(os.getpid()) >= own_seconds(os.getpid()) > before
    assert own_seconds(2**22 + 1) == family_seconds(2**22 + 1) == 0.0
