//! `cargo xtask test`: prepares what the tests need, runs them, and says what was skipped and why.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, IsTerminal},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use kiban_devcluster::{DevCluster, Tool};

use crate::{
    say,
    workspace::{self, Metadata, find_program},
};

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fail if anything had to be skipped.
    #[arg(long)]
    strict: bool,
    /// Handed to `cargo test`; `--workspace` is the default where no package is chosen. Example: `-- -p kiban-git ssh`.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CARGO TEST ARGUMENTS"
    )]
    rest: Vec<String>,
}

/// Something that this machine lacks.
#[derive(Debug)]
struct Lack {
    what: String,
    why: String,
}

/// A program that only the system's packages give.
struct SystemProgram {
    name: &'static str,
    /// Where it is found beside PATH.
    dirs: &'static [&'static str],
    /// What cannot be tested without it.
    skips: &'static str,
    debian: &'static str,
}

const SYSTEM_PROGRAMS: [SystemProgram; 6] = [
    SystemProgram {
        name: "git",
        dirs: &[],
        skips: "Git servers and histories",
        debian: "git",
    },
    SystemProgram {
        name: "sshd",
        dirs: &["/usr/sbin", "/usr/local/sbin"],
        skips: "Git over ssh",
        debian: "openssh-server",
    },
    SystemProgram {
        name: "nginx",
        dirs: &["/usr/sbin", "/usr/local/sbin"],
        skips: "Git over https",
        debian: "nginx",
    },
    SystemProgram {
        name: "fcgiwrap",
        dirs: &["/usr/sbin"],
        skips: "Git over https",
        debian: "fcgiwrap",
    },
    SystemProgram {
        name: "prometheus",
        dirs: &[],
        skips: "gates that ask a real Prometheus",
        debian: "prometheus",
    },
    SystemProgram {
        name: "zstd",
        dirs: &[],
        skips: "the Redfish service validator's schemas",
        debian: "zstd",
    },
];

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let metadata = Metadata::read()?;
    let mut lacks = missing_programs();
    if fixtures().is_none() {
        lacks.push(Lack {
            what: "captured machines".into(),
            why: "there is no ../shared beside the checkout; KIBAN_SHARED names another place".into(),
        });
    }
    let python = python(&mut lacks)?;

    say("finding or building etcd, kube-apiserver, kubectl and helm");
    let tools = tokio::task::spawn_blocking(|| {
        Tool::ALL
            .map(Tool::find)
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
    });
    let tools = tools.await??;

    let (cargo_args, test_args) = split(&args.rest);
    say("building the programs and the tests");
    build(&cargo_args)?;

    say("starting the control plane that the tests share");
    let cluster = DevCluster::start().await?;

    let mut env: Vec<(&str, OsString)> = vec![
        ("KIBAN_TEST_KUBECONFIG", cluster.kubeconfig().into()),
        ("KIBAN_KUBECTL", cluster.kubectl_path().into()),
        ("KIBAN_BIN_DIR", metadata.target_directory.join("debug").into()),
    ];
    env.extend(
        Tool::ALL
            .iter()
            .zip(&tools)
            .filter(|(tool, _)| **tool == Tool::Helm)
            .map(|(_, path)| ("KIBAN_HELM", path.into())),
    );
    env.extend(python.map(|python| ("KIBAN_PYTHON", python.into())));

    say("running the tests");
    let (passed, skipped) =
        tokio::task::spawn_blocking(move || cargo_test(&cargo_args, &test_args, &env)).await??;
    say("stopping the control plane");
    cluster.stop().await;

    if !lacks.is_empty() {
        println!("\nThis machine lacks:");
        for lack in &lacks {
            println!("  {:<40} {}", lack.what, lack.why);
        }
    }
    if !skipped.is_empty() {
        println!("\nSkipped by the tests themselves:");
        for line in &skipped {
            println!("  {line}");
        }
    }
    let complete = lacks.is_empty() && skipped.is_empty();
    if complete {
        println!("\nNothing was skipped.");
    }
    Ok(if passed && (complete || !args.strict) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Builds what is going to run, before the control plane takes its share of the machine.
fn build(cargo_args: &[String]) -> Result<()> {
    let build = |args: &[&str]| -> Result<()> {
        let built = workspace::cargo()
            .args(args)
            .status()
            .context("failed to run cargo build")?;
        ensure!(built.success(), "the programs or the tests do not build");
        Ok(())
    };
    if cargo_args.iter().any(|arg| arg == "--workspace") {
        // One command for both: built apart, the tests' features would compile the dependencies a second time.
        return build(&["build", "--workspace", "--bins", "--tests"]);
    }
    // The end-to-end tests run the programs; a single crate's own tests do not wait for the others'.
    if cargo_args
        .iter()
        .any(|arg| arg.ends_with("kiban-tests") || arg.ends_with("kiban-lab"))
    {
        build(&["build", "--workspace", "--bins"])?;
    }
    let args: Vec<&str> = ["test", "--no-run"]
        .into_iter()
        .chain(cargo_args.iter().map(String::as_str))
        .collect();
    build(&args)
}

fn missing_programs() -> Vec<Lack> {
    let missing = SYSTEM_PROGRAMS
        .iter()
        .filter(|program| find_program(program.name, program.dirs).is_none());
    let lack = |program: &SystemProgram| Lack {
        what: format!("{} ({})", program.name, program.skips),
        why: format!("not installed; on Debian: apt-get install {}", program.debian),
    };
    missing.map(lack).collect()
}

/// The directory of captured machines, as the tests look for it.
fn fixtures() -> Option<PathBuf> {
    let named = std::env::var_os("KIBAN_SHARED").map(PathBuf::from);
    let dir = named.unwrap_or_else(|| workspace::root().join("../shared"));
    dir.join("fixtures").is_dir().then_some(dir)
}

/// The Python of a virtual environment with the outside validators, made once per version of their list.
fn python(lacks: &mut Vec<Lack>) -> Result<Option<PathBuf>> {
    let list = workspace::root().join("crates/kiban-sim/tests/requirements.txt");
    let Ok(wanted) = fs::read_to_string(&list) else {
        return Ok(None);
    };
    let dir = workspace::root().join("target/python");
    let python = dir.join("bin/python");
    let stamp = dir.join("requirements.txt");
    if python.is_file() && fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(Some(python));
    }
    say("making a Python environment with the outside validators under target/python");
    match make_python(&dir, &list) {
        Ok(()) => {
            // Written last: an environment whose making was broken off has no stamp and is made again.
            fs::write(&stamp, wanted).with_context(|| format!("failed to write {}", stamp.display()))?;
            Ok(Some(python))
        }
        Err(error) => {
            lacks.push(Lack {
                what: "Redfish validator and sushy (Python)".into(),
                why: format!("{error:#}"),
            });
            Ok(None)
        }
    }
}

fn make_python(dir: &Path, list: &Path) -> Result<()> {
    let python = find_program("python3", &[])
        .context("python3 is not installed; on Debian: apt-get install python3-venv")?;
    let run = |program: &Path, args: &[&str], hint: &str| -> Result<()> {
        let output = Command::new(program).args(args).stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("failed to run {}", program.display()))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.trim().lines().last().unwrap_or_default();
        ensure!(output.status.success(), "{hint}: {last}");
        Ok(())
    };
    let (dir_arg, list_arg) = (dir.to_string_lossy(), list.to_string_lossy());
    run(
        &python,
        &["-m", "venv", "--clear", &dir_arg],
        "no venv; on Debian: apt-get install python3-venv",
    )?;
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
        &list_arg,
    ];
    run(
        &dir.join("bin/python"),
        &pip,
        "pip could not install requirements.txt; is PyPI reachable?",
    )
}

/// Arguments for cargo and for the test harness. What the harness shows of passing tests is where they say what they skipped.
fn split(rest: &[String]) -> (Vec<String>, Vec<String>) {
    let mut halves = rest.splitn(2, |arg| arg == "--");
    let mut cargo: Vec<String> = halves.next().unwrap_or_default().to_vec();
    let mut test: Vec<String> = halves.next().unwrap_or_default().to_vec();
    let chosen = |arg: &String| arg == "-p" || arg.starts_with("--package") || arg == "--workspace";
    if !cargo.iter().any(chosen) {
        cargo.insert(0, "--workspace".to_owned());
    }
    if !test
        .iter()
        .any(|arg| arg == "--nocapture" || arg == "--no-capture")
    {
        test.push("--show-output".to_owned());
    }
    (cargo, test)
}

/// Runs the tests, passes on what they print, and gathers the lines that say what was skipped.
fn cargo_test(
    cargo_args: &[String],
    test_args: &[String],
    env: &[(&str, OsString)],
) -> Result<(bool, Vec<String>)> {
    let color = if std::io::stdout().is_terminal() {
        "always"
    } else {
        "auto"
    };
    let mut child = workspace::cargo()
        .args(["test", "--no-fail-fast"])
        .args(cargo_args)
        .arg("--")
        .args(test_args)
        .env("CARGO_TERM_COLOR", color)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to run cargo test")?;
    let mut filter = Filter::default();
    let mut skipped = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("failed to read what the tests print")?;
            if let Some(reason) = line.trim().strip_prefix("skipped: ")
                && !skipped.iter().any(|known| known == reason)
            {
                skipped.push(reason.to_owned());
            }
            if filter.shows(&line) {
                println!("{line}");
            }
        }
    }
    let status = child.wait().context("failed to wait for cargo test")?;
    Ok((status.success(), skipped))
}

/// Hides the section in which the harness repeats what passing tests printed.
#[derive(Debug, Default)]
struct Filter {
    hidden: bool,
}

impl Filter {
    fn shows(&mut self, line: &str) -> bool {
        if line == "successes:" {
            self.hidden = true;
        } else if line == "failures:"
            || line.starts_with("test result: ")
            || line.trim_start().starts_with("Running ")
        {
            self.hidden = false;
        }
        !self.hidden
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passing_tests_print_is_hidden_and_failures_are_not() {
        let printed = "running 2 tests\ntest a ... ok\n\nsuccesses:\n\n---- a stdout ----\nskipped: no sshd\n\n\
                       successes:\n    a\n\nfailures:\n\n---- b stdout ----\nwhy\n\ntest result: FAILED. 1 passed\n";
        let mut filter = Filter::default();
        let shown: Vec<&str> = printed.lines().filter(|line| filter.shows(line)).collect();
        assert!(
            !shown.contains(&"skipped: no sshd") && !shown.contains(&"    a"),
            "{shown:?}"
        );
        assert!(
            shown.contains(&"test a ... ok") && shown.contains(&"why"),
            "{shown:?}"
        );
        assert_eq!(shown.last(), Some(&"test result: FAILED. 1 passed"));
    }

    #[test]
    fn arguments_go_to_cargo_and_to_the_harness() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(split(&[]), (words("--workspace"), words("--show-output")));
        let (cargo, test) = split(&words("-p kiban-git ssh -- --nocapture"));
        assert_eq!((cargo, test), (words("-p kiban-git ssh"), words("--nocapture")));
    }
}
