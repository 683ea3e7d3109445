//! The page of every command, from the very definitions that parse them.

use crate::cli::Cli;
use clap::{Arg, Command, CommandFactory as _};
use std::fmt::Write as _;

/// `docs/reference/cli.md`.
#[must_use]
pub fn page() -> String {
    let mut root = Cli::command();
    root.build();
    let mut text =
        String::from("# kubectl kiban\n\nWritten by `cargo xtask generate` from the program itself.\n\n");
    let about = root.get_long_about().or(root.get_about());
    let _ = write!(text, "{}\n\n", about.map(ToString::to_string).unwrap_or_default());
    text.push_str(
        "Exit codes: 0 done; 1 it could not be done, and the `hint:` says what to do next; 2 the answer is no (a commit that does not\n\
         validate or breaks a rule, a finding). Standard output holds the answer alone, in colour only on a terminal without `NO_COLOR`.\n\n## Options of every command\n\n",
    );
    let global: Vec<&Arg> = root.get_arguments().filter(|it| it.is_global_set()).collect();
    arguments(&mut text, &global);
    for command in shown(&root) {
        section(&mut text, command, "kubectl kiban", 2);
    }
    text.push_str(
        "## Completion\n\n\
         `kubectl kiban completion bash|zsh|fish` prints the script of a shell for `kubectl-kiban`. kubectl itself asks a program named\n\
         `kubectl_complete-kiban` in the `PATH` what may follow `kubectl kiban`. This one answers with the same words:\n\n\
         ```sh\n#!/bin/sh\n# kubectl_complete-kiban: kubectl runs it with the words after `kubectl kiban`, the one to complete last.\n\
         exec kubectl-kiban complete -- \"$@\"\n```\n",
    );
    text
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|it| !it.is_hide_set() && it.get_name() != "help")
}

fn section(text: &mut String, command: &Command, parent: &str, level: usize) {
    let name = format!("{parent} {}", command.get_name());
    let _ = write!(text, "{} {name}\n\n", "#".repeat(level));
    let about = command.get_long_about().or(command.get_about());
    let _ = write!(
        text,
        "{}.\n\n",
        about
            .map(ToString::to_string)
            .unwrap_or_default()
            .trim_end_matches('.')
    );
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|it| !it.is_global_set() && !matches!(it.get_id().as_str(), "help" | "version"))
        .collect();
    arguments(text, &own);
    for inner in shown(command) {
        section(text, inner, &name, level + 1);
    }
}

fn arguments(text: &mut String, list: &[&Arg]) {
    for arg in list {
        let value = arg
            .get_value_names()
            .filter(|_| arg.get_action().takes_values())
            .map(|names| {
                names
                    .iter()
                    .map(|name| name.as_str())
                    .collect::<Vec<_>>()
                    .join(" ")
            });
        let mut name = match (arg.get_short(), arg.get_long()) {
            (Some(short), Some(long)) => format!("-{short}, --{long}"),
            (None, Some(long)) => format!("--{long}"),
            (Some(short), None) => format!("-{short}"),
            (None, None) => String::new(),
        };
        if let Some(value) = value {
            let _ = write!(name, "{}{value}", if name.is_empty() { "" } else { " " });
        }
        let help = arg.get_long_help().or(arg.get_help());
        let help = help
            .map(|help| help.to_string().replace('\n', " "))
            .unwrap_or_default();
        let default: Vec<String> = arg
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy().into_owned())
            .collect();
        let default = match default.as_slice() {
            _ if !arg.get_action().takes_values() => String::new(),
            [] => String::new(),
            values => format!(" Default: `{}`.", values.join(" ")),
        };
        let choices: Vec<String> = arg
            .get_possible_values()
            .iter()
            .filter(|_| arg.get_action().takes_values())
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        let choices = if choices.is_empty() {
            String::new()
        } else {
            format!(" One of {}.", choices.join(", "))
        };
        let help = help.trim_end_matches('.');
        let _ = writeln!(text, "- `{name}`: {help}.{choices}{default}");
    }
    if !list.is_empty() {
        text.push('\n');
    }
}

/// What may follow the words typed so far, one a line, and kubectl's directive last (`:4`: no file names).
#[must_use]
pub fn complete(words: &[String]) -> String {
    let mut command = Cli::command();
    command.build();
    let (last, before) = words
        .split_last()
        .map_or(("", words), |(last, before)| (last.as_str(), before));
    let mut at = &command;
    for word in before {
        if let Some(inner) = at.find_subcommand(word) {
            at = inner;
        }
    }
    let mut found: Vec<String> = Vec::new();
    if last.starts_with('-') {
        found.extend(
            at.get_arguments()
                .filter_map(|arg| arg.get_long())
                .map(|long| format!("--{long}")),
        );
    } else {
        found.extend(shown(at).map(|inner| inner.get_name().to_owned()));
    }
    found.retain(|word| word.starts_with(last));
    found.sort();
    found.dedup();
    let mut text = String::new();
    for word in found {
        text.push_str(&word);
        text.push('\n');
    }
    text.push_str(":4\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/cli.md");
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == page(),
            "docs/reference/cli.md is not what the program says: run `cargo xtask generate`"
        );
    }

    #[test]
    fn completion_knows_commands_and_options() {
        let words = |words: &[&str]| -> Vec<String> { words.iter().map(|it| (*it).to_owned()).collect() };
        assert_eq!(complete(&words(&["fore"])), "forecast\n:4\n");
        let options = complete(&words(&["plan", "--"]));
        assert!(
            options.contains("--repo\n")
                && options.contains("--snapshot\n")
                && options.contains("--context\n")
        );
        assert_eq!(complete(&words(&["no-such", "x"])), ":4\n");
    }
}
