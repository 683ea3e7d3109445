//! Firmware versions: the same or not first; ordered only where both are written in a scheme that has an order.
//!
//! ```text
//!   "A42 v2.60 (08/11/2022)"         family A42, 2.60, of 2022-08-11        HPE system ROM
//!   "2.72 Sep 04 2022"               2.72, of 2022-09-04                    HPE iLO
//!   "BIOS Date: 08/04/2023 Ver 1.4"  1.4, of 2023-08-04                     Supermicro
//!   "42S-2.83", "TGBT42S 2.83 …"     2.83, build 42S                        Lenovo
//!   "7.00.00.174", "1.15.2", "2.11a" dotted numbers, a letter at the end    Dell, Mellanox, Supermicro
//!   "0x30" hex · "12" number · "20240131" date · "MPK7625Q" opaque
//! ```
//!
//! Two versions of different schemes or families are incomparable, which is a value and not an error: `partial_cmp` gives
//! `None`, a [`Requirement`] gives [`Verdict::Incomparable`]. Nothing here fails or panics on any text.

use std::{cmp::Ordering, fmt, hash::Hash};

/// Texts longer than this are compared as they are: no real version is, and a BMC's text is a stranger's.
const MAX_TEXT: usize = 256;
/// More parts than any scheme has.
const MAX_SEGMENTS: usize = 8;

/// How a version is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Numbers with dots, the last with a letter at most: pairs, triplets, quads.
    Dotted,
    /// One number.
    Number,
    /// `0x` and hex digits.
    Hex,
    /// A date alone.
    Date,
    /// One letter and a number: `F15`.
    Lettered,
    /// Anything else: the same or not, never ordered.
    Opaque,
}

/// A version as a BMC or a baseline writes it, understood as far as it can be.
#[derive(Clone, Debug)]
pub struct FirmwareVersion {
    text: String,
    scheme: Scheme,
    /// The line of products that it belongs to (`A42`, `U46`, `F`): versions of two lines are not compared.
    family: Option<String>,
    segments: Vec<Segment>,
    /// Lenovo's build, `42S`.
    build: Option<Segment>,
    date: Option<Date>,
    /// What else is there, lower case: a NIC's `0x800016dc`, `rc34`. All of an opaque version.
    rest: String,
}

/// What two texts of the same version have in common.
type Key<'a> = (
    Scheme,
    &'a Option<String>,
    &'a [Segment],
    Option<Segment>,
    Option<Date>,
    &'a str,
);

/// A number and the letter behind it; no letter sorts before `a`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Segment(u64, Option<char>);

/// Year, month, day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Date(u16, u8, u8);

impl FirmwareVersion {
    /// Understands a text. Every text is a version; what no scheme fits is opaque.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        if text.len() > MAX_TEXT {
            return Self::opaque(text);
        }
        let folded = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut version = understand(&folded).unwrap_or_else(|| Self::opaque(&folded));
        version.text = folded;
        version
    }

    fn opaque(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            rest: text.to_ascii_lowercase(),
            ..Self::empty(Scheme::Opaque)
        }
    }

    fn empty(scheme: Scheme) -> Self {
        Self {
            text: String::new(),
            scheme,
            family: None,
            segments: Vec::new(),
            build: None,
            date: None,
            rest: String::new(),
        }
    }

    /// The text, trimmed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How it is written.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether a reading says what is wanted. What the wanted text leaves out (family, build, date) is not asked for, so
    /// `2.60` is met by `A42 v2.60 (08/11/2022)`; what it says must be there.
    #[must_use]
    pub fn is(&self, wanted: &Self) -> bool {
        if self == wanted {
            return true;
        }
        let asked = |wanted: bool, same: bool| !wanted || same;
        self.scheme == wanted.scheme
            && !wanted.segments.is_empty()
            && self.segments == wanted.segments
            && asked(wanted.family.is_some(), self.family == wanted.family)
            && asked(wanted.build.is_some(), self.build == wanted.build)
            && asked(wanted.date.is_some(), self.date == wanted.date)
            && asked(!wanted.rest.is_empty(), self.rest == wanted.rest)
    }

    fn key(&self) -> Key<'_> {
        (
            self.scheme,
            &self.family,
            &self.segments,
            self.build,
            self.date,
            &self.rest,
        )
    }

    /// How it stands to a bound: as [`PartialOrd`], but what the bound leaves out is not asked for.
    fn against(&self, bound: &Self) -> Option<Ordering> {
        if self.is(bound) {
            return Some(Ordering::Equal);
        }
        let scheme = match (self.scheme, bound.scheme) {
            // `>=2` is meant for `2.1.0` too.
            (Scheme::Dotted, Scheme::Number) => Scheme::Dotted,
            (ours, theirs) if ours == theirs => ours,
            _ => return None,
        };
        if scheme == Scheme::Opaque || (bound.family.is_some() && self.family != bound.family) {
            return None;
        }
        let numbers = padded(&self.segments, &bound.segments);
        if numbers != Ordering::Equal {
            return Some(numbers);
        }
        let further = [
            (self.build.map(Into::into), bound.build.map(Into::into)),
            (self.date.map(number), bound.date.map(number)),
        ];
        for (ours, theirs) in further {
            match (ours, theirs) {
                (_, None) => {}
                (Some(ours), Some(theirs)) if ours == theirs => {}
                (Some(ours), Some(theirs)) => return Some(Ord::cmp(&ours, &theirs)),
                (None, Some(_)) => return None,
            }
        }
        (bound.rest.is_empty() || bound.rest == self.rest).then_some(Ordering::Equal)
    }
}

impl From<Segment> for u128 {
    fn from(segment: Segment) -> Self {
        (Self::from(segment.0) << 32) | segment.1.map_or(0, |letter| Self::from(u32::from(letter)))
    }
}

fn number(date: Date) -> u128 {
    u128::from(date.0) * 10_000 + u128::from(date.1) * 100 + u128::from(date.2)
}

/// Compares part by part, the missing ones as zero.
fn padded(a: &[Segment], b: &[Segment]) -> Ordering {
    let at = |list: &[Segment], n: usize| list.get(n).copied().unwrap_or_default();
    (0..a.len().max(b.len()))
        .map(|n| at(a, n).cmp(&at(b, n)))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

impl PartialEq for FirmwareVersion {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for FirmwareVersion {}

impl Hash for FirmwareVersion {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// `None`: incomparable. `Some(Equal)` exactly when `==`.
impl PartialOrd for FirmwareVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        if self == other {
            return Some(Ordering::Equal);
        }
        if self.scheme != other.scheme || self.scheme == Scheme::Opaque || self.family != other.family {
            return None;
        }
        let numbers = padded(&self.segments, &other.segments);
        if numbers.is_ne() {
            return Some(numbers);
        }
        // The same numbers: a build, then a date may still tell, if both have it and nothing else differs.
        if self.segments != other.segments || self.rest != other.rest {
            return None;
        }
        match (self.build, other.build) {
            (Some(a), Some(b)) if a != b => return Some(a.cmp(&b)),
            (a, b) if a != b => return None,
            _ => {}
        }
        match (self.date, other.date) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => None,
        }
    }
}

impl fmt::Display for FirmwareVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Fits a text to a scheme; None if none fits.
fn understand(text: &str) -> Option<FirmwareVersion> {
    let lower = text.to_ascii_lowercase();
    let words: Vec<&str> = lower
        .split(' ')
        .map(|word| word.trim_matches(|c| matches!(c, '(' | ')' | ',' | ';')))
        .filter(|word| !word.is_empty())
        .collect();
    let (words, date) = take_date(words)?;
    let words = without_labels(&words);
    let Some(at) = words.iter().position(|word| main_part(word).is_some()) else {
        return match (date, words.as_slice()) {
            (Some(date), []) => Some(FirmwareVersion {
                date: Some(date),
                ..FirmwareVersion::empty(Scheme::Date)
            }),
            (None, [word]) => single(word),
            _ => None,
        };
    };
    let (scheme, segments, build, rest) = main_part(words[at])?;
    let mut version = FirmwareVersion {
        date,
        build,
        segments,
        ..FirmwareVersion::empty(scheme)
    };
    let mut others: Vec<&str> = Vec::new();
    for (n, word) in words.iter().enumerate().filter(|(n, _)| *n != at) {
        if n + 1 == at && version.family.is_none() && is_family(word) {
            version.family = Some((*word).to_owned());
        } else if n + 1 == at && version.build.is_none() && long_build(word).is_some() {
            version.build = long_build(word);
        } else if n < at {
            // Words before a version that nobody knows: better not to guess.
            return None;
        } else {
            others.push(word);
        }
    }
    version.rest = [rest]
        .into_iter()
        .chain(others)
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    // A lone `20240131` is a date, not a number of twenty million.
    if version.scheme == Scheme::Number
        && version.rest.is_empty()
        && version.date.is_none()
        && let Some(date) = compact_date(words[at])
    {
        return Some(FirmwareVersion {
            date: Some(date),
            ..FirmwareVersion::empty(Scheme::Date)
        });
    }
    Some(version)
}

/// `0x30`, `F15`.
fn single(word: &str) -> Option<FirmwareVersion> {
    if let Some(hex) = word.strip_prefix("0x") {
        let value = u64::from_str_radix(hex, 16)
            .ok()
            .filter(|_| hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
        return Some(FirmwareVersion {
            segments: vec![Segment(value, None)],
            ..FirmwareVersion::empty(Scheme::Hex)
        });
    }
    let letter = word
        .get(..1)
        .filter(|first| first.bytes().all(|b| b.is_ascii_lowercase()))?;
    let value = digits(word.get(1..)?).filter(|_| word.len() <= 4)?;
    Some(FirmwareVersion {
        family: Some(letter.to_owned()),
        segments: vec![Segment(value, None)],
        ..FirmwareVersion::empty(Scheme::Lettered)
    })
}

/// Takes the one date out; None if there are two, or one that no calendar has.
fn take_date(words: Vec<&str>) -> Option<(Vec<&str>, Option<Date>)> {
    const MONTHS: [&str; 12] = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ];
    let (mut left, mut found) = (Vec::new(), None);
    let mut n = 0;
    while n < words.len() {
        let named = MONTHS
            .iter()
            .position(|month| words[n] == *month)
            .and_then(|month| {
                let (day, year) = (digits(words.get(n + 1)?)?, digits(words.get(n + 2)?)?);
                date(year, month as u64 + 1, day)
            });
        let (this, used) = match (named, written_date(words[n])) {
            (Some(date), _) => (Some(date), 3),
            (None, Some(date)) => (Some(date), 1),
            (None, None) => (None, 1),
        };
        match this {
            Some(_) if found.is_some() => return None,
            Some(date) => found = Some(date),
            None => left.push(words[n]),
        }
        n += used;
    }
    Some((left, found))
}

/// `08/11/2022`, `2023-07-05`, `2023/07/05`.
fn written_date(word: &str) -> Option<Date> {
    let slashes: Vec<&str> = word.split('/').collect();
    if let [month, day, year] = slashes[..]
        && year.len() == 4
    {
        return date(digits(year)?, digits(month)?, digits(day)?);
    }
    let parts: Vec<&str> = word.split(['-', '/']).collect();
    match parts[..] {
        [year, month, day] if year.len() == 4 && month.len() == 2 && day.len() == 2 => {
            date(digits(year)?, digits(month)?, digits(day)?)
        }
        _ => None,
    }
}

fn compact_date(word: &str) -> Option<Date> {
    if word.len() != 8 || !word.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    date(digits(&word[..4])?, digits(&word[4..6])?, digits(&word[6..])?)
}

fn date(year: u64, month: u64, day: u64) -> Option<Date> {
    let known = (1990..=2199).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    known.then_some(Date(year as u16, month as u8, day as u8))
}

fn digits(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Leaves out words that only say what a version is of.
fn without_labels<'a>(words: &[&'a str]) -> Vec<&'a str> {
    const LABELS: [&str; 12] = [
        "bios", "uefi", "bmc", "date:", "ver", "ver.", "version", "version:", "rev", "rev.", "fw", "firmware",
    ];
    let mut left = Vec::new();
    let mut n = 0;
    while n < words.len() {
        let generation =
            |next: Option<&&str>| next.is_some_and(|next| next.len() == 1 && digits(next).is_some());
        if LABELS.contains(&words[n]) && words.len() > 1 {
            n += 1;
        } else if matches!(words[n], "ilo" | "idrac") && generation(words.get(n + 1)) && words.len() > n + 2 {
            n += 2;
        } else {
            left.push(words[n]);
            n += 1;
        }
    }
    left
}

type Main<'a> = (Scheme, Vec<Segment>, Option<Segment>, &'a str);

/// The part with the numbers: `v2.60`, `42S-2.83`, `00.02.0134.0000_n00`, `2.11a`, `12`.
fn main_part(word: &str) -> Option<Main<'_>> {
    let (build, word) = match word.split_once('-') {
        Some((left, right)) if short_build(left).is_some() && right.contains('.') => {
            (short_build(left), right)
        }
        _ => (None, word),
    };
    let word = word.strip_prefix('v').unwrap_or(word);
    let end = word.find(['_', '-', '+']).unwrap_or(word.len());
    let (numbers, rest) = word.split_at(end);
    let rest = rest.trim_start_matches(['_', '-', '+']);
    let parts: Vec<&str> = numbers.split('.').collect();
    if parts.len() > MAX_SEGMENTS {
        return None;
    }
    let last = parts.len() - 1;
    let mut segments = Vec::with_capacity(parts.len());
    for (n, part) in parts.iter().enumerate() {
        let (value, letter) = match part.char_indices().next_back() {
            // One letter at the very end, of a version with a dot: `1.0b`, `2.11a`. `3f` is hex without saying so.
            Some((at, letter)) if n == last && n > 0 && letter.is_ascii_lowercase() => {
                (&part[..at], Some(letter))
            }
            _ => (*part, None),
        };
        segments.push(Segment(digits(value)?, letter));
    }
    let scheme = if segments.len() == 1 {
        Scheme::Number
    } else {
        Scheme::Dotted
    };
    // One number with something behind it says too little to be ordered by.
    (scheme == Scheme::Dotted || rest.is_empty()).then_some((scheme, segments, build, rest))
}

/// `A42`, `U46`: HPE's ROM families.
fn is_family(word: &str) -> bool {
    word.len() == 3 && word.as_bytes()[0].is_ascii_lowercase() && digits(&word[1..]).is_some()
}

/// `42s`.
fn short_build(word: &str) -> Option<Segment> {
    let bytes = word.as_bytes();
    let fits = bytes.len() == 3 && bytes[..2].iter().all(u8::is_ascii_digit) && bytes[2].is_ascii_lowercase();
    fits.then(|| Some(Segment(digits(&word[..2])?, Some(char::from(bytes[2])))))?
}

/// `tgbt42s`: the product line's four characters, then the build.
fn long_build(word: &str) -> Option<Segment> {
    let line = word.get(..4)?;
    (word.len() == 7 && line.bytes().all(|b| b.is_ascii_alphanumeric())).then(|| short_build(&word[4..]))?
}

/// What a version is asked to be: `>=1.14.1`, `>=1.10 <2`, `1.15.2`, `!=1.15.0`. All parts must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    text: String,
    parts: Vec<(Operator, FirmwareVersion)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Is,
    IsNot,
    Less,
    LessOrIs,
    More,
    MoreOrIs,
}

/// Whether a version is as required.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is.
    Met,
    /// It is not.
    NotMet,
    /// The two are written in schemes or families that cannot be compared.
    Incomparable,
}

/// A text that is no requirement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequirementError {
    /// Nothing was asked.
    #[error("the requirement is empty")]
    Empty,
    /// Longer than any real one.
    #[error("the requirement is longer than {MAX_TEXT} characters")]
    TooLong,
    /// An operator without a version.
    #[error("a version is missing after {0:?}")]
    NoVersion(String),
    /// An operator that does not exist, or something in front of the first one.
    #[error("{0:?} is no operator, expected one of >= > <= < = !=")]
    Operator(String),
    /// Asked for more or less of something that has no order.
    #[error("{0:?} is in no scheme that has an order, so only = and != can be asked")]
    NoOrder(String),
    /// Two bounds of different schemes or families.
    #[error("{0:?} and {1:?} cannot be compared")]
    Mixed(String, String),
    /// No version can be both.
    #[error("no version is both {0} and {1}")]
    Contradiction(String, String),
}

impl Requirement {
    /// Parses a requirement; parts are separated by commas or spaces. One that nothing can meet is an error.
    pub fn parse(text: &str) -> Result<Self, RequirementError> {
        if text.len() > MAX_TEXT {
            return Err(RequirementError::TooLong);
        }
        let mut parts = Vec::new();
        for chunk in text.split(',') {
            split_chunk(chunk, &mut parts)?;
        }
        if parts.is_empty() {
            return Err(RequirementError::Empty);
        }
        for (operator, version) in &parts {
            let ordered = !matches!(version.scheme, Scheme::Opaque);
            if !ordered && !matches!(operator, Operator::Is | Operator::IsNot) {
                return Err(RequirementError::NoOrder(version.text.clone()));
            }
        }
        contradictions(&parts)?;
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Self { text, parts })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a version is as required. One part that is not met decides; else one that cannot be told.
    #[must_use]
    pub fn check(&self, version: &FirmwareVersion) -> Verdict {
        let mut verdict = Verdict::Met;
        for (operator, bound) in &self.parts {
            match holds(*operator, version, bound) {
                Some(true) => {}
                Some(false) => return Verdict::NotMet,
                None => verdict = Verdict::Incomparable,
            }
        }
        verdict
    }
}

fn holds(operator: Operator, version: &FirmwareVersion, bound: &FirmwareVersion) -> Option<bool> {
    match operator {
        Operator::Is => Some(version.is(bound)),
        Operator::IsNot => Some(!version.is(bound)),
        Operator::Less => version.against(bound).map(Ordering::is_lt),
        Operator::LessOrIs => version.against(bound).map(Ordering::is_le),
        Operator::More => version.against(bound).map(Ordering::is_gt),
        Operator::MoreOrIs => version.against(bound).map(Ordering::is_ge),
    }
}

fn split_chunk(chunk: &str, parts: &mut Vec<(Operator, FirmwareVersion)>) -> Result<(), RequirementError> {
    const OPERATORS: [char; 4] = ['>', '<', '=', '!'];
    let mut left = chunk.trim();
    while !left.is_empty() {
        let signs = left.find(|c| !OPERATORS.contains(&c)).unwrap_or(left.len());
        let (sign, after) = left.split_at(signs);
        let operator = match sign {
            "" | "=" | "==" => Operator::Is,
            "!=" => Operator::IsNot,
            "<" => Operator::Less,
            "<=" => Operator::LessOrIs,
            ">" => Operator::More,
            ">=" => Operator::MoreOrIs,
            other => return Err(RequirementError::Operator(other.to_owned())),
        };
        let end = after.find(OPERATORS).unwrap_or(after.len());
        let (version, rest) = after.split_at(end);
        let version = version.trim();
        if version.is_empty() {
            return Err(RequirementError::NoVersion(sign.to_owned()));
        }
        parts.push((operator, FirmwareVersion::parse(version)));
        left = rest.trim_start();
    }
    Ok(())
}

/// Refuses bounds that no version is within.
fn contradictions(parts: &[(Operator, FirmwareVersion)]) -> Result<(), RequirementError> {
    let say = |operator: Operator, version: &FirmwareVersion| {
        let sign = match operator {
            Operator::Is => "=",
            Operator::IsNot => "!=",
            Operator::Less => "<",
            Operator::LessOrIs => "<=",
            Operator::More => ">",
            Operator::MoreOrIs => ">=",
        };
        format!("{sign}{}", version.text)
    };
    for (n, (a, low)) in parts.iter().enumerate() {
        for (b, high) in &parts[n + 1..] {
            let (mut a, mut low, mut b, mut high) = (*a, low, *b, high);
            let is_high = |operator| matches!(operator, Operator::Less | Operator::LessOrIs);
            let is_low = |operator| matches!(operator, Operator::More | Operator::MoreOrIs);
            if is_high(a) && is_low(b) {
                (a, low, b, high) = (b, high, a, low);
            }
            let impossible = if is_low(a) && is_high(b) {
                let order = low
                    .against(high)
                    .or_else(|| high.against(low).map(Ordering::reverse));
                match order {
                    None => return Err(RequirementError::Mixed(low.text.clone(), high.text.clone())),
                    Some(Ordering::Less) => false,
                    Some(Ordering::Equal) => a == Operator::More || b == Operator::Less,
                    Some(Ordering::Greater) => true,
                }
            } else if a == Operator::Is {
                holds(b, low, high) == Some(false) && !(b == Operator::Is && high.is(low))
            } else if b == Operator::Is {
                holds(a, high, low) == Some(false)
            } else {
                false
            };
            if impossible {
                return Err(RequirementError::Contradiction(say(a, low), say(b, high)));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v(text: &str) -> FirmwareVersion {
        FirmwareVersion::parse(text)
    }

    #[test]
    fn spellings_of_one_version_are_the_same() {
        for (a, b) in [
            (" 1.15.2 ", "1.15.2"),
            ("v2.72", "2.72"),
            ("iLO 5 v2.72", "2.72"),
            ("A42 v2.60 (08/11/2022)", "a42  V2.60 (08/11/2022)"),
            ("BIOS Date: 08/04/2023 Ver 1.4", "1.4 (08/04/2023)"),
            ("2.72 Sep 04 2022", "2.72 (09/04/2022)"),
            ("7.00.00.174", "7.0.0.174"),
            ("0x1F", "0x1f"),
            ("TGBT42S 2.83", "42S-2.83"),
            ("2.11A", "2.11a"),
        ] {
            assert_eq!(v(a), v(b), "{a} / {b}");
        }
    }

    #[test]
    fn a_reading_may_say_more_than_was_wanted() {
        for (read, wanted) in [
            ("A42 v2.60 (08/11/2022)", "2.60"),
            ("A42 v2.60 (08/11/2022)", "A42 v2.60"),
            ("BIOS Date: 08/04/2023 Ver 1.4", "1.4"),
            ("42S-2.83", "2.83"),
            ("TGBT42S 2.83 2023-07-05", "42S-2.83"),
            ("3.50 0x800016DC", "3.50"),
        ] {
            assert!(v(read).is(&v(wanted)), "{read} is {wanted}");
            assert!(!v(wanted).is(&v(read)), "{wanted} says less than {read}");
        }
        for (read, wanted) in [
            ("A42 v2.60 (08/11/2022)", "U46 v2.60"),
            ("A42 v2.60 (08/11/2022)", "A42 v2.60 (08/12/2022)"),
            ("1.4", "1.40"),
            ("42S-2.83", "43S-2.83"),
            ("MPK7625Q", "MPK7525Q"),
            ("", "1.0"),
        ] {
            assert!(!v(read).is(&v(wanted)), "{read} is not {wanted}");
        }
    }

    #[test]
    fn order_where_the_scheme_has_one() {
        for (less, more) in [
            ("1.9.2", "1.10.0"),
            ("7.00.00.174", "7.10.30.00"),
            ("1.0", "1.0a"),
            ("1.0a", "1.0b"),
            ("1.0b", "1.1"),
            ("A42 v2.58 (01/01/2022)", "A42 v2.60 (08/11/2022)"),
            ("42S-2.83", "46A-3.10"),
            ("42R-2.83", "42S-2.83"),
            ("20230131", "20240131"),
            ("0x0f", "0x10"),
            ("F15", "F16"),
            ("9", "10"),
            ("1.1", "1.1.1"),
            ("2.72 Sep 04 2022", "2.72 Oct 04 2022"),
        ] {
            assert_eq!(
                v(less).partial_cmp(&v(more)),
                Some(Ordering::Less),
                "{less} < {more}"
            );
            assert_eq!(
                v(more).partial_cmp(&v(less)),
                Some(Ordering::Greater),
                "{more} > {less}"
            );
        }
    }

    #[test]
    fn incomparable_is_a_value() {
        for (a, b) in [
            ("MPK7625Q", "MPK7525Q"),
            ("A42 v2.60", "U46 v2.62"),
            ("F15", "20240131"),
            ("1.2.3", "0x30"),
            ("1.1", "1.1.0"),
            ("12", "1.2"),
            ("HGX-22.10-1-rc34", "HGX-22.10-1-rc35"),
            ("3F", "40"),
            ("1.2 a", "1.2 b"),
            ("2.72", "2.72 Sep 04 2022"),
        ] {
            assert_eq!(v(a).partial_cmp(&v(b)), None, "{a} / {b}");
            assert_ne!(v(a), v(b), "{a} / {b}");
        }
    }

    #[test]
    fn schemes_are_told_apart() {
        for (text, scheme) in [
            ("1.15.2", Scheme::Dotted),
            ("00.02.0134.0000_n00", Scheme::Dotted),
            ("12", Scheme::Number),
            ("20240131", Scheme::Date),
            ("08/04/2023", Scheme::Date),
            ("99999999", Scheme::Number),
            ("0x30", Scheme::Hex),
            ("F15", Scheme::Lettered),
            ("", Scheme::Opaque),
            ("N/A", Scheme::Opaque),
            ("U8E122J", Scheme::Opaque),
            ("00.2A.2B", Scheme::Opaque),
            ("1e3", Scheme::Opaque),
            ("1_000", Scheme::Opaque),
            ("99999999999999999999999.1", Scheme::Opaque),
            ("<html>", Scheme::Opaque),
        ] {
            assert_eq!(v(text).scheme(), scheme, "{text}");
        }
    }

    #[test]
    fn requirements_are_checked() {
        let check =
            |requirement: &str, version: &str| Requirement::parse(requirement).unwrap().check(&v(version));
        for (requirement, version, verdict) in [
            (">=1.14.1", "1.15.2", Verdict::Met),
            (">=1.14.1", "1.14.1", Verdict::Met),
            (">=1.14.1", "1.14.0", Verdict::NotMet),
            (">=1.14", "1.14.0", Verdict::Met),
            (">=2", "2.1.0", Verdict::Met),
            (">=1.10 <2", "1.15.2", Verdict::Met),
            (">=1.10, <2", "2.0", Verdict::NotMet),
            (">=2.58", "A42 v2.60 (08/11/2022)", Verdict::Met),
            (">=U46 v2.58", "A42 v2.60 (08/11/2022)", Verdict::Incomparable),
            (">=1.0", "MPK7625Q", Verdict::Incomparable),
            ("MPK7625Q", "mpk7625q", Verdict::Met),
            ("!=1.15.0", "1.15.0", Verdict::NotMet),
            (">=1.0 !=1.15.0", "1.15.1", Verdict::Met),
            ("<1.0 ", "1.0a", Verdict::NotMet),
        ] {
            assert_eq!(check(requirement, version), verdict, "{requirement} / {version}");
        }
    }

    #[test]
    fn requirements_that_nothing_meets_are_errors() {
        let error = |text: &str| Requirement::parse(text).unwrap_err();
        for text in [
            ">=2 <1",
            ">1.0 <1.0",
            ">=1.0 <1.0",
            "=1.0 =1.1",
            "=1.0 >2",
            "<1 >=1.0",
            "=1.0 !=1.0",
        ] {
            assert!(
                matches!(error(text), RequirementError::Contradiction(..)),
                "{text}: {}",
                error(text)
            );
        }
        assert_eq!(error(""), RequirementError::Empty);
        assert_eq!(error(" , "), RequirementError::Empty);
        assert!(matches!(error(">="), RequirementError::NoVersion(_)));
        assert!(matches!(error("=>1"), RequirementError::Operator(_)));
        assert!(matches!(error(">=MPK7625Q"), RequirementError::NoOrder(_)));
        assert!(matches!(error(">=1.0 <0x30"), RequirementError::Mixed(..)));
        assert_eq!(error(&"1".repeat(1000)), RequirementError::TooLong);
    }

    #[test]
    fn a_text_of_64_kib_is_a_version_and_no_more() {
        for text in [
            "1.".repeat(32 * 1024),
            "9".repeat(65536),
            " ".repeat(65536),
            "é".repeat(32768),
            "<html>".repeat(11000),
        ] {
            let version = v(&text);
            assert_eq!(version, v(&text));
            assert!(!matches!(version.scheme(), Scheme::Dotted | Scheme::Number));
        }
    }

    /// Texts of all schemes, few enough numbers that relations occur.
    fn version_text() -> impl Strategy<Value = String> {
        let small = 0_u32..4;
        prop_oneof![
            prop::collection::vec(small.clone(), 1..5).prop_map(|parts| parts
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(".")),
            (small.clone(), small.clone(), "[a-c]?").prop_map(|(a, b, letter)| format!("{a}.{b}{letter}")),
            ("[AU]4[26]", small.clone(), small.clone(), 1_u32..3)
                .prop_map(|(family, a, b, day)| format!("{family} v{a}.{b} (08/0{day}/2022)")),
            (10_u32..13, "[A-C]", small.clone())
                .prop_map(|(build, letter, a)| format!("{build}{letter}-2.{a}")),
            (1_u32..13).prop_map(|month| format!("2024{month:02}01")),
            (0_u32..20).prop_map(|value| format!("0x{value:x}")),
            (small.clone(), small).prop_map(|(a, b)| format!("{a}.{b} rc{a}")),
            "[FG][0-3]",
            "[A-C]{2}[0-9A-C]{2}",
            ".{0,12}",
        ]
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_text(text in any::<String>()) {
            let version = v(&text);
            prop_assert_eq!(&version, &v(version.as_str()));
            let _ = Requirement::parse(&text);
        }

        #[test]
        fn order_is_antisymmetric(a in version_text(), b in version_text()) {
            let (a, b) = (v(&a), v(&b));
            prop_assert_eq!(a.partial_cmp(&b), b.partial_cmp(&a).map(Ordering::reverse));
        }

        #[test]
        fn equal_exactly_when_not_ordered_otherwise(a in version_text(), b in version_text()) {
            let (a, b) = (v(&a), v(&b));
            prop_assert_eq!(a == b, a.partial_cmp(&b) == Some(Ordering::Equal));
            if a == b {
                prop_assert!(a.is(&b) && b.is(&a));
            }
        }

        #[test]
        fn order_is_transitive(a in version_text(), b in version_text(), c in version_text()) {
            let (a, b, c) = (v(&a), v(&b), v(&c));
            if a < b && b < c {
                prop_assert!(a < c, "{} < {} < {}", a, b, c);
            }
            if a == b {
                prop_assert_eq!(a.partial_cmp(&c), b.partial_cmp(&c));
            }
        }

        #[test]
        fn white_space_around_a_version_says_nothing(text in version_text(), before in "[ \t\r\n]{0,3}", after in "[ \t\r\n]{0,3}") {
            prop_assert_eq!(v(&format!("{before}{text}{after}")), v(&text));
        }

        #[test]
        fn a_requirement_agrees_with_the_order(a in version_text(), b in version_text()) {
            let (version, bound) = (v(&a), v(&b));
            prop_assume!(bound.scheme() != Scheme::Opaque && !bound.as_str().is_empty());
            prop_assume!(!bound.as_str().contains([',', '<', '>', '=', '!']));
            let at_least = Requirement::parse(&format!(">={bound}")).unwrap().check(&version);
            let below = Requirement::parse(&format!("<{bound}")).unwrap().check(&version);
            match version.partial_cmp(&bound) {
                Some(Ordering::Less) => prop_assert_eq!((at_least, below), (Verdict::NotMet, Verdict::Met)),
                Some(_) => prop_assert_eq!((at_least, below), (Verdict::Met, Verdict::NotMet)),
                // The bound may leave things out, so that it can be told although the two as they are cannot be compared.
                None => prop_assert!(at_least != below || at_least == Verdict::Incomparable),
            }
        }
    }
}
