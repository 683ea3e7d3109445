//! Releases what the ledger holds: operations are deleted, devices' transitions cleared.

use super::gather::{DeviceEntry, Round};
use crate::{context::Context, plan::notes::Notes, writer::WriteError};
use futures::{StreamExt, stream};
use kiban_api::{Device, Operation, device::Transition, labels};
use kube::ResourceExt;
use serde_json::{Value, json};

/// Releases at once, at most: each is one or two calls to the API server.
const CONCURRENT: usize = 16;

/// Releases what a pushed round held. Returns whether something has to be released later.
pub async fn release(context: &Context, round: &Round, notes: &Notes) -> bool {
    let calls: Vec<_> = round
        .operations
        .iter()
        .map(|(object, record)| operation(context, object, &record.id))
        .collect();
    let operations = stream::iter(calls)
        .buffer_unordered(CONCURRENT)
        .fold(false, |later, this| async move { later | this })
        .await;
    let calls: Vec<_> = round
        .devices
        .iter()
        .map(|(name, entry)| device(context, name, entry, notes))
        .collect();
    let devices = stream::iter(calls)
        .buffer_unordered(CONCURRENT)
        .fold(false, |later, this| async move { later | this })
        .await;
    operations | devices
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

async fn operation(context: &Context, object: &Operation, id: &str) -> bool {
    let name = object.name_any();
    if !is_remembered(context.stores.devices.get(&name).as_deref(), id) {
        return true;
    }
    match delete(context, object).await {
        Ok(()) => false,
        Err(error) => {
            tracing::warn!(operation = %name, %error, "could not release an operation, it is tried again");
            true
        }
    }
}

/// Deletes it, then takes the finalizer away. Between the two it is still there, so the device stays taken.
async fn delete(context: &Context, object: &Operation) -> Result<(), WriteError> {
    if object.metadata.deletion_timestamp.is_none() {
        context.writer.delete(object, false).await?;
    }
    let name = object.name_any();
    // The object itself, by its uid: another operation of the same name has nothing in the ledger yet.
    let present = context.stores.operations.get(&name);
    let present = present
        .as_deref()
        .filter(|present| present.uid() == object.uid())
        .unwrap_or(object);
    let kept: Vec<_> = present
        .finalizers()
        .iter()
        .filter(|f| *f != labels::LEDGER_FINALIZER)
        .cloned()
        .collect();
    let patch = json!({ "metadata": { "uid": object.uid(), "finalizers": kept } });
    match context
        .writer
        .merge::<Operation>(labels::LEDGER_MANAGER, &name, &patch)
        .await
    {
        Ok(_) => Ok(()),
        // Gone, or another of the same name already.
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        Err(error) => Err(error),
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
async fn device(context: &Context, name: &str, entry: &DeviceEntry, notes: &Notes) -> bool {
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
        let mut status = notes.patch(name).unwrap_or_else(|| json!({}));
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
                notes.written(name);
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
