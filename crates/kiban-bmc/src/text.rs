//! Text from a BMC is a stranger's: made harmless before a person or a terminal sees it.

/// Removes control and direction-changing characters, folds white space, trims, and cuts to `max` characters.
#[must_use]
pub fn clean(text: &str, max: usize) -> String {
    // A hostile text can be megabytes long: look only at what could still matter.
    let mut out = String::with_capacity(text.len().min(max));
    let (mut kept, mut space) = (0, false);
    for c in text.chars().take(max.saturating_mul(4)) {
        if c.is_whitespace() {
            space = true;
            continue;
        }
        if c.is_control() || is_format(c) {
            continue;
        }
        if space && kept > 0 {
            out.push(' ');
            kept += 1;
        }
        space = false;
        if kept >= max {
            break;
        }
        out.push(c);
        kept += 1;
    }
    out
}

/// Characters that are invisible or turn the direction of writing: they can make one name look like another.
fn is_format(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_removed() {
        assert_eq!(clean(" a\u{1b}[2Jb\u{7}\tc\u{202e}\r\n", 100), "a[2Jb c");
        assert_eq!(clean("\u{0}\u{0}", 10), "");
    }

    #[test]
    fn length_is_bounded_whatever_comes() {
        assert!(clean(&"x ".repeat(1_000_000), 64).chars().count() <= 65);
        assert_eq!(clean(&"é".repeat(100), 5), "ééééé");
    }
}
