//! `tollgate import litellm`: a configuration of ours from one of LiteLLM's, and a list of what could not be carried over.

mod keys;
mod litellm;
mod prices;
mod provider;
#[cfg(test)]
mod tests;
mod yaml;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::cli::ImportCommand;

/// Neither a configuration nor an export of keys is larger.
const LARGEST: u64 = 64 << 20;

/// What was made of another gateway's files.
#[derive(Debug, Default)]
struct Imported {
    /// Our configuration.
    config: String,
    /// Own price sheets, one a line.
    sheets: String,
    /// What could not be carried over, or is to be looked at.
    notes: Vec<String>,
}

pub(crate) fn run(command: ImportCommand) -> anyhow::Result<()> {
    let ImportCommand::Litellm { config, keys, out } = command;
    let text = content(&config)?;
    let theirs: Value = serde_yaml_ng::from_str(&text).with_context(|| format!("{} is not YAML", config.display()))?;
    ensure!(
        theirs.is_object(),
        "{}: expected a configuration of LiteLLM",
        config.display()
    );
    let exported = keys.as_deref().map(exported).transpose()?.unwrap_or_default();
    let imported = litellm::convert(&theirs, &exported);
    write(&out, &imported)?;
    let mut told = std::io::stdout().lock();
    for note in &imported.notes {
        writeln!(told, "- {note}")?;
    }
    let target = out.join("tollgate.yaml");
    let check = tollgate_config::parse(&imported.config, &target.display().to_string());
    if let Err(mistakes) = check {
        writeln!(told, "\nwhat was written has mistakes:\n{mistakes}")?;
    }
    let count = imported.notes.len();
    writeln!(told, "\n{} written; {count} things to look at", target.display())?;
    Ok(())
}

fn content(file: &Path) -> anyhow::Result<String> {
    let size = fs::metadata(file)
        .with_context(|| format!("cannot read {}", file.display()))?
        .len();
    ensure!(size <= LARGEST, "{} is larger than 64 MiB", file.display());
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Keys as `/key/list` gives them, as a list, or one a line.
fn exported(file: &Path) -> anyhow::Result<Vec<Value>> {
    let text = content(file)?;
    let whole = serde_json::from_str::<Value>(&text);
    let keys = match whole {
        Ok(Value::Array(keys)) => Some(keys),
        Ok(Value::Object(mut object)) => match object.remove("keys") {
            Some(Value::Array(keys)) => Some(keys),
            _ => Some(vec![Value::Object(object)]),
        },
        Ok(_) => None,
        Err(_) => text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| serde_json::from_str(line).ok())
            .collect(),
    };
    keys.with_context(|| format!("{}: expected keys in JSON, as a list or one a line", file.display()))
}

fn write(out: &PathBuf, imported: &Imported) -> anyhow::Result<()> {
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    for (name, text) in [("tollgate.yaml", &imported.config), ("prices.jsonl", &imported.sheets)] {
        if text.is_empty() {
            continue;
        }
        let path = out.join(name);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("{} is not written over", path.display()))?;
        file.write_all(text.as_bytes())?;
    }
    Ok(())
}
