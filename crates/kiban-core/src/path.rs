//! Paths: the versions that a component passes through on its way to the wanted one.
//!
//! ```text
//!   runs 1.4 ──▶ via 1.6 (from <1.6) ──▶ via 1.10 (from <1.10) ──▶ wanted 1.15 (from >=1.10)
//! ```
//!
//! Vendors ask for stepping stones (an iLO 5 below 1.40 takes nothing newer than 1.40), and a direct jump can leave a
//! machine that no longer starts. So a stone is never left out by guess: where it cannot be told whether one is needed,
//! nothing is sent.

use crate::{
    facts::{Activation, Image, WantedComponent},
    version::{FirmwareVersion, Requirement, Verdict},
};
use std::cmp::Ordering;

/// Why no path leads to the wanted version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A stone says nothing of where it is needed from, and its version cannot be compared with the one that runs.
    #[error("whether {stone} comes in between cannot be told: write its `from`")]
    Undecided {
        /// The stone's version.
        stone: String,
    },
    /// A requirement cannot be read.
    #[error("the requirement {text:?} cannot be read: {error}")]
    Requirement {
        /// The requirement.
        text: String,
        /// What is wrong with it.
        error: String,
    },
    /// The wanted version is not installed from where the stones lead.
    #[error("{wanted} is installed from {from} only, not from {is}: add a stepping stone (via)")]
    NoWay {
        /// The wanted version.
        wanted: String,
        /// The requirement.
        from: String,
        /// The version before the last step.
        is: String,
    },
}

/// The stepping stones from a version to the wanted one: indices into [`WantedComponent::via`], in order. Empty: it is
/// installed directly.
///
/// # Errors
/// When no path is known. A path that is not known is not tried.
pub fn stones(is: &str, entry: &WantedComponent) -> Result<Vec<usize>, PathError> {
    let mut taken = Vec::new();
    let mut at = FirmwareVersion::parse(is);
    for (index, stone) in entry.via.iter().enumerate() {
        let version = FirmwareVersion::parse(&stone.version);
        if at.is(&version) {
            continue;
        }
        let needed = match &stone.from {
            Some(from) => requirement(from)?.check(&at),
            None => match at.partial_cmp(&version) {
                Some(Ordering::Less) => Verdict::Met,
                Some(_) => Verdict::NotMet,
                None => Verdict::Incomparable,
            },
        };
        match needed {
            Verdict::Met => {
                taken.push(index);
                at = version;
            }
            Verdict::NotMet => {}
            Verdict::Incomparable => {
                return Err(PathError::Undecided {
                    stone: stone.version.clone(),
                });
            }
        }
    }
    match &entry.from {
        Some(from) if requirement(from)?.check(&at) != Verdict::Met => Err(PathError::NoWay {
            wanted: entry.version.clone(),
            from: from.clone(),
            is: at.as_str().to_owned(),
        }),
        _ => Ok(taken),
    }
}

/// One version that is installed on the way, the wanted one included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hop<'a> {
    pub(crate) version: &'a str,
    pub(crate) image: Option<&'a Image>,
    pub(crate) activation: Activation,
}

/// What is installed one after another: the stepping stones that [`stones`] gave, then the wanted version.
pub(crate) fn hops<'a>(entry: &'a WantedComponent, via: &'a [usize]) -> impl Iterator<Item = Hop<'a>> {
    let stones = via.iter().filter_map(|at| entry.via.get(*at));
    stones
        .map(|stone| (&stone.version, Some(&stone.image), stone.activation))
        .chain([(&entry.version, entry.image.as_ref(), entry.activation)])
        .map(|(version, image, activation)| Hop {
            version,
            image,
            activation: activation.unwrap_or(Activation::of_class(entry.class)),
        })
}

/// What is wrong with an entry's requirements and its path, wherever it starts, as far as that can be told without a
/// machine: the field below the entry, and why.
#[must_use]
pub fn faults(entry: &WantedComponent) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    let wanted = FirmwareVersion::parse(&entry.version);
    let mut before: Vec<FirmwareVersion> = Vec::new();
    for (index, stone) in entry.via.iter().enumerate() {
        let version = FirmwareVersion::parse(&stone.version);
        let mut fault = |field: &str, why: String| faults.push((format!("via[{index}].{field}"), why));
        if version.is(&wanted) || wanted.is(&version) {
            fault(
                "version",
                "is the wanted version itself: a stepping stone comes before it".to_owned(),
            );
        } else if before.iter().any(|other| other.is(&version) || version.is(other)) {
            fault("version", "is passed through twice, which is a loop".to_owned());
        } else if version.partial_cmp(&wanted) == Some(Ordering::Greater) && !entry.allow_downgrade {
            fault(
                "version",
                format!("is newer than the wanted {}: it leads nowhere", entry.version),
            );
        } else if let Some(earlier) = before
            .iter()
            .find(|other| other.partial_cmp(&&version) == Some(Ordering::Greater))
            && stone.from.is_none()
        {
            fault(
                "version",
                format!("is older than {}, which comes before it", earlier.as_str()),
            );
        }
        if let Some(from) = &stone.from {
            match Requirement::parse(from) {
                Err(error) => fault("from", error.to_string()),
                Ok(requirement) if requirement.check(&version) == Verdict::Met => fault(
                    "from",
                    format!(
                        "takes {} itself, which is a loop: write <{}",
                        stone.version, stone.version
                    ),
                ),
                Ok(_) => {}
            }
        }
        before.push(version);
    }
    if let Some(Err(error)) = entry.accept.as_deref().map(Requirement::parse) {
        faults.push(("accept".to_owned(), error.to_string()));
    }
    if let Some(from) = &entry.from {
        match (Requirement::parse(from), before.last()) {
            (Err(error), _) => faults.push(("from".to_owned(), error.to_string())),
            (Ok(requirement), Some(last)) if requirement.check(last) != Verdict::Met => faults.push((
                "from".to_owned(),
                format!(
                    "does not take {}, the last stepping stone, which then leads nowhere",
                    last.as_str()
                ),
            )),
            _ => {}
        }
    }
    faults
}

fn requirement(text: &str) -> Result<Requirement, PathError> {
    Requirement::parse(text).map_err(|error| PathError::Requirement {
        text: text.to_owned(),
        error: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        component::ComponentClass,
        facts::{ComponentMatch, SteppingStone},
    };
    use proptest::prelude::*;

    fn image() -> Image {
        Image {
            url: "https://firmware.example/image".into(),
            sha256: "0".repeat(64),
            size: None,
        }
    }

    fn entry(version: &str, from: Option<&str>, via: &[(&str, Option<&str>)]) -> WantedComponent {
        let stone = |(version, from): &(&str, Option<&str>)| SteppingStone {
            version: (*version).into(),
            from: from.map(Into::into),
            image: image(),
            activation: None,
        };
        WantedComponent {
            class: ComponentClass::Bios,
            matches: ComponentMatch::default(),
            version: version.into(),
            accept: None,
            deny: Vec::new(),
            image: Some(image()),
            activation: None,
            allow_downgrade: false,
            from: from.map(Into::into),
            via: via.iter().map(stone).collect(),
        }
    }

    #[test]
    fn each_start_takes_the_stones_that_it_needs() {
        let entry = entry(
            "1.15.2",
            Some(">=1.10.2"),
            &[("1.6.0", Some("<1.6.0")), ("1.10.2", None)],
        );
        for (is, taken) in [
            ("1.4.0", vec![0, 1]),
            ("1.6.0", vec![1]),
            ("1.7.3", vec![1]),
            ("1.10.2", vec![]),
            ("1.12.0", vec![]),
        ] {
            assert_eq!(stones(is, &entry), Ok(taken), "from {is}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_not_tried() {
        let strange = entry("1.15.2", None, &[("1.10.2", None)]);
        let error = stones("MPK7625Q", &strange).unwrap_err();
        assert!(matches!(error, PathError::Undecided { .. }), "{error}");
        assert!(error.to_string().contains("1.10.2") && error.to_string().contains("`from`"));
        let told = entry("1.15.2", None, &[("1.10.2", Some("=MPK7625Q"))]);
        assert_eq!(stones("MPK7625Q", &told), Ok(vec![0]));
    }

    #[test]
    fn a_start_from_which_nothing_leads_is_said_with_what_would() {
        let error = stones("1.4.0", &entry("1.15.2", Some(">=1.10.2"), &[])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "1.15.2 is installed from >=1.10.2 only, not from 1.4.0: add a stepping stone (via)"
        );
    }

    #[test]
    fn loops_and_ways_to_nowhere_are_found_without_a_machine() {
        for (entry, field, says) in [
            (
                entry("2.0", None, &[("2.0", None)]),
                "via[0].version",
                "wanted version itself",
            ),
            (
                entry("2.0", None, &[("1.0", None), ("1.0", None)]),
                "via[1].version",
                "a loop",
            ),
            (
                entry("2.0", None, &[("3.0", None)]),
                "via[0].version",
                "leads nowhere",
            ),
            (
                entry("2.0", None, &[("1.5", None), ("1.2", None)]),
                "via[1].version",
                "older than 1.5",
            ),
            (
                entry("2.0", None, &[("1.0", Some("<=1.0"))]),
                "via[0].from",
                "a loop",
            ),
            (
                entry("2.0", None, &[("1.0", Some(">>1"))]),
                "via[0].from",
                "no operator",
            ),
            (
                entry("2.0", Some(">=1.5"), &[("1.0", None)]),
                "from",
                "leads nowhere",
            ),
            (entry("2.0", Some("<1 >3"), &[]), "from", "no version is both"),
        ] {
            let faults = faults(&entry);
            assert!(
                faults.iter().any(|(at, why)| at == field && why.contains(says)),
                "{field}: {faults:?}"
            );
        }
        assert_eq!(
            faults(&entry(
                "2.0",
                Some(">=1.5"),
                &[("1.0", Some("<1.0")), ("1.5", None)]
            )),
            []
        );
    }

    proptest! {
        /// Whatever is written and runs: stones are taken in order, each once, never backwards, and an entry without faults
        /// takes from each stone the way that is left.
        #[test]
        fn a_path_only_climbs(is in 0_u32..40, wanted in 1_u32..40, stones_at in prop::collection::vec((0_u32..40, any::<bool>()), 0..5)) {
            let texts: Vec<(String, Option<String>)> = stones_at
                .iter()
                .map(|(at, from)| (format!("1.{at}"), from.then(|| format!("<1.{at}"))))
                .collect();
            let via: Vec<(&str, Option<&str>)> =
                texts.iter().map(|(version, from)| (version.as_str(), from.as_deref())).collect();
            let entry = entry(&format!("1.{wanted}"), None, &via);
            let taken = stones(&format!("1.{is}"), &entry).unwrap();
            let mut at = is;
            for (index, stone) in taken.iter().enumerate() {
                prop_assert!(index == 0 || taken[index - 1] < *stone);
                prop_assert!(stones_at[*stone].0 > at, "1.{} after 1.{at}", stones_at[*stone].0);
                at = stones_at[*stone].0;
                let rest = stones(&format!("1.{at}"), &entry).unwrap();
                if faults(&entry).is_empty() {
                    prop_assert_eq!(&rest, &taken[index + 1..].to_vec());
                }
            }
        }
    }
}
