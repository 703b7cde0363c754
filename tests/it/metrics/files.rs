//! The board, the alerts and the manual name metrics that there are, and the manual names all of them.

use std::collections::BTreeSet;
use std::fs;

use regex::Regex;
use serde_json::Value;

use super::{Eventful, Metrics};

fn read(path: &str) -> String {
    fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).expect(path)
}

/// Every query of the board.
fn queries(board: &Value, found: &mut Vec<String>) {
    match board {
        Value::Object(members) => {
            for (name, member) in members {
                match member.as_str().filter(|_| name == "expr" || name == "query") {
                    Some(query) => found.push(query.to_owned()),
                    None => queries(member, found),
                }
            }
        }
        Value::Array(members) => members.iter().for_each(|member| queries(member, found)),
        _ => {}
    }
}

/// What in a query is no series of the service.
fn faults(query: &str, metrics: &Metrics) -> Vec<String> {
    let selector = Regex::new(r"(?-u:\b)((?:task_recorder|process)_[a-z_]+)(?:\{([^}]*)\})?").unwrap();
    let matcher = Regex::new(r#"([a-z]+)(=~|!=|!~|=)"([^"]*)""#).unwrap();
    let (names, mut faults) = (metrics.names(), Vec::new());
    for found in selector.captures_iter(query) {
        let name = &found[1];
        if !names.contains(name) {
            faults.push(format!("no metric {name}: {query}"));
            continue;
        }
        let of_metric = metrics.series().into_iter().filter(|series| series.split('{').next() == Some(name));
        let of_metric: Vec<_> = of_metric.collect();
        for found in matcher.captures_iter(found.get(2).map_or("", |labels| labels.as_str())) {
            let (label, operator, value) = (&found[1], &found[2], &found[3]);
            // What the scrape adds, and what the board fills in, is not in the answer.
            if ["job", "instance"].contains(&label) {
                continue;
            }
            let is_exact = operator == "=" && !value.contains('$');
            let wanted = if is_exact { format!("{label}=\"{value}\"") } else { format!("{label}=\"") };
            if !of_metric.iter().any(|series| series.contains(&wanted)) {
                faults.push(format!("no series of {name} has {wanted}: {query}"));
            }
        }
    }
    faults
}

#[tokio::test]
async fn every_metric_that_the_board_the_alerts_and_the_manual_name_is_there() {
    let Eventful { client, .. } = &Eventful::new().await;
    let metrics = Metrics::of(client).await;
    let mut board = Vec::new();
    queries(&serde_json::from_str(&read("config/grafana.json")).expect("the board is JSON"), &mut board);
    assert!(board.len() > 15, "{board:?}");
    let alerts = read("config/alerts.yaml");
    assert!(alerts.matches("expr:").count() > 8);
    let prometheus = read("config/prometheus.yaml");
    let queries = board.iter().chain([&alerts, &prometheus]);
    let faults: Vec<_> = queries.flat_map(|query| faults(query, &metrics)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));

    let readme = read("README.md");
    let name = Regex::new("`((?:task_recorder|process)_[a-z_]+)[`{]").unwrap();
    let told: BTreeSet<_> = name.captures_iter(&readme).map(|found| found[1].to_owned()).collect();
    assert_eq!(
        told,
        metrics.types.keys().cloned().collect(),
        "the README tells of all metrics and no others"
    );
    let wrong =
        ["rate(task_recorder_nothing_total[5m])", "task_recorder_tasks{state=\"lost\"}", "process_fds"];
    assert!(wrong.iter().all(|wrong| super::files::faults(wrong, &metrics).len() == 1), "a fault is seen");
}
