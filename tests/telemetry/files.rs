//! The dashboard and the alert rules: what they ask for, to be compared with what there is.

use std::collections::BTreeSet;

use serde_json::Value;

const DASHBOARD: &str = include_str!("../../docker/grafana/booking-service.json");
const ALERTS: &str = include_str!("../../docker/prometheus/alerts.yaml");
const ALERT_TESTS: &str = include_str!("../../docker/prometheus/alerts_test.yaml");

/// Something that a query selects: a series, and the labels that it selects by.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Selected {
    pub(crate) series: String,
    pub(crate) labels: Vec<String>,
}

/// Everything that the queries of both files select.
pub(crate) fn selected() -> BTreeSet<Selected> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let mut all = BTreeSet::new();
    let mut queries = 0;
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            all.extend(selected_by(target["expr"].as_str().expect("a query")));
            queries += 1;
        }
    }
    assert!(queries > 30, "{queries}");
    all.extend(selected_by(ALERTS));
    all
}

/// Series are told by their names' first words; a label may begin like them, and is no series.
fn selected_by(query: &str) -> Vec<Selected> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut selected = Vec::new();
    let mut rest = query;
    while let Some(at) = rest.find(is_word) {
        rest = &rest[at..];
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        rest = behind;
        let is_label = booking_service::telemetry::metrics::METRICS
            .iter()
            .any(|metric| metric.labels.contains(&word));
        let is_series = ["booking_", "rpc_server_", "db_client_"]
            .iter()
            .any(|prefix| word.starts_with(prefix));
        if is_series && !is_label {
            let matchers = behind
                .strip_prefix('{')
                .and_then(|rest| rest.split_once('}'));
            let matchers = matchers.map_or("", |(matchers, _)| matchers);
            let label = |matcher: &str| Some(matcher.split_once(['=', '!'])?.0.trim().to_owned());
            selected.push(Selected {
                series: word.to_owned(),
                labels: matchers.split(',').filter_map(label).collect(),
            });
        }
    }
    selected
}

#[test]
fn queries_are_read() {
    let selected = selected_by(
        "sum by (db_operation_name) (rate(booking_x_total{a=\"1\", outcome=~\"b|c\"}[5m])) / booking_y",
    );
    let series: Vec<_> = selected.iter().map(|one| &*one.series).collect();
    assert_eq!(series, ["booking_x_total", "booking_y"]);
    assert_eq!(selected[0].labels, ["a", "outcome"]);
}

#[test]
fn every_alert_says_what_is_wrong_and_where_to_read_on() {
    let lines: Vec<_> = ALERTS.lines().map(str::trim).collect();
    let starts: Vec<_> = (0..lines.len())
        .filter(|at| lines[*at].starts_with("- alert: "))
        .collect();
    assert!(starts.len() > 10);
    for (number, start) in starts.iter().enumerate() {
        let end = starts.get(number + 1).copied().unwrap_or(lines.len());
        let name = lines[*start].trim_start_matches("- alert: ");
        let anchor = format!("runbook: docs/operating.md#{}", name.to_lowercase());
        let alert = &lines[*start..end];
        assert!(alert.contains(&&*anchor), "{name} has no {anchor}");
        assert!(
            ALERT_TESTS.contains(name),
            "nothing shows that {name} fires"
        );
        for what in ["expr: ", "severity: ", "summary: ", "description: "] {
            assert!(
                alert.iter().any(|line| line.starts_with(what)),
                "{name} has no {what}"
            );
        }
    }
}
