"""The Explore page without a browser: its SQL held against the rows of silver, and what the page does with a URL."""

from __future__ import annotations

import io
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from streamlit.testing.v1 import AppTest

from dashboard.feed import Feed, open_feeds
from lakehouse.config.models import Pipeline
from lakehouse.errors import ConfigError
from lakehouse.serving.explore import NULL, Slice, measures, rows_statement, statement, to_csv, to_parquet
from lakehouse.serving.sql import query
from tests.flowing import Flow, backfill

SHOWN: list[tuple[Pipeline, tuple[Feed, ...]]] = []
TABLE = "card_payments_by_category_1s"
START = datetime(2026, 1, 1, tzinfo=UTC)


def page() -> None:
    from dashboard.alarms import Alarms
    from dashboard.frame import Frame
    from dashboard.views import explore
    from tests.unit.test_explore import SHOWN

    pipeline, feeds = SHOWN[0]
    explore.show(pipeline, feeds, Frame("card_payments", "conf/card_payments.yaml"), Alarms(pipeline))


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Flow:
    """Tables that no test here changes."""
    flow = Flow(tmp_path_factory.mktemp("explore"), "card_payments", rate=120)
    backfill([flow], seconds=10, every_s=1)
    flow.close()
    return flow


@pytest.fixture
def shown(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> Any:
    feeds = open_feeds(flow.pipeline)
    for feed in feeds:
        feed.follower.wait_for(0, 10)
    monkeypatch.setattr("tests.unit.test_explore.SHOWN", [(flow.pipeline, feeds)])
    yield feeds
    for feed in feeds:
        feed.follower.stop()


def asked(flow: Flow, names: list[str], dimensions: tuple[str, ...] = (), **changes: Any) -> Slice:
    known = {one.name: one for one in measures(flow.pipeline.rollups["by_category"])}
    now = datetime.now(UTC)
    wanted: dict[str, Any] = {
        "filters": (),
        "start": now - timedelta(hours=2),
        "end": now + timedelta(hours=1),
        "top": 100,
    }
    return Slice(TABLE, tuple(known[name] for name in names), dimensions, **{**wanted, **changes})


def silver(flow: Flow) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = DeltaTable(f"{flow.pipeline.root}/silver/card_payments").to_pyarrow_table().to_pylist()
    return rows


def test_every_measure_is_that_of_the_silver_rows(flow: Flow) -> None:
    wanted = asked(flow, [one.name for one in measures(flow.pipeline.rollups["by_category"])], ("category",))
    answer = query(flow.pipeline.root, statement(wanted)).to_pylist()
    rows = silver(flow)
    assert [row["category"] for row in answer] == [
        name
        for name, _ in sorted(Counter(row["category"] for row in rows).items(), key=lambda item: (-item[1], item[0]))
    ]
    for row in answer:
        mine = [one for one in rows if one["category"] == row["category"]]
        declined = sum(one["decision"] == "declined" for one in mine)
        assert row["events"] == len(mine)
        assert (row["declined"], row["declined_share"]) == (declined, pytest.approx(declined / len(mine), abs=1e-5))
        approved = [one["amount_eur"] for one in mine if one["decision"] == "approved"]
        assert row["turnover_eur"] == pytest.approx(sum(approved))
        assert row["largest_eur"] == max(one["amount_eur"] for one in mine)
        assert row["cards_distinct"] == pytest.approx(len({one["card"] for one in mine}), rel=0.05)
        amounts = sorted(one["amount_eur"] for one in mine)
        assert (
            amounts[int(0.4 * len(amounts))]
            <= row["amount_eur_p50"]
            <= amounts[min(int(0.6 * len(amounts)) + 1, len(amounts) - 1)]
        )


def test_only_the_named_table_is_opened(flow: Flow) -> None:
    sql = statement(asked(flow, ["events"]))
    assert query(flow.pipeline.root, sql, only=(f"gold.{TABLE}",)).num_rows == 1
    with pytest.raises(ConfigError, match="there is no table"):
        query(flow.pipeline.root, sql, only=("silver.card_payments",))


def test_filters_and_top_choose_rows(flow: Flow) -> None:
    filters = (("channel", ("online",)), ("category", ()))
    answer = query(flow.pipeline.root, statement(asked(flow, ["events"], ("category",), filters=filters, top=2)))
    online = Counter(row["category"] for row in silver(flow) if row["channel"] == "online")
    assert [(row["category"], row["events"]) for row in answer.to_pylist()] == online.most_common(2)
    whole = query(flow.pipeline.root, statement(asked(flow, ["events"])))
    assert whole.to_pylist() == [{"events": len(silver(flow))}]
    none = query(flow.pipeline.root, statement(asked(flow, ["events"], ("category",), filters=(("channel", (NULL,)),))))
    assert none.num_rows == 0


def test_hostile_values_stay_values(flow: Flow) -> None:
    hostile = 'x\' OR 1=1; DROP VIEW gold."a" --'
    for names in (("category",), ()):
        answer = query(
            flow.pipeline.root, statement(asked(flow, ["events"], names, filters=(("channel", (hostile,)),)))
        )
        assert sum(row["events"] or 0 for row in answer.to_pylist()) == 0
    rows = query(flow.pipeline.root, rows_statement(flow.pipeline, asked(flow, ["events"], ("category",)), (hostile,)))
    assert rows.num_rows == 0


def test_a_drill_shows_the_rows_without_what_identifies_a_person(flow: Flow) -> None:
    wanted = asked(flow, ["events"], ("category", "channel"))
    rows = query(flow.pipeline.root, rows_statement(flow.pipeline, wanted, ("fuel", "chip"))).to_pylist()
    mine = [row for row in silver(flow) if (row["category"], row["channel"]) == ("fuel", "chip")]
    assert len(rows) == min(100, len(mine))
    assert rows[0]["paid_at"] == max(row["paid_at"] for row in mine)
    assert "card" not in rows[0]
    assert "merchant_id" in rows[0]


def test_exports_hold_the_rows_and_no_formula() -> None:
    table = pa.table({"name": ["=1+1", "plain", None, "@x"], "events": [1, 2, 3, -4]})
    assert pq.read_table(io.BytesIO(to_parquet(table))).equals(table)
    back = pa_csv.read_csv(io.BytesIO(to_csv(table))).to_pylist()
    assert [row["name"] for row in back] == ["'=1+1", "plain", "", "'@x"]
    assert back[3]["events"] == -4


@pytest.mark.usefixtures("shown")
def test_the_page_answers_what_the_url_asks(flow: Flow) -> None:
    app = AppTest.from_function(page, default_timeout=20)
    app.query_params.update(
        {"measures_by_category": "events", "split_by_category": "channel", "only_channel": "online"}
    )
    app.query_params["rows"] = "online"
    app.run()
    assert not app.exception, app.exception
    answer, rows = (frame.value for frame in app.dataframe)
    online = [row for row in silver(flow) if row["channel"] == "online"]
    assert answer.to_dict("records") == [{"channel": "online", "events": len(online)}]
    assert len(rows) == min(100, len(online))
    assert "card" not in rows.columns
    assert 'FROM gold."card_payments_by_category_1s"' in app.code[0].value
    assert "identify a person: card" in app.caption[-1].value


@pytest.mark.usefixtures("shown")
def test_a_long_range_offers_no_sketches_and_another_rollup_its_own_measures() -> None:
    app = AppTest.from_function(page, default_timeout=20)
    app.query_params["rollup"] = "by_country"
    app.run()
    assert not app.exception, app.exception
    options = app.multiselect(key="measures_by_country").options
    assert {"events", "online_share", "authorisation_ms_p99", "merchants_distinct"} <= set(options)
    app = AppTest.from_function(page, default_timeout=20)
    app.query_params.update({"rollup": "by_country", "last": "24h"})
    app.run()
    assert app.multiselect(key="measures_by_country").options == ["events", "online", "online_share"]
