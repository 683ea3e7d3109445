//! Kubernetes events: for transitions that a person would want to see, never for a success of one machine.
//!
//! Events are best effort; history is the ledger's. A failure to write one is counted, never an error of the caller.

use crate::metrics::{Metrics, Verb};
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// Most events that are on their way at once; more are dropped and counted, so that a fleet-wide fault is not made
/// worse by its own news.
const MAX_IN_FLIGHT: usize = 64;
/// The API server refuses longer notes.
const MAX_NOTE: usize = 1000;
/// No event is worth waiting longer for.
const DEADLINE: Duration = Duration::from_secs(5);

/// Writes events.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    metrics: Metrics,
    in_flight: Arc<Semaphore>,
}

impl Events {
    /// Events in the name of this replica.
    #[must_use]
    pub fn new(client: Client, identity: &str, metrics: Metrics) -> Self {
        let reporter = Reporter {
            controller: "kiban-operator".into(),
            instance: Some(identity.into()),
        };
        let in_flight = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        Self {
            recorder: Recorder::new(client, reporter),
            metrics,
            in_flight,
        }
    }

    /// Something went as wanted. `reason` in CamelCase, `note` a sentence.
    pub fn normal<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: impl Into<String>) {
        self.publish(object, EventType::Normal, reason, note.into());
    }

    /// Something that a person should look at.
    pub fn warning<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: impl Into<String>) {
        self.publish(object, EventType::Warning, reason, note.into());
    }

    fn publish<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        type_: EventType,
        reason: &str,
        mut note: String,
    ) {
        let Ok(permit) = self.in_flight.clone().try_acquire_owned() else {
            self.metrics.events_dropped.inc();
            return;
        };
        if note.len() > MAX_NOTE {
            let cut = (0..=MAX_NOTE)
                .rev()
                .find(|at| note.is_char_boundary(*at))
                .unwrap_or(0);
            note.truncate(cut);
        }
        let event = Event {
            type_,
            reason: reason.into(),
            note: Some(note),
            action: reason.into(),
            secondary: None,
        };
        let (recorder, metrics, regarding) = (
            self.recorder.clone(),
            self.metrics.clone(),
            object.object_ref(&()),
        );
        tokio::spawn(async move {
            let _permit = permit;
            metrics.api_write("Event", Verb::Create);
            match tokio::time::timeout(DEADLINE, recorder.publish(&event, &regarding)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    metrics.events_dropped.inc();
                    tracing::debug!(%error, reason = %event.reason, "could not write an event");
                }
                Err(_) => {
                    metrics.events_dropped.inc();
                }
            }
        });
    }
}
