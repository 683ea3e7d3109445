//! Kinds into the planner's facts: parsed once, here, with errors that name the field.
//!
//! ```text
//!   Device, HardwarePool, … ──convert──▶ DeviceFacts, PoolFacts, … ──World::upsert_*──▶ rows
//! ```
//!
//! A `spec` that makes no sense is an error (the object is set aside and reported; others go on). A `status` is never
//! one: it may be from an older version, or written over by hand, and what makes no sense in it reads as not known.

use crate::{
    baseline, device, gate, operation, pool, rollout,
    shared::{self, Amount, Conditions},
};
use k8s_openapi::apimachinery::pkg::{apis::meta::v1::Time, util::intstr::IntOrString};
use kiban_core::{amount, approval as core_approval, component, duration, facts, gate as core_gate};
use kube::ResourceExt;
use std::{fmt, time::Duration};

mod words;

/// A field of a spec that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FieldError {
    /// Path of the field. Example: `spec.disruption.maxUnavailable`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// Every field of one object that makes no sense; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FieldErrors(pub Vec<FieldError>);

impl FieldErrors {
    /// The reason, for conditions and metric labels.
    #[must_use]
    pub fn category(&self) -> &'static str {
        "InvalidSpec"
    }
}

impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

/// Limits on the traffic to BMCs, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Most BMCs that are spoken to at once.
    pub max_concurrent: usize,
    /// Most BMCs of one site that are spoken to at once.
    pub max_concurrent_per_site: usize,
    /// How often a device's inventory is read.
    pub read_interval: Duration,
}

/// What a device's object says.
#[must_use]
pub fn device(object: &device::Device) -> facts::DeviceFacts {
    let (spec, none) = (&object.spec, device::DeviceStatus::default());
    let status = object.status.as_ref().unwrap_or(&none);
    let read = status.firmware_read_at.is_some() || !status.firmware.is_empty();
    facts::DeviceFacts {
        name: object.name_any(),
        model: spec.model.clone(),
        serial: spec.serial.clone(),
        uuid: spec.uuid.clone(),
        bmc_url: spec.bmc.url.clone(),
        site: spec.location.site.clone(),
        room: spec.location.room.clone(),
        rack: spec.location.rack.clone(),
        power: spec.location.power.clone(),
        redundancy_group: object
            .labels()
            .get(crate::labels::REDUNDANCY_GROUP_LABEL)
            .cloned()
            .unwrap_or_default(),
        pool: spec.pool.clone(),
        identity: status.identity.as_ref().map(identity),
        health: health(status.health.as_deref()),
        reach: match condition(&status.conditions, "Reachable") {
            Some("True") => facts::Reach::Reachable,
            Some("False") => facts::Reach::Unreachable,
            _ => facts::Reach::NeverRead,
        },
        fresh: condition(&status.conditions, "InventoryFresh") == Some("True"),
        firmware: read.then(|| status.firmware.iter().map(firmware).collect()),
        firmware_changed_at: status.firmware_read_at.as_ref().map(|time| time.0),
        hold: status.hold.as_ref().map(|hold| facts::HoldFacts {
            reason: hold.reason.clone(),
            operation: hold.operation.clone(),
        }),
        last_operation: status
            .last_operation
            .as_ref()
            .map(|last| facts::LastOperationFacts {
                id: last.id.clone(),
                revision: last.revision.clone(),
                outcome: outcome(&last.outcome),
                finished_at: last.finished_at.0,
            }),
    }
}

/// What a model's object says. Without `reportedAs`, the product's name is what the BMC must report.
#[must_use]
pub fn model(object: &crate::HardwareModel) -> facts::ModelFacts {
    let reported_as = match object.spec.reported_as.as_slice() {
        [] => vec![object.spec.product.clone()],
        patterns => patterns.to_vec(),
    };
    facts::ModelFacts {
        name: object.name_any(),
        reported_as,
    }
}

/// What a pool's object says. Its commit is the annotation that sync left on it.
///
/// # Errors
/// When an amount or a duration in it is none, or a wave has not exactly one of `devices` and `percent`.
pub fn pool(object: &pool::HardwarePool) -> Result<facts::PoolFacts, FieldErrors> {
    let spec = &object.spec;
    let mut errors = Errors::default();
    let max_unavailable = errors.amount("spec.disruption.maxUnavailable", &spec.disruption.max_unavailable);
    let waves = &spec.rollout.waves;
    let waves = waves
        .iter()
        .enumerate()
        .filter_map(|(index, wave)| errors.wave(index, wave))
        .collect();
    let gates = spec.rollout.gates.iter().enumerate();
    let gates = gates
        .map(|(index, gate)| errors.gate(index, gate, &spec.rollout.waves))
        .collect();
    let approvals = spec.rollout.approvals.iter().enumerate();
    let approvals = approvals
        .filter_map(|(index, rule)| errors.approval(index, rule, &spec.rollout.waves))
        .collect();
    errors.into_result(facts::PoolFacts {
        name: object.name_any(),
        service: spec.service.clone(),
        baselines: spec.baselines.clone(),
        max_unavailable,
        at_most: spec.disruption.at_most,
        max_per_domain: spec.disruption.max_per_domain,
        domain: spec.disruption.domain.into(),
        domains: spec.disruption.domains.iter().map(Into::into).collect(),
        priority: spec.disruption.priority,
        waves,
        halt_after_failed: spec.rollout.halt_after.failed,
        retry: spec.rollout.retry,
        gates,
        approvals,
        resumable_by: spec.rollout.resumable_by.as_ref().map(people).unwrap_or_default(),
        commit: commit(object),
    })
}

/// What a baseline's object says. Its commit is the annotation that sync left on it.
///
/// # Errors
/// When an image's size is negative.
pub fn baseline(object: &baseline::FirmwareBaseline) -> Result<facts::BaselineFacts, FieldErrors> {
    let mut errors = Errors::default();
    let components = object.spec.components.iter().enumerate();
    let components = components
        .map(|(index, component)| errors.component(index, component))
        .collect();
    errors.into_result(facts::BaselineFacts {
        name: object.name_any(),
        models: object.spec.models.clone(),
        components,
        commit: commit(object),
    })
}

/// What the policy's object says.
///
/// # Errors
/// When a budget is no amount.
pub fn policy(object: &crate::FleetPolicy) -> Result<facts::PolicyFacts, FieldErrors> {
    let spec = &object.spec;
    let mut errors = Errors::default();
    let max_unavailable = spec
        .max_unavailable
        .as_ref()
        .map(|amount| errors.amount("spec.maxUnavailable", amount));
    let services = spec.services.iter().enumerate();
    let services = services
        .map(|(index, service)| facts::ServiceFacts {
            name: service.name.clone(),
            max_unavailable: errors.amount(
                &format!("spec.services[{index}].maxUnavailable"),
                &service.max_unavailable,
            ),
            at_most: service.at_most,
        })
        .collect();
    let denied = spec.denied_versions.iter().map(|denied| facts::DeniedVersions {
        class: denied.class.into(),
        matches: denied.match_.as_ref().map(Into::into).unwrap_or_default(),
        versions: denied.versions.clone(),
        reason: denied.reason.clone(),
    });
    errors.into_result(facts::PolicyFacts {
        paused: spec.paused,
        max_unavailable,
        at_most: spec.at_most,
        domains: spec.domains.iter().map(Into::into).collect(),
        services,
        dark: facts::DarkFacts {
            percent: spec.dark.percent,
            devices: spec.dark.devices,
        },
        denied_versions: denied.collect(),
    })
}

/// The policy's limits on BMC traffic.
///
/// # Errors
/// When the read interval is no duration.
pub fn traffic(object: &crate::FleetPolicy) -> Result<Traffic, FieldErrors> {
    let spec = &object.spec.bmc;
    let mut errors = Errors::default();
    let read_interval = errors.duration("spec.bmc.readInterval", &spec.read_interval);
    errors.into_result(Traffic {
        max_concurrent: usize::try_from(spec.max_concurrent).unwrap_or(usize::MAX).max(1),
        max_concurrent_per_site: usize::try_from(spec.max_concurrent_per_site)
            .unwrap_or(usize::MAX)
            .max(1),
        read_interval,
    })
}

/// How often a repository is looked at.
///
/// # Errors
/// When the interval is no duration.
pub fn interval(object: &crate::FleetRepository) -> Result<Duration, FieldErrors> {
    let mut errors = Errors::default();
    let interval = errors.duration("spec.interval", &object.spec.interval);
    errors.into_result(interval)
}

/// What a rollout's object says.
#[must_use]
pub fn rollout(object: &rollout::Rollout) -> facts::RolloutFacts {
    let time = |time: &Option<Time>| time.as_ref().map(|time| time.0);
    facts::RolloutFacts {
        name: object.name_any(),
        pool: object.spec.pool.clone(),
        baseline: object.spec.baseline.clone(),
        status: object.status.as_ref().map(|status| facts::RolloutStatus {
            revision: status.revision.clone(),
            commit: status.commit.clone(),
            started_at: time(&status.started_at),
            total: status.total,
            done: status.done,
            failed: status.failed,
            running: status.running,
            wave: status.wave,
            waves: status.waves,
            wave_done_at: time(&status.wave_done_at),
            gates: status.gates.iter().map(standing).collect(),
            approvals: status.approvals.iter().map(given).collect(),
            resumed: status.resumed.as_ref().map(|resumed| core_approval::Resumed {
                halt: resumed.halt.0,
                at: resumed.at.0,
                failed: resumed.failed,
                lost: resumed.lost,
            }),
            canaries: status
                .canaries
                .iter()
                .map(|canary| facts::CanaryFacts {
                    class: canary.class.clone(),
                    device: canary.device.clone(),
                })
                .collect(),
            halt: status.halt.as_ref().map(|halt| facts::HaltFacts {
                at: halt.at.0,
                message: halt.message.clone(),
                devices: halt.devices.clone(),
            }),
            completed_at: time(&status.completed_at),
        }),
    }
}

/// What an approval's object says. None: it is for nothing, or has no date.
#[must_use]
pub fn approval(object: &crate::Approval) -> Option<core_approval::ApprovalFacts> {
    let spec = &object.spec;
    let what = match (&spec.wave, &spec.resumes) {
        (Some(wave), None) => core_approval::Approved::Wave(wave.clone()),
        (None, Some(halt)) => core_approval::Approved::Resume(halt.0),
        _ => return None,
    };
    // One that is being deleted is taken back.
    if object.metadata.deletion_timestamp.is_some() {
        return None;
    }
    Some(core_approval::ApprovalFacts {
        name: object.name_any(),
        rollout: spec.rollout.clone(),
        revision: spec.revision.clone(),
        what,
        approver: spec.approver.clone(),
        groups: spec.groups.clone(),
        at: object.metadata.creation_timestamp.as_ref()?.0,
    })
}

fn people(people: &pool::People) -> core_approval::People {
    core_approval::People {
        users: people.users.clone(),
        groups: people.groups.clone(),
    }
}

fn given(given: &rollout::GivenApproval) -> core_approval::ApprovalGiven {
    core_approval::ApprovalGiven {
        approval: given.approval.clone(),
        what: given.what.clone(),
        by: given.by.clone(),
        at: given.at.0,
    }
}

fn standing(gate: &rollout::GateStatus) -> core_gate::GateStanding {
    core_gate::GateStanding {
        name: gate.name.clone(),
        state: core_gate::GateState::of(&gate.state),
        since: gate.since.0,
        message: gate.message.clone(),
    }
}

/// What an operation's object says. One without a status has not started.
#[must_use]
pub fn operation(object: &operation::Operation) -> facts::OperationFacts {
    let spec = &object.spec;
    facts::OperationFacts {
        device: spec.device.clone(),
        id: spec.id.clone(),
        campaign: spec.campaign.clone(),
        pool: spec.pool.clone(),
        revision: spec.revision.clone(),
        wave: spec.wave,
        epoch: spec.epoch,
        outcome: object
            .status
            .as_ref()
            .map(|status| outcome(&status.outcome))
            .unwrap_or_default(),
    }
}

/// How an operation stands, from the text in a status. What is not one of ours has not ended: an operation that is
/// taken for unfinished uses the budget, which is the safe reading.
#[must_use]
pub fn outcome(text: &str) -> facts::Outcome {
    match text {
        "" | "Pending" => facts::Outcome::Pending,
        "Succeeded" => facts::Outcome::Succeeded,
        "Failed" => facts::Outcome::Failed,
        "Held" => facts::Outcome::Held,
        _ => facts::Outcome::Running,
    }
}

/// The status of a condition: `True`, `False` or `Unknown`.
#[must_use]
pub fn condition<'a>(conditions: &'a Conditions, kind: &str) -> Option<&'a str> {
    conditions
        .iter()
        .find(|condition| condition.type_ == kind)
        .map(|condition| condition.status.as_str())
}

/// The commit that last changed an object, as sync annotated it.
fn commit(object: &impl ResourceExt) -> String {
    object
        .annotations()
        .get(crate::labels::COMMIT_ANNOTATION)
        .cloned()
        .unwrap_or_default()
}

fn identity(identity: &device::Identity) -> facts::IdentityFacts {
    facts::IdentityFacts {
        manufacturer: identity.manufacturer.clone(),
        model: identity.model.clone(),
        serial: identity.serial.clone(),
        uuid: identity.uuid.clone(),
    }
}

fn health(text: Option<&str>) -> facts::Health {
    match text {
        Some("OK") => facts::Health::Ok,
        Some("Warning") => facts::Health::Warning,
        Some("Critical") => facts::Health::Critical,
        _ => facts::Health::Unknown,
    }
}

fn firmware(entry: &device::FirmwareEntry) -> facts::FirmwareFacts {
    facts::FirmwareFacts {
        class: entry.class.into(),
        name: entry.name.clone(),
        manufacturer: entry.manufacturer.clone(),
        model: entry.model.clone(),
        version: entry.version.clone(),
        staged: entry.staged.clone(),
        updateable: entry.updateable,
        lowest_supported: entry.lowest_supported.clone(),
    }
}

/// Gathers every error of an object; what stands for a wrong value is never used, because the object is refused.
#[derive(Default)]
struct Errors(Vec<FieldError>);

impl Errors {
    fn add(&mut self, field: impl Into<String>, message: impl fmt::Display) {
        self.0.push(FieldError {
            field: field.into(),
            message: message.to_string(),
        });
    }

    fn into_result<T>(self, value: T) -> Result<T, FieldErrors> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(FieldErrors(self.0))
        }
    }

    fn amount(&mut self, field: &str, amount: &Amount) -> amount::Amount {
        let parsed = match amount {
            IntOrString::Int(count) => amount::Amount::count(i64::from(*count)),
            IntOrString::String(text) => text.parse(),
        };
        parsed.unwrap_or_else(|error| {
            self.add(field, error);
            amount::Amount::Count(0)
        })
    }

    fn duration(&mut self, field: &str, text: &str) -> Duration {
        match duration::parse(text) {
            Ok(duration) => Duration::try_from(duration).unwrap_or_default(),
            Err(error) => {
                self.add(field, error);
                Duration::ZERO
            }
        }
    }

    fn wave(&mut self, index: usize, wave: &pool::Wave) -> Option<facts::WaveFacts> {
        let field = format!("spec.rollout.waves[{index}]");
        let reach = match (wave.devices, wave.percent) {
            (Some(devices), None) => amount::Amount::Count(devices),
            (None, Some(percent)) => match u8::try_from(percent).ok().filter(|percent| *percent <= 100) {
                Some(percent) => amount::Amount::Percent(percent),
                None => {
                    self.add(format!("{field}.percent"), "a share is at most 100 percent");
                    return None;
                }
            },
            _ => {
                self.add(field, "give exactly one of devices and percent");
                return None;
            }
        };
        let soak = match wave.soak.as_deref().map(duration::parse) {
            None => jiff::SignedDuration::ZERO,
            Some(Ok(soak)) => soak,
            Some(Err(error)) => {
                self.add(format!("{field}.soak"), error);
                return None;
            }
        };
        Some(facts::WaveFacts { reach, soak })
    }

    fn gate(&mut self, index: usize, gate: &gate::Gate, waves: &[pool::Wave]) -> core_gate::GateRule {
        let field = |name: &str| format!("spec.rollout.gates[{index}].{name}");
        let mut span = |name: &str, text: &str| {
            jiff::SignedDuration::try_from(self.duration(&field(name), text)).unwrap_or_default()
        };
        let (max_age, hold_for) = (span("maxAge", &gate.max_age), span("for", &gate.for_));
        let failure_threshold = span("failureThreshold", &gate.failure_threshold);
        span("timeout", &gate.timeout);
        if let Some(prometheus) = &gate.prometheus
            && let Err(error) = prometheus.condition.parse::<core_gate::Comparison>()
        {
            self.add(field("prometheus.condition"), error);
        }
        let waves = self.waves(&field("waves"), &gate.waves, waves);
        core_gate::GateRule {
            name: gate.name.clone(),
            waves,
            max_age,
            hold_for,
            halt: gate.halt,
            failure_threshold,
            health: gate.device_health.as_ref().map(|health| core_gate::HealthRule {
                max_critical: health.max_critical,
                max_unreachable: health.max_unreachable,
                max_unknown: health.max_unknown,
            }),
        }
    }

    fn approval(
        &mut self,
        index: usize,
        rule: &pool::ApprovalRule,
        waves: &[pool::Wave],
    ) -> Option<core_approval::ApprovalRule> {
        let field = format!("spec.rollout.approvals[{index}].beforeWave");
        let number = self.waves(&field, std::slice::from_ref(&rule.before_wave), waves);
        Some(core_approval::ApprovalRule {
            wave: number.first().copied()?,
            wave_name: rule.before_wave.clone(),
            by: people(&rule.by),
        })
    }

    /// The numbers of named waves. A name that is none is an error: read as nothing it would mean every wave.
    fn waves(&mut self, field: &str, names: &[String], waves: &[pool::Wave]) -> Vec<u32> {
        let mut numbers = Vec::with_capacity(names.len());
        for name in names {
            let at = waves
                .iter()
                .position(|wave| wave.name.as_deref() == Some(name.as_str()));
            match at.and_then(|at| u32::try_from(at + 1).ok()) {
                Some(number) => numbers.push(number),
                None => self.add(field, format!("no wave is named {name}")),
            }
        }
        numbers
    }

    fn component(&mut self, index: usize, wanted: &baseline::BaselineComponent) -> facts::WantedComponent {
        let image = facts::Image::try_from(&wanted.image).map_err(|error| {
            self.add(
                format!("spec.components[{index}].image.{}", error.field),
                error.message,
            );
        });
        let via = wanted.via.iter().enumerate().filter_map(|(at, stone)| {
            let image = facts::Image::try_from(&stone.image).map_err(|error| {
                self.add(
                    format!("spec.components[{index}].via[{at}].image.{}", error.field),
                    error.message,
                );
            });
            Some(facts::SteppingStone {
                version: stone.version.clone(),
                from: stone.from.clone(),
                image: image.ok()?,
                activation: stone.activation.map(Into::into),
            })
        });
        let via = via.collect();
        let wanted = facts::WantedComponent {
            class: wanted.class.into(),
            matches: wanted.match_.as_ref().map(Into::into).unwrap_or_default(),
            version: wanted.version.clone(),
            accept: wanted.accept.clone(),
            deny: wanted.deny.clone(),
            image: image.ok(),
            activation: wanted.activation.map(Into::into),
            allow_downgrade: wanted.allow_downgrade,
            from: wanted.from.clone(),
            via,
        };
        for (field, why) in kiban_core::path::faults(&wanted) {
            self.add(format!("spec.components[{index}].{field}"), why);
        }
        wanted
    }
}

#[cfg(test)]
mod tests;
