//! The older text format of Prometheus (0.0.4), made of OpenMetrics: it names a counter with its `_total`, and knows
//! neither infos, nor units, nor an end.

use std::fmt::Write as _;

/// The same metrics in the older format.
pub(super) fn older(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        match comment.splitn(3, ' ').collect::<Vec<_>>().as_slice() {
            // Its name depends on the type, which comes next.
            ["HELP", _, sentence] => help = Some(*sentence),
            ["TYPE", name, kind] => {
                let (suffix, kind) = match *kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    kind => ("", kind),
                };
                // Writing to a string cannot fail.
                if let Some(sentence) = help.take() {
                    let _ = writeln!(text, "# HELP {name}{suffix} {sentence}");
                }
                let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
            }
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_names_counters_and_infos_as_their_samples() {
        let open_metrics = "\
            # HELP a_b Launches.\n# TYPE a_b counter\na_b_total{result=\"started\"} 1\n\
            # HELP a_build What runs.\n# TYPE a_build info\na_build_info{version=\"1\"} 1\n\
            # HELP a_t_seconds Time.\n# TYPE a_t_seconds gauge\n# UNIT a_t_seconds seconds\na_t_seconds 0.5\n\
            # EOF\n";
        let expected = "\
            # HELP a_b_total Launches.\n# TYPE a_b_total counter\na_b_total{result=\"started\"} 1\n\
            # HELP a_build_info What runs.\n# TYPE a_build_info gauge\na_build_info{version=\"1\"} 1\n\
            # HELP a_t_seconds Time.\n# TYPE a_t_seconds gauge\na_t_seconds 0.5\n";
        assert_eq!(older(open_metrics), expected);
    }
}
