//! From a path, or a text, to a configuration or to all that is wrong with it.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use crate::{
    Config, Mistakes,
    cursor::Sink,
    read,
    yaml::{self, Place},
};

/// Largest file, in bytes. Far above what anyone writes, and small enough that no text takes long to read.
const LARGEST: usize = 1024 * 1024;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
}

/// Reads the file, then applies the environment; the mistakes of both are reported together.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    let text = text(path).map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(combined(&text, &path.display().to_string(), |variable| {
        std::env::var_os(variable).map(|value| value.to_string_lossy().into_owned())
    })?)
}

/// The file's text, or as much of it as is needed to see that it is too large.
fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let limit = u64::try_from(LARGEST).unwrap_or(u64::MAX).saturating_add(1);
    match File::open(path)?.take(limit).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) => Err(error),
    }
}

fn combined(text: &str, source: &str, get: impl Fn(&str) -> Option<String>) -> Result<Config, Mistakes> {
    match parse(text, source) {
        Ok(mut config) => config.apply_environment(get).map(|()| config),
        Err(Mistakes(mut mistakes)) => {
            // The overrides are tried on the defaults, only to learn what is wrong with them too.
            let environment = parse("", source).map(|mut config| config.apply_environment(get));
            if let Ok(Err(Mistakes(more))) = environment {
                mistakes.extend(more);
            }
            Err(Mistakes(mistakes))
        }
    }
}

/// Reads a configuration; `source` is the file's name in messages. Does not look at the environment.
pub fn parse(text: &str, source: &str) -> Result<Config, Mistakes> {
    let sink = Sink::new(source);
    let config = read_text(text, &sink);
    match (config, sink.into_sorted()) {
        (Some(config), mistakes) if mistakes.is_empty() => Ok(config),
        (_, mistakes) => Err(Mistakes(mistakes)),
    }
}

fn read_text(text: &str, sink: &Sink) -> Option<Config> {
    if text.len() > LARGEST {
        sink.add(
            Place { line: 1, column: 1 },
            "",
            format!("the file is larger than {LARGEST} bytes"),
        );
        return None;
    }
    match yaml::read(text.trim_start_matches('\u{feff}')) {
        Ok(root) => Some(read::config(root.as_ref(), sink)),
        Err(flaw) => {
            sink.add(flaw.place, "", flaw.message);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_of_file_and_environment_are_reported_together() {
        let get = |variable: &str| (variable == "TOLLGATE_HTTP_LISTEN").then(|| "here".to_owned());
        let mistakes = combined("router:\n  max_attempts: 0\n", "a.yaml", get).unwrap_err();
        assert_eq!(
            mistakes.to_string(),
            "a.yaml:2:17: router.max_attempts: expected a whole number from 1 to 100\n\
             environment: TOLLGATE_HTTP_LISTEN: expected an IP address and a port, such as 127.0.0.1:8080 or [::]:8080"
        );
    }

    #[test]
    fn files_that_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tollgate.yaml");
        assert!(matches!(load(&path), Err(LoadError::Read { .. })));
        std::fs::write(&path, b"bus:\n  url: \xff\n").unwrap();
        assert!(matches!(load(&path), Err(LoadError::Read { .. })));
        std::fs::write(&path, "# \n".repeat(LARGEST)).unwrap();
        let Err(LoadError::Mistakes(mistakes)) = load(&path) else {
            panic!("a mistake")
        };
        assert!(mistakes.0[0].message.contains("larger than"));
    }
}
