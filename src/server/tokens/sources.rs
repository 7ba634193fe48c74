//! Reads the keys from where they lie.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::config::TokenConfig;
use super::jwks;
use super::keys::{KeySet, NamedKey, Secret};
use super::pem;

/// A longer file is refused: sets of keys have a few KiB.
pub(super) const SOURCE_BYTES_MAX: u64 = 256 * 1024;

/// Reads the keys of all files.
///
/// # Errors
/// The first file that cannot be read or has no key, and why.
pub(super) fn read_files(config: &TokenConfig) -> Result<KeySet, String> {
    let mut keys = KeySet::default();
    for path in &config.secret_files {
        keys.secrets.push(read_file(path, Secret::read)?);
    }
    for path in &config.key_files {
        let read = read_file(path, pem::read_keys)?;
        keys.public.extend(read.into_iter().map(|key| NamedKey { kid: None, key }));
    }
    if let Some(path) = &config.jwks_file {
        keys.public.extend(read_file(path, jwks::read_keys)?);
    }
    Ok(keys)
}

pub(super) fn read_file<T>(path: &Path, read: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<T, String> {
    let name = path.display();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(SOURCE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("{name}: {error}"))?;
    if bytes.len() as u64 > SOURCE_BYTES_MAX {
        return Err(format!("{name}: more than {SOURCE_BYTES_MAX} bytes"));
    }
    read(&bytes).map_err(|problem| format!("{name}: {problem}"))
}
