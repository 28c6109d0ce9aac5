"""What is counted, how Prometheus reads it, and that dashboard and alert rules ask for what there is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from scripts import metrics_table
from shared.events import RetrainCompleted
from shared.telemetry.exposition import Exposition
from shared.telemetry.instruments import Histogram, Instrument
from shared.telemetry.metrics import MOST_APPS, Metrics

FOLDER = Path(__file__).parents[2] / "deploy" / "observability"
TARGET = {"job", "instance", "service"}
"""Labels that Prometheus adds."""
PROCESS = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total"}
DECLARED = {metric.name: metric for metric in Metrics().all}


# --- declared ---------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", DECLARED.values(), ids=DECLARED.keys())
def test_names_follow_prometheus(metric: Instrument) -> None:
    assert re.fullmatch(r"feedback_loop(_[a-z]+)+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.kind != "histogram" or metric.name.endswith("_seconds")
    assert metric.meaning and len(set(metric.labels)) == len(metric.labels)


def test_the_table_of_metrics_is_up_to_date() -> None:
    assert metrics_table.main(["--check"]) == 0


# --- exposed ----------------------------------------------------------------------------------


def samples(text: str, parse: Any) -> Mapping[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("accept", "parse", "kind"),
    [
        ("", prometheus, "text/plain"),
        ("*/*", prometheus, "text/plain"),
        (
            "application/openmetrics-text; version=1.0.0, text/plain;q=0.5",
            openmetrics,
            "application/openmetrics",
        ),
    ],
)
def test_what_is_counted_is_exposed_in_both_formats(accept: str, parse: Any, kind: str) -> None:
    metrics = Metrics()
    metrics.requests.add("GET", '/a"{b}\n', "200")
    metrics.requests.add("GET", '/a"{b}\n', "200", by=2)
    for seconds in (0.005, 0.3, 1000):
        metrics.batches.observe(seconds)
    body, content_type = Exposition(metrics.all).answer(accept)
    found = samples(body.decode(), parse)
    labels = {"method": "GET", "route": '/a"{b}\n', "status": "200"}
    assert content_type.startswith(kind)
    assert found["feedback_loop_http_requests_total", frozenset(labels.items())] == 3
    buckets = {
        dict(labels)["le"]: value
        for (name, labels), value in found.items()
        if name == "feedback_loop_embedding_batch_seconds_bucket"
    }
    assert (buckets["0.005"], buckets["0.25"], buckets["0.5"], buckets["+Inf"]) == (1, 1, 2, 3)
    assert found["feedback_loop_embedding_batch_seconds_sum", frozenset()] == pytest.approx(1000.305)


def test_each_runtime_counts_for_itself() -> None:
    one, other = Metrics(), Metrics()
    one.votes.add("like")
    assert other.votes.values["like",] == 0


def test_a_consumers_series_are_there_before_anything_happens() -> None:
    """`increase` sees nothing in a series that begins with 1."""
    metrics = Metrics()
    metrics.consumes("analyzer", ["feedback.evaluate"])
    assert metrics.handled.values["analyzer", "feedback.evaluate", "dead"] == 0
    assert metrics.handled.values["analyzer", "invalid", "dead"] == 0


# --- apps -------------------------------------------------------------------------------------


def test_apps_are_bounded_and_the_longest_unheard_of_goes() -> None:
    metrics = Metrics()
    for number in range(MOST_APPS):
        metrics.judged(f"app{number}", number, 0.5, 10, 1)
    metrics.judged("app0", 1000, 0.5, 10, 1)
    metrics.judged("new", 1001, 0.5, 10, 1)
    for gauge in (metrics.evaluated, metrics.ratio, metrics.window_votes, metrics.generation):
        assert len(gauge.values) == MOST_APPS
        assert ("app0",) in gauge.values and ("app1",) not in gauge.values


def test_without_votes_there_is_no_ratio() -> None:
    metrics = Metrics()
    metrics.judged("default", 0, 0.4, 10, 3)
    metrics.judged("default", 1, None, 0, 3)
    assert not metrics.ratio.values
    assert metrics.window_votes.values["default",] == 0


def test_a_promotion_moves_the_generation_of_an_app_that_is_known() -> None:
    metrics = Metrics()
    promoted = RetrainCompleted(outcome="promoted", reason="manual", generation_before=1, generation_after=2)
    metrics.consumed(promoted)
    assert not metrics.generation.values
    metrics.judged("default", 0, 0.4, 10, 1)
    metrics.consumed(promoted)
    assert metrics.generation.values["default",] == 2


# --- asked for --------------------------------------------------------------------------------


def _rules() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
            assert rule["labels"]["severity"] in ("info", "warning", "critical")
            assert rule["annotations"]["summary"]
            yield rule["alert"], rule["expr"]


def _panels() -> Iterator[tuple[str, str]]:
    dashboard = json.loads((FOLDER / "grafana" / "dashboards" / "feedback-loop.json").read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m")


QUERIES = [*_rules(), *_panels()]


def _inside(node: Any) -> Iterator[Any]:
    yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "args", "param"):
        inner = getattr(node, name, None)
        for each in inner if isinstance(inner, list) else [inner]:
            if each is not None and not isinstance(each, str | int | float):
                yield from _inside(each)


def _series(metric: Instrument) -> set[str]:
    if isinstance(metric, Histogram):
        return {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
    return {metric.name}


SERIES = {name: metric for metric in DECLARED.values() for name in _series(metric)}


@pytest.mark.parametrize(("title", "query"), QUERIES, ids=[title for title, _ in QUERIES])
def test_a_query_asks_for_metrics_and_labels_that_there_are(title: str, query: str) -> None:
    tree = promql_parser.parse(query)
    selectors = [node for node in _inside(tree) if isinstance(node, promql_parser.VectorSelector)]
    known = set(TARGET)
    assert selectors
    for selector in selectors:
        assert selector.name in SERIES.keys() | PROCESS, selector.name
        metric = SERIES.get(selector.name)
        labels = {*(metric.labels if metric else ()), *TARGET}
        labels |= {"le"} if selector.name.endswith("_bucket") else set()
        assert {matcher.name for matcher in selector.matchers.matchers} <= labels
        known |= labels
    grouped = {
        label.strip() for group in re.findall(r"\bby \(([^)]*)\)", query) for label in group.split(",")
    }
    assert grouped <= known


def test_every_danger_has_its_alert() -> None:
    asked = " ".join(query for _, query in _rules())
    for metric in (
        'events_handled_total{outcome="dead"}',
        "outbox_oldest_age_seconds",
        "ready == 0",
        "last_evaluation_timestamp_seconds",
        "slack_failures_total",
        "negative_ratio",
    ):
        assert f"feedback_loop_{metric}" in asked


def test_grafana_finds_its_dashboard_and_prometheus(tmp_path: Path) -> None:
    (source,) = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    dashboard = json.loads((FOLDER / "grafana/dashboards/feedback-loop.json").read_text())
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"] if "datasource" in panel} == {
        source["uid"]
    }
    compose = yaml.safe_load((FOLDER.parents[1] / "docker-compose.yml").read_text())["services"]
    mounted = dict(volume.split(":")[:2] for volume in compose["grafana"]["volumes"])
    (provider,) = yaml.safe_load((FOLDER / "grafana/provisioning/dashboards/feedback-loop.yml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"] in mounted.values()
    for service in ("prometheus", "grafana"):
        assert compose[service]["profiles"] == ["observability"]
        assert re.fullmatch(r"[\w/-]+:v?\d+\.\d+\.\d+", compose[service]["image"])
        for volume in compose[service]["volumes"]:
            if volume.startswith("./"):
                assert (FOLDER.parents[1] / volume.split(":")[0]).exists()


def test_prometheus_scrapes_every_service_of_compose() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    (scraped,) = config["scrape_configs"][0]["dns_sd_configs"]
    compose = yaml.safe_load((FOLDER.parents[1] / "docker-compose.yml").read_text())
    ours = {
        name
        for name, service in compose["services"].items()
        if str(service.get("command", "")).startswith("feedback-loop run")
    }
    assert set(scraped["names"]) == ours
    (config_file,) = compose["services"]["prometheus"]["configs"]
    assert config_file["source"] in compose["configs"]
    assert config_file["target"] == config["scrape_configs"][0]["authorization"]["credentials_file"]
