//! `tollgate check`: says every mistake of a configuration with its place.

use std::{path::Path, process::ExitCode};

pub(crate) fn run(file: &Path) -> ExitCode {
    match tollgate_config::load(file) {
        Ok(config) => {
            eprintln!(
                "{}: no mistakes; {} providers, {} models, {} keys, {} policies",
                file.display(),
                config.providers.len(),
                config.models.len(),
                config.keys.len(),
                config.guardrail.policies.len()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
