//! Resets: of the host, of the BMC, and of the power itself.

use super::{
    Redfish,
    json::{Findings, at, link_at, list_at},
};
use crate::port::{BmcError, BmcResult, ErrorKind, HostReset, PowerState, Vendor};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

/// How often the power state is read while waiting for off.
const OFF_POLLS: u32 = 60;

/// What to say where no request removes the input power.
const NEEDS_HANDS: &str = "this BMC offers nothing that removes the input power; a person must: switch the machine's PDU \
                           outlets off, or pull every power cable, wait a minute, and restore the power";

/// An action that a resource offers.
pub(crate) struct Action {
    pub(crate) target: String,
    /// What it says may be asked. Empty: it does not say.
    pub(crate) allowed: Vec<String>,
}

impl Redfish {
    /// Finds an action of a resource, and what values of a parameter it allows, from beside it or from its ActionInfo.
    pub(crate) async fn action(&self, resource: &Value, names: &[&str], parameter: &str) -> Option<Action> {
        let action = at(resource, names)?;
        let target = self.resource(action.get("target")?.as_str()?, "").ok()?;
        let words = |list: &[Value]| {
            list.iter()
                .take(64)
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let mut allowed = words(list_at(
            action,
            &[&format!("{parameter}@Redfish.AllowableValues")],
        ));
        let info = action
            .get("@Redfish.ActionInfo")
            .and_then(Value::as_str)
            .and_then(|link| self.resource(link, "").ok());
        if let (true, Some(info)) = (allowed.is_empty(), info)
            && let Ok(info) = self.get(&info, "read what the action takes").await
        {
            let of_parameter = list_at(&info, &["Parameters"])
                .iter()
                .find(|item| item.get("Name").and_then(Value::as_str) == Some(parameter));
            allowed = of_parameter
                .map(|item| words(list_at(item, &["AllowableValues"])))
                .unwrap_or_default();
        }
        Some(Action { target, allowed })
    }

    pub(crate) async fn host_reset_action(&self, system: &Value) -> Option<Action> {
        self.action(system, &["Actions", "#ComputerSystem.Reset"], "ResetType")
            .await
    }

    pub(crate) async fn do_reset_host(&self, kind: HostReset) -> BmcResult<()> {
        let doing = format!("reset the host ({})", kind.as_str());
        let _permit = self.begin_change(&doing).await?;
        let (_, system) = self.system().await?;
        let Some(action) = self.host_reset_action(&system).await else {
            return Err(BmcError::new(
                ErrorKind::NotSupported,
                &doing,
                "the system offers no reset",
            ));
        };
        let takes = |kind: HostReset| {
            action.allowed.is_empty() || action.allowed.iter().any(|word| word == kind.as_str())
        };
        if kind == HostReset::ColdBoot {
            if !takes(HostReset::ForceOff) || !takes(HostReset::On) {
                let detail = format!("the system takes only {}", action.allowed.join(", "));
                return Err(BmcError::new(ErrorKind::NotSupported, &doing, detail));
            }
            // A host that is off has had its pause.
            if super::inventory::power_of(&system) == PowerState::Off {
                self.change(Method::POST, &action.target, json!({"ResetType": "On"}), &doing)
                    .await?;
                return Ok(());
            }
            return self.off_and_on(&action.target, &doing).await;
        }
        // ForceRestart hangs some Lenovos (SR675 V3) and cuts the power of DPUs on others (SR650 V4): off, wait, on.
        if kind == HostReset::ForceRestart
            && self.vendor == Vendor::Lenovo
            && takes(HostReset::ForceOff)
            && takes(HostReset::On)
        {
            return self.off_and_on(&action.target, &doing).await;
        }
        let word = match kind {
            kind if takes(kind) => kind,
            HostReset::ForceRestart if takes(HostReset::PowerCycle) => HostReset::PowerCycle,
            HostReset::PowerCycle if takes(HostReset::ForceRestart) => HostReset::ForceRestart,
            _ => {
                let detail = format!("the system takes only {}", action.allowed.join(", "));
                return Err(BmcError::new(ErrorKind::NotSupported, &doing, detail));
            }
        };
        self.change(
            Method::POST,
            &action.target,
            json!({"ResetType": word.as_str()}),
            &doing,
        )
        .await?;
        Ok(())
    }

    async fn off_and_on(&self, target: &str, doing: &str) -> BmcResult<()> {
        self.change(Method::POST, target, json!({"ResetType": "ForceOff"}), doing)
            .await?;
        // From here on it is half done: whatever fails, the host may be off.
        let half = |error: BmcError| error.with_outcome_unknown(true);
        let pause = self.limits().poll.min(Duration::from_secs(2));
        let mut off = false;
        for _ in 0..OFF_POLLS {
            let (_, system) = self.system().await.map_err(half)?;
            if super::inventory::power_of(&system) == PowerState::Off {
                off = true;
                break;
            }
            tokio::time::sleep(pause).await;
        }
        if !off {
            return Err(half(BmcError::new(
                ErrorKind::Timeout,
                doing,
                "the host does not turn off",
            )));
        }
        tokio::time::sleep(self.limits().off_time).await;
        self.change(Method::POST, target, json!({"ResetType": "On"}), doing)
            .await
            .map_err(half)?;
        Ok(())
    }

    pub(crate) async fn do_reset_bmc(&self) -> BmcResult<()> {
        let doing = "reset the BMC";
        let _permit = self.begin_change(doing).await?;
        let (_, manager) = self.manager().await?;
        let Some(action) = self
            .action(&manager, &["Actions", "#Manager.Reset"], "ResetType")
            .await
        else {
            return Err(BmcError::new(
                ErrorKind::NotSupported,
                doing,
                "the manager offers no reset",
            ));
        };
        let word = ["GracefulRestart", "ForceRestart"]
            .into_iter()
            .find(|word| action.allowed.is_empty() || action.allowed.iter().any(|allowed| allowed == word))
            .ok_or_else(|| BmcError::new(ErrorKind::NotSupported, doing, "the manager takes no restart"))?;
        self.change(Method::POST, &action.target, json!({"ResetType": word}), doing)
            .await?;
        Ok(())
    }

    pub(crate) async fn do_ac_cycle(&self) -> BmcResult<()> {
        let doing = "cycle the input power";
        let _permit = self.begin_change(doing).await?;
        let (_, system) = self.system().await?;
        match self.ac_action(&system).await? {
            Some((target, body)) => self.change(Method::POST, &target, body, doing).await.map(|_| ()),
            None => Err(BmcError::new(ErrorKind::NotSupported, doing, NEEDS_HANDS)),
        }
    }

    /// The action that removes the input power, and its body: each maker has its own, the standard's name is young.
    pub(crate) async fn ac_action(&self, system: &Value) -> BmcResult<Option<(String, Value)>> {
        if let Some(action) = self.host_reset_action(system).await
            && action.allowed.iter().any(|word| word == "FullPowerCycle")
        {
            return Ok(Some((action.target, json!({"ResetType": "FullPowerCycle"}))));
        }
        // HPE, Lenovo, Supermicro: an action of the system's Oem part, under Actions or beside it.
        let mut holders = vec![vec!["Actions", "Oem"]];
        let oem = at(system, &["Oem"]).and_then(Value::as_object);
        holders.extend(
            oem.into_iter()
                .flat_map(|oem| oem.keys().take(4))
                .map(|vendor| vec!["Oem", vendor.as_str(), "Actions"]),
        );
        for holder in holders {
            let Some(actions) = at(system, &holder).and_then(Value::as_object) else {
                continue;
            };
            let resets = actions.keys().filter(|name| name.ends_with("Reset"));
            for name in resets.take(8) {
                let mut path = holder.clone();
                path.push(name);
                let Some(action) = self.action(system, &path, "ResetType").await else {
                    continue;
                };
                let silent = action.allowed.is_empty();
                let word = ["AuxCycle", "ACPowerCycle", "ACCycle", "FullPowerCycle"]
                    .into_iter()
                    .find(|word| action.allowed.iter().any(|allowed| allowed == word))
                    // Supermicro's older firmware names the action and not what it takes.
                    .or((silent && name == "#OemSystemExtensions.Reset").then_some("ACCycle"));
                if let Some(word) = word {
                    return Ok(Some((action.target, json!({"ResetType": word}))));
                }
            }
        }
        let doing = "read the chassis";
        let Some(path) = link_at(&self.root, &["Chassis"]).and_then(|link| self.resource(link, doing).ok())
        else {
            return Ok(None);
        };
        for member in self
            .members(&path, &mut Findings::default(), doing)
            .await?
            .into_iter()
            .take(4)
        {
            let chassis = self.get(&member.path, doing).await?;
            let dell = ["Actions", "Oem", "#DellOemChassis.ExtendedReset"];
            if let Some(action) = self.action(&chassis, &dell, "ResetType").await {
                return Ok(Some((
                    action.target,
                    json!({"ResetType": "PowerCycle", "FinalPowerState": "On"}),
                )));
            }
            if let Some(action) = self
                .action(&chassis, &["Actions", "#Chassis.Reset"], "ResetType")
                .await
            {
                let word = ["FullPowerCycle", "PowerCycle"]
                    .into_iter()
                    .find(|word| action.allowed.iter().any(|allowed| allowed == word));
                if let Some(word) = word {
                    return Ok(Some((action.target, json!({"ResetType": word}))));
                }
            }
        }
        Ok(None)
    }
}
