//! The words that kinds and domain share, both ways.

use super::{FieldError, baseline, component, facts, pool, shared};

impl From<shared::ComponentClass> for component::ComponentClass {
    fn from(class: shared::ComponentClass) -> Self {
        use shared::ComponentClass as Class;
        match class {
            Class::BMC => Self::Bmc,
            Class::BIOS => Self::Bios,
            Class::NIC => Self::Nic,
            Class::StorageController => Self::StorageController,
            Class::Drive => Self::Drive,
            Class::PSU => Self::Psu,
            Class::CPLD => Self::Cpld,
            Class::GPU => Self::Gpu,
            Class::Other => Self::Other,
        }
    }
}

impl From<component::ComponentClass> for shared::ComponentClass {
    fn from(class: component::ComponentClass) -> Self {
        use component::ComponentClass as Class;
        match class {
            Class::Bmc => Self::BMC,
            Class::Bios => Self::BIOS,
            Class::Nic => Self::NIC,
            Class::StorageController => Self::StorageController,
            Class::Drive => Self::Drive,
            Class::Psu => Self::PSU,
            Class::Cpld => Self::CPLD,
            Class::Gpu => Self::GPU,
            Class::Other => Self::Other,
        }
    }
}

impl From<&shared::ComponentMatch> for facts::ComponentMatch {
    fn from(matches: &shared::ComponentMatch) -> Self {
        Self {
            manufacturer: matches.manufacturer.clone(),
            model: matches.model.clone(),
            name: matches.name.clone(),
        }
    }
}

impl shared::ComponentMatch {
    /// None where it names nothing: an empty `match` is refused by the kind.
    #[must_use]
    pub fn from_facts(matches: &facts::ComponentMatch) -> Option<Self> {
        (!matches.is_any()).then(|| Self {
            manufacturer: matches.manufacturer.clone(),
            model: matches.model.clone(),
            name: matches.name.clone(),
        })
    }
}

impl From<pool::FailureDomain> for facts::FailureDomain {
    fn from(domain: pool::FailureDomain) -> Self {
        match domain {
            pool::FailureDomain::Rack => Self::Rack,
            pool::FailureDomain::Room => Self::Room,
            pool::FailureDomain::Site => Self::Site,
            pool::FailureDomain::Power => Self::Power,
        }
    }
}

impl From<&pool::DomainLimit> for facts::DomainLimit {
    fn from(limit: &pool::DomainLimit) -> Self {
        Self {
            over: limit.over.into(),
            max: limit.max,
        }
    }
}

impl From<baseline::Activation> for facts::Activation {
    fn from(activation: baseline::Activation) -> Self {
        use baseline::Activation as Kind;
        match activation {
            Kind::None => Self::None,
            Kind::BMCReset => Self::BmcReset,
            Kind::HostReset => Self::HostReset,
            Kind::ColdBoot => Self::ColdBoot,
            Kind::ACCycle => Self::AcCycle,
        }
    }
}

impl From<facts::Activation> for baseline::Activation {
    fn from(activation: facts::Activation) -> Self {
        match activation {
            facts::Activation::None => Self::None,
            facts::Activation::BmcReset => Self::BMCReset,
            facts::Activation::HostReset => Self::HostReset,
            facts::Activation::ColdBoot => Self::ColdBoot,
            facts::Activation::AcCycle => Self::ACCycle,
        }
    }
}

impl TryFrom<&baseline::Image> for facts::Image {
    type Error = FieldError;

    fn try_from(image: &baseline::Image) -> Result<Self, FieldError> {
        let size = image
            .size
            .map(u64::try_from)
            .transpose()
            .map_err(|_| FieldError {
                field: "size".into(),
                message: "a size is not negative".into(),
            })?;
        Ok(Self {
            url: image.url.clone(),
            sha256: image.sha256.to_ascii_lowercase(),
            size,
        })
    }
}

impl From<&facts::Image> for baseline::Image {
    fn from(image: &facts::Image) -> Self {
        Self {
            url: image.url.clone(),
            sha256: image.sha256.clone(),
            size: image.size.and_then(|size| i64::try_from(size).ok()),
        }
    }
}
