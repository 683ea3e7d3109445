//! What a fleet consists of, as a file or as values.

use crate::{
    image::glob,
    model::{self, Activation, Class, Model, Persona},
};
use serde::{Deserialize, Serialize};
use std::{collections::HashSet, net::SocketAddr, sync::Arc};

/// A fleet: its machines, and models beyond the built-in ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FleetSpec {
    /// Models made from a built-in one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelSpec>,
    /// The machines.
    pub machines: Vec<MachineSpec>,
}

/// A model that is a built-in one with differences.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelSpec {
    /// The product name.
    pub name: String,
    /// Whose behaviour and components it starts from.
    pub persona: Persona,
    /// What differs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<ComponentSpec>,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MachineSpec {
    /// Its name in the fleet, in the record and in fault rules.
    pub name: String,
    /// Its BMC's behaviour; the model's if only that is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persona: Option<Persona>,
    /// Its model; the persona's built-in one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Its serial number; made from the name if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Its UUID; made from the name if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<uuid::Uuid>,
    /// Where its BMC listens; chosen by the options if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Whether the host is off at the start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub off: bool,
    /// Firmware that differs from the model's. A custom activation needs a `ModelSpec`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<ComponentSpec>,
    /// Durations that differ from the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
}

/// How some components differ. Without `id` it is meant for every component of the class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ComponentSpec {
    /// The class.
    pub class: Class,
    /// One component's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The version that runs at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The oldest version that the BMC accepts (models only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lowest: Option<String>,
    /// What makes a new version run (models only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// The maker (models only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// The product name (models only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// Whether the BMC can update it (models only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updateable: Option<bool>,
}

/// How long things take, in virtual seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Timing {
    /// Checking an image after it arrived.
    pub verify: f64,
    /// Writing the BMC's flash.
    pub flash_bmc: f64,
    /// Writing the BIOS.
    pub flash_bios: f64,
    /// Writing any other component.
    pub flash_other: f64,
    /// From the end of a BMC's flash to its own reset.
    pub self_reset_delay: f64,
    /// How long a restarting BMC refuses connections.
    pub bmc_dark: f64,
    /// How long it then answers 503.
    pub bmc_starting: f64,
    /// From power on to a running operating system.
    pub host_boot: f64,
    /// From a graceful request to power off.
    pub graceful: f64,
    /// From a forced request to power off.
    pub power: f64,
    /// How long the mains stay off in an AC cycle.
    pub ac_off: f64,
    /// How long after its success a task is purged, where the vendor purges.
    pub task_purge: f64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            verify: 10.0,
            flash_bmc: 120.0,
            flash_bios: 90.0,
            flash_other: 60.0,
            self_reset_delay: 5.0,
            bmc_dark: 55.0,
            bmc_starting: 35.0,
            host_boot: 120.0,
            graceful: 25.0,
            power: 5.0,
            ac_off: 20.0,
            task_purge: 60.0,
        }
    }
}

/// Why a spec is no fleet.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The file is not YAML of this shape.
    #[error("parse the fleet's spec")]
    Yaml(#[source] Box<serde_saphyr::Error>),
    /// A name is used twice.
    #[error("two machines are named {0}")]
    Twice(String),
    /// A model is neither built in nor in the spec.
    #[error("machine {machine} is of model {model:?}, which is neither built in nor in the spec")]
    Model {
        /// The machine.
        machine: String,
        /// The unknown model.
        model: String,
    },
    /// A component matches nothing in the model.
    #[error("{owner} changes a {class} component{} that the model does not have", .id.as_ref().map(|i| format!(" {i}")).unwrap_or_default())]
    Component {
        /// The machine or model.
        owner: String,
        /// The class asked for.
        class: Class,
        /// The id asked for.
        id: Option<String>,
    },
    /// Neither a persona nor a model.
    #[error("machine {0} needs a persona or a model")]
    Neither(String),
}

impl FleetSpec {
    /// Reads a spec from YAML.
    pub fn from_yaml(text: &str) -> Result<Self, SpecError> {
        serde_saphyr::from_str(text).map_err(|e| SpecError::Yaml(Box::new(e)))
    }

    /// A fleet of `count` machines that takes the personas in turn, named `<persona>-0001` and so on.
    pub fn generate(count: usize, personas: &[Persona]) -> Self {
        let personas = if personas.is_empty() {
            &Persona::ALL[..]
        } else {
            personas
        };
        let mut numbers = [0_usize; Persona::ALL.len()];
        let machines = (0..count)
            .map(|i| {
                let persona = personas[i % personas.len()];
                numbers[persona as usize] += 1;
                MachineSpec::new(
                    format!("{}-{:04}", persona.name(), numbers[persona as usize]),
                    persona,
                )
            })
            .collect();
        Self {
            models: Vec::new(),
            machines,
        }
    }

    /// The models by name, checked.
    pub(crate) fn models(&self) -> Result<Vec<Arc<Model>>, SpecError> {
        let mut models: Vec<Arc<Model>> = Persona::ALL
            .into_iter()
            .map(|p| Arc::new(model::built_in(p)))
            .collect();
        for spec in &self.models {
            let mut model = model::built_in(spec.persona);
            model.name.clone_from(&spec.name);
            for change in &spec.components {
                let hits = change.hits(&model, &format!("model {}", spec.name))?;
                for i in hits {
                    change.apply(&mut model.components[i]);
                }
            }
            models.retain(|m| m.name != spec.name);
            models.push(Arc::new(model));
        }
        Ok(models)
    }

    pub(crate) fn check_names(&self) -> Result<(), SpecError> {
        let mut seen = HashSet::new();
        for machine in &self.machines {
            if !seen.insert(machine.name.as_str()) {
                return Err(SpecError::Twice(machine.name.clone()));
            }
        }
        Ok(())
    }
}

impl MachineSpec {
    /// A machine of the persona's built-in model.
    pub fn new(name: impl Into<String>, persona: Persona) -> Self {
        Self {
            name: name.into(),
            persona: Some(persona),
            model: None,
            serial: None,
            uuid: None,
            address: None,
            off: false,
            components: Vec::new(),
            timing: None,
        }
    }

    /// The same machine with another version in every component of a class.
    #[must_use]
    pub fn with_version(mut self, class: Class, version: impl Into<String>) -> Self {
        self.components.push(ComponentSpec::version(class, version));
        self
    }

    pub(crate) fn find_model(&self, models: &[Arc<Model>]) -> Result<Arc<Model>, SpecError> {
        let found = match (&self.model, self.persona) {
            (Some(name), persona) => models
                .iter()
                .find(|m| m.name.eq_ignore_ascii_case(name) && persona.is_none_or(|p| p == m.persona))
                .ok_or_else(|| SpecError::Model {
                    machine: self.name.clone(),
                    model: name.clone(),
                })?,
            (None, Some(persona)) => models
                .iter()
                .find(|m| m.persona == persona)
                .ok_or_else(|| SpecError::Neither(self.name.clone()))?,
            (None, None) => return Err(SpecError::Neither(self.name.clone())),
        };
        Ok(found.clone())
    }
}

impl ComponentSpec {
    /// A version for every component of a class.
    pub fn version(class: Class, version: impl Into<String>) -> Self {
        Self {
            class,
            id: None,
            version: Some(version.into()),
            lowest: None,
            activation: None,
            manufacturer: None,
            product: None,
            updateable: None,
        }
    }

    pub(crate) fn hits(&self, model: &Model, owner: &str) -> Result<Vec<usize>, SpecError> {
        let hits: Vec<usize> = model
            .of_class(self.class)
            .filter(|i| {
                self.id
                    .as_ref()
                    .is_none_or(|id| glob(id, &model.components[*i].id))
            })
            .collect();
        if hits.is_empty() {
            let (owner, id) = (owner.to_owned(), self.id.clone());
            return Err(SpecError::Component {
                owner,
                class: self.class,
                id,
            });
        }
        Ok(hits)
    }

    fn apply(&self, component: &mut model::Component) {
        if let Some(v) = &self.version {
            component.version = v.as_str().into();
        }
        if self.lowest.is_some() {
            component.lowest.clone_from(&self.lowest);
        }
        if let Some(a) = self.activation {
            component.activation = a;
        }
        if let Some(m) = &self.manufacturer {
            component.manufacturer.clone_from(m);
        }
        if let Some(p) = &self.product {
            component.product.clone_from(p);
        }
        if let Some(u) = self.updateable {
            component.updateable = u;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_reads_from_yaml_and_says_what_is_wrong() {
        let text = "
models:
- {name: PowerEdge R750, persona: dell, components: [{class: CPLD, activation: {acCycle: 3}}]}
machines:
- {name: a, model: PowerEdge R750, serial: 7XK2M13, components: [{class: BIOS, version: 1.0.0}]}
- {name: b, persona: hpe, off: true, timing: {hostBoot: 10}}
";
        let spec = FleetSpec::from_yaml(text).unwrap();
        let models = spec.models().unwrap();
        let model = spec.machines[0].find_model(&models).unwrap();
        let cpld = model.of_class(Class::Cpld).next().unwrap();
        assert_eq!(model.components[cpld].activation, Activation::AcCycle(3));
        assert_eq!(spec.machines[1].timing.as_ref().unwrap().host_boot, 10.0);
        assert_eq!(spec.machines[1].timing.as_ref().unwrap().flash_bmc, 120.0);

        assert!(FleetSpec::from_yaml("machines: [{nmae: x}]").is_err());
        let twice =
            FleetSpec::from_yaml("machines: [{name: x, persona: dell}, {name: x, persona: hpe}]").unwrap();
        assert!(matches!(twice.check_names(), Err(SpecError::Twice(_))));
        let unknown = FleetSpec::from_yaml("machines: [{name: x, model: nope}]").unwrap();
        assert!(
            unknown.machines[0]
                .find_model(&unknown.models().unwrap())
                .is_err()
        );
    }

    #[test]
    fn generated_names_are_unique_and_personas_take_turns() {
        let spec = FleetSpec::generate(12, &[Persona::Dell, Persona::Openbmc]);
        spec.check_names().unwrap();
        assert_eq!(spec.machines[1].name, "openbmc-0001");
        assert_eq!(spec.machines[11].name, "openbmc-0006");
    }
}
