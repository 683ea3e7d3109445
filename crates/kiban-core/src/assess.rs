//! Assess: what a device's firmware is, against what its baseline wants.
//!
//! ```text
//!   each component ──entries of the baseline that speak of it──▶ none: not concerned
//!                                                               several, at odds: Ambiguous
//!                                                               one: as wanted, accepted, or a Difference
//! ```
//!
//! Equality comes first; an order is used only where both versions are written in a scheme that has one, so that a
//! version that cannot be compared is never taken for newer or older.

use crate::{
    compliance::{Assessment, Compliance, Difference, DifferenceKind},
    component::ComponentClass,
    facts::{BaselineFacts, FirmwareFacts, PolicyFacts, WantedComponent},
    path,
    version::{FirmwareVersion, Requirement, Verdict},
};
use std::cmp::Ordering;

/// One component as read, borrowed from wherever it is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading<'a> {
    pub(crate) class: ComponentClass,
    pub(crate) name: &'a str,
    pub(crate) manufacturer: &'a str,
    pub(crate) model: &'a str,
    pub(crate) version: &'a str,
    pub(crate) staged: Option<&'a str>,
    pub(crate) updateable: Option<bool>,
    pub(crate) lowest_supported: Option<&'a str>,
}

/// How one device's firmware stands to a baseline. The policy decides only what can be done about a difference, not
/// whether there is one.
#[must_use]
pub fn assess(firmware: &[FirmwareFacts], baseline: &BaselineFacts, policy: &PolicyFacts) -> Assessment {
    let readings: Vec<Reading<'_>> = firmware
        .iter()
        .map(|facts| Reading {
            class: facts.class,
            name: &facts.name,
            manufacturer: &facts.manufacturer,
            model: &facts.model,
            version: facts.version.trim(),
            staged: facts.staged.as_deref().map(str::trim),
            updateable: facts.updateable,
            lowest_supported: facts.lowest_supported.as_deref().map(str::trim),
        })
        .collect();
    assess_readings(&readings, &baseline.components, policy)
}

pub(crate) fn assess_readings(
    readings: &[Reading<'_>],
    wanted: &[WantedComponent],
    policy: &PolicyFacts,
) -> Assessment {
    let mut differences = Vec::new();
    let mut spoken_of = vec![false; wanted.len()];
    for (at, reading) in readings.iter().enumerate() {
        let mut entries = wanted
            .iter()
            .enumerate()
            .filter(|(_, entry)| covers(entry, reading));
        let Some((index, entry)) = entries.next() else {
            continue;
        };
        if let Some(seen) = spoken_of.get_mut(index) {
            *seen = true;
        }
        let mut at_odds = false;
        for (other, also) in entries {
            at_odds |= !may_be_same(&also.version, &entry.version);
            if let Some(seen) = spoken_of.get_mut(other) {
                *seen = true;
            }
        }
        let kind = if at_odds {
            Some(DifferenceKind::Ambiguous)
        } else {
            judge(entry, reading, policy)
        };
        if let Some(kind) = kind {
            let (kind, via) = led(entry, reading, policy, kind);
            differences.push(Difference {
                wanted: index,
                component: Some(at),
                class: entry.class,
                line: line(entry, Some(reading), &kind, &via),
                kind,
                via,
            });
        }
    }
    part_ways(readings, wanted, &mut differences);
    for (index, entry) in wanted.iter().enumerate() {
        if must_exist(entry) && spoken_of.get(index) == Some(&false) {
            let kind = DifferenceKind::NotFound;
            differences.push(Difference {
                wanted: index,
                component: None,
                class: entry.class,
                line: line(entry, None, &kind, &[]),
                kind,
                via: Vec::new(),
            });
        }
    }
    differences.sort_by_key(|difference| {
        (
            update_order(difference.class),
            difference.wanted,
            difference.component,
        )
    });
    let compliance = if differences.iter().any(|difference| difference.kind.is_certain()) {
        Compliance::NonCompliant
    } else if differences.is_empty() {
        Compliance::Compliant
    } else {
        Compliance::Unknown
    };
    Assessment {
        compliance,
        differences,
    }
}

fn covers(entry: &WantedComponent, reading: &Reading<'_>) -> bool {
    entry.class == reading.class
        && entry
            .matches
            .covers(reading.manufacturer, reading.model, reading.name)
}

/// Every machine has a BMC and a BIOS; other components may be absent, as fleets mix makers on purpose.
fn must_exist(entry: &WantedComponent) -> bool {
    matches!(entry.class, ComponentClass::Bmc | ComponentClass::Bios) && entry.matches.is_any()
}

/// BMC first, since later updates go through it, then BIOS, then the rest.
fn update_order(class: ComponentClass) -> usize {
    ComponentClass::ALL
        .iter()
        .position(|&other| other == class)
        .unwrap_or(usize::MAX)
}

/// What is with one component; None: it is as wanted, or good enough.
fn judge(entry: &WantedComponent, reading: &Reading<'_>, policy: &PolicyFacts) -> Option<DifferenceKind> {
    if reading.version.is_empty() {
        return Some(DifferenceKind::VersionUnknown);
    }
    let denied = entry.deny.iter().any(|version| is(reading.version, version));
    if !denied {
        let accepted = entry
            .accept
            .as_deref()
            .is_some_and(|requirement| accepts(requirement, reading.version));
        if is(reading.version, &entry.version) || accepted {
            return None;
        }
    }
    if let Some(reason) = denial(entry, &entry.version, reading, policy) {
        return Some(DifferenceKind::Denied { reason });
    }
    if beyond(reading.version, Ordering::Greater, &entry.version) && !entry.allow_downgrade {
        return Some(DifferenceKind::Downgrade);
    }
    if entry.image.is_none() {
        return Some(DifferenceKind::NoImage);
    }
    if reading.updateable == Some(false) {
        return Some(DifferenceKind::NotUpdateable);
    }
    if reading
        .lowest_supported
        .is_some_and(|lowest| beyond(&entry.version, Ordering::Less, lowest))
    {
        return Some(DifferenceKind::LowestSupported);
    }
    Some(DifferenceKind::Update {
        staged: reading.staged.is_some_and(|staged| is(staged, &entry.version)),
    })
}

/// An update with the stepping stones that lead to it, or why none do. Any other difference as it is.
fn led(
    entry: &WantedComponent,
    reading: &Reading<'_>,
    policy: &PolicyFacts,
    kind: DifferenceKind,
) -> (DifferenceKind, Vec<usize>) {
    let DifferenceKind::Update { staged } = kind else {
        return (kind, Vec::new());
    };
    let via = match path::stones(reading.version, entry) {
        Ok(via) => via,
        Err(error) => {
            return (
                DifferenceKind::NoPath {
                    why: error.to_string(),
                },
                Vec::new(),
            );
        }
    };
    for stone in via.iter().filter_map(|at| entry.via.get(*at)) {
        if let Some(reason) = denial(entry, &stone.version, reading, policy) {
            let reason = format!("the stepping stone {}: {reason}", stone.version);
            return (DifferenceKind::Denied { reason }, Vec::new());
        }
        if reading
            .lowest_supported
            .is_some_and(|lowest| beyond(&stone.version, Ordering::Less, lowest))
        {
            let why = format!("the BMC takes no longer the stepping stone {}", stone.version);
            return (DifferenceKind::NoPath { why }, Vec::new());
        }
    }
    (DifferenceKind::Update { staged }, via)
}

/// One entry's update is sent to all components that it speaks of. So where one of them needs stepping stones, all must
/// start from the same version: a stone would take the others back.
fn part_ways(readings: &[Reading<'_>], wanted: &[WantedComponent], differences: &mut [Difference]) {
    let led: Vec<usize> = differences
        .iter()
        .filter(|it| !it.via.is_empty())
        .map(|it| it.wanted)
        .collect();
    for index in led {
        let Some(entry) = wanted.get(index) else { continue };
        let mut versions = readings
            .iter()
            .filter(|reading| covers(entry, reading))
            .map(|reading| reading.version);
        let first = versions.next().unwrap_or_default();
        if versions.all(|version| version == first) {
            continue;
        }
        for difference in differences.iter_mut().filter(|it| it.wanted == index) {
            let why = "components of this entry run different versions, and stepping stones would take some of them back: \
                       part them by match"
                .to_owned();
            difference.kind = DifferenceKind::NoPath { why };
            difference.via.clear();
            let reading = difference.component.and_then(|at| readings.get(at));
            difference.line = line(entry, reading, &difference.kind, &[]);
        }
    }
}

/// Why a version must not be installed on this component.
fn denial(
    entry: &WantedComponent,
    wanted: &str,
    reading: &Reading<'_>,
    policy: &PolicyFacts,
) -> Option<String> {
    if entry.deny.iter().any(|version| may_be_same(version, wanted)) {
        return Some("the baseline denies its own version".to_owned());
    }
    policy
        .denied_versions
        .iter()
        .filter(|denied| denied.class == reading.class)
        .filter(|denied| {
            denied
                .matches
                .covers(reading.manufacturer, reading.model, reading.name)
        })
        .find(|denied| denied.versions.iter().any(|version| may_be_same(version, wanted)))
        .map(|denied| match denied.reason.as_str() {
            "" => "the FleetPolicy denies it".to_owned(),
            reason => reason.to_owned(),
        })
}

fn line(
    entry: &WantedComponent,
    reading: Option<&Reading<'_>>,
    kind: &DifferenceKind,
    via: &[usize],
) -> String {
    let class = entry.class;
    let wanted = &entry.version;
    let Some(reading) = reading else {
        return format!("{class}: not found, wanted {wanted}");
    };
    let label = label(reading);
    let is = if reading.version.is_empty() {
        "unknown"
    } else {
        reading.version
    };
    let note = match kind {
        DifferenceKind::Update { staged: false }
        | DifferenceKind::VersionUnknown
        | DifferenceKind::NotFound => String::new(),
        DifferenceKind::Update { staged: true } => " (staged, waits for its activation)".to_owned(),
        DifferenceKind::Denied { reason } => format!(" (denied: {reason})"),
        DifferenceKind::NoImage => " (no image)".to_owned(),
        DifferenceKind::NotUpdateable => " (the BMC cannot update it)".to_owned(),
        DifferenceKind::LowestSupported => {
            format!(
                " (below the lowest accepted, {})",
                reading.lowest_supported.unwrap_or_default()
            )
        }
        DifferenceKind::Ambiguous => " by one entry, and another version by another".to_owned(),
        DifferenceKind::Downgrade => " (newer than wanted, left alone)".to_owned(),
        DifferenceKind::NoPath { why } => format!(" (no path: {why})"),
    };
    let stones: Vec<&str> = via
        .iter()
        .filter_map(|at| entry.via.get(*at))
        .map(|stone| stone.version.as_str())
        .collect();
    let way = if stones.is_empty() {
        String::new()
    } else {
        format!(" via {}", stones.join(", "))
    };
    format!("{class}{label}: {is}, wanted {wanted}{way}{note}")
}

/// What tells the component from others of its class: maker and model, else its name.
fn label(reading: &Reading<'_>) -> String {
    let known = [reading.manufacturer, reading.model];
    let known: Vec<&str> = known.into_iter().filter(|text| !text.is_empty()).collect();
    match known.as_slice() {
        // A machine has one of these, and its name says nothing more.
        _ if matches!(reading.class, ComponentClass::Bmc | ComponentClass::Bios) => String::new(),
        [] => format!(" {}", reading.name),
        known => format!(" {}", known.join(" ")),
    }
}

/// Whether a reading says what is wanted; the wanted text may leave out family, build and date.
fn is(reading: &str, wanted: &str) -> bool {
    FirmwareVersion::parse(reading).is(&FirmwareVersion::parse(wanted))
}

/// Whether two texts, both written by people, may mean one version.
fn may_be_same(one: &str, other: &str) -> bool {
    is(one, other) || is(other, one)
}

/// Whether a version is known to be beyond a bound in the direction asked. The bound may leave out what the version says.
fn beyond(version: &str, direction: Ordering, bound: &str) -> bool {
    let version = FirmwareVersion::parse(version);
    let bound = FirmwareVersion::parse(bound);
    if let Some(order) = version.partial_cmp(&bound) {
        return order == direction;
    }
    let sign = if direction == Ordering::Less { '<' } else { '>' };
    // In a requirement spaces and commas part one bound from the next.
    let one = !bound.as_str().contains([' ', ',']);
    one && Requirement::parse(&format!("{sign}{bound}")).is_ok_and(|it| it.check(&version) == Verdict::Met)
}

/// A requirement that cannot be read accepts nothing; validation has told its author.
fn accepts(requirement: &str, version: &str) -> bool {
    Requirement::parse(requirement)
        .is_ok_and(|requirement| requirement.check(&FirmwareVersion::parse(version)) == Verdict::Met)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{ComponentMatch, DeniedVersions, Image};
    use ComponentClass::{Bios, Bmc, Nic};

    fn wanted(class: ComponentClass, version: &str) -> WantedComponent {
        WantedComponent {
            class,
            matches: ComponentMatch::default(),
            version: version.into(),
            accept: None,
            deny: Vec::new(),
            image: Some(Image {
                url: "https://firmware.example/image".into(),
                sha256: "0".repeat(64),
                size: None,
            }),
            activation: None,
            allow_downgrade: false,
            from: None,
            via: Vec::new(),
        }
    }

    fn nic(manufacturer: &str, version: &str) -> FirmwareFacts {
        FirmwareFacts {
            manufacturer: manufacturer.into(),
            ..FirmwareFacts::new(Nic, "NIC.1", version)
        }
    }

    fn of(firmware: &[FirmwareFacts], components: Vec<WantedComponent>) -> Assessment {
        let baseline = BaselineFacts {
            components,
            ..BaselineFacts::default()
        };
        assess(firmware, &baseline, &PolicyFacts::default())
    }

    fn kinds(assessment: &Assessment) -> Vec<DifferenceKind> {
        assessment.differences.iter().map(|it| it.kind.clone()).collect()
    }

    const UPDATE: DifferenceKind = DifferenceKind::Update { staged: false };

    #[test]
    fn updates_come_in_order_bmc_bios_then_the_rest() {
        let firmware = [
            nic("Mellanox", "20.37.1014"),
            FirmwareFacts::new(Bios, "BIOS", "1.10.2"),
            FirmwareFacts::new(Bmc, "iDRAC", "7.00.00.100"),
        ];
        let components = vec![
            wanted(Nic, "20.39.2048"),
            wanted(Bios, "1.15.2"),
            wanted(Bmc, "7.00.00.174"),
        ];
        let assessment = of(&firmware, components);
        assert_eq!(assessment.compliance, Compliance::NonCompliant);
        assert_eq!(assessment.updates(), [2, 1, 0]);
        let lines: Vec<&str> = assessment.differences.iter().map(|it| it.line.as_str()).collect();
        assert_eq!(
            lines,
            [
                "BMC: 7.00.00.100, wanted 7.00.00.174",
                "BIOS: 1.10.2, wanted 1.15.2",
                "NIC Mellanox: 20.37.1014, wanted 20.39.2048"
            ]
        );
    }

    #[test]
    fn every_component_that_an_entry_covers_must_match_and_counts_as_one_update() {
        let firmware = [
            nic("Mellanox", "20.39.2048"),
            nic("Mellanox", "20.37.1014"),
            nic("Mellanox", "20.36.0"),
        ];
        let assessment = of(&firmware, vec![wanted(Nic, "20.39.2048")]);
        assert_eq!(kinds(&assessment), [UPDATE, UPDATE]);
        assert_eq!(assessment.updates(), [0]);
    }

    #[test]
    fn accepted_versions_are_left_alone_unless_denied() {
        let entry = WantedComponent {
            accept: Some(">=1.14.1".into()),
            deny: vec!["1.15.0".into()],
            ..wanted(Bios, "1.15.2")
        };
        let is = |version: &str| of(&[FirmwareFacts::new(Bios, "BIOS", version)], vec![entry.clone()]);
        assert_eq!(is("1.14.1").compliance, Compliance::Compliant);
        assert_eq!(is("1.16.0").compliance, Compliance::Compliant);
        assert_eq!(kinds(&is("1.15.0")), [UPDATE]);
        assert_eq!(kinds(&is("1.13.0")), [UPDATE]);
    }

    #[test]
    fn a_newer_version_is_left_alone_and_told_unless_the_way_back_is_allowed() {
        let firmware = [FirmwareFacts::new(Bios, "BIOS", "1.16.0")];
        let assessment = of(&firmware, vec![wanted(Bios, "1.15.2")]);
        assert_eq!(kinds(&assessment), [DifferenceKind::Downgrade]);
        assert!(!assessment.needs_change() && assessment.block().is_none());
        assert_eq!(assessment.compliance, Compliance::NonCompliant);
        let back = WantedComponent {
            allow_downgrade: true,
            ..wanted(Bios, "1.15.2")
        };
        assert_eq!(kinds(&of(&firmware, vec![back])), [UPDATE]);
        let hpe = [FirmwareFacts::new(Bios, "System ROM", "A42 v2.60 (08/11/2022)")];
        assert_eq!(
            kinds(&of(&hpe, vec![wanted(Bios, "2.50")])),
            [DifferenceKind::Downgrade]
        );
        assert_eq!(
            of(&hpe, vec![wanted(Bios, "2.60")]).compliance,
            Compliance::Compliant
        );
    }

    #[test]
    fn what_cannot_be_compared_is_updated_since_it_is_not_what_is_wanted() {
        let firmware = [FirmwareFacts::new(Bios, "BIOS", "release-candidate")];
        assert_eq!(kinds(&of(&firmware, vec![wanted(Bios, "1.15.2")])), [UPDATE]);
    }

    #[test]
    fn makers_that_a_device_does_not_have_do_not_concern_it() {
        let of_maker = |maker: &str, version: &str| WantedComponent {
            matches: ComponentMatch {
                manufacturer: Some(maker.into()),
                ..ComponentMatch::default()
            },
            ..wanted(Nic, version)
        };
        let components = vec![
            of_maker("Mellanox*", "20.39.2048"),
            of_maker("Broadcom*", "229.0.1"),
        ];
        let assessment = of(&[nic("Mellanox Technologies", "20.39.2048")], components.clone());
        assert_eq!(assessment.compliance, Compliance::Compliant);
        assert_eq!(of(&[], components).compliance, Compliance::Compliant);
        assert_eq!(
            kinds(&of(&[], vec![wanted(Bmc, "1")])),
            [DifferenceKind::NotFound]
        );
        assert_eq!(of(&[], vec![wanted(Bmc, "1")]).compliance, Compliance::Unknown);
    }

    #[test]
    fn two_entries_at_odds_over_one_component_change_nothing() {
        let components = vec![wanted(Nic, "20.39.2048"), wanted(Nic, "20.40.1000")];
        let assessment = of(&[nic("Mellanox", "20.39.2048")], components);
        assert_eq!(kinds(&assessment), [DifferenceKind::Ambiguous]);
        assert!(assessment.block().is_some() && assessment.updates().is_empty());
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        let bios = || FirmwareFacts::new(Bios, "BIOS", "1.10.2");
        let no_image = WantedComponent {
            image: None,
            ..wanted(Bios, "1.15.2")
        };
        assert_eq!(kinds(&of(&[bios()], vec![no_image])), [DifferenceKind::NoImage]);
        let fixed = FirmwareFacts {
            updateable: Some(false),
            ..bios()
        };
        assert_eq!(
            kinds(&of(&[fixed], vec![wanted(Bios, "1.15.2")])),
            [DifferenceKind::NotUpdateable]
        );
        let floor = FirmwareFacts {
            lowest_supported: Some("1.20.0".into()),
            ..bios()
        };
        assert_eq!(
            kinds(&of(&[floor], vec![wanted(Bios, "1.15.2")])),
            [DifferenceKind::LowestSupported]
        );
        let silent = FirmwareFacts::new(Bios, "BIOS", " ");
        assert_eq!(
            kinds(&of(&[silent], vec![wanted(Bios, "1.15.2")])),
            [DifferenceKind::VersionUnknown]
        );
        let staged = FirmwareFacts {
            staged: Some("1.15.2".into()),
            ..bios()
        };
        assert_eq!(
            kinds(&of(&[staged], vec![wanted(Bios, "1.15.2")])),
            [DifferenceKind::Update { staged: true }]
        );
    }

    #[test]
    fn a_denied_version_is_never_the_target() {
        let policy = PolicyFacts {
            denied_versions: vec![DeniedVersions {
                class: Bios,
                matches: ComponentMatch::default(),
                versions: vec!["1.15.2".into()],
                reason: "bricks boards of 2021".into(),
            }],
            ..PolicyFacts::default()
        };
        let baseline = BaselineFacts {
            components: vec![wanted(Bios, "1.15.2")],
            ..BaselineFacts::default()
        };
        let assessment = assess(&[FirmwareFacts::new(Bios, "BIOS", "1.10.2")], &baseline, &policy);
        assert_eq!(assessment.compliance, Compliance::NonCompliant);
        assert!(assessment.updates().is_empty());
        let block = assessment.block().unwrap();
        assert_eq!(
            block.line,
            "BIOS: 1.10.2, wanted 1.15.2 (denied: bricks boards of 2021)"
        );
    }
}
