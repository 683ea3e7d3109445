//! A Git repository as an engineer has it: a bare remote and a clone to commit from, driven by the `git` command, so that what Kiban
//! reads was written by something else than Kiban's own Git code.

use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A bare remote and a clone of it.
#[derive(Debug)]
pub struct Repository {
    remote: PathBuf,
    clone: PathBuf,
}

impl Repository {
    /// Makes both below `dir`, with an empty `main`.
    pub fn create(dir: &Path) -> Result<Self> {
        let remote = dir.join("fleet.git");
        let clone = dir.join("fleet");
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        git(
            dir,
            &[
                "init",
                "--quiet",
                "--bare",
                "--initial-branch=main",
                path(&remote)?,
            ],
        )?;
        git(dir, &["init", "--quiet", "--initial-branch=main", path(&clone)?])?;
        let repository = Self { remote, clone };
        repository.git(&["remote", "add", "origin", path(&repository.remote)?])?;
        repository.git(&["config", "user.name", "Mika Sato"])?;
        repository.git(&["config", "user.email", "m.sato@example.com"])?;
        repository.git(&["config", "commit.gpgsign", "false"])?;
        Ok(repository)
    }

    /// The remote's address for a `FleetRepository`.
    pub fn url(&self) -> String {
        format!("file://{}", self.remote.display())
    }

    /// The bare remote.
    pub fn remote(&self) -> &Path {
        &self.remote
    }

    /// The clone that people work in.
    pub fn clone_dir(&self) -> &Path {
        &self.clone
    }

    /// Writes a file of the clone.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let file = self.clone.join(name);
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    }

    /// Reads a file of the clone.
    pub fn read(&self, name: &str) -> Result<String> {
        let file = self.clone.join(name);
        std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
    }

    /// Removes a file of the clone.
    pub fn remove(&self, name: &str) -> Result<()> {
        let file = self.clone.join(name);
        std::fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))
    }

    /// Commits everything in the clone, pushes it, and gives the commit's id.
    pub fn commit(&self, message: &str) -> Result<String> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--allow-empty", "-m", message])?;
        self.git(&["push", "--quiet", "origin", "main"])?;
        Ok(self.git(&["rev-parse", "HEAD"])?.trim().to_owned())
    }

    /// Runs git in the clone.
    pub fn git(&self, args: &[&str]) -> Result<String> {
        git(&self.clone, args)
    }

    /// Runs git in the bare remote, where the ledger branch is.
    pub fn git_in_remote(&self, args: &[&str]) -> Result<String> {
        git(&self.remote, args)
    }
}

fn path(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))
}

fn git(dir: &Path, args: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .args(args)
        .current_dir(dir)
        // A person's own configuration (signing, hooks, templates) must not change what the lab does.
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .output()
        .context("run git; it comes with every system's packages (Debian: apt-get install git)")?;
    if !output.status.success() {
        bail!(
            "git {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_reach_the_remote() {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::create(dir.path()).unwrap();
        repository.write("pools/a.yaml", "a: 1\n").unwrap();
        let commit = repository.commit("First").unwrap();
        assert_eq!(
            repository.git_in_remote(&["rev-parse", "main"]).unwrap().trim(),
            commit
        );
        assert_eq!(
            repository.git_in_remote(&["show", "main:pools/a.yaml"]).unwrap(),
            "a: 1\n"
        );
    }
}
