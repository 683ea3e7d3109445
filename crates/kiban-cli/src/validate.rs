//! `kubectl kiban validate`: a folder of fleet YAML, checked offline by the very code that refuses a commit.

use crate::{
    cli::{Global, ValidateArgs},
    failure::Failure,
    output,
};
use kiban_api::validate::{self, Finding, MAX_FILE_BYTES, Options, Severity};
use serde::Serialize;
use std::{
    io::{IsTerminal as _, Read as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Folders deeper than this are not the work of a person.
const MAX_DEPTH: usize = 32;

/// What was found, for `-o json|yaml`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    valid: bool,
    files: usize,
    documents: usize,
    findings: &'a [Finding],
    more: usize,
}

/// Runs the command: exit code 0 when the operator would apply the folder, 2 when it would refuse it.
pub fn run(global: &Global, args: &ValidateArgs) -> Result<ExitCode, Failure> {
    let files = files(&args.dir)?;
    let borrowed = crate::desired::borrow(&files);
    let options = Options {
        namespace: global.namespace.clone().unwrap_or_default(),
        existing: None,
    };
    let validated = validate::validate(&borrowed, &options);
    let report = Report {
        valid: validated.is_ok(),
        files: validated.files,
        documents: validated.documents,
        findings: &validated.findings,
        more: validated.more,
    };
    let text = match output::structured(global.output, &report)? {
        Some(text) => text,
        None => {
            let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let mut text = validate::render(&validated.findings, &borrowed, color, output::width().min(160));
            text.push_str(&validate::summary(&validated));
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text
        }
    };
    output::print(&text);
    let refused = validated
        .findings
        .iter()
        .any(|finding| matches!(finding.severity, Severity::Error));
    Ok(if refused {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    })
}

/// The YAML files of a folder, in order of their paths; or the one file.
pub fn files(dir: &Path) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut files = Vec::new();
    if dir.is_file() {
        let name = dir.file_name().map(PathBuf::from).unwrap_or_default();
        let parent = dir.parent().unwrap_or(Path::new("."));
        read(parent, &name, &mut files)?;
    } else {
        walk(dir, Path::new(""), 0, &mut files)?;
    }
    files.sort();
    if files.is_empty() {
        return Err(Failure::new(format!("there is no YAML in {}", dir.display()))
            .hint("give the folder that FleetRepository.spec.path names; files end in .yaml or .yml"));
    }
    Ok(files)
}

/// Reads every YAML file below a folder, as the operator would find them in a commit. Hidden folders (`.git` above all) hold none.
fn walk(root: &Path, below: &Path, depth: usize, files: &mut Vec<(String, Vec<u8>)>) -> Result<(), Failure> {
    let folder = root.join(below);
    if depth > MAX_DEPTH {
        return Err(Failure::new(format!(
            "{} is more than {MAX_DEPTH} folders deep",
            folder.display()
        )));
    }
    let entries = std::fs::read_dir(&folder).map_err(|error| {
        Failure::from_error(&format!("read the folder {}", folder.display()), &error)
            .hint("give the folder that holds the fleet's YAML")
    })?;
    for entry in entries {
        let entry = entry
            .map_err(|error| Failure::from_error(&format!("read the folder {}", folder.display()), &error))?;
        let name = entry.file_name();
        let path = below.join(&name);
        let kind = entry
            .file_type()
            .map_err(|error| Failure::from_error(&format!("look at {}", path.display()), &error))?;
        let yaml = path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        if kind.is_symlink() {
            // The operator refuses a commit with one; passing over it here would say "valid" of what will not be applied.
            return Err(Failure::new(format!("{} is a symbolic link", path.display()))
                .hint("the operator refuses symbolic links in a fleet repository; commit the file itself"));
        }
        if kind.is_dir() {
            if !name.to_string_lossy().starts_with('.') {
                walk(root, &path, depth + 1, files)?;
            }
        } else if yaml {
            read(root, &path, files)?;
        }
    }
    Ok(())
}

fn read(root: &Path, path: &Path, files: &mut Vec<(String, Vec<u8>)>) -> Result<(), Failure> {
    let fail = |error: std::io::Error| Failure::from_error(&format!("read {}", path.display()), &error);
    let file = std::fs::File::open(root.join(path)).map_err(fail)?;
    let mut bytes = Vec::new();
    // One byte more than is allowed is enough for the validation to say that it is too large.
    file.take(MAX_FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(fail)?;
    files.push((path.to_string_lossy().replace('\\', "/"), bytes));
    Ok(())
}
