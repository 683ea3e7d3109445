//! An amount: a count of devices, or a share of them.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A count, or percent of some whole.
///
/// A share is rounded up, so that `5%` of ten devices lets one move; `0%` is none at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Amount {
    /// This many.
    Count(u32),
    /// This share, 0 to 100.
    Percent(u8),
}

/// Why a text is no amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Neither digits nor digits with `%`.
    #[error("an amount is a count such as 3 or a share such as 5%, not {0:?}")]
    Form(String),
    /// A negative count, or one that no fleet has.
    #[error("a count of devices is from 0 to {max}, not {0}", max = u32::MAX)]
    Count(String),
    /// More than the whole.
    #[error("a share is from 0% to 100%, not {0}")]
    Percent(String),
}

impl AmountError {
    /// The reason, for conditions and metric labels.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Form(_) => "AmountForm",
            Self::Count(_) => "AmountCount",
            Self::Percent(_) => "AmountPercent",
        }
    }
}

impl Amount {
    /// How many of a whole it is. A share is rounded up; a count stays as it is, even above the whole.
    #[must_use]
    pub fn of(self, whole: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                let share = (u64::from(whole) * u64::from(percent.min(100))).div_ceil(100);
                u32::try_from(share).unwrap_or(whole)
            }
        }
    }

    /// A count from a number as JSON and YAML hold it.
    ///
    /// # Errors
    /// When it is negative or larger than any fleet.
    pub fn count(number: i64) -> Result<Self, AmountError> {
        u32::try_from(number)
            .map(Self::Count)
            .map_err(|_| AmountError::Count(number.to_string()))
    }
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || text.chars().take(32).collect::<String>();
        let (digits, percent) = match text.strip_suffix('%') {
            Some(digits) => (digits, true),
            None => (text, false),
        };
        // A sign, a point or an exponent ("NaN", "1e3", "-5%", "2.5%") is a mistake to show, not to guess at.
        let unsigned = digits.strip_prefix('-').unwrap_or(digits);
        if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AmountError::Form(shown()));
        }
        let number: Option<u32> = digits.parse().ok();
        match (number, percent) {
            (Some(number), false) => Ok(Self::Count(number)),
            (None, false) => Err(AmountError::Count(shown())),
            (Some(number), true) if number <= 100 => u8::try_from(number)
                .map(Self::Percent)
                .map_err(|_| AmountError::Percent(shown())),
            (_, true) => Err(AmountError::Percent(shown())),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u32(*count),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(i64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Self::count(number),
            Written::Text(text) => text.parse(),
        }
        .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up_and_zero_percent_is_none() {
        assert_eq!(Amount::Percent(5).of(10), 1);
        assert_eq!(Amount::Percent(5).of(21), 2);
        assert_eq!(Amount::Percent(0).of(1_000_000), 0);
        assert_eq!(Amount::Percent(100).of(7), 7);
        assert_eq!(Amount::Percent(1).of(0), 0);
        assert_eq!(Amount::Percent(100).of(u32::MAX), u32::MAX);
        assert_eq!(Amount::Count(3).of(1), 3);
    }

    #[test]
    fn what_is_no_amount_is_named() {
        for text in ["", "%", "NaN", "1e3", "2.5%", "five", " 3", "0x10", "+3", "1_000"] {
            assert!(
                matches!(text.parse::<Amount>(), Err(AmountError::Form(_))),
                "{text}"
            );
        }
        for text in ["-1", "4294967296", "9223372036854775808"] {
            assert!(
                matches!(text.parse::<Amount>(), Err(AmountError::Count(_))),
                "{text}"
            );
        }
        for text in ["101%", "-5%", "99999999999999999999%"] {
            assert!(
                matches!(text.parse::<Amount>(), Err(AmountError::Percent(_))),
                "{text}"
            );
        }
        assert!(matches!(Amount::count(-3), Err(AmountError::Count(_))));
    }

    #[test]
    fn yaml_takes_numbers_and_texts() {
        assert_eq!(serde_json::from_str::<Amount>("3").unwrap(), Amount::Count(3));
        assert_eq!(
            serde_json::from_str::<Amount>("\"5%\"").unwrap(),
            Amount::Percent(5)
        );
        assert_eq!(serde_json::to_string(&Amount::Percent(5)).unwrap(), "\"5%\"");
        assert!(serde_json::from_str::<Amount>("-1").is_err());
        assert!(serde_json::from_str::<Amount>("1.5").is_err());
    }
}
