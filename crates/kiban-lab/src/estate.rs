//! The lab's fleet, twice: as machines for the emulator, and as the YAML that an engineer would commit for them.

use crate::repository::Repository;
use anyhow::{Context, Result};
use kiban_sim::{Class, FleetSpec, MachineSpec, Persona, built_in, image, image::ImageHeader};
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

/// One machine of the lab.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Name of machine and `Device`.
    pub name: String,
    /// Whose BMC it has.
    pub persona: Persona,
    /// The pool that it serves.
    pub pool: String,
    /// Its rack.
    pub rack: String,
    /// Its place in the rack.
    pub unit: u16,
}

/// One pool of the lab.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// The service.
    pub service: String,
    /// `Public` or `Private`.
    pub class: String,
    /// `spec.disruption`.
    pub disruption: Value,
    /// `spec.rollout`.
    pub rollout: Value,
}

impl Pool {
    /// A pool that serves the service of its own name.
    pub fn new(name: &str, disruption: Value, rollout: Value) -> Self {
        Self {
            name: name.to_owned(),
            service: name.to_owned(),
            class: "Public".to_owned(),
            disruption,
            rollout,
        }
    }
}

/// The lab's fleet.
#[derive(Clone, Debug)]
pub struct Estate {
    /// The pools.
    pub pools: Vec<Pool>,
    /// The machines.
    pub machines: Vec<Machine>,
    /// Folder where firmware images lie.
    pub images: PathBuf,
}

/// What a baseline wants, per class.
pub type Wanted = BTreeMap<Class, String>;

impl Estate {
    /// An empty fleet whose images lie in a folder.
    pub fn new(images: PathBuf) -> Self {
        Self {
            pools: Vec::new(),
            machines: Vec::new(),
            images,
        }
    }

    /// Adds `count` machines of a persona to a pool, six to a rack, named `<site>-<rack>-<unit>`.
    pub fn add(&mut self, pool: &str, persona: Persona, count: usize) {
        for _ in 0..count {
            let index = self.machines.len();
            let rack = format!("b{:02}", index / 6 + 1);
            let unit = (index % 6 + 1) as u16;
            self.machines.push(Machine {
                name: format!("tyo-{rack}-{unit:02}"),
                persona,
                pool: pool.to_owned(),
                rack,
                unit,
            });
        }
    }

    /// The machines for the emulator.
    pub fn fleet_spec(&self) -> FleetSpec {
        FleetSpec {
            machines: self
                .machines
                .iter()
                .map(|m| MachineSpec::new(&m.name, m.persona))
                .collect(),
            ..FleetSpec::default()
        }
    }

    /// The personas that there are.
    pub fn personas(&self) -> Vec<Persona> {
        Persona::ALL
            .into_iter()
            .filter(|persona| self.machines.iter().any(|m| m.persona == *persona))
            .collect()
    }

    /// Writes the whole fleet as YAML: policy, models, baselines at what the machines are delivered with, pools and devices. Each machine is
    /// given as `(url, serial, certificate's SHA-256)`.
    pub fn write(&self, repository: &Repository, bmcs: &BTreeMap<String, Bmc>) -> Result<()> {
        repository.write(
            "policy.yaml",
            &yaml(&[object("FleetPolicy", "fleet", json!({}))])?,
        )?;
        for persona in self.personas() {
            let product = built_in(persona);
            let name = model_name(persona);
            let spec = json!({
                "manufacturer": product.manufacturer,
                "product": product.name,
                "reportedAs": [product.name],
            });
            repository.write(
                &format!("models/{name}.yaml"),
                &yaml(&[object("HardwareModel", name, spec)])?,
            )?;
            self.write_baseline(repository, persona, &Wanted::new())?;
        }
        for pool in &self.pools {
            self.write_pool(repository, pool)?;
        }
        for rack in self.racks() {
            let devices: Vec<Value> = self
                .machines
                .iter()
                .filter(|m| m.rack == rack)
                .map(|m| device(m, bmcs.get(&m.name)))
                .collect::<Result<_>>()?;
            repository.write(&format!("devices/{rack}.yaml"), &yaml(&devices)?)?;
        }
        Ok(())
    }

    /// Writes one pool.
    pub fn write_pool(&self, repository: &Repository, pool: &Pool) -> Result<()> {
        let personas: Vec<Persona> = Persona::ALL
            .into_iter()
            .filter(|persona| {
                self.machines
                    .iter()
                    .any(|m| m.persona == *persona && m.pool == pool.name)
            })
            .collect();
        let spec = json!({
            "service": pool.service,
            "class": pool.class,
            "baselines": personas.iter().map(|persona| baseline_name(*persona)).collect::<Vec<_>>(),
            "disruption": pool.disruption,
            "rollout": pool.rollout,
        });
        repository.write(
            &format!("pools/{}.yaml", pool.name),
            &yaml(&[object("HardwarePool", &pool.name, spec)])?,
        )
    }

    /// Writes the baseline of a persona's model: BMC, BIOS and NIC as delivered, except for what is wanted otherwise. The images are made.
    pub fn write_baseline(&self, repository: &Repository, persona: Persona, wanted: &Wanted) -> Result<()> {
        let product = built_in(persona);
        let mut components = Vec::new();
        for class in [Class::Bmc, Class::Bios, Class::Nic] {
            let Some(index) = product.of_class(class).next() else {
                continue;
            };
            let delivered = product.components[index].version.to_string();
            let version = wanted.get(&class).cloned().unwrap_or(delivered);
            let (url, sha256) = self.image(persona, class, &version)?;
            components.push(json!({
                "class": class.to_string(),
                "version": version,
                "image": {"url": url, "sha256": sha256},
            }));
        }
        let name = baseline_name(persona);
        let spec = json!({"models": [model_name(persona)], "components": components});
        repository.write(
            &format!("baselines/{name}.yaml"),
            &yaml(&[object("FirmwareBaseline", &name, spec)])?,
        )
    }

    /// Makes an image, and gives its address and SHA-256.
    pub fn image(&self, persona: Persona, class: Class, version: &str) -> Result<(String, String)> {
        let product = built_in(persona);
        let built = image::build(&ImageHeader::new(class, version, &product.name), 64 << 10);
        std::fs::create_dir_all(&self.images).with_context(|| format!("create {}", self.images.display()))?;
        let file = self.images.join(format!(
            "{}-{class}-{}.bin",
            model_name(persona),
            &built.sha256[..12]
        ));
        std::fs::write(&file, &built.bytes).with_context(|| format!("write {}", file.display()))?;
        Ok((format!("file://{}", file.display()), built.sha256))
    }

    fn racks(&self) -> Vec<String> {
        let mut racks: Vec<String> = self.machines.iter().map(|m| m.rack.clone()).collect();
        racks.dedup();
        racks
    }
}

/// How a machine's BMC is reached and known.
#[derive(Clone, Debug)]
pub struct Bmc {
    /// Where it listens.
    pub address: SocketAddr,
    /// The machine's serial number.
    pub serial: String,
    /// Its certificate's SHA-256, to pin.
    pub sha256: String,
}

/// The name that engineers gave the persona's model.
pub fn model_name(persona: Persona) -> &'static str {
    match persona {
        Persona::Dell => "r650",
        Persona::Hpe => "dl360",
        Persona::Lenovo => "sr630",
        Persona::Supermicro => "sys-120u",
        Persona::Openbmc => "tioga-pass",
    }
}

/// The baseline of a persona's model.
pub fn baseline_name(persona: Persona) -> String {
    format!("{}-2026q4", model_name(persona))
}

fn device(machine: &Machine, bmc: Option<&Bmc>) -> Result<Value> {
    let bmc = bmc.with_context(|| format!("machine {} does not run", machine.name))?;
    Ok(object(
        "Device",
        &machine.name,
        json!({
            "type": "Server",
            "model": model_name(machine.persona),
            "serial": bmc.serial,
            "bmc": {
                "url": format!("https://{}", bmc.address),
                "credentials": "bmc",
                "tls": {"sha256": bmc.sha256},
            },
            "location": {"site": "tokyo-1", "room": "b", "rack": machine.rack, "unit": machine.unit},
            "pool": machine.pool,
        }),
    ))
}

/// An object of Kiban's.
pub fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "kiban.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// Documents as YAML. Separated by `---`.
pub fn yaml(documents: &[Value]) -> Result<String> {
    let mut text = String::new();
    for document in documents {
        if !text.is_empty() {
            text.push_str("---\n");
        }
        text.push_str(&serde_saphyr::to_string(document).context("write YAML")?);
    }
    Ok(text)
}
