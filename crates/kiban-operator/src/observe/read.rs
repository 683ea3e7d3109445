//! One reading of one device: who it is, how it is, what it runs.

use crate::{context::Context, execute::machines::Machines};
use kiban_api::Device;
use kiban_bmc::{BmcError, ErrorKind, Fingerprint, HealthReport, Identity, Inventory};

/// What one reading gave.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Who answered.
    pub identity: Identity,
    /// How it is; None where the BMC could not say.
    pub health: Option<HealthReport>,
    /// What it runs.
    pub inventory: Inventory,
    /// The certificate that was shown.
    pub certificate: Option<Fingerprint>,
}

/// A reading that gave nothing.
#[derive(Clone, Debug)]
pub enum Unread {
    /// Another machine answers.
    WrongMachine(String),
    /// Another certificate than the recorded one was shown.
    CertificateChanged(String),
    /// The BMC did not answer, or not as it should.
    Failed {
        /// CamelCase.
        category: &'static str,
        /// What was tried and what came back.
        message: String,
        /// Whether time was lost on it.
        slow: bool,
    },
}

impl Unread {
    /// A stable word for conditions and metrics.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::WrongMachine(_) => "WrongMachine",
            Self::CertificateChanged(_) => "CertificateChanged",
            Self::Failed { category, .. } => category,
        }
    }

    /// What happened.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::WrongMachine(message)
            | Self::CertificateChanged(message)
            | Self::Failed { message, .. } => message,
        }
    }
}

impl From<BmcError> for Unread {
    fn from(error: BmcError) -> Self {
        match error.kind() {
            ErrorKind::WrongMachine => Self::WrongMachine(error.to_string()),
            ErrorKind::CertificateChanged => Self::CertificateChanged(error.to_string()),
            kind => Self::Failed {
                category: kind.as_str(),
                message: error.to_string(),
                slow: matches!(kind, ErrorKind::Timeout | ErrorKind::Unreachable),
            },
        }
    }
}

/// Reads a device within four times the deadline of one request. `repin`: the recorded certificate does not count.
pub async fn read(
    context: &Context,
    machines: &Machines,
    device: &Device,
    repin: bool,
) -> Result<Seen, Unread> {
    let limit = context.config.bmc_deadline * 4;
    let first = attempt(context, machines, device, false, repin);
    let result = match tokio::time::timeout(limit, first).await {
        // The password may have been rotated: the Secret is read anew, once.
        Ok(Err(Unread::Failed { category, .. })) if category == ErrorKind::AuthenticationFailed.as_str() => {
            tokio::time::timeout(limit, attempt(context, machines, device, true, repin)).await
        }
        result => result,
    };
    let result = result.unwrap_or_else(|_| {
        let message = format!("failed to read the BMC: no end after {} s", limit.as_secs());
        Err(Unread::Failed {
            category: ErrorKind::Timeout.as_str(),
            message,
            slow: true,
        })
    });
    context
        .metrics
        .bmc_request(result.as_ref().map_or_else(Unread::category, |_| "Ok"));
    result
}

async fn attempt(
    context: &Context,
    machines: &Machines,
    device: &Device,
    live: bool,
    repin: bool,
) -> Result<Seen, Unread> {
    let endpoint = Machines::endpoint(context, device, live, repin).await?;
    let bmc = machines.connector.connect(&endpoint).await?;
    let result = async {
        let identity = bmc.identity().await?;
        if let Some(message) = crate::execute::wrong_machine(device, &identity) {
            return Err(Unread::WrongMachine(message));
        }
        let inventory = bmc.inventory().await?;
        let health = bmc.health().await.ok();
        Ok(Seen {
            identity,
            health,
            inventory,
            certificate: bmc.certificate(),
        })
    }
    .await;
    // Also after an error: a session that is left behind locks people out for half an hour.
    let _ = bmc.close().await;
    result
}
