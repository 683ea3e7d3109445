//! One effect: the call to the BMC that it stands for, and what was seen of it.

use super::machines::{Machines, Offer};
use crate::context::Context;
use kiban_api::baseline::Activation;
use kiban_api::{Device, Operation};
use kiban_bmc::{
    ApplyTime, Bmc, BmcError, ErrorKind, Health, HostReset, PowerState, TaskKind, TaskOutcome, TaskProgress,
    TaskRef, UpdateRequest,
};
use kiban_core::operation::{
    Effect, EffectKind, Failure, FailureClass, HealthSeen, Observation, Reading, Reset, TaskSeen, TaskState,
    Work,
};
use std::{sync::Arc, time::Duration};

/// What is at hand while an operation runs.
pub(super) struct Hand<'a> {
    context: &'a Context,
    machines: &'a Machines,
    operation: &'a Operation,
    bmc: Option<Arc<dyn Bmc>>,
    image: Option<kiban_bmc::Image>,
    offer: Option<Offer>,
    /// The account was refused: the Secret is read anew.
    refused: bool,
    /// The last call found nobody.
    slow: bool,
}

impl<'a> Hand<'a> {
    pub(super) fn new(context: &'a Context, machines: &'a Machines, operation: &'a Operation) -> Self {
        Self {
            context,
            machines,
            operation,
            bmc: None,
            image: None,
            offer: None,
            refused: false,
            slow: false,
        }
    }

    /// Performs an effect within `limit`. Never called for waits, writes and the end.
    pub(super) async fn perform(&mut self, effect: &Effect, limit: Duration) -> Observation {
        let Some(device) = self.context.stores.devices.get(&self.operation.spec.device) else {
            return failure(FailureClass::Local, false, "the device's object is gone".into());
        };
        let changes = matches!(effect.kind, EffectKind::Send { .. } | EffectKind::Reset { .. });
        if let EffectKind::StageImage { update } = effect.kind {
            return self.stage(update, limit).await;
        }
        let limits = || Machines::limits(self.context);
        let slots = self.machines.slots.clone();
        let begun = tokio::time::Instant::now();
        let _slot = slots.take(&device.spec.location.site, self.slow, limits).await;
        // What was waited for a slot and for the connection is not there any more for the call.
        let left = |begun: tokio::time::Instant| limit.saturating_sub(begun.elapsed());
        let bmc = match tokio::time::timeout(left(begun), self.bmc(&device)).await {
            Ok(Ok(bmc)) => bmc,
            Ok(Err(error)) => return self.failed(&error).await,
            Err(_) => return self.no_answer(effect, limit, false).await,
        };
        if left(begun).is_zero() {
            return failure(
                FailureClass::Local,
                false,
                format!("there was no time left for {}", effect.kind.as_str()),
            );
        }
        match tokio::time::timeout(left(begun), self.call(&*bmc, effect, left(begun))).await {
            Ok(Ok(observation)) => {
                self.slow = false;
                self.context.metrics.bmc_request("Ok");
                observation
            }
            Ok(Err(error)) => self.failed(&error).await,
            Err(_) => self.no_answer(effect, limit, changes).await,
        }
    }

    async fn no_answer(&mut self, effect: &Effect, limit: Duration, unknown: bool) -> Observation {
        self.context.metrics.bmc_request("Timeout");
        self.slow = true;
        self.let_go().await;
        let message = format!("{} took longer than {} s", effect.kind.as_str(), limit.as_secs());
        failure(FailureClass::Silent, unknown, message)
    }

    /// Gives the BMC's session back.
    pub(super) async fn let_go(&mut self) {
        if let Some(bmc) = self.bmc.take() {
            // Best effort: dropping the last handle does the same in the background.
            let _ = tokio::time::timeout(self.context.config.bmc_deadline, bmc.close()).await;
        }
    }

    async fn bmc(&mut self, device: &Device) -> Result<Arc<dyn Bmc>, BmcError> {
        if let Some(bmc) = &self.bmc {
            return Ok(bmc.clone());
        }
        let endpoint = Machines::endpoint(self.context, device, self.refused, false).await?;
        let bmc = self.machines.connector.connect(&endpoint).await?;
        self.bmc = Some(bmc.clone());
        Ok(bmc)
    }

    async fn failed(&mut self, error: &BmcError) -> Observation {
        let kind = error.kind();
        self.context.metrics.bmc_request(error.category());
        self.refused = kind == ErrorKind::AuthenticationFailed;
        self.slow = matches!(kind, ErrorKind::Timeout | ErrorKind::Unreachable);
        if kind != ErrorKind::Busy
            && kind != ErrorKind::NotSupported
            && kind != ErrorKind::NotLicensed
            && kind != ErrorKind::Rejected
        {
            self.let_go().await;
        }
        observe_error(error)
    }

    async fn stage(&mut self, update: usize, limit: Duration) -> Observation {
        let Some(update) = self.operation.spec.updates.get(update) else {
            return failure(
                FailureClass::Image,
                false,
                "the operation has no such update".into(),
            );
        };
        match tokio::time::timeout(limit, self.machines.images.stage(&update.image, limit)).await {
            Ok(Ok(image)) => {
                self.image = Some(image);
                Observation::Staged
            }
            Ok(Err(fault)) => {
                let class = if fault.wrong {
                    FailureClass::Image
                } else {
                    FailureClass::Local
                };
                failure(class, false, fault.message)
            }
            Err(_) => failure(
                FailureClass::Local,
                false,
                format!("get {}: no end after {} s", update.image.url, limit.as_secs()),
            ),
        }
    }

    async fn call(
        &mut self,
        bmc: &dyn Bmc,
        effect: &Effect,
        limit: Duration,
    ) -> Result<Observation, BmcError> {
        match &effect.kind {
            EffectKind::CheckIdentity => {
                let identity = bmc.identity().await?;
                Ok(self.compare(&identity))
            }
            EffectKind::ReadInventory => {
                let inventory = bmc.inventory().await?;
                let on = match inventory.power {
                    PowerState::On => Some(true),
                    PowerState::Off => Some(false),
                    _ => None,
                };
                Ok(Observation::Inventory(Reading {
                    components: inventory.components,
                    on,
                }))
            }
            EffectKind::FindWork => {
                let list = bmc.pending_work().await?;
                let work = |work: kiban_bmc::PendingWork| Work {
                    task: write_task(&work.task),
                    name: work.name,
                    class: work.class,
                    state: task_state(&work.progress),
                };
                Ok(Observation::Work(list.into_iter().map(work).collect()))
            }
            EffectKind::Send { update, .. } => self.send(bmc, *update, limit).await,
            EffectKind::FollowTask { task } => {
                let Some(task) = read_task(task) else {
                    return Ok(Observation::Task(seen(
                        TaskState::Gone,
                        "the recorded task cannot be read",
                    )));
                };
                let progress = bmc.follow(&task).await?;
                Ok(Observation::Task(TaskSeen {
                    state: task_state(&progress),
                    percent: progress.percent,
                    message: progress
                        .messages
                        .last()
                        .map(|message| message.text.clone())
                        .unwrap_or_default(),
                    moved_to: progress.moved_to.as_ref().map(write_task),
                }))
            }
            EffectKind::Reset { kind } => {
                reset(bmc, *kind).await?;
                Ok(Observation::ResetDone)
            }
            EffectKind::ProbeHealth => {
                let health = bmc.health().await?;
                Ok(Observation::Health(HealthSeen {
                    critical: health.system == Health::Critical || health.bmc == Health::Critical,
                    // A host that is off is at rest, whatever its state is called.
                    steady: health.steady || health.power == PowerState::Off,
                    booting: health.booting,
                    message: health.messages.join("; "),
                }))
            }
            EffectKind::StageImage { .. }
            | EffectKind::WriteIntent
            | EffectKind::WriteProgress
            | EffectKind::Wait
            | EffectKind::Finish(_) => Ok(failure(FailureClass::Local, false, "no call to a BMC".into())),
        }
    }

    fn compare(&self, identity: &kiban_bmc::Identity) -> Observation {
        let Some(device) = self.context.stores.devices.get(&self.operation.spec.device) else {
            return failure(FailureClass::Local, false, "the device's object is gone".into());
        };
        match wrong_machine(&device, identity) {
            Some(message) => Observation::WrongMachine { message },
            None => Observation::Identified,
        }
    }

    async fn send(&mut self, bmc: &dyn Bmc, index: usize, limit: Duration) -> Result<Observation, BmcError> {
        let nothing = |detail: &str| BmcError::new(ErrorKind::Invalid, "send the image", detail);
        let Some(update) = self.operation.spec.updates.get(index) else {
            return Err(nothing("the operation has no such update"));
        };
        let image = match self.image.take() {
            Some(image) if image.sha256.eq_ignore_ascii_case(&update.image.sha256) => image,
            // A second try, or another process's staging: it is in the store.
            _ => self
                .machines
                .images
                .stage(&update.image, limit)
                .await
                .map_err(|fault| nothing(&fault.message))?,
        };
        self.offer = self.machines.images.offer(&image);
        let request = UpdateRequest {
            class: update.class.into(),
            components: Vec::new(),
            image: image.clone(),
            image_url: self.offer.as_ref().map(|offer| offer.url.clone()),
            apply: apply_time(update.activation),
            wanted: update.to.clone(),
            method: None,
            force: false,
            deadline: limit,
        };
        self.image = Some(image);
        let started = bmc.start_update(&request).await?;
        Ok(Observation::Sent {
            task: started.task.as_ref().map(write_task),
        })
    }
}

/// When the BMC is to install. What takes a reset of the host waits for ours, where the BMC can wait: an iDRAC that is not told
/// restarts the host by itself, and our own reset would then fall into the writing of the flash.
fn apply_time(activation: Activation) -> ApplyTime {
    match activation {
        Activation::HostReset | Activation::ColdBoot | Activation::ACCycle => ApplyTime::OnReset,
        Activation::None | Activation::BMCReset => ApplyTime::Default,
    }
}

/// What is said when another machine answers than the one that is meant; None when it is the right one.
pub(crate) fn wrong_machine(device: &Device, identity: &kiban_bmc::Identity) -> Option<String> {
    let expected = kiban_bmc::ExpectedIdentity {
        serial: Some(device.spec.serial.clone()),
        uuid: device.spec.uuid.clone(),
    };
    if identity.matches(&expected) {
        return None;
    }
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".into());
    Some(format!(
        "{} answers with serial {} and UUID {}, not with serial {}{}: find out which machine stands there, mend the \
         address or the serial in Git, then release the hold",
        device.spec.bmc.url,
        or(&identity.serial),
        or(&identity.uuid),
        device.spec.serial,
        device
            .spec
            .uuid
            .as_ref()
            .map(|uuid| format!(" and UUID {uuid}"))
            .unwrap_or_default(),
    ))
}

async fn reset(bmc: &dyn Bmc, kind: Reset) -> Result<(), BmcError> {
    match kind {
        Reset::Bmc => bmc.reset_bmc().await,
        Reset::Host => bmc.reset_host(HostReset::ForceRestart).await,
        Reset::PowerOn => bmc.reset_host(HostReset::On).await,
        Reset::Ac => bmc.ac_cycle().await,
        Reset::Cold => bmc.reset_host(HostReset::ColdBoot).await,
    }
}

/// What a failed call means to the step machine.
pub(super) fn observe_error(error: &BmcError) -> Observation {
    let class = match error.kind() {
        ErrorKind::WrongMachine => {
            return Observation::WrongMachine {
                message: error.to_string(),
            };
        }
        ErrorKind::CertificateChanged => {
            return Observation::CertificateChanged {
                message: error.to_string(),
            };
        }
        ErrorKind::Unreachable
        | ErrorKind::Timeout
        | ErrorKind::ConnectionLost
        | ErrorKind::NotFound
        | ErrorKind::MalformedAnswer
        | ErrorKind::TooLarge
        | ErrorKind::Redirected => FailureClass::Silent,
        ErrorKind::SessionLimit | ErrorKind::Unavailable | ErrorKind::Busy => FailureClass::Busy,
        ErrorKind::Rejected => FailureClass::Refused,
        ErrorKind::NotSupported | ErrorKind::NotLicensed => FailureClass::NotSupported,
        ErrorKind::AuthenticationFailed => FailureClass::Credentials,
        ErrorKind::TlsUntrusted => FailureClass::Untrusted,
        ErrorKind::Invalid => FailureClass::Local,
    };
    Observation::Failure(Failure {
        class,
        unknown: error.outcome_unknown(),
        message: error.to_string(),
        retry_after: error.retry_after(),
    })
}

pub(super) fn failure(class: FailureClass, unknown: bool, message: String) -> Observation {
    Observation::Failure(Failure {
        class,
        unknown,
        message,
        retry_after: None,
    })
}

fn seen(state: TaskState, message: &str) -> TaskSeen {
    TaskSeen {
        state,
        percent: None,
        message: message.into(),
        moved_to: None,
    }
}

fn task_state(progress: &TaskProgress) -> TaskState {
    match progress.outcome {
        _ if progress.gone => TaskState::Gone,
        TaskOutcome::InProgress => TaskState::Running,
        TaskOutcome::AwaitingReset => TaskState::AwaitingReset,
        TaskOutcome::Done => TaskState::Done,
        TaskOutcome::Failed => TaskState::Failed,
        TaskOutcome::Gone => TaskState::Gone,
    }
}

/// A task as the status keeps it: `Task /redfish/v1/TaskService/Tasks/12`.
fn write_task(task: &TaskRef) -> String {
    let kind = match task.kind {
        TaskKind::Task => "Task",
        TaskKind::Job => "Job",
        TaskKind::UpdateService => "UpdateService",
    };
    format!("{kind} {}", task.uri)
}

fn read_task(text: &str) -> Option<TaskRef> {
    let (kind, uri) = text.split_once(' ')?;
    let kind = match kind {
        "Task" => TaskKind::Task,
        "Job" => TaskKind::Job,
        "UpdateService" => TaskKind::UpdateService,
        _ => return None,
    };
    Some(TaskRef {
        uri: uri.into(),
        kind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_survives_its_text() {
        for kind in [TaskKind::Task, TaskKind::Job, TaskKind::UpdateService] {
            let task = TaskRef {
                uri: "/redfish/v1/TaskService/Tasks/JID 1".into(),
                kind,
            };
            assert_eq!(read_task(&write_task(&task)), Some(task));
        }
        assert_eq!(read_task("nonsense"), None);
    }

    #[test]
    fn a_broken_connection_keeps_its_doubt() {
        let error = BmcError::new(ErrorKind::ConnectionLost, "send", "reset").with_outcome_unknown(true);
        assert!(matches!(
            observe_error(&error),
            Observation::Failure(Failure { unknown: true, .. })
        ));
        let error = BmcError::new(ErrorKind::WrongMachine, "send", "another");
        assert!(matches!(observe_error(&error), Observation::WrongMachine { .. }));
    }
}
