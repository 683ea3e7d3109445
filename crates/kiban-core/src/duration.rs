//! Durations as people write them: `24h`, `90m`, `1d12h`.

use jiff::SignedDuration;

/// The longest duration that is taken, in days: ten years outlast every machine, and a larger number is a slip of
/// the hand.
pub const MAX_DAYS: i64 = 3_650;

const UNITS: [(char, i64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not numbers with units, largest unit first.
    #[error("a duration is written like 24h, 90m or 1d12h (units d, h, m, s, largest first), not {0:?}")]
    Form(String),
    /// Longer than [`MAX_DAYS`].
    #[error("a duration of {0:?} is longer than the {MAX_DAYS} days allowed")]
    TooLong(String),
}

impl DurationError {
    /// The reason, for conditions and metric labels.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Form(_) => "DurationForm",
            Self::TooLong(_) => "DurationTooLong",
        }
    }
}

/// Reads a duration: whole numbers, each with a unit (`d` is 24 hours), largest unit first, each unit once.
///
/// # Errors
/// When a unit is missing (`5`), it is negative, in another form (`P1D`), or longer than [`MAX_DAYS`].
pub fn parse(text: &str) -> Result<SignedDuration, DurationError> {
    let shown = || text.chars().take(32).collect::<String>();
    let mut units = UNITS.iter();
    let mut rest = text;
    let mut seconds: i64 = 0;
    if rest.is_empty() {
        return Err(DurationError::Form(shown()));
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let mut after = after.chars();
        let (false, Some(unit)) = (number.is_empty(), after.next()) else {
            return Err(DurationError::Form(shown()));
        };
        // `find` goes on from the last unit, so that a repeated or larger unit is not found again.
        let Some((_, scale)) = units.find(|(name, _)| *name == unit) else {
            return Err(DurationError::Form(shown()));
        };
        seconds = number
            .parse::<i64>()
            .ok()
            .and_then(|number| number.checked_mul(*scale))
            .and_then(|part| seconds.checked_add(part))
            .filter(|&sum| sum <= MAX_DAYS * 86_400)
            .ok_or_else(|| DurationError::TooLong(shown()))?;
        rest = after.as_str();
    }
    Ok(SignedDuration::from_secs(seconds))
}

/// Writes a duration the way [`parse`] reads it; what is below a second is left out.
#[must_use]
pub fn format(duration: SignedDuration) -> String {
    let mut seconds = duration.as_secs().max(0);
    let mut text = String::new();
    for (name, scale) in UNITS {
        let count = seconds / scale;
        if count > 0 {
            text.push_str(&count.to_string());
            text.push(name);
            seconds %= scale;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let seconds = |text| parse(text).unwrap().as_secs();
        assert_eq!(seconds("24h"), 86_400);
        assert_eq!(seconds("90m"), 5_400);
        assert_eq!(seconds("1d12h"), 129_600);
        assert_eq!(seconds("0s"), 0);
        assert_eq!(seconds("1d2h3m4s"), 93_784);
    }

    #[test]
    fn what_is_no_duration_is_named() {
        for text in [
            "", "5", "-1h", "P1D", "1h1d", "1h1h", "h", "1.5h", "1 h", "1w", "１h", "1ms",
        ] {
            assert!(matches!(parse(text), Err(DurationError::Form(_))), "{text}");
        }
        for text in ["99999999h", "3651d", "9999999999999999999999s", "3650d1s"] {
            assert!(matches!(parse(text), Err(DurationError::TooLong(_))), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_back(seconds in 0..MAX_DAYS * 86_400) {
            let duration = SignedDuration::from_secs(seconds);
            proptest::prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
