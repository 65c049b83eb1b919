//! `tollgate keys`: makes keys. The secret is shown once and kept nowhere; the configuration holds its hash.

use std::io::{Read, Write};

use anyhow::ensure;
use secrecy::ExposeSecret;

use crate::cli::KeysCommand;

pub(crate) fn run(command: KeysCommand) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match command {
        KeysCommand::New { name } => {
            let key = tollgate_config::generate_key();
            let hash = hex(&tollgate_config::hash_key(key.expose_secret()));
            writeln!(out, "{}", key.expose_secret())?;
            writeln!(
                out,
                "# in tollgate.yaml:\nkeys:\n  - name: {name}\n    hash: sha256:{hash}"
            )?;
        }
        KeysCommand::Hash => {
            let mut text = String::new();
            std::io::stdin().take(4096).read_to_string(&mut text)?;
            ensure!(!text.trim().is_empty(), "standard input is empty");
            writeln!(out, "sha256:{}", hex(&tollgate_config::hash_key(text.trim())))?;
        }
    }
    Ok(())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
