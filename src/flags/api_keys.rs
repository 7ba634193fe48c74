//! The file with keys of the HTTP API, and the thread that reads it again.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

use roomcast::settings::ApiKey;
use roomcast::{Escaped, Remote};

/// The largest file with keys.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Where the keys of the HTTP API come from.
#[derive(Clone, Debug)]
pub(crate) struct ApiKeySource {
    /// Those of the command line and the environment.
    pub(super) given: Vec<ApiKey>,
    pub(super) file: Option<PathBuf>,
}

impl ApiKeySource {
    /// All keys.
    ///
    /// # Errors
    /// A sentence that names the file, and repeats nothing of what it contains.
    pub(crate) fn read(&self) -> Result<Vec<ApiKey>, String> {
        let mut keys = self.given.clone();
        if let Some(path) = &self.file {
            keys.extend(read_file(path).map_err(|problem| format!("api-key-file {}: {problem}", path.display()))?);
        }
        Ok(keys)
    }

    /// Starts a thread that reads the file again whenever it is told to, since a disk may take its time. `None` if there is no
    /// file.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(crate) fn follow(self, remote: Remote) -> std::io::Result<Option<ApiKeyReader>> {
        if self.file.is_none() {
            return Ok(None);
        }
        // A reading that was asked for and has not begun serves everybody who asks meanwhile.
        let (wake, wakes) = sync_channel(1);
        let reload = move || {
            let count_of = |keys: Vec<ApiKey>| {
                let count = keys.len();
                remote.set_api_keys(keys).map(|()| count).map_err(|error| error.to_string())
            };
            match self.read().and_then(count_of) {
                Ok(count) => log::info!("api-key-file: {count} keys"),
                Err(problem) => log::warn!("the keys of the API stay as they were: {}", Escaped(problem)),
            }
        };
        let thread = std::thread::Builder::new().name("roomcast-api-keys".to_owned());
        thread.spawn(move || wakes.iter().for_each(|()| reload()))?;
        Ok(Some(ApiKeyReader { wake }))
    }
}

/// The thread that reads the file with keys.
pub(crate) struct ApiKeyReader {
    wake: SyncSender<()>,
}

impl ApiKeyReader {
    /// Has the file read again.
    pub(crate) fn reload(&self) {
        // If the queue is full, the file is read after this anyway.
        let _ = self.wake.try_send(());
    }
}

/// Reads a key from each line that is neither empty nor a comment.
fn read_file(path: &Path) -> Result<Vec<ApiKey>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("more than {FILE_BYTES_MAX} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "not text".to_owned())?;
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let read = |(index, line): (usize, &str)| {
        line.parse::<ApiKey>().map_err(|problem| format!("line {}: {problem}", index + 1))
    };
    let keys = lines.map(read).collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() { Err("no key; a line for each is needed".to_owned()) } else { Ok(keys) }
}
