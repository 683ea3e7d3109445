//! The emulated fleet as a tool of its own.

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use kiban_sim::{
    Activation, Certificates, Class, FaultFile, Fleet, FleetSpec, Listen, Mockup, Options, Persona,
    image::{self, ImageHeader},
};
use std::{
    fmt::Write as _,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

/// Emulated BMCs that speak Redfish over HTTPS.
#[derive(Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(flatten)]
    mockup: MockupArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run a fleet until interrupted.
    Serve(Serve),
    /// Make an emulated firmware image and print its SHA-256.
    Image(ImageArgs),
    /// Print the Device manifests of a fleet, to commit.
    DeviceYaml(DeviceYaml),
}

#[derive(Args)]
struct FleetArgs {
    /// The fleet's spec (YAML).
    #[arg(long, conflicts_with = "generate")]
    spec: Option<PathBuf>,
    /// Generate so many machines instead.
    #[arg(long)]
    generate: Option<usize>,
    /// The personas of generated machines, in turn: dell, hpe, lenovo, supermicro, openbmc.
    #[arg(long, value_delimiter = ',')]
    personas: Vec<Persona>,
    /// The first machine's address; the others take the ports after it.
    #[arg(long, default_value = "127.0.0.1:20000")]
    listen: SocketAddr,
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    fleet: FleetArgs,
    /// Where the admin endpoint listens (plain HTTP, loopback).
    #[arg(long)]
    admin: Option<SocketAddr>,
    /// Fault rules (YAML).
    #[arg(long)]
    faults: Option<PathBuf>,
    /// Virtual seconds per real second.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// The account of every BMC.
    #[arg(long, default_value = "admin")]
    username: String,
    /// Its password.
    #[arg(
        long,
        env = "KIBAN_SIM_PASSWORD",
        default_value = "kiban-sim",
        hide_env_values = true
    )]
    password: String,
    /// Where to write the certificate authority (PEM).
    #[arg(long)]
    ca: Option<PathBuf>,
    /// One certificate for all machines instead of one each.
    #[arg(long)]
    shared_certificate: bool,
    /// Record reads too.
    #[arg(long)]
    record_reads: bool,
}

#[derive(Args)]
struct MockupArgs {
    /// Serve a captured tree (DMTF mockup layout) read-only until interrupted: the folder that holds redfish/v1/index.json, or
    /// its parent.
    #[arg(long, value_name = "DIR")]
    mockup: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0", requires = "mockup")]
    listen: SocketAddr,
    /// The account.
    #[arg(long, default_value = "admin", requires = "mockup")]
    username: String,
    /// Its password.
    #[arg(
        long,
        env = "KIBAN_SIM_PASSWORD",
        default_value = "kiban-sim",
        hide_env_values = true,
        requires = "mockup"
    )]
    password: String,
    /// Where to write the certificate authority (PEM).
    #[arg(long, requires = "mockup")]
    ca: Option<PathBuf>,
}

#[derive(Args)]
struct ImageArgs {
    /// The component class.
    #[arg(long, value_parser = class)]
    class: Class,
    /// The version that it brings.
    #[arg(long)]
    version: String,
    /// Globs over the models that it fits.
    #[arg(long = "model", required = true)]
    models: Vec<String>,
    /// A glob over the component's id or product name.
    #[arg(long)]
    component: Option<String>,
    /// How it becomes active, as JSON: "none", "hostReset", {"acCycle":2}.
    #[arg(long, value_parser = activation)]
    activation: Option<Activation>,
    /// The version that must already run.
    #[arg(long)]
    requires: Option<String>,
    /// Bytes.
    #[arg(long, default_value_t = 65536)]
    size: usize,
    /// The file to write.
    #[arg(long, short)]
    output: PathBuf,
}

#[derive(Args)]
struct DeviceYaml {
    #[command(flatten)]
    fleet: FleetArgs,
    /// The HardwareModel of all devices; without it, one is made of each model's name.
    #[arg(long)]
    model: Option<String>,
    /// The Secret with the BMC account.
    #[arg(long, default_value = "bmc")]
    credentials: String,
    /// The Secret whose `ca.crt` is the certificate authority; without it, first use.
    #[arg(long)]
    ca: Option<String>,
    /// The site.
    #[arg(long, default_value = "tokyo-1")]
    site: String,
    /// Machines per rack.
    #[arg(long, default_value_t = 10)]
    per_rack: usize,
}

fn class(text: &str) -> Result<Class, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|e| e.to_string())
}

fn activation(text: &str) -> Result<Activation, String> {
    serde_json::from_str(text)
        .or_else(|_| serde_json::from_value(serde_json::Value::String(text.to_owned())))
        .map_err(|e| e.to_string())
}

impl FleetArgs {
    fn spec(&self) -> Result<FleetSpec> {
        match &self.spec {
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
                FleetSpec::from_yaml(&text).with_context(|| format!("read {}", path.display()))
            }
            None => Ok(FleetSpec::generate(self.generate.unwrap_or(5), &self.personas)),
        }
    }

    fn listen(&self) -> Result<Listen> {
        anyhow::ensure!(
            self.listen.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST),
            "listen on {}: machines take ports of 127.0.0.1; give others in the spec",
            self.listen
        );
        Ok(Listen::PortEach {
            base: self.listen.port(),
        })
    }
}

fn main() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let cli = Cli::parse();
    match (cli.command, cli.mockup.mockup.clone()) {
        (Some(Command::Serve(args)), _) => runtime()?.block_on(serve(args)),
        (Some(Command::Image(args)), _) => make_image(args),
        (Some(Command::DeviceYaml(args)), _) => say(&device_yaml(&args)?),
        (None, Some(dir)) => runtime()?.block_on(mockup(&dir, cli.mockup)),
        (None, None) => anyhow::bail!("nothing to do: give a command, or --mockup DIR"),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")
}

/// Prints to standard output; a reader that went away is no error.
fn say(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e).context("write to standard output"),
        _ => Ok(()),
    }
}

async fn serve(args: Serve) -> Result<()> {
    let options = Options {
        username: args.username,
        password: args.password,
        speed: args.speed,
        listen: args.fleet.listen()?,
        certificates: if args.shared_certificate {
            Certificates::Shared
        } else {
            Certificates::PerMachine
        },
        admin: args.admin,
        record_reads: args.record_reads,
        ..Options::default()
    };
    let rules = match &args.faults {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            let file: FaultFile =
                serde_saphyr::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
            file.faults
        }
        None => Vec::new(),
    };
    let fleet = Fleet::start(args.fleet.spec()?, options).await?;
    for rule in rules {
        fleet.faults().add(rule);
    }
    if let Some(path) = &args.ca {
        std::fs::write(path, fleet.ca_pem()).with_context(|| format!("write {}", path.display()))?;
    }
    let machines = fleet.machines();
    let mut text = format!("{} machines", machines.len());
    if let (Some(first), Some(last)) = (machines.first(), machines.last()) {
        let _ = write!(
            text,
            ", {} at {} to {} at {}",
            first.name(),
            first.url(),
            last.name(),
            last.url()
        );
    }
    if let Some(admin) = fleet.admin() {
        let _ = write!(text, "; admin at http://{admin}");
    }
    say(&(text + "\n"))?;
    tokio::signal::ctrl_c().await.context("wait for an interrupt")?;
    fleet.shutdown().await;
    Ok(())
}

async fn mockup(dir: &Path, args: MockupArgs) -> Result<()> {
    let mockup = Mockup::serve_on(dir, args.listen, &args.username, &args.password).await?;
    if let Some(path) = &args.ca {
        std::fs::write(path, mockup.ca_pem()).with_context(|| format!("write {}", path.display()))?;
    }
    say(&format!("{} at {}\n", dir.display(), mockup.url()))?;
    tokio::signal::ctrl_c().await.context("wait for an interrupt")?;
    mockup.shutdown().await;
    Ok(())
}

fn make_image(args: ImageArgs) -> Result<()> {
    let header = ImageHeader {
        class: args.class,
        version: args.version,
        models: args.models,
        component: args.component,
        activation: args.activation,
        requires: args.requires,
    };
    let image = image::build(&header, args.size);
    std::fs::write(&args.output, &image.bytes).with_context(|| format!("write {}", args.output.display()))?;
    say(&format!("{}  {}\n", image.sha256, args.output.display()))
}

fn device_yaml(args: &DeviceYaml) -> Result<String> {
    let listen = args.fleet.listen()?;
    let devices = kiban_sim::devices(&args.fleet.spec()?, listen)?;
    let mut yaml = String::new();
    for (i, device) in devices.iter().enumerate() {
        let rack = i / args.per_rack.max(1) + 1;
        let model = args.model.clone().unwrap_or_else(|| slug(&device.model));
        let trust = args
            .ca
            .as_ref()
            .map_or_else(|| "firstUse: true".to_owned(), |ca| format!("ca: {ca}"));
        let _ = write!(
            yaml,
            "---\napiVersion: kiban.dev/v1alpha1\nkind: Device\nmetadata:\n  name: {name}\nspec:\n  type: Server\n  \
             model: {model}\n  serial: \"{serial}\"\n  bmc:\n    url: {url}\n    credentials: {credentials}\n    \
             tls: {{{trust}}}\n  location: {{site: {site}, rack: r{rack:02}, unit: {unit}}}\n",
            name = device.name,
            serial = device.serial,
            url = device.url,
            credentials = args.credentials,
            site = args.site,
            unit = i % args.per_rack.max(1) + 1,
        );
    }
    Ok(yaml)
}

/// A name for a HardwareModel: lower-case letters, digits and dashes.
fn slug(model: &str) -> String {
    let mut slug = String::new();
    for c in model.to_lowercase().chars() {
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.trim_matches('-').to_owned()
}
