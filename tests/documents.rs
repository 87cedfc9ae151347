//! The documents say what is so: every option with its variable and default, and no dead link.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use booking_service::config::Cli;
use clap::{Arg, Command, CommandFactory};

fn document(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The options of a command and of those below it.
fn options(command: &Command) -> Vec<Arg> {
    let own = command.get_arguments().cloned();
    own.chain(command.get_subcommands().flat_map(options))
        .collect()
}

#[test]
fn the_readme_has_every_option_with_its_variable_and_default() {
    let readme = document("README.md");
    for option in options(&Cli::command())
        .iter()
        .filter(|option| !option.is_hide_set())
    {
        let name = option.get_long().unwrap();
        let mut lines = readme.lines();
        let Some(variable) = option.get_env().map(|name| name.to_str().unwrap()) else {
            assert!(readme.contains(&format!("`--{name}")), "no --{name}");
            continue;
        };
        let row = lines
            .find(|line| line.starts_with(&format!("| `--{name}` |")))
            .unwrap_or_else(|| panic!("no row of --{name} ({variable}) in the README's tables"));
        let cells: Vec<&str> = row
            .split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect();
        assert_eq!(cells[2], variable, "the variable of --{name}");
        if let Some(default) = option.get_default_values().first() {
            assert_eq!(
                cells[3],
                default.to_str().unwrap(),
                "the default of --{name}"
            );
        }
    }
}

/// What a heading is called in a link.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let slug = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().replace(' ', "-")
    };
    headings.map(slug).collect()
}

#[test]
fn every_link_to_a_file_or_a_section_leads_to_one() {
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/operating.md",
    ] {
        let text = document(name);
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let links = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("http")) {
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            let path = if file.is_empty() {
                own.clone()
            } else {
                own.with_file_name(file)
            };
            assert!(path.exists(), "{name} links to {link}");
            if !section.is_empty() {
                let there = anchors(&std::fs::read_to_string(path).unwrap());
                assert!(
                    there.iter().any(|anchor| anchor == section),
                    "{name} links to {link}"
                );
            }
        }
    }
}

#[test]
fn every_alert_has_its_section_for_operators() {
    let alerts = document("docker/prometheus/alerts.yaml");
    let page = document("docs/operating.md").to_lowercase();
    let mut anchors = alerts.split("operating.md#").skip(1).peekable();
    assert!(anchors.peek().is_some(), "alerts name their sections");
    for anchor in anchors {
        let anchor: String = anchor
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect();
        assert!(
            page.contains(&format!("### {anchor}\n")),
            "no section {anchor}"
        );
    }
}

/// A variable that is misspelt would be without effect, and nobody would hear of it.
#[test]
fn the_manifests_set_variables_that_there_are() {
    let variables: Vec<String> = options(&Cli::command())
        .iter()
        .filter_map(|option| Some(option.get_env()?.to_str().unwrap().to_owned()))
        .collect();
    let mut count = 0;
    for name in [
        "docker/compose.yaml",
        "docker/kubernetes/base/deployment.yaml",
        "docker/kubernetes/base/kustomization.yaml",
        "docker/kubernetes/overlays/dsql/kustomization.yaml",
        "docker/kubernetes/overlays/local/kustomization.yaml",
    ] {
        let text = document(name);
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for word in text.split(|c| !is_part(c)) {
            let is_ours = ["BOOKING_", "CLUSTER_", "DATABASE_", "OTEL_", "AWS_"]
                .iter()
                .any(|prefix| word.starts_with(prefix));
            if is_ours {
                assert!(variables.iter().any(|it| it == word), "{name} sets {word}");
                count += 1;
            }
        }
    }
    assert!(count > 15, "{count}");
}

/// What stands behind `key` in a manifest, in seconds.
fn seconds(manifest: &str, key: &str) -> u64 {
    let value = manifest
        .split(key)
        .nth(1)
        .unwrap_or_else(|| panic!("no {key}"));
    let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[test]
fn kubernetes_lets_the_service_drain() {
    let settings = document("docker/kubernetes/base/kustomization.yaml");
    let pod = document("docker/kubernetes/base/deployment.yaml");
    let drain = seconds(&settings, "- BOOKING_DRAIN_DELAY=")
        + seconds(&settings, "- BOOKING_DRAIN_TIMEOUT=");
    // The last traces get two seconds more.
    assert!(drain + 2 < seconds(&pod, "terminationGracePeriodSeconds: "));
}

/// The names that the service registers, and the port that knows them.
#[test]
fn kubernetes_probes_by_names_that_there_are() {
    let pod = document("docker/kubernetes/base/deployment.yaml");
    let settings = document("docker/kubernetes/base/kustomization.yaml");
    for (probe, service) in [
        ("startupProbe", "liveness"),
        ("livenessProbe", "liveness"),
        ("readinessProbe", "readiness"),
    ] {
        let rest = pod.split(&format!("{probe}:")).nth(1).unwrap();
        let lines: Vec<&str> = rest.lines().skip(1).take(3).map(str::trim).collect();
        assert_eq!(
            lines,
            ["grpc:", "port: 50052", &format!("service: {service}")]
        );
    }
    assert!(settings.contains("BOOKING_HEALTH_LISTEN=0.0.0.0:50052"));
}
