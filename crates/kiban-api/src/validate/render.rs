//! Findings as a person reads them in a terminal.

use super::{File, Finding, Severity, Validated, text};
use std::fmt::Write as _;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Narrowest width that a snippet is drawn in.
const MIN_WIDTH: usize = 40;

/// Findings with their lines of source:
///
/// ```text
/// error: a wave wants more devices than the pool has
///    ╭─ pools/hosting.yaml:31:31
/// 31 │   rollout: {waves: [{devices: 200}, …]}
///    │                               ^^^ the pool has 120 devices
///    ╰─ hint: waves[0].devices counts devices, not percent; write `percent: …` for a share
/// ```
///
/// `width` is that of the terminal, 0 where there is none. Nothing in a file reaches the terminal as a command.
#[must_use]
pub fn render(findings: &[Finding], files: &[File<'_>], color: bool, width: usize) -> String {
    let width = if width == 0 {
        usize::MAX
    } else {
        width.max(MIN_WIDTH)
    };
    let mut out = String::new();
    for finding in findings {
        let content = files
            .iter()
            .find(|file| file.path == finding.file)
            .map(|file| file.bytes);
        Drawing {
            out: &mut out,
            color,
            width,
        }
        .finding(finding, content);
    }
    out
}

/// The last line: what was checked, and what it came to.
#[must_use]
pub fn summary(validated: &Validated) -> String {
    let count = |number: usize, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
    let warnings = validated.findings.len() - validated.errors().count();
    let (errors, more) = (validated.errors().count(), validated.more);
    let mut line = format!(
        "checked {} in {}: ",
        count(validated.documents, "document"),
        count(validated.files, "file")
    );
    line.push_str(&count(errors, "error"));
    if warnings > 0 {
        let _ = write!(line, ", {}", count(warnings, "warning"));
    }
    if more > 0 {
        let _ = write!(line, ", and {more} more");
    }
    line.push('.');
    if errors > 0 {
        line.push_str(" Nothing would be applied.");
    }
    line
}

struct Drawing<'o> {
    out: &'o mut String,
    color: bool,
    width: usize,
}

impl Drawing<'_> {
    fn paint(&mut self, style: &str, text: &str) {
        if self.color {
            let _ = write!(self.out, "\x1b[{style}m{text}\x1b[0m");
        } else {
            self.out.push_str(text);
        }
    }

    fn finding(&mut self, finding: &Finding, content: Option<&[u8]>) {
        let (word, style) = match finding.severity {
            Severity::Error => ("error", "1;31"),
            Severity::Warning => ("warning", "1;33"),
        };
        self.paint(style, word);
        let _ = write!(self.out, ": {}", visible(&finding.message));
        let line = content
            .filter(|_| finding.line > 0)
            .and_then(|bytes| source_line(bytes, finding.line));
        let mut place = visible(&finding.file);
        for number in [finding.line, finding.column]
            .into_iter()
            .filter(|number| *number > 0)
        {
            let _ = write!(place, ":{number}");
        }
        let number = finding.line.to_string();
        let gutter = " ".repeat(number.len());
        if !place.is_empty() {
            self.out.push('\n');
            self.paint("34", &format!("{gutter} ╭─ "));
            self.out.push_str(&place);
        }
        if let Some(line) = line {
            let (shown, before, under) = window(&line, finding, self.width.saturating_sub(number.len() + 3));
            self.out.push('\n');
            self.paint("34", &format!("{number} │ "));
            self.out.push_str(shown.trim_end());
            self.out.push('\n');
            self.paint("34", &format!("{gutter} │ "));
            self.out.push_str(&" ".repeat(before));
            self.paint(style, "^".repeat(under).as_str());
            if !finding.label.is_empty() {
                let _ = write!(self.out, " {}", visible(&finding.label));
            }
        } else if !finding.label.is_empty() {
            let _ = write!(self.out, " ({})", visible(&finding.label));
        }
        self.out.push('\n');
        if !finding.hint.is_empty() {
            self.paint("34", &format!("{gutter} ╰─ "));
            self.paint("1", "hint");
            let _ = write!(self.out, ": {}", visible(&finding.hint));
            self.out.push('\n');
        }
    }
}

/// A line of a file; None where it is no text.
fn source_line(bytes: &[u8], line: u32) -> Option<String> {
    let index = usize::try_from(line).ok()?.checked_sub(1)?;
    let line = bytes.split(|byte| *byte == b'\n').nth(index)?;
    std::str::from_utf8(line).ok().map(str::to_owned)
}

/// The part of a line that is shown, the columns before the mark, and how many the mark has.
fn window(line: &str, finding: &Finding, width: usize) -> (String, usize, usize) {
    let line = line.trim_start_matches('\u{FEFF}').trim_end_matches('\r');
    let characters: Vec<char> = line.chars().collect();
    let start = usize::try_from(finding.column)
        .unwrap_or(1)
        .saturating_sub(1)
        .min(characters.len());
    let length = usize::try_from(finding.length).unwrap_or(1).max(1);
    let end = start.saturating_add(length).min(characters.len()).max(start);
    let cells = |part: &[char]| part.iter().map(|c| visible_width(*c)).sum::<usize>();
    // A long line loses its beginning, so that the mark and a third of the width before it are seen.
    let mut from = 0;
    if cells(&characters) > width {
        while from < start && cells(&characters[from..end]) > width * 2 / 3 {
            from += 1;
        }
    }
    let mut shown = String::new();
    if from > 0 {
        shown.push('…');
    }
    let lead = usize::from(from > 0);
    let mut used = lead;
    for character in &characters[from..] {
        let next = visible_width(*character);
        if used + next + 1 > width {
            shown.push('…');
            break;
        }
        used += next;
        shown.push_str(&visible(&character.to_string()));
    }
    let before = lead + cells(&characters[from..start]);
    let under = cells(&characters[start..end]).clamp(1, width.saturating_sub(before).max(1));
    (shown, before, under)
}

/// What a terminal would obey, or not show, is written out. A tab is a blank.
fn visible(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for character in line.chars() {
        match character {
            '\t' | '\n' => out.push(' '),
            c if text::is_control(c) || text::is_invisible(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

fn visible_width(character: char) -> usize {
    match character {
        c if text::is_control(c) || text::is_invisible(c) => visible(&c.to_string()).width(),
        '\t' | '\n' => 1,
        c => c.width().unwrap_or(0),
    }
}
