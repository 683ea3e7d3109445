//! Patterns: `*` stands for any text, upper and lower case are the same, everything else is literal.

/// Whether a text matches a pattern as a whole. Linear in the product of the lengths at worst, without recursion, so
/// that a hostile pattern costs time and nothing else.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.trim().chars().flat_map(char::to_lowercase).collect();
    let text: Vec<char> = text.trim().chars().flat_map(char::to_lowercase).collect();
    let (mut p, mut t) = (0, 0);
    // Where to go back to: the last star, and how much text it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while let Some(&have) = text.get(t) {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&want) if want == have => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern
        .get(p..)
        .unwrap_or_default()
        .iter()
        .all(|&rest| rest == '*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_any_text_and_case_does_not_matter() {
        assert!(matches("Mellanox*", "mellanox Technologies"));
        assert!(matches("*ConnectX-6*Lx", "NVIDIA ConnectX-6 Dual Lx"));
        assert!(matches("*", ""));
        assert!(matches(" R650 ", "r650"));
        assert!(!matches("ConnectX-6", "ConnectX-6 Lx"));
        assert!(!matches("a*b*c", "acb"));
    }

    #[test]
    fn an_empty_pattern_matches_only_an_empty_text() {
        assert!(matches("", ""));
        assert!(!matches("", "anything"));
    }

    #[test]
    fn other_wildcards_are_literal() {
        assert!(!matches("R6?0", "R650"));
        assert!(matches("R6[5]0", "r6[5]0"));
        assert!(!matches("R6[5]0", "R650"));
    }

    #[test]
    fn many_stars_against_a_long_text_end_soon() {
        let pattern = "*a".repeat(200) + "b";
        assert!(!matches(&pattern, &"a".repeat(5_000)));
    }
}
