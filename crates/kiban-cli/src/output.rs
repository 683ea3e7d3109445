//! Printing: tables that fit the terminal, colours that respect `NO_COLOR` and a pipe, and nothing that a name in the cluster could
//! do to the terminal.

use crate::{cli::Format, failure::Failure};
use anstyle::{AnsiColor, Style};
use serde::Serialize;
use std::{borrow::Cow, fmt::Write as _, io::Write as _};

/// What is good.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// What needs attention.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// What is bad.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// What leads the eye.
pub const STRONG: Style = Style::new().bold();
/// What can be passed over.
pub const FAINT: Style = Style::new().dimmed();

/// Prints to standard output. A reader that went away (`| head`) is not an error.
pub fn print(text: &str) {
    let mut out = anstream::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// Prints to standard error, as it is.
pub fn print_error(text: &str) {
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}

/// Says to standard error what was done, so that standard output is only what was asked for.
pub fn note(text: &str) {
    print_error(&format!("{}\n", shown(text)));
}

/// Prints a failure to standard error.
pub fn print_failure(failure: &Failure) {
    let mut err = anstream::stderr().lock();
    let _ = writeln!(err, "{BAD}error:{BAD:#} {failure}");
    if let Some(hint) = &failure.hint {
        let _ = writeln!(err, "{STRONG}hint:{STRONG:#} {}", shown(hint));
    }
}

/// Text from outside made fit for a terminal: control characters (ANSI escapes among them) are shown as `\u{1b}`, and
/// bidirectional overrides, which reorder what one reads, likewise. Newlines stay.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    let hostile = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if !text.chars().any(hostile) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hostile(c) {
            let _ = write!(clean, "{}", c.escape_unicode());
        } else {
            clean.push(c);
        }
    }
    Cow::Owned(clean)
}

/// The value as JSON or YAML; None for the formats that are for reading.
pub fn structured<T: Serialize>(format: Format, value: &T) -> Result<Option<String>, Failure> {
    match format {
        Format::Json => {
            let mut text = serde_json::to_string_pretty(value).map_err(Failure::new)?;
            text.push('\n');
            Ok(Some(text))
        }
        Format::Yaml => serde_saphyr::to_string(value).map(Some).map_err(Failure::new),
        Format::Table | Format::Wide | Format::Name | Format::Csv | Format::Markdown => Ok(None),
    }
}

/// How wide the terminal is; a pipe is as wide as it needs to be.
#[must_use]
pub fn width() -> usize {
    std::env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok())
        .or_else(|| terminal_size::terminal_size().map(|(width, _)| usize::from(width.0)))
        .unwrap_or(usize::from(u16::MAX))
        .max(20)
}

/// Lines that are wider than the terminal, wrapped between words; what is wrapped goes on at `indent`.
#[must_use]
pub fn fit(text: &str, indent: usize) -> String {
    fit_to(text, indent, width())
}

fn fit_to(text: &str, indent: usize, width: usize) -> String {
    let indent = indent.min(width / 3);
    let mut fitted = String::with_capacity(text.len());
    for line in text.lines() {
        let mut at = 0;
        let mut first = true;
        for word in line.split_inclusive(' ') {
            let cells = cells(word.trim_end());
            if !first && at + cells > width && at > indent {
                fitted.truncate(fitted.trim_end_matches(' ').len());
                fitted.push('\n');
                fitted.push_str(&" ".repeat(indent));
                at = indent;
            }
            // A bar or a name that is wider than the terminal is its own business.
            fitted.push_str(word);
            at += cells + (word.len() - word.trim_end().len());
            first = false;
        }
        fitted.truncate(fitted.trim_end_matches(' ').len());
        fitted.push('\n');
    }
    fitted
}

/// How many cells of a terminal a text takes; styles take none.
fn cells(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(anstream::adapter::strip_str(text).to_string().as_str())
}

/// A table in kubectl's manner: a header in capitals, columns three spaces apart, no lines. Cells that do not fit are wrapped.
#[must_use]
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_width(u16::try_from(width()).unwrap_or(u16::MAX));
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| shown(cell).into_owned()));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Comma-separated values (RFC 4180).
#[must_use]
pub fn csv(header: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |text: &str| {
        if text.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text.to_owned()
        }
    };
    let mut text = header.join(",");
    text.push_str("\r\n");
    for row in rows {
        text.push_str(&row.iter().map(|value| cell(value)).collect::<Vec<_>>().join(","));
        text.push_str("\r\n");
    }
    text
}

/// A bar of `width` cells, `part` of `whole` filled.
#[must_use]
pub fn bar(part: u32, whole: u32, width: usize) -> String {
    let filled = if whole == 0 {
        width
    } else {
        // Full only when it is full, and never empty once something is done: the eye takes the ends literally.
        let cells = (u64::from(part) * width as u64 / u64::from(whole)) as usize;
        if part > 0 && cells == 0 {
            1
        } else {
            cells.min(width)
        }
    };
    format!("{}{}", "█".repeat(filled), "░".repeat(width - filled))
}

/// How long ago, or ahead, in the two largest units: `2m04s`, `3h`, `41d`.
#[must_use]
pub fn span(seconds: i64) -> String {
    let s = seconds.abs();
    match s {
        0..60 => format!("{s}s"),
        60..3600 => match s % 60 {
            0 => format!("{}m", s / 60),
            rest => format!("{}m{rest:02}s", s / 60),
        },
        3600..86400 => match s % 3600 / 60 {
            0 => format!("{}h", s / 3600),
            rest => format!("{}h{rest:02}m", s / 3600),
        },
        _ => format!("{}d", s / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_in_a_name_reach_no_terminal() {
        assert_eq!(shown("a\u{1b}[31mb\u{202e}c"), "a\\u{1b}[31mb\\u{202e}c");
        assert!(matches!(shown("tyo-b07-12 基盤"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_bar_is_full_only_when_all_is_done() {
        assert_eq!(bar(0, 10, 5), "░░░░░");
        assert_eq!(bar(1, 1000, 5), "█░░░░");
        assert_eq!(bar(999, 1000, 5), "████░");
        assert_eq!(bar(1000, 1000, 5), "█████");
        assert_eq!(bar(0, 0, 3), "███");
    }

    #[test]
    fn what_is_too_wide_goes_on_under_its_value() {
        let text = format!("label     {BAD}one{BAD:#} two three four\nshort\n");
        let fitted = fit_to(&text, 10, 20);
        assert_eq!(
            fitted,
            format!("label     {BAD}one{BAD:#} two\n      three four\nshort\n")
        );
        assert_eq!(
            fit_to("a-name-that-is-wider-than-all-of-it b\n", 4, 20),
            "a-name-that-is-wider-than-all-of-it\n    b\n"
        );
    }

    #[test]
    fn spans_read_like_kubectls() {
        assert_eq!(span(59), "59s");
        assert_eq!(span(124), "2m04s");
        assert_eq!(span(-7200), "2h");
        assert_eq!(span(86400 * 41), "41d");
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        assert_eq!(csv(&["a"], &[vec!["x,\"y\"".into()]]), "a\r\n\"x,\"\"y\"\"\"\r\n");
    }
}
