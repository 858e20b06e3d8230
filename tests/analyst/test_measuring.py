"""Metrics of the console's HTTP requests."""

from tests.analyst.conftest import ids_of
from tests.conftest import METRICS, metric


def count(method, route, status):
    return metric("whyflag_http_requests_total", method=method, route=route, status=status)


def test_requests_count_by_route_and_status(site, sqlite_queue):
    alert_id, ann = ids_of(sqlite_queue)[0], site()
    before = {status: count("GET", "/alerts/{alert_id}", status) for status in ("200", "404")}
    assert ann.get(f"/alerts/{alert_id}").status_code == 200
    assert ann.get("/alerts/0123456789abcdef").status_code == 404
    assert ann.get("/nowhere/4111111111111111").status_code == 404
    assert count("GET", "/alerts/{alert_id}", "200") == before["200"] + 1
    assert count("GET", "/alerts/{alert_id}", "404") == before["404"] + 1
    assert count("GET", "none", "404") >= 1
    assert METRICS.get_sample_value("whyflag_http_request_seconds_count", {"method": "GET", "route": "/alerts/{alert_id}"}) >= 2


def test_a_database_that_does_not_answer_counts_as_a_server_error(site, sqlite_queue):
    before = count("GET", "/", "503")
    ann = site()
    with sqlite_queue.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE alerts RENAME TO hidden")
    assert ann.get("/").status_code == 503
    assert count("GET", "/", "503") == before + 1
