"""The dashboards, as code: `python -m deploy.grafana.draw` writes them to `deploy/grafana/dashboards/`.

A test compares the files with what this module makes, and parses every query.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from grafana_foundation_sdk.builders import prometheus, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

FOLDER = Path(__file__).with_name("dashboards")
SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
RATE = "[$__rate_interval]"

QDRANT = '{job="qdrant"}'
"""Its own metrics have no prefix; `job` is that of deploy/prometheus/prometheus.yml."""


class Graph(NamedTuple):
    """A panel: curves over time.

    Attributes:
        unit: Grafana's name of it.
        queries: By what the legend says, `{{label}}` standing for a label's value.
    """

    title: str
    unit: str
    queries: dict[str, str]
    description: str = ""


def _quantile(share: float, of: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({of}_bucket{RATE})))"


SERVICE: dict[str, Sequence[Graph]] = {
    "What callers see": (
        Graph("Searches", "reqps", {"{{status}}": f"sum by (status) (rate(dupmae_search_requests_total{RATE}))"}),
        Graph(
            "Time to an answer",
            "s",
            {f"p{100 * share:g}": _quantile(share, "dupmae_search_seconds") for share in (0.5, 0.95, 0.99)},
            "Of searches that were answered 200.",
        ),
        Graph("Ready", "none", {"{{instance}}": "dupmae_ready", "store of {{index}} away": "dupmae_store_away"}),
    ),
    "Where the time goes": (
        Graph("Stages of a search", "s", {"{{stage}}, p95": _quantile(0.95, "dupmae_stage_seconds", "stage")}),
        Graph(
            "Waiting",
            "none",
            {
                "for the encoder, {{instance}}": "dupmae_queue_depth",
                "for a store, {{instance}}": "dupmae_store_queue_depth",
                "may wait": "max(dupmae_queue_limit)",
            },
        ),
        Graph(
            "Queries encoded together",
            "none",
            {"mean": f"sum(rate(dupmae_batch_size_sum{RATE})) / sum(rate(dupmae_batch_size_count{RATE}))"},
            "In the batch of a query, itself counted; about 1 while nobody waits.",
        ),
    ),
    "What it costs": (
        Graph(
            "Found in a cache",
            "percentunit",
            {
                "{{cache}}": f'sum by (cache) (rate(dupmae_cache_total{{outcome="hit"}}{RATE}))'
                f" / sum by (cache) (rate(dupmae_cache_total{RATE}))"
            },
        ),
        Graph("Caches hold", "bytes", {"{{instance}}": "dupmae_cache_bytes"}),
        Graph("Disk left", "bytes", {"{{instance}}": "dupmae_data_free_bytes"}),
    ),
}

INDEX: dict[str, Sequence[Graph]] = {
    "What is served": (
        Graph("Builds", "none", {"{{index}}: {{build}}": "count by (index, build) (dupmae_build_info)"}),
        Graph("Documents", "none", {"{{index}}": 'max by (index) (dupmae_build_documents{origin=""})'}),
        Graph("Size on disk", "bytes", {"{{index}}": "max by (index) (dupmae_build_size_bytes)"}),
        Graph("Segments", "none", {"{{index}}": "max by (index) (dupmae_build_segments)"}),
        Graph("Live writes", "wps", {"{{index}}, {{kind}}": f"sum by (index, kind) (rate(dupmae_writes_total{RATE}))"}),
        Graph("Cannot be switched to", "none", {"{{index}} on {{instance}}": "dupmae_switch_failed"}),
    ),
    "What is being built": (
        Graph("Documents, by origin", "none", {"{{index}}, {{origin}}": 'dupmae_build_documents{origin!=""}'}),
        Graph("Documents encoded per second", "none", {"{{index}}": "dupmae_build_documents_per_second"}),
        Graph(
            "Records read", "none", {"{{index}}": "dupmae_build_records_read", "{{index}}, all": "dupmae_build_records"}
        ),
        Graph("Dead letters", "none", {"{{index}}": "dupmae_build_dead_letters"}),
        Graph("Stage", "none", {"{{index}}, {{stage}}": "dupmae_build_stage == 1"}),
        Graph("Since it last stored anything", "s", {"{{index}}": "time() - dupmae_build_updated_seconds"}),
    ),
    "What Qdrant says": (
        Graph(
            "Points",
            "none",
            {"{{id}}": f"sum by (id) (collection_points{QDRANT})"},
            "By collection, which is a build. Empty where the engine is embedded, as this row is.",
        ),
        Graph(
            "Optimizations running",
            "none",
            {"{{id}}": f"sum by (id) (collection_running_optimizations{QDRANT})"},
            "While a build is being indexed, and after many live writes; not for hours.",
        ),
        Graph("Replicas that are not active", "none", {"{{instance}}": f"collection_dead_replicas{QDRANT}"}),
        Graph("Responses", "reqps", {"{{status}}": f"sum by (status) (rate(rest_responses_total{QDRANT}{RATE}))"}),
        Graph(
            "Time of a response, p95",
            "s",
            {
                "{{endpoint}}": "histogram_quantile(0.95, sum by (le, endpoint) "
                f"(rate(rest_responses_duration_seconds_bucket{QDRANT}{RATE})))"
            },
        ),
        Graph("Memory", "bytes", {"{{instance}}": f"memory_resident_bytes{QDRANT}"}),
    ),
}


def _mean(of: str, when: str = "") -> str:
    return f"sum by (index) (rate({of}_sum[1h]{when})) / sum by (index) (rate({of}_count[1h]{when}))"


def _now_and_before(of: str) -> dict[str, str]:
    """A mean per index over an hour, and the same a week ago."""
    return {"{{index}}": _mean(of), "{{index}}, a week ago": _mean(of, " offset 1w")}


def _probed(measure: str) -> dict[str, str]:
    """A figure of the probe, by replica, with what the build had when it was published."""
    own = f'avg by (index, bound) (dupmae_probe_own_figure{{measure="{measure}"}})'
    return {
        "{{index}} on {{instance}}": f'dupmae_probe_figure{{measure="{measure}"}}',
        "{{index}}, when published: {{bound}}": own,
    }


QUALITY: dict[str, Sequence[Graph]] = {
    "What the probe finds": (
        Graph(
            "nDCG@10 of the probe",
            "none",
            _probed("ndcg_at_10"),
            "Of the queries that a build keeps. Below the low bound the alert DupmaeQualityFallen fires.",
        ),
        Graph("Recall@10 of the probe", "none", _probed("recall_at_10")),
        Graph(
            "Balance of the probe's best results",
            "percentunit",
            _probed("ot_share"),
            "Share of the score that words (OT) gave; the [CLS] vector gave the rest.",
        ),
        Graph(
            "Since the last whole round",
            "s",
            {
                "{{index}} on {{instance}}": "time() - dupmae_probe_completed_timestamp_seconds",
                "a round takes": "max(dupmae_probe_interval_seconds)",
            },
        ),
        Graph(
            "Rounds by how they ended",
            "none",
            {"{{index}}: {{outcome}}": "sum by (index, outcome) (increase(dupmae_probe_rounds_total[1h]))"},
            "In the last hour.",
        ),
        Graph("Queries of a round", "none", {"{{index}}": "max by (index) (dupmae_probe_queries)"}),
    ),
    "Whether people ask otherwise": (
        Graph("Tokens of a query", "none", _now_and_before("dupmae_query_tokens"), "Mean of an hour."),
        Graph(
            "Tokens that the vocabulary lacks",
            "percentunit",
            {
                "{{index}}": "sum by (index) (rate(dupmae_query_unknown_tokens_total[1h]))"
                " / sum by (index) (rate(dupmae_query_tokens_sum[1h]))"
            },
            "Another script or language, most often.",
        ),
        Graph("Words weighed for a query", "none", _now_and_before("dupmae_query_terms"), "Mean of an hour."),
    ),
    "Whether answers are otherwise": (
        Graph("Score of the best result", "none", _now_and_before("dupmae_top_score"), "Mode fused, mean of an hour."),
        Graph(
            "Score of the best result, low and high",
            "none",
            {
                f"{{{{index}}}}, p{100 * share:g}": f"histogram_quantile({share}, sum by (le, index) "
                "(rate(dupmae_top_score_bucket[1h])))"
                for share in (0.1, 0.9)
            },
        ),
        Graph(
            "Balance of the best result",
            "percentunit",
            _now_and_before("dupmae_top_ot_share"),
            "Share of the score that words (OT) gave, mean of an hour.",
        ),
    ),
    "What queries tell": (
        Graph(
            "Searches that found nothing",
            "percentunit",
            {
                "all indexes": f"sum(rate(dupmae_zero_results_total{RATE}))"
                f' / sum(rate(dupmae_stage_seconds_count{{stage=~"render|cache"}}{RATE}))'
            },
        ),
        Graph(
            "Queries cut to the model's window", "reqps", {"all": f"sum(rate(dupmae_truncated_queries_total{RATE}))"}
        ),
        Graph(
            "Refused", "reqps", {"not understood": f'sum(rate(dupmae_search_requests_total{{mode="invalid"}}{RATE}))'}
        ),
    ),
    "Promises": (
        Graph("Searches that failed", "percentunit", {"of an hour": "job:dupmae_search_errors:ratio_rate1h"}),
        Graph("Answers over half a second", "percentunit", {"of an hour": "job:dupmae_search_slow:ratio_rate1h"}),
    ),
}

DASHBOARDS = {"service": SERVICE, "index": INDEX, "quality": QUALITY}


def _panel(graph: Graph) -> timeseries.Panel:
    panel = timeseries.Panel().title(graph.title).description(graph.description).unit(graph.unit).min(0)
    panel = panel.datasource(SOURCE).span(8).height(8)
    for ref, (legend, query) in zip("ABCDEF", graph.queries.items(), strict=False):
        panel = panel.with_target(prometheus.Dataquery().expr(query).legend_format(legend).ref_id(ref))
    return panel


def _dashboard(name: str, rows: dict[str, Sequence[Graph]]) -> str:
    made = Dashboard(f"dupmae-search: {name}").uid(f"dupmae-{name}").tags(["dupmae-search"])
    made = made.time("now-1h", "now").refresh("30s").timezone("browser").editable()
    numbers = itertools.count(1)
    for title, graphs in rows.items():
        made = made.with_row(Row(title).id(next(numbers)))
        for graph in graphs:
            made = made.with_panel(_panel(graph).id(next(numbers)))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def dashboards() -> dict[str, str]:
    """The content of each file, by its name."""
    return {f"{name}.json": _dashboard(name, rows) for name, rows in DASHBOARDS.items()}


if __name__ == "__main__":
    for name, content in dashboards().items():
        (FOLDER / name).write_text(content)
