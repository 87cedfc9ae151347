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

#[test]
fn every_link_to_a_file_leads_to_one() {
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    ] {
        let text = document(name);
        let links = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("http") && !link.starts_with('#')) {
            let file = link.split('#').next().unwrap();
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
            assert!(path.exists(), "{name} links to {link}");
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
