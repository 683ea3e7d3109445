//! Releases what the ledger holds: operations are deleted, devices' transitions cleared.

use super::gather::{DeviceEntry, Round};
use crate::{context::Context, plan::notes::Note, writer::WriteError};
use futures::{StreamExt, stream};
use kiban_api::{Device, Operation, device::Transition, labels};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::sync::Arc;

/// Operations that have ended, as a field selector: `.status.outcome` is selectable.
const FINISHED_SELECTOR: &str = "status.outcome!=,status.outcome!=Pending,status.outcome!=Running";

/// Releases at once, at most: each is one or two calls to the API server.
const CONCURRENT: usize = 16;

/// Releases what a pushed round held. Returns whether something has to be released later.
pub async fn release(context: &Context, round: &Round) -> bool {
    let (told, untold): (Vec<_>, Vec<_>) = round.operations.iter().partition(|(object, record)| {
        let device = context.stores.devices.get(&object.name_any());
        is_remembered(device.as_deref(), &record.id)
    });
    let mut later = !untold.is_empty();
    let present: Vec<_> = told
        .iter()
        .filter_map(|(object, _)| present(context, object))
        .collect();
    if let Err(error) = mark(context, &present).await {
        tracing::warn!(%error, "could not delete finished operations, it is tried again");
        return true;
    }
    let calls: Vec<_> = present.iter().map(|object| operation(context, object)).collect();
    later |= stream::iter(calls)
        .buffer_unordered(CONCURRENT)
        .fold(false, |later, this| async move { later | this })
        .await;
    let calls: Vec<_> = round
        .devices
        .iter()
        .map(|(name, entry)| device(context, name, entry))
        .collect();
    let devices = stream::iter(calls)
        .buffer_unordered(CONCURRENT)
        .fold(false, |later, this| async move { later | this })
        .await;
    later | devices
}

/// The operation as it is stored now. None: it is gone, or another has its name.
fn present(context: &Context, object: &Operation) -> Option<Arc<Operation>> {
    let present = context.stores.operations.get(&object.name_any());
    present.filter(|present| present.uid() == object.uid())
}

/// Marks finished operations as on their way out. Many at once are one request: each keeps its finalizer, so one that
/// finished meanwhile and is in no ledger yet is only marked, and stays until it is.
async fn mark(context: &Context, operations: &[Arc<Operation>]) -> Result<(), WriteError> {
    let mut unmarked = operations
        .iter()
        .filter(|object| object.metadata.deletion_timestamp.is_none());
    let (first, second) = (unmarked.next(), unmarked.next());
    match (first, second) {
        (None, _) => Ok(()),
        (Some(object), None) => context.writer.delete(&**object, false).await,
        _ => context.writer.delete_where::<Operation>(FINISHED_SELECTOR).await,
    }
}

/// Whether the device's own memory holds the operation: then nothing is lost with the object. A device that is gone needs
/// none.
fn is_remembered(device: Option<&Device>, id: &str) -> bool {
    device.is_none_or(|device| {
        let last = device
            .status
            .as_ref()
            .and_then(|status| status.last_operation.as_ref());
        last.is_some_and(|last| last.id == id)
    })
}

/// Takes the finalizer away. Until then it is still there, so the device stays taken.
async fn operation(context: &Context, object: &Operation) -> bool {
    let name = object.name_any();
    let kept: Vec<_> = object
        .finalizers()
        .iter()
        .filter(|f| *f != labels::LEDGER_FINALIZER)
        .cloned()
        .collect();
    // The object itself, by its uid: another operation of the same name has nothing in the ledger yet.
    let patch = json!({ "metadata": { "uid": object.uid(), "finalizers": kept } });
    match context
        .writer
        .merge::<Operation>(labels::LEDGER_MANAGER, &name, &patch)
        .await
    {
        Ok(_) => false,
        // Gone, or another of the same name already.
        Err(error) if error.is_not_found() || error.is_conflict() => false,
        Err(error) => {
            tracing::warn!(operation = %name, %error, "could not release an operation, it is tried again");
            true
        }
    }
}

/// What is left of a device's transitions when those that the ledger holds are taken away.
fn left(present: &[Transition], held: &[Transition]) -> Vec<Transition> {
    present
        .iter()
        .filter(|transition| !held.contains(transition))
        .cloned()
        .collect()
}

/// Clears a device's transitions. What the planner has to say of the device goes with it: one write instead of two.
async fn device(context: &Context, name: &str, entry: &DeviceEntry) -> bool {
    if let Some(digest) = &entry.inventory {
        context.inventories.forget(name, digest);
    }
    if entry.transitions.is_empty() {
        return false;
    }
    const TRIES: usize = 4;
    for attempt in 1..=TRIES {
        let present = if attempt == 1 {
            context.stores.devices.get(name).map(|device| (*device).clone())
        } else {
            let read =
                tokio::time::timeout(context.config.api_deadline, context.api::<Device>().get_opt(name))
                    .await;
            read.ok().and_then(Result::ok).flatten()
        };
        let Some(present) = present.filter(|present| present.uid() == entry.object.uid()) else {
            return false;
        };
        let unledgered = present
            .status
            .as_ref()
            .map(|s| s.unledgered.as_slice())
            .unwrap_or_default();
        let left = left(unledgered, &entry.transitions);
        if left.len() == unledgered.len() {
            return false;
        }
        let note = context.notes.get(name);
        let mut status = note.as_ref().map_or_else(|| json!({}), Note::patch);
        if let Value::Object(status) = &mut status {
            status.insert("unledgered".into(), json!(left));
        }
        // The version is a precondition: the list is written as a whole, and an executor may be adding to it.
        let patch =
            json!({ "metadata": { "resourceVersion": present.resource_version() }, "status": status });
        match context
            .writer
            .merge_status::<Device>(labels::LEDGER_MANAGER, name, &patch)
            .await
        {
            Ok(_) => {
                if let Some(note) = &note {
                    context.notes.written(name, note, context.clock.elapsed());
                }
                return false;
            }
            Err(error) if error.is_not_found() => return false,
            Err(error) if error.is_conflict() && attempt < TRIES => {}
            Err(error) => {
                tracing::warn!(device = name, %error, "could not clear a device's transitions, it is tried again");
                return true;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transition(second: i64, reason: &str) -> Transition {
        let at = jiff::Timestamp::from_second(second).unwrap();
        Transition {
            at: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at),
            reason: reason.into(),
            message: String::new(),
        }
    }

    #[test]
    fn only_what_the_ledger_holds_is_cleared() {
        let held = [transition(1, "Enrolled"), transition(2, "Unreachable")];
        let present = [
            transition(1, "Enrolled"),
            transition(2, "Unreachable"),
            transition(3, "Reachable"),
        ];
        assert_eq!(left(&present, &held), [transition(3, "Reachable")]);
        assert_eq!(left(&[transition(3, "Reachable")], &held).len(), 1);
    }

    #[test]
    fn the_selector_leaves_out_every_outcome_that_is_not_final() {
        for outcome in ["", "Pending", "Running"] {
            let term = format!("status.outcome!={outcome}");
            assert!(FINISHED_SELECTOR.split(',').any(|part| part == term), "{outcome}");
        }
        assert_eq!(FINISHED_SELECTOR.split(',').count(), 3);
        assert_eq!(
            super::super::record::FINAL,
            ["Succeeded", "Failed", "Held"],
            "an outcome that is new has to be in one of the two"
        );
    }

    #[test]
    fn an_operation_is_kept_until_its_device_remembers_it() {
        let device = |last: serde_json::Value| -> Device {
            serde_json::from_value(json!({
                "apiVersion": "kiban.dev/v1alpha1", "kind": "Device", "metadata": {"name": "s1"},
                "spec": {"model": "m", "serial": "S1", "bmc": {"url": "https://x", "credentials": "c"}},
                "status": {"lastOperation": last}
            }))
            .unwrap()
        };
        let last = json!({"id": "s1-1", "campaign": "", "revision": "", "outcome": "Failed",
            "finishedAt": "2026-11-24T10:00:00Z"});
        assert!(is_remembered(Some(&device(last.clone())), "s1-1"));
        assert!(!is_remembered(Some(&device(last)), "s1-2"));
        assert!(!is_remembered(Some(&device(Value::Null)), "s1-1"));
        assert!(
            is_remembered(None, "s1-1"),
            "a device that is gone needs no memory"
        );
    }
}
