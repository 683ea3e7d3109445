//! `kubectl kiban probe`: one BMC's identity and firmware, and a Device to commit.

use crate::{
    cli::{Format, Global, ProbeArgs},
    failure::Failure,
    output,
};
use kiban_bmc::port::{
    BmcError, Connector, Credentials, Endpoint, Fingerprint, HealthReport, Identity, Inventory, Trust,
};
use serde::Serialize;
use serde_json::json;
use std::{fmt::Write as _, io::Read as _, process::ExitCode};

/// What a BMC said.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Probed {
    url: String,
    certificate_sha256: Option<String>,
    identity: Identity,
    health: Option<HealthReport>,
    inventory: Inventory,
}

/// Runs the command.
pub async fn run(global: &Global, args: &ProbeArgs) -> Result<ExitCode, Failure> {
    let endpoint = Endpoint {
        url: args.url.clone(),
        credentials: Credentials::new(&args.username, password(args)?),
        trust: trust(args)?,
        expect: None,
    };
    let connector = kiban_bmc::redfish::RedfishConnector::new(kiban_bmc::port::Limits::default());
    let bmc = connector
        .connect(&endpoint)
        .await
        .map_err(|error| explain(&args.url, &error))?;
    let read = async {
        let identity = bmc.identity().await?;
        let inventory = bmc.inventory().await?;
        // A BMC without a health rollup is still worth printing.
        let health = bmc.health().await.ok();
        Ok::<_, BmcError>((identity, inventory, health))
    }
    .await;
    let certificate_sha256 = bmc.certificate().map(|fingerprint| fingerprint.to_string());
    // Sessions are few on a BMC: give this one back whatever came of the reading.
    let _ = bmc.close().await;
    let (identity, inventory, health) = read.map_err(|error| explain(&args.url, &error))?;
    let probed = Probed {
        url: args.url.clone(),
        certificate_sha256,
        identity,
        health,
        inventory,
    };
    if args.device {
        output::print(&device(&probed, args)?);
        return Ok(ExitCode::SUCCESS);
    }
    let text = match output::structured(global.output, &probed)? {
        Some(text) => text,
        None => table(&probed, global.output),
    };
    output::print(&text);
    Ok(ExitCode::SUCCESS)
}

fn password(args: &ProbeArgs) -> Result<String, Failure> {
    if args.password_stdin {
        let mut text = String::new();
        std::io::stdin()
            .take(4096)
            .read_to_string(&mut text)
            .map_err(|error| Failure::from_error("read the password from standard input", &error))?;
        return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
    }
    std::env::var("KIBAN_BMC_PASSWORD").map_err(|_| {
        Failure::new("no password given").hint("set KIBAN_BMC_PASSWORD, or pipe it in with --password-stdin; it is never an argument, where others could read it")
    })
}

fn trust(args: &ProbeArgs) -> Result<Trust, Failure> {
    if let Some(file) = &args.ca {
        let pem = std::fs::read_to_string(file).map_err(|error| {
            Failure::from_error(&format!("read the authority {}", file.display()), &error)
        })?;
        return Ok(Trust::Ca { pem });
    }
    if let Some(text) = &args.fingerprint {
        return Fingerprint::parse(text).map(Trust::Pinned).ok_or_else(|| {
            Failure::new("--fingerprint is not a SHA-256").hint(
                "64 hex digits, with or without colons, as `openssl x509 -fingerprint -sha256` prints them",
            )
        });
    }
    if args.first_use {
        return Ok(Trust::FirstUse);
    }
    Err(Failure::new("how should the BMC's certificate be trusted?").hint(
        "--ca FILE, --fingerprint SHA256, or --first-use, which trusts what is there now and prints its fingerprint to commit",
    ))
}

fn explain(url: &str, error: &BmcError) -> Failure {
    let failure = Failure::from_error(&format!("probe {url}"), error);
    let hint = match error.category() {
        "Unreachable" => "is the address right, and is the BMC's network reachable from here?",
        "Timeout" => {
            "the BMC accepted the connection but does not answer; if it was just reset, try again in a few minutes"
        }
        "TlsUntrusted" => "--ca FILE for a private authority, or --first-use to see its fingerprint",
        "CertificateChanged" => {
            "the certificate is another than the given one: a renewed certificate, or another machine; look before you trust it"
        }
        "AuthenticationFailed" => "check the account; after two failures a BMC may lock it for a while",
        "SessionLimit" => "the BMC has no free session; close others, or wait for their time-out",
        _ => return failure,
    };
    failure.hint(hint)
}

fn table(probed: &Probed, format: Format) -> String {
    let unknown = || "-".to_owned();
    let identity = &probed.identity;
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "{label:<12} {}", output::shown(&value));
    };
    line(
        "Machine",
        [&identity.manufacturer, &identity.model]
            .into_iter()
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
            .join(" "),
    );
    line("Serial", identity.serial.clone().unwrap_or_else(unknown));
    line("UUID", identity.uuid.clone().unwrap_or_else(unknown));
    line(
        "BMC",
        [&identity.bmc_model, &identity.bmc_version]
            .into_iter()
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
            .join(" "),
    );
    line("Power", format!("{:?}", probed.inventory.power));
    if let Some(health) = &probed.health {
        line("Health", format!("{:?}", health.system));
    }
    if let Some(fingerprint) = &probed.certificate_sha256 {
        line("Certificate", format!("sha256 {fingerprint}"));
    }
    text.push('\n');
    let wide = format == Format::Wide;
    let mut header = vec!["CLASS", "NAME", "VERSION", "UPDATEABLE"];
    if wide {
        header.extend(["MANUFACTURER", "MODEL", "LOWEST", "STAGED", "ID"]);
    }
    let rows: Vec<Vec<String>> = probed
        .inventory
        .components
        .iter()
        .map(|c| {
            let mut row = vec![
                c.class.as_str().to_owned(),
                c.name.clone(),
                c.version.clone().unwrap_or_else(unknown),
                c.updateable
                    .map_or_else(unknown, |yes| if yes { "yes" } else { "no" }.to_owned()),
            ];
            if wide {
                row.extend(
                    [&c.manufacturer, &c.model, &c.lowest_supported, &c.staged]
                        .map(|value| value.clone().unwrap_or_else(unknown)),
                );
                row.push(c.id.clone());
            }
            row
        })
        .collect();
    text.push_str(&output::table(&header, &rows));
    if !probed.inventory.findings.is_empty() {
        let _ = writeln!(
            text,
            "\n{} parts of the answer were malformed and left out:",
            probed.inventory.findings.len()
        );
        for finding in &probed.inventory.findings {
            let _ = writeln!(
                text,
                "  {}: {}",
                output::shown(&finding.at),
                output::shown(&finding.what)
            );
        }
    }
    text
}

/// A Device to commit: everything that the BMC knows; what only people know is left to fill in, and said.
fn device(probed: &Probed, args: &ProbeArgs) -> Result<String, Failure> {
    let identity = &probed.identity;
    let serial = identity.serial.clone().ok_or_else(|| {
        Failure::new("the BMC reports no serial number")
            .hint("take it from the machine's label and write the Device by hand")
    })?;
    let name = args.name.clone().unwrap_or_else(|| kubernetes_name(&serial));
    let model = args
        .model
        .clone()
        .unwrap_or_else(|| kubernetes_name(identity.model.as_deref().unwrap_or("unknown-model")));
    let mut tls = serde_json::Map::new();
    if args.ca.is_some() {
        tls.insert("ca".into(), json!("bmc-ca"));
    } else if let Some(fingerprint) = &probed.certificate_sha256 {
        tls.insert("sha256".into(), json!(fingerprint));
    }
    let document = json!({
        "apiVersion": format!("{}/{}", kiban_api::labels::GROUP, kiban_api::labels::VERSION),
        "kind": "Device",
        "metadata": {"name": name},
        "spec": {
            "type": "Server",
            "model": model,
            "serial": serial,
            "bmc": {"url": probed.url, "credentials": args.credentials, "tls": tls},
        },
    });
    let mut text = String::from(
        "# Made by `kubectl kiban probe`. Add spec.location and spec.pool: only people know them.\n",
    );
    text.push_str(&serde_saphyr::to_string(&document).map_err(Failure::new)?);
    Ok(text)
}

/// A DNS-1123 label out of free text.
fn kubernetes_name(text: &str) -> String {
    let name: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(63)
        .collect();
    let name = name
        .split('-')
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("-");
    if name.is_empty() {
        "device".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::kubernetes_name;

    #[test]
    fn names_are_dns_labels() {
        assert_eq!(kubernetes_name("PowerEdge R650"), "poweredge-r650");
        assert_eq!(kubernetes_name("--7XK2M13 "), "7xk2m13");
        assert_eq!(kubernetes_name("基盤"), "device");
    }
}
