//! A condition of a Kubernetes object: of our kinds as the watches tell it, of others read live.

use super::Reading;
use crate::{
    context::Context,
    store::{Store, Watched},
};
use k8s_openapi::api::{apps::v1::Deployment, batch::v1::Job};
use kiban_api::gate::{ConditionGate, ConditionKind};
use serde::Serialize;
use serde_json::Value;

pub(super) async fn measure(context: &Context, gate: &ConditionGate) -> Reading {
    let stores = &context.stores;
    let object = match gate.kind {
        ConditionKind::Device => known(&stores.devices, gate),
        ConditionKind::HardwarePool => known(&stores.pools, gate),
        ConditionKind::FirmwareBaseline => known(&stores.baselines, gate),
        ConditionKind::FleetRepository => known(&stores.repositories, gate),
        ConditionKind::Rollout => known(&stores.rollouts, gate),
        ConditionKind::Deployment => live(context.api::<Deployment>().get_opt(&gate.name).await),
        ConditionKind::Job => live(context.api::<Job>().get_opt(&gate.name).await),
    };
    match object {
        Ok(Some(object)) => judge(&object, gate),
        Ok(None) => Reading::no_data(format!("there is no {} {}", gate.kind.as_str(), gate.name)),
        Err(message) => Reading::no_data(message),
    }
}

fn known<K: Watched + Serialize>(store: &Store<K>, gate: &ConditionGate) -> Result<Option<Value>, String> {
    let object = store.get(&gate.name);
    Ok(object.and_then(|object| serde_json::to_value(&*object).ok()))
}

fn live<K: Serialize>(read: Result<Option<K>, kube::Error>) -> Result<Option<Value>, String> {
    match read {
        Ok(object) => Ok(object.and_then(|object| serde_json::to_value(object).ok())),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            Err("the operator may not read it: set rbac.gates.workloads in the chart's values".to_owned())
        }
        Err(error) => Err(format!("read it: {error}")),
    }
}

fn judge(object: &Value, gate: &ConditionGate) -> Reading {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let condition = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == gate.type_.as_str());
    let Some(condition) = condition else {
        return Reading::no_data(format!("it has no condition {}", gate.type_));
    };
    // Some kinds say it per condition, some for the whole status.
    let generation = object.pointer("/metadata/generation").and_then(Value::as_i64);
    let observed = [
        condition.get("observedGeneration"),
        object.pointer("/status/observedGeneration"),
    ];
    let observed = observed.into_iter().flatten().find_map(Value::as_i64);
    if let (Some(generation), Some(observed)) = (generation, observed)
        && observed < generation
    {
        return Reading::no_data(format!(
            "its condition {} speaks of an older generation",
            gate.type_
        ));
    }
    let (kind, name, type_) = (gate.kind.as_str(), &gate.name, &gate.type_);
    let is = condition["status"].as_str().unwrap_or_default();
    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    if is == gate.status.as_str() {
        return Reading::holds(format!("{kind} {name} has {type_} {is}"));
    }
    match is {
        "True" | "False" => Reading::fails(format!("{kind} {name} has {type_} {is} ({})", text("reason"))),
        _ => Reading::no_data(format!("{kind} {name} has {type_} {is:?} ({})", text("reason"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiban_api::gate::ConditionStatus;
    use kiban_core::gate::GateState;
    use serde_json::json;

    fn state(object: &Value) -> GateState {
        let gate = ConditionGate {
            kind: ConditionKind::Deployment,
            name: "web".into(),
            type_: "Available".into(),
            status: ConditionStatus::True,
        };
        judge(object, &gate).state
    }

    fn object(generation: i64, observed: i64, status: &str) -> Value {
        json!({"metadata": {"generation": generation}, "status": {"observedGeneration": observed,
            "conditions": [{"type": "Available", "status": status, "reason": "MinimumReplicasAvailable"}]}})
    }

    #[test]
    fn only_a_condition_of_the_present_generation_counts() {
        assert_eq!(state(&object(2, 2, "True")), GateState::Holds);
        assert_eq!(state(&object(2, 2, "False")), GateState::Fails);
        for nothing in [
            object(2, 1, "True"),
            object(2, 2, "Unknown"),
            object(2, 2, ""),
            json!({}),
        ] {
            assert_eq!(state(&nothing), GateState::NoData, "{nothing}");
        }
    }
}
