//! Rules of the code that clippy cannot check: layers, circles, names of types, sizes of files.

mod imports;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use self::imports::Crate;

/// The library's modules from the bottom up. A module imports only from layers below its own, or from itself.
const LAYERS: [&[&str]; 5] = [
    &[
        "block_slab",
        "budget",
        "error",
        "id",
        "memory",
        "metric",
        "rights",
        "settings",
        "sharded_map",
        "steps",
        "time",
        "unicode",
    ],
    &[
        "room_log",
        "inbox",
        "timer_wheel",
        "name_index",
        "name_order",
        "owner",
        "weights",
        "quota",
        "fair_queue",
        "restrictions",
    ],
    &["protocol", "frame", "text_check", MESSAGES],
    &["hub", "net", "bus"],
    &["server", "lib"],
];

/// The messages between hub and bus lie below both.
const MESSAGES: &str = "bus::message";

/// Within a layer these may import from each other; `hub`, `net` and `bus` may not.
const LAYERS_OPEN_WITHIN: [usize; 3] = [0, 1, 2];

/// `error` wraps the error of the inbox, so that the caller has one type to match on.
const ALLOWED: [(&str, &str); 1] = [("error", "inbox")];

const FILE_LINES_MAX: usize = 420;

struct Source {
    path: PathBuf,
    module: String,
    text: String,
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    files(&root, &mut paths);
    paths.sort();
    assert!(paths.len() > 20, "the sources were not found");
    let source = |path: PathBuf| {
        let relative = path.strip_prefix(&root).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        let first = if relative.ends_with("bus/message.rs") { MESSAGES } else { first };
        Source { module: first.trim_end_matches(".rs").to_owned(), text: fs::read_to_string(&path).unwrap(), path }
    };
    paths.into_iter().map(source).collect()
}

/// The library's sources, without those of the program.
fn library() -> Vec<Source> {
    sources().into_iter().filter(|source| !["main", "flags", "bin"].contains(&source.module.as_str())).collect()
}

/// Code without comments, doc comments and the tests at the end.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    lines.enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")).map(|(i, line)| (i + 1, line))
}

fn layer(module: &str) -> usize {
    let layer = LAYERS.iter().position(|layer| layer.contains(&module));
    layer.unwrap_or_else(|| panic!("module {module} has no layer"))
}

/// The modules that a line of code names by `crate::`.
fn named_modules(line: &str) -> Vec<String> {
    let word = |text: &str| match text.strip_prefix(MESSAGES) {
        Some(_) => MESSAGES.to_owned(),
        None => text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>(),
    };
    line.match_indices("crate::").map(|(at, _)| word(&line[at + 7..])).filter(|name| !name.is_empty()).collect()
}

#[test]
fn imports_point_downwards() {
    for source in library() {
        let here = layer(&source.module);
        for (number, line) in code(&source.text) {
            for named in named_modules(line).into_iter().filter(|named| *named != source.module) {
                let there = layer(&named);
                let is_allowed = there < here
                    || (there == here && LAYERS_OPEN_WITHIN.contains(&here))
                    || ALLOWED.contains(&(source.module.as_str(), named.as_str()));
                assert!(is_allowed, "{}:{number}: {} imports {named}", source.path.display(), source.module);
            }
        }
    }
}

/// The only files below the server that may open sockets: the threads of the Redis bus, and the links that they drive.
const OWN_THREADS: [&str; 5] = [
    "bus/redis/commands/thread.rs",
    "bus/redis/connection/link.rs",
    "bus/redis/subscribe/channels.rs",
    "bus/redis/subscribe/thread.rs",
    "bus/worker.rs",
];
const OWN_SOCKETS: [&str; 2] = ["bus/redis/connection/stream.rs", "bus/redis/connection/wire.rs"];
/// Look-ups block on threads of their own, for one answer each.
const OWN_LOOKUPS: [&str; 2] = ["bus/redis/connection/blocking_query.rs", "bus/redis/connection/endpoint.rs"];
/// Parts that are shared with the loop lend a waker.
const OWN_WAKERS: [&str; 3] = ["bus/redis/cluster/pool.rs", "bus/redis/mod.rs", "bus/redis/threads.rs"];

/// The only files that may read clocks, and those that may lock; see clippy.toml.
const OWN_CLOCKS: [&str; 1] = ["server/clock.rs"];
const OWN_LOCKS: [&str; 2] = ["bus/redis/cluster/discovery.rs", "bus/redis/connection/sentinel.rs"];

#[test]
fn only_these_files_are_exempt_from_what_clippy_bans() {
    for source in library() {
        for (number, line) in code(&source.text).filter(|(_, line)| line.contains("expect(")) {
            let exempt: Vec<&str> = match line {
                _ if line.contains("disallowed_methods") => OWN_CLOCKS.into_iter().chain(OWN_THREADS).collect(),
                _ if line.contains("disallowed_types") => OWN_LOCKS.to_vec(),
                _ => continue,
            };
            let is_exempt = exempt.iter().any(|file| source.path.ends_with(file));
            assert!(is_exempt, "{}:{number} is not among {exempt:?}", source.path.display());
        }
    }
}

/// Clippy checks that nothing in the library blocks or reads a clock. This checks the rules of folders.
#[test]
fn hub_net_and_bus_are_sans_io_where_they_say_so() {
    let is_one_of = |source: &Source, files: &[&str]| files.iter().any(|file| source.path.ends_with(file));
    for source in library() {
        let forbidden: &[&str] = match source.module.as_str() {
            "bus" if is_one_of(&source, &OWN_THREADS) => &["std::net", "BusEvent"],
            "bus" if is_one_of(&source, &OWN_SOCKETS) => &["thread::", "crate::"],
            "bus" if is_one_of(&source, &OWN_LOOKUPS) => &["mio::net", "BusEvent"],
            "bus" if is_one_of(&source, &OWN_WAKERS) => &["std::net", "mio::net"],
            "server" => &[],
            "net" => &["thread::", "serde_json"],
            "inbox" => &["std::net"],
            // They read addresses, and open no socket.
            "owner" | "restrictions" => &["mio::", "thread::"],
            _ => &["std::net", "mio::"],
        };
        for (number, line) in code(&source.text) {
            for word in forbidden {
                assert!(!line.contains(word), "{}:{number}: {word} in {}", source.path.display(), source.module);
            }
        }
    }
}

#[test]
fn files_have_one_responsibility() {
    for source in sources() {
        let path = source.path.display();
        assert!(source.text.starts_with("//!"), "{path} does not say what it is for");
        let lines = code(&source.text).last().map_or(0, |(number, _)| number);
        assert!(lines <= FILE_LINES_MAX, "{path} has {lines} lines before its tests; {FILE_LINES_MAX} are allowed");
    }
}

/// The roots of the library and of the programs.
const ROOTS: [&str; 3] = ["lib.rs", "main.rs", "bin/roomcast-load/main.rs"];

#[test]
fn files_do_not_import_each_other_in_circles() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for root in ROOTS {
        let files = Crate::read(&folder, root);
        let circles = imports::circles(&files.arrows());
        assert!(circles.is_empty(), "these files name each other's items: {circles:#?}");
    }
}

#[test]
fn the_name_of_a_type_is_unique_in_its_folder() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found: BTreeMap<(&str, String), Vec<String>> = BTreeMap::new();
    let crates = ROOTS.map(|root| Crate::read(&folder, root));
    for (file, name) in crates.iter().flat_map(Crate::types) {
        found.entry((folder_of(file), name)).or_default().push(file.to_owned());
    }
    found.retain(|_, files| files.len() > 1);
    assert!(found.is_empty(), "these names stand for several types: {found:#?}");
}

/// The folder in which a file's types have names of their own: the first below `src`, with all that is below it.
fn folder_of(file: &str) -> &str {
    const WHOLE: [&str; 2] = ["bus/redis", "bin/roomcast-load"];
    if let Some(folder) = WHOLE.into_iter().find(|folder| file.starts_with(folder)) {
        return folder;
    }
    // `protocol.rs` belongs to `protocol/`.
    file.split('/').next().unwrap().trim_end_matches(".rs")
}
