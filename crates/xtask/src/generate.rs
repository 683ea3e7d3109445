//! `cargo xtask generate`: files that come from code, written or checked.
//!
//! The artefacts are made in memory first; writing and checking are the same comparison with another ending, so that the
//! test at the end of this file finds whatever `generate` would write.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};

use crate::{say, workspace};

/// What the first line of each generated file says, by which one that nothing generates any more is recognised.
const MARK: &str = "`cargo xtask generate`";

/// Directories that hold generated files, where a marked one that is not an artefact is a leftover.
const DIRS: [&str; 3] = ["crds", "charts/kiban-crds/templates", "docs/reference"];

/// What to do with the artefacts.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail if something would be written.
    #[arg(long)]
    check: bool,
}

/// A file that comes from code.
#[derive(Debug)]
struct Artefact {
    /// From the root of the checkout.
    path: PathBuf,
    content: String,
}

/// What a checkout has that the code would not give it.
#[derive(Debug, PartialEq, Eq)]
enum Drift {
    Missing(PathBuf),
    Differs(PathBuf),
    Leftover(PathBuf),
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut artefacts = artefacts();
    artefacts.push(commands()?);
    let drift = compare(workspace::root(), &artefacts)?;
    if args.check {
        if drift.is_empty() {
            say(&format!("{} generated files are current", artefacts.len()));
            return Ok(ExitCode::SUCCESS);
        }
        eprint!("{}", report(&drift));
        return Ok(ExitCode::FAILURE);
    }
    write(workspace::root(), &artefacts, &drift)?;
    say(&format!(
        "{} generated files, {} changed",
        artefacts.len(),
        drift.len()
    ));
    eprint!("{}", list(&drift));
    Ok(ExitCode::SUCCESS)
}

/// The reference of the commands, from the program itself: it links libgit2 and TLS, which this one is better off without.
/// Its own test finds drift.
fn commands() -> Result<Artefact> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = std::process::Command::new(cargo)
        .current_dir(workspace::root())
        .args(["run", "--quiet", "-p", "kiban-cli", "--", "reference"])
        .output()
        .context("failed to run kubectl-kiban")?;
    anyhow::ensure!(
        output.status.success(),
        "kubectl-kiban failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(Artefact {
        path: Path::new("docs/reference/cli.md").to_path_buf(),
        content: String::from_utf8(output.stdout).context("kubectl-kiban printed no text")?,
    })
}

/// Everything else that comes from code. To add a kind of artefact, add it here.
fn artefacts() -> Vec<Artefact> {
    let in_dir = |dir: &'static str| {
        move |(name, content)| Artefact {
            path: Path::new(dir).join::<String>(name),
            content,
        }
    };
    let mut all: Vec<Artefact> = kiban_api::generate::crds()
        .into_iter()
        .map(in_dir("crds"))
        .collect();
    all.extend(
        kiban_api::generate::crd_templates()
            .into_iter()
            .map(in_dir("charts/kiban-crds/templates")),
    );
    all.push(in_dir("docs/reference")((
        "kinds.md".to_owned(),
        kiban_api::generate::reference(),
    )));
    all.push(in_dir("charts/kiban/templates")((
        "role.yaml".to_owned(),
        kiban_api::rbac::role_template(),
    )));
    all.push(in_dir("manifests/base")((
        "crds.yaml".to_owned(),
        kiban_api::generate::crds_in_one(),
    )));
    all
}

fn compare(root: &Path, artefacts: &[Artefact]) -> Result<Vec<Drift>> {
    let mut drift = Vec::new();
    for artefact in artefacts {
        match fs::read_to_string(root.join(&artefact.path)) {
            Ok(found) if found == artefact.content => {}
            Ok(_) => drift.push(Drift::Differs(artefact.path.clone())),
            Err(_) => drift.push(Drift::Missing(artefact.path.clone())),
        }
    }
    let known: BTreeSet<&Path> = artefacts.iter().map(|artefact| artefact.path.as_path()).collect();
    for dir in DIRS {
        let Ok(entries) = fs::read_dir(root.join(dir)) else {
            continue;
        };
        for entry in entries {
            let path = Path::new(dir).join(entry?.file_name());
            let generated = fs::read_to_string(root.join(&path))
                .is_ok_and(|text| text.lines().next().is_some_and(|first| first.contains(MARK)));
            if generated && !known.contains(path.as_path()) {
                drift.push(Drift::Leftover(path));
            }
        }
    }
    Ok(drift)
}

fn write(root: &Path, artefacts: &[Artefact], drift: &[Drift]) -> Result<()> {
    for change in drift {
        let (Drift::Missing(path) | Drift::Differs(path) | Drift::Leftover(path)) = change;
        let full = root.join(path);
        let Some(artefact) = artefacts.iter().find(|artefact| artefact.path == *path) else {
            fs::remove_file(&full).with_context(|| format!("failed to remove {}", path.display()))?;
            continue;
        };
        if let Some(dir) = full.parent() {
            fs::create_dir_all(dir).with_context(|| format!("failed to create {}", dir.display()))?;
        }
        fs::write(&full, &artefact.content).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}

fn list(drift: &[Drift]) -> String {
    let mut text = String::new();
    for change in drift {
        let (word, path) = match change {
            Drift::Missing(path) => ("missing", path),
            Drift::Differs(path) => ("differs", path),
            Drift::Leftover(path) => ("left over", path),
        };
        let _ = writeln!(text, "  {word:<10} {}", path.display());
    }
    text
}

fn report(drift: &[Drift]) -> String {
    format!(
        "generated files are not what the code gives:\n{}run `cargo xtask generate` and commit\n",
        list(drift)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_files_are_current() {
        let artefacts = artefacts();
        assert!(artefacts.iter().all(|artefact| !artefact.content.is_empty()) && !artefacts.is_empty());
        let drift = compare(workspace::root(), &artefacts).unwrap();
        assert!(drift.is_empty(), "{}", report(&drift));
    }

    #[test]
    fn drift_is_found_and_mended() {
        let root = tempfile::tempdir().unwrap();
        let artefact = |name: &str| Artefact {
            path: format!("crds/{name}.yaml").into(),
            content: format!("# From {MARK}\n{name}\n"),
        };
        let first = [artefact("a"), artefact("b"), artefact("c")];
        let drift = compare(root.path(), &first).unwrap();
        assert_eq!(drift.len(), 3);
        write(root.path(), &first, &drift).unwrap();
        assert_eq!(compare(root.path(), &first).unwrap(), []);

        // Someone edits b, c is no kind any more, and a hand-written neighbour is nobody's business.
        fs::write(root.path().join("crds/b.yaml"), "edited").unwrap();
        fs::write(root.path().join("crds/kustomization.yaml"), "resources: []\n").unwrap();
        let second = [artefact("a"), artefact("b")];
        let drift = compare(root.path(), &second).unwrap();
        assert_eq!(
            drift,
            [
                Drift::Differs("crds/b.yaml".into()),
                Drift::Leftover("crds/c.yaml".into())
            ]
        );
        write(root.path(), &second, &drift).unwrap();
        assert_eq!(compare(root.path(), &second).unwrap(), []);
        assert!(root.path().join("crds/kustomization.yaml").exists());
    }
}
