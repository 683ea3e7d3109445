//! Conditions in the kstatus manner: `Ready`, and where it is not, `Reconciling` or `Stalled`, each with the generation
//! that it speaks of.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The longest message that a condition carries: a page of text, so that an object stays small.
const MAX_MESSAGE: usize = 1024;

/// What a condition says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It is not known yet.
    Unknown,
}

impl Truth {
    /// As Kubernetes writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// Sets one condition. Its time changes only with its truth, so that the same facts give the same status.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    truth: Truth,
    reason: &str,
    message: &str,
    generation: i64,
    now: Timestamp,
) {
    let message: String = message.chars().take(MAX_MESSAGE).collect();
    let status = truth.as_str();
    let present = conditions.iter_mut().find(|c| c.type_ == type_);
    match present {
        Some(c) => {
            if c.status != status {
                c.last_transition_time = Time(now);
            }
            c.status = status.into();
            c.reason = reason.into();
            c.message = message;
            c.observed_generation = Some(generation);
        }
        None => conditions.push(Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message,
            observed_generation: Some(generation),
            last_transition_time: Time(now),
        }),
    }
}

/// Takes one condition away: the abnormal ones (`Reconciling`, `Stalled`) are absent when all is well.
pub fn remove(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|c| c.type_ != type_);
}

/// Where an object stands, as kstatus sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// As wanted.
    Ready {
        /// CamelCase.
        reason: &'a str,
        /// A sentence.
        message: &'a str,
    },
    /// On its way, without anyone's help.
    Reconciling {
        /// CamelCase.
        reason: &'a str,
        /// A sentence.
        message: &'a str,
    },
    /// Someone must do something.
    Stalled {
        /// CamelCase.
        reason: &'a str,
        /// A sentence that says what to do.
        message: &'a str,
    },
}

/// Sets `Ready`, `Reconciling` and `Stalled` together, so that they never contradict each other.
pub fn stand(conditions: &mut Vec<Condition>, standing: &Standing<'_>, generation: i64, now: Timestamp) {
    match *standing {
        Standing::Ready { reason, message } => {
            remove(conditions, "Reconciling");
            remove(conditions, "Stalled");
            set(conditions, "Ready", Truth::True, reason, message, generation, now);
        }
        Standing::Reconciling { reason, message } => {
            remove(conditions, "Stalled");
            set(
                conditions,
                "Reconciling",
                Truth::True,
                reason,
                message,
                generation,
                now,
            );
            set(
                conditions,
                "Ready",
                Truth::False,
                reason,
                message,
                generation,
                now,
            );
        }
        Standing::Stalled { reason, message } => {
            remove(conditions, "Reconciling");
            set(
                conditions,
                "Stalled",
                Truth::True,
                reason,
                message,
                generation,
                now,
            );
            set(
                conditions,
                "Ready",
                Truth::False,
                reason,
                message,
                generation,
                now,
            );
        }
    }
}

/// Whether a condition is there and true.
#[must_use]
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    conditions.iter().any(|c| c.type_ == type_ && c.status == "True")
}

/// A condition by its type.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_changes_only_with_the_truth() {
        let (first, later) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(60).unwrap());
        let mut conditions = Vec::new();
        set(
            &mut conditions,
            "Fetched",
            Truth::False,
            "Unreachable",
            "a",
            1,
            first,
        );
        set(&mut conditions, "Fetched", Truth::False, "Timeout", "b", 2, later);
        assert_eq!(conditions[0].last_transition_time.0, first);
        assert_eq!(
            (conditions[0].reason.as_str(), conditions[0].observed_generation),
            ("Timeout", Some(2))
        );
        set(&mut conditions, "Fetched", Truth::True, "Fetched", "", 2, later);
        assert_eq!(conditions[0].last_transition_time.0, later);
    }

    #[test]
    fn ready_reconciling_and_stalled_never_contradict() {
        let mut conditions = Vec::new();
        let now = Timestamp::UNIX_EPOCH;
        let steps = [
            (
                Standing::Reconciling {
                    reason: "A",
                    message: "",
                },
                ["False", "True", ""],
            ),
            (
                Standing::Stalled {
                    reason: "B",
                    message: "",
                },
                ["False", "", "True"],
            ),
            (
                Standing::Ready {
                    reason: "C",
                    message: "",
                },
                ["True", "", ""],
            ),
        ];
        for (standing, wanted) in steps {
            stand(&mut conditions, &standing, 1, now);
            let status = |type_| find(&conditions, type_).map_or("", |c| c.status.as_str());
            assert_eq!(
                [status("Ready"), status("Reconciling"), status("Stalled")],
                wanted,
                "{standing:?}"
            );
        }
    }
}
