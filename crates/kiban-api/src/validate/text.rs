//! Bytes into text under limits, and texts for people.

use super::{File, Finding, MAX_FILE_BYTES, MAX_FILE_DOCUMENTS, yaml::Place};

/// The text of a file. None, with a finding: it is none that is read.
pub(super) fn decode<'a>(file: &File<'a>, findings: &mut Vec<Finding>) -> Option<&'a str> {
    let mut refuse = |line: u32, message: String, hint: &str| {
        let place = Place {
            line,
            column: u32::from(line > 0),
            length: 1,
        };
        findings.push(Finding::error(file.path, place, "", message).hint(hint));
    };
    let bytes = file.bytes;
    if bytes.len() > MAX_FILE_BYTES {
        let message = format!(
            "the file has {} KB, the limit is {} KB",
            bytes.len() >> 10,
            MAX_FILE_BYTES >> 10
        );
        refuse(
            0,
            message,
            "split it: one file per rack or pool reads better in a diff, too",
        );
        return None;
    }
    if bytes.starts_with(&[0xFF, 0xFE])
        || bytes.starts_with(&[0xFE, 0xFF])
        || bytes.iter().take(64).any(|byte| *byte == 0)
    {
        refuse(
            1,
            "the file is not UTF-8 (it looks like UTF-16)".into(),
            "save it as UTF-8",
        );
        return None;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = &bytes[..error.valid_up_to()];
            let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
            let message =
                "the file is not UTF-8: this line has a byte that belongs to no character".to_owned();
            refuse(
                u32::try_from(line).unwrap_or(u32::MAX),
                message,
                "save it as UTF-8",
            );
            return None;
        }
    };
    // Before the parser sees it: a million documents are refused by counting.
    let documents = text.lines().filter(|line| line.starts_with("---")).count();
    if documents > MAX_FILE_DOCUMENTS {
        refuse(
            0,
            format!("the file has {documents} documents, the limit is {MAX_FILE_DOCUMENTS}"),
            "split it",
        );
        return None;
    }
    Some(match text.strip_prefix('\u{FEFF}') {
        Some(rest) => {
            let finding = Finding::warning(
                file.path,
                Place {
                    line: 1,
                    column: 1,
                    length: 1,
                },
                "",
                "the file begins with a byte-order mark",
            );
            findings.push(
                finding.hint("save it as UTF-8 without one: some tools take it for a part of the first key"),
            );
            rest
        }
        None => text,
    })
}

/// A text as it may be shown: in backquotes, short, with what a terminal would obey or not show made visible.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 60;
    let mut out = String::from("`");
    for (index, character) in text.chars().enumerate() {
        if index == MOST {
            out.push('…');
            break;
        }
        if is_control(character) || is_invisible(character) {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out.push('`');
    out
}

/// A control character that has no place in a value. A line feed and a tab are layout.
pub(super) fn is_control(character: char) -> bool {
    character.is_control() && !matches!(character, '\n' | '\t')
}

/// A character that nobody sees, or that turns the direction of what follows.
pub(super) fn is_invisible(character: char) -> bool {
    matches!(character, '\u{00AD}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}

/// The first letter of another alphabet in a text that has Latin letters, too: `а` is not `a`.
pub(super) fn foreign_letter(text: &str) -> Option<char> {
    let foreign = |c: &char| matches!(*c, '\u{0370}'..='\u{052F}' | '\u{FF21}'..='\u{FF5A}' | '\u{1D400}'..='\u{1D7FF}');
    text.chars()
        .find(foreign)
        .filter(|_| text.chars().any(|c| c.is_ascii_alphabetic()))
}

/// `did you mean …?`, when one of the known words is near.
pub(super) fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    // Longer words are no slips of ours, and the distance is quadratic.
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    let distance = |known: &str| strsim::damerau_levenshtein(&lower, &known.to_lowercase());
    let near = known.into_iter().map(|known| (distance(known), known)).min()?;
    (near.0 <= 1 + word.len() / 5).then(|| format!("did you mean `{}`?", near.1))
}
