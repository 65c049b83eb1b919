//! `tollgate.yaml`: reading it, checking it, and saying every mistake with its place.
//!
//! The file is read into a tree of nodes that know their lines (`yaml`), walked by `read` into the types of
//! [`schema`], and then overridden by the environment (`environment`). A mistake never stops the walk, so that one run
//! reports them all. [`Keyring`] answers whose key a request carries.

mod cursor;
mod environment;
mod keyring;
mod load;
mod mistake;
mod preset;
mod read;
pub mod schema;
mod secret;
mod url;
mod value;
mod yaml;

pub use keyring::{AuthError, Entry, Keyring, generate_key, hash_key, read_hash};
pub use load::{LoadError, load, parse};
pub use mistake::{Mistake, Mistakes};
pub use preset::presets;
pub use schema::Config;
pub use secret::{SecretError, SecretRef};
pub use url::is_key_source;

/// The defaults as a commented file: every key with its default, and examples of what has none. [`parse`] of this text
/// and of an empty one are the same.
pub const DEFAULTS: &str = include_str!("../tollgate.default.yaml");
