//! The world: every fact that a decision reads, in memory, as compact rows.
//!
//! ```text
//!   facts ──upsert──▶ rows (32-bit numbers for texts, one number for a whole firmware vector) ──▶ plan(&world, now)
//! ```
//!
//! - A device is one row of some 150 bytes. What thousands share (model, rack, firmware vector) is held once.
//! - References are names until a plan is made: objects may come and go in any order.
//! - Whatever order facts came in, a plan reads devices by name, so that the same facts give the same plan.

mod device;
mod firmware;
mod identity;
mod interner;
mod place;
mod reached;

use crate::facts::{
    BaselineFacts, DeviceFacts, ModelFacts, OperationFacts, Outcome, PolicyFacts, PoolFacts, RolloutFacts,
};
use crate::{approval::ApprovalFacts, gate::GateFacts};
pub use device::{Device, DeviceId};
pub(crate) use device::{DeviceRow, IdentityMatch};
pub use firmware::FirmwareSet;
pub(crate) use firmware::{FirmwareRow, FirmwareSets};
use identity::Identities;
use interner::Interner;
pub use interner::Sym;
pub use place::{DomainId, DomainName};
pub(crate) use place::{PlaceId, Places};
use reached::Reached;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A pool, with its name as a number and the names that it gives resolved into numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PoolRow {
    pub(crate) name: Sym,
    pub(crate) facts: PoolFacts,
    pub(crate) service: Sym,
    pub(crate) baselines: Vec<Sym>,
}

/// A baseline, with what is compared often resolved into numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BaselineRow {
    pub(crate) name: Sym,
    pub(crate) facts: BaselineFacts,
    pub(crate) models: Vec<Sym>,
    /// Wanted versions, by index of the component.
    pub(crate) versions: Vec<Sym>,
    /// Digest of the components, hex.
    pub(crate) digest: String,
}

/// An operation as the planner counts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OperationRow {
    pub(crate) facts: OperationFacts,
    pub(crate) pool: Sym,
    pub(crate) revision: Sym,
}

/// What is known, for one fleet.
#[derive(Debug, Default)]
pub struct World {
    interner: Interner,
    firmware: FirmwareSets,
    places: Places,
    reached: Reached,
    identities: Identities,
    rows: Vec<Option<DeviceRow>>,
    free: Vec<u32>,
    names: BTreeMap<Arc<str>, DeviceId>,
    models: BTreeMap<String, (Sym, ModelFacts)>,
    pools: BTreeMap<String, PoolRow>,
    baselines: BTreeMap<String, BaselineRow>,
    rollouts: BTreeMap<String, RolloutFacts>,
    operations: BTreeMap<String, OperationRow>,
    /// Operations that were seen to end and then to vanish, while the device's fact still tells of the time before:
    /// two watches do not agree on an order. Until the device catches up it is not touched.
    echoes: BTreeMap<String, OperationRow>,
    policy: PolicyFacts,
    /// What was measured of gates, by pool and gate.
    gates: BTreeMap<(String, String), GateFacts>,
    approvals: BTreeMap<String, ApprovalFacts>,
}

impl World {
    /// A world in which nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in what a device says now. Returns whether anything that a decision reads has changed.
    pub fn upsert_device(&mut self, facts: &DeviceFacts) -> bool {
        let mut row = DeviceRow::new(facts, &mut self.interner, &mut self.firmware, &mut self.places);
        row.operation = self.operations.contains_key(&facts.name);
        if let Some(echo) = self.echoes.get(&facts.name)
            && facts
                .last_operation
                .as_ref()
                .is_some_and(|last| last.id == echo.facts.id)
        {
            self.echoes.remove(&facts.name);
        }
        row.echo = self.echoes.contains_key(&facts.name);
        self.reached.add(&self.places, &row);
        if let Some(&id) = self.names.get(facts.name.as_str()) {
            let Some(slot) = self.rows.get_mut(id.index()) else {
                return false;
            };
            if let Some(old) = slot.take() {
                row.name = Arc::clone(&old.name);
                self.firmware.release(old.firmware);
                self.reached.remove(&self.places, &old);
                let changed = old != row;
                if old.keys != row.keys {
                    self.identities.remove(id, old.keys);
                    self.identities.insert(id, row.keys);
                }
                *slot = Some(row);
                return changed;
            }
            *slot = Some(row);
            return true;
        }
        let id = match self.free.pop() {
            Some(at) => DeviceId(at),
            None => {
                self.rows.push(None);
                DeviceId(u32::try_from(self.rows.len() - 1).unwrap_or(u32::MAX))
            }
        };
        self.names.insert(Arc::clone(&row.name), id);
        self.identities.insert(id, row.keys);
        if let Some(slot) = self.rows.get_mut(id.index()) {
            *slot = Some(row);
        }
        true
    }

    /// Forgets a device. Its operation, if one is under way, goes on counting.
    pub fn remove_device(&mut self, name: &str) -> bool {
        let Some(id) = self.names.remove(name) else {
            return false;
        };
        self.echoes.remove(name);
        if let Some(old) = self.rows.get_mut(id.index()).and_then(Option::take) {
            self.firmware.release(old.firmware);
            self.reached.remove(&self.places, &old);
            self.identities.remove(id, old.keys);
        }
        self.free.push(id.0);
        true
    }

    /// Takes in what a model says now.
    pub fn upsert_model(&mut self, facts: ModelFacts) -> bool {
        let sym = self.interner.intern(&facts.name);
        let entry = (sym, facts);
        let old = self.models.insert(entry.1.name.clone(), entry.clone());
        old != Some(entry)
    }

    /// Forgets a model.
    pub fn remove_model(&mut self, name: &str) -> bool {
        self.models.remove(name).is_some()
    }

    /// Takes in what a pool says now.
    pub fn upsert_pool(&mut self, facts: PoolFacts) -> bool {
        for gate in &facts.gates {
            self.interner.intern(&gate.name);
        }
        let row = PoolRow {
            name: self.interner.intern(&facts.name),
            service: self.interner.intern(&facts.service),
            baselines: facts
                .baselines
                .iter()
                .map(|name| self.interner.intern(name))
                .collect(),
            facts,
        };
        let old = self.pools.insert(row.facts.name.clone(), row.clone());
        old != Some(row)
    }

    /// Takes in what an approval says.
    pub fn upsert_approval(&mut self, facts: ApprovalFacts) -> bool {
        let old = self.approvals.insert(facts.name.clone(), facts.clone());
        old != Some(facts)
    }

    /// Forgets an approval: it was taken back.
    pub fn remove_approval(&mut self, name: &str) -> bool {
        self.approvals.remove(name).is_some()
    }

    /// Every approval, by name.
    pub fn approvals(&self) -> impl Iterator<Item = &ApprovalFacts> {
        self.approvals.values()
    }

    /// Takes in what was measured of all gates: what is not there is not known any more.
    pub fn set_gates(&mut self, gates: impl IntoIterator<Item = GateFacts>) {
        self.gates = gates
            .into_iter()
            .map(|facts| ((facts.pool.clone(), facts.name.clone()), facts))
            .collect();
    }

    /// Takes the gates for what the rollouts' statuses say of them, as of `now`: for a reader that cannot measure.
    pub fn believe_gates(&mut self, now: jiff::Timestamp) {
        let standing = self.rollouts.values().flat_map(|rollout| {
            let gates = rollout.status.iter().flat_map(|status| &status.gates);
            gates.map(|gate| GateFacts {
                pool: rollout.pool.clone(),
                name: gate.name.clone(),
                state: gate.state,
                measured_at: now,
                message: gate.message.clone(),
            })
        });
        let standing: Vec<GateFacts> = standing.collect();
        self.set_gates(standing);
    }

    /// What was measured of a gate.
    #[must_use]
    pub fn gate(&self, pool: &str, gate: &str) -> Option<&GateFacts> {
        // Few pools have gates, and few gates: no key is made for a look.
        self.gates
            .values()
            .find(|facts| facts.pool == pool && facts.name == gate)
    }

    /// Forgets a pool.
    pub fn remove_pool(&mut self, name: &str) -> bool {
        self.pools.remove(name).is_some()
    }

    /// Takes in what a baseline says now.
    pub fn upsert_baseline(&mut self, facts: BaselineFacts) -> bool {
        let row = BaselineRow {
            name: self.interner.intern(&facts.name),
            models: facts
                .models
                .iter()
                .map(|name| self.interner.intern(name))
                .collect(),
            versions: facts
                .components
                .iter()
                .map(|wanted| self.interner.intern(wanted.version.trim()))
                .collect(),
            digest: crate::revision::of_components(&facts.components),
            facts,
        };
        let old = self.baselines.insert(row.facts.name.clone(), row.clone());
        old != Some(row)
    }

    /// Forgets a baseline.
    pub fn remove_baseline(&mut self, name: &str) -> bool {
        self.baselines.remove(name).is_some()
    }

    /// Takes in what the fleet's policy says now.
    pub fn upsert_policy(&mut self, facts: PolicyFacts) -> bool {
        let changed = self.policy != facts;
        self.policy = facts;
        changed
    }

    /// Forgets the fleet's policy: the defaults hold.
    pub fn remove_policy(&mut self) -> bool {
        self.upsert_policy(PolicyFacts::default())
    }

    /// Takes in what a rollout says now.
    pub fn upsert_rollout(&mut self, facts: RolloutFacts) -> bool {
        if self.rollouts.get(&facts.name) == Some(&facts) {
            return false;
        }
        self.rollouts.insert(facts.name.clone(), facts);
        true
    }

    /// Forgets a rollout.
    pub fn remove_rollout(&mut self, name: &str) -> bool {
        self.rollouts.remove(name).is_some()
    }

    /// Takes in what an operation says now. The shell also calls it with what it has just created, so that the next
    /// plan counts it whether or not the watch has told yet.
    pub fn upsert_operation(&mut self, facts: OperationFacts) -> bool {
        let row = OperationRow {
            pool: self.interner.intern(&facts.pool),
            revision: self.interner.intern(&facts.revision),
            facts,
        };
        let name = row.facts.device.clone();
        if self.operations.get(&name) == Some(&row) {
            return false;
        }
        self.echoes.remove(&name);
        self.mark(&name, true, false);
        self.operations.insert(name, row);
        true
    }

    /// Forgets the operation on a device. When it had ended and the device's fact does not tell of it yet, the device
    /// is left alone until it does.
    pub fn remove_operation(&mut self, device: &str) -> bool {
        let Some(row) = self.operations.remove(device) else {
            return false;
        };
        let known = self.row(device).is_none_or(|have| {
            have.last
                .is_some_and(|last| last.id == interner::hash(&row.facts.id))
        });
        let echo = row.facts.outcome.is_final() && !known;
        if echo {
            self.echoes.insert(device.to_owned(), row);
        }
        self.mark(device, false, echo);
        true
    }

    /// The text of a number that this world gave.
    #[must_use]
    pub fn text(&self, sym: Sym) -> &str {
        self.interner.text(sym)
    }

    /// The name of a device; empty once it is gone.
    #[must_use]
    pub fn name(&self, id: DeviceId) -> &str {
        self.device_row(id).map_or("", |row| &row.name)
    }

    /// A failure domain, for people.
    #[must_use]
    pub fn domain(&self, id: DomainId) -> DomainName<'_> {
        self.places.name(id, &self.interner)
    }

    /// A device by name.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<Device<'_>> {
        let id = self.id(name)?;
        Some(Device::new(id, self.device_row(id)?, self))
    }

    /// The number of a device; it stays the same as long as the device is there.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<DeviceId> {
        self.names.get(name).copied()
    }

    /// Every device, by name.
    pub fn devices(&self) -> impl Iterator<Item = Device<'_>> {
        self.names
            .values()
            .filter_map(|&id| self.device_row(id).map(|row| Device::new(id, row, self)))
    }

    /// How many devices there are.
    #[must_use]
    pub fn device_count(&self) -> usize {
        self.names.len()
    }

    /// How many distinct firmware vectors they run.
    #[must_use]
    pub fn firmware_set_count(&self) -> usize {
        self.firmware.len()
    }

    /// The model of a name.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&ModelFacts> {
        self.models.get(name).map(|(_, facts)| facts)
    }

    /// The pool of a name.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&PoolFacts> {
        self.pools.get(name).map(|row| &row.facts)
    }

    /// Every pool, by name.
    pub fn pools(&self) -> impl Iterator<Item = &PoolFacts> {
        self.pools.values().map(|row| &row.facts)
    }

    /// The baseline of a name.
    #[must_use]
    pub fn baseline(&self, name: &str) -> Option<&BaselineFacts> {
        self.baselines.get(name).map(|row| &row.facts)
    }

    /// Every baseline, by name.
    pub fn baselines(&self) -> impl Iterator<Item = &BaselineFacts> {
        self.baselines.values().map(|row| &row.facts)
    }

    /// The fleet's policy, or the defaults.
    #[must_use]
    pub fn policy(&self) -> &PolicyFacts {
        &self.policy
    }

    /// The rollout of a name.
    #[must_use]
    pub fn rollout(&self, name: &str) -> Option<&RolloutFacts> {
        self.rollouts.get(name)
    }

    /// Every rollout, by name.
    pub fn rollouts(&self) -> impl Iterator<Item = &RolloutFacts> {
        self.rollouts.values()
    }

    /// The operation on a device.
    #[must_use]
    pub fn operation(&self, device: &str) -> Option<&OperationFacts> {
        self.operations.get(device).map(|row| &row.facts)
    }

    /// Every operation, by device.
    pub fn operations(&self) -> impl Iterator<Item = &OperationFacts> {
        self.operations.values().map(|row| &row.facts)
    }

    fn mark(&mut self, device: &str, operation: bool, echo: bool) {
        if let Some(row) = self
            .id(device)
            .and_then(|id| self.rows.get_mut(id.index()))
            .and_then(Option::as_mut)
        {
            row.operation = operation;
            row.echo = echo;
        }
    }

    fn row(&self, name: &str) -> Option<&DeviceRow> {
        self.id(name).and_then(|id| self.device_row(id))
    }
}

/// What the planner reads.
impl World {
    pub(crate) fn device_row(&self, id: DeviceId) -> Option<&DeviceRow> {
        self.rows.get(id.index()).and_then(Option::as_ref)
    }

    /// Devices by name, as numbers.
    pub(crate) fn ids(&self) -> impl Iterator<Item = DeviceId> {
        self.names.values().copied()
    }

    /// One more than the highest device number.
    pub(crate) fn slots(&self) -> usize {
        self.rows.len()
    }

    /// One more than the highest text number.
    pub(crate) fn texts(&self) -> usize {
        self.interner.len()
    }

    pub(crate) fn sym(&self, text: &str) -> Option<Sym> {
        self.interner.find(text)
    }

    pub(crate) fn firmware_rows(&self, set: FirmwareSet) -> Option<&[FirmwareRow]> {
        self.firmware.rows(set)
    }

    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// Rooms and sites that are dark, as the policy has it.
    pub(crate) fn dark(&self) -> Vec<DomainId> {
        self.reached.dark(&self.places, self.policy.dark)
    }

    pub(crate) fn model_rows(&self) -> impl Iterator<Item = &(Sym, ModelFacts)> {
        self.models.values()
    }

    pub(crate) fn pool_rows(&self) -> impl Iterator<Item = &PoolRow> {
        self.pools.values()
    }

    pub(crate) fn baseline_rows(&self) -> impl Iterator<Item = &BaselineRow> {
        self.baselines.values()
    }

    pub(crate) fn operation_rows(&self) -> impl Iterator<Item = (&str, &OperationRow)> {
        self.operations.iter().map(|(name, row)| (name.as_str(), row))
    }

    pub(crate) fn operation_row(&self, device: &str) -> Option<&OperationRow> {
        self.operations.get(device)
    }

    /// The ended operation that a device's fact has yet to tell of.
    pub(crate) fn echo(&self, device: &str) -> Option<&OperationRow> {
        self.echoes.get(device)
    }

    pub(crate) fn shared_identities(&self) -> impl Iterator<Item = (identity::Key, Vec<DeviceId>)> {
        self.identities.shared()
    }
}

/// Whether an outcome counts as a failure of its revision: a held device has failed too.
pub(crate) fn is_failure(outcome: Outcome) -> bool {
    outcome != Outcome::Succeeded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        component::ComponentClass,
        facts::{FirmwareFacts, LastOperationFacts},
    };

    fn device(name: &str) -> DeviceFacts {
        DeviceFacts {
            name: name.into(),
            serial: name.into(),
            firmware: Some(vec![FirmwareFacts::new(ComponentClass::Bmc, "BMC", "1")]),
            ..DeviceFacts::default()
        }
    }

    fn operation(outcome: Outcome) -> OperationFacts {
        OperationFacts {
            device: "d1".into(),
            id: "op-1".into(),
            outcome,
            ..OperationFacts::default()
        }
    }

    #[test]
    fn only_a_change_is_a_change() {
        let mut world = World::new();
        assert!(world.upsert_device(&device("d1")));
        assert!(!world.upsert_device(&device("d1")));
        let mut moved = device("d1");
        moved.rack = "b07".into();
        assert!(world.upsert_device(&moved));
        assert!(world.upsert_operation(operation(Outcome::Pending)));
        assert!(!world.upsert_operation(operation(Outcome::Pending)));
        assert!(
            !world.upsert_device(&moved),
            "an operation on it is no change of the device"
        );
        assert!(world.remove_device("d1") && !world.remove_device("d1"));
        assert_eq!((world.device_count(), world.firmware_set_count()), (0, 0));
    }

    #[test]
    fn numbers_of_devices_that_left_are_used_again() {
        let mut world = World::new();
        world.upsert_device(&device("d1"));
        world.upsert_device(&device("d2"));
        let first = world.id("d1");
        world.remove_device("d1");
        world.upsert_device(&device("d0"));
        assert_eq!(world.id("d0"), first);
        let names: Vec<&str> = world.devices().map(Device::name).collect();
        assert_eq!(names, ["d0", "d2"]);
        assert_eq!(world.slots(), 2);
    }

    #[test]
    fn an_ended_operation_is_remembered_until_the_device_tells_of_it() {
        let mut world = World::new();
        world.upsert_device(&device("d1"));
        world.upsert_operation(operation(Outcome::Succeeded));
        world.remove_operation("d1");
        assert!(world.echo("d1").is_some());
        world.upsert_device(&device("d1"));
        assert!(world.echo("d1").is_some(), "an older fact does not clear it");
        let told = DeviceFacts {
            last_operation: Some(LastOperationFacts {
                id: "op-1".into(),
                revision: "r".into(),
                outcome: Outcome::Succeeded,
                finished_at: jiff::Timestamp::UNIX_EPOCH,
            }),
            ..device("d1")
        };
        world.upsert_device(&told);
        assert!(world.echo("d1").is_none());
        world.upsert_operation(operation(Outcome::Succeeded));
        world.remove_operation("d1");
        assert!(world.echo("d1").is_none(), "the device had told already");
        world.upsert_operation(operation(Outcome::Pending));
        world.remove_operation("d1");
        assert!(world.echo("d1").is_none(), "it never ran");
    }
}
