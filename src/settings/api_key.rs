//! The keys of the HTTP API, and what each of them may do.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::id::RoomName;
use crate::rights::RoomPattern;

/// The least length of an [`ApiKey`] in bytes.
pub const API_KEY_BYTES_MIN: usize = 16;

/// The greatest length of a label in bytes.
const LABEL_BYTES_MAX: usize = 64;

/// A secret that a back-end shares with the server, of at least [`API_KEY_BYTES_MIN`] bytes, and what its holder may do. The
/// secret is never logged, and no message contains it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    secret: String,
    label: Option<String>,
    limits: KeyLimits,
}

/// What the holder of a key may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyLimits {
    /// The names of the commands, or `None` for all.
    commands: Option<Vec<String>>,
    /// The rooms, or `None` for all and for what concerns no room.
    rooms: Option<Vec<RoomPattern>>,
}

impl KeyLimits {
    /// The names of the commands that are allowed, or `None` for all.
    pub(crate) fn commands(&self) -> Option<&[String]> {
        self.commands.as_deref()
    }

    /// Whether a command is allowed at all.
    pub(crate) fn allow_command(&self, name: &str) -> bool {
        self.commands.as_ref().is_none_or(|commands| commands.iter().any(|allowed| allowed == name))
    }

    /// Whether only some rooms are allowed, and nothing that concerns everything.
    pub(crate) fn are_of_rooms(&self) -> bool {
        self.rooms.is_some()
    }

    /// Whether commands about a room are allowed.
    pub(crate) fn allow_room(&self, room: &RoomName) -> bool {
        self.rooms.as_ref().is_none_or(|rooms| rooms.iter().any(|pattern| pattern.matches(room)))
    }
}

impl ApiKey {
    /// Takes any text, as a key that may do everything. [`Config::check`](super::Config::check) checks whether it can be used.
    pub fn new(key: impl Into<String>) -> Self {
        Self { secret: key.into(), label: None, limits: KeyLimits::default() }
    }

    /// Names the key in the log: 1 to 64 ASCII letters, digits, `-`, `_` and `.`. Several keys may have the same label. A key
    /// without one is called by the first eight digits of its SHA-256.
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Limits the key to commands, by the last parts of their paths: `publish`, `kick`.
    pub fn with_commands<T: Into<String>>(mut self, commands: impl IntoIterator<Item = T>) -> Self {
        self.limits.commands = Some(commands.into_iter().map(Into::into).collect());
        self
    }

    /// Limits the key to rooms. It may then use no command that concerns more than those.
    pub fn with_rooms(mut self, rooms: impl IntoIterator<Item = RoomPattern>) -> Self {
        self.limits.rooms = Some(rooms.into_iter().collect());
        self
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.secret.as_bytes()
    }

    pub(crate) fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    pub(crate) fn limits(&self) -> &KeyLimits {
        &self.limits
    }

    /// Checks keys, which have numbers in errors.
    ///
    /// # Errors
    /// [`Error::Config`] with the first that cannot be used.
    pub(crate) fn check_all(keys: &[Self]) -> Result<(), Error> {
        for (index, key) in keys.iter().enumerate() {
            let number = index + 1;
            key.check().map_err(|problem| Error::Config(format!("api-key {number} {problem}")))?;
            // Which of them counts would depend on their order, and a limit could be forgotten.
            let is_other = |earlier: &Self| earlier.secret == key.secret && earlier != key;
            if let Some(earlier) = keys[..index].iter().position(is_other) {
                let problem = format!("api-key {number} is api-key {} with other limits or another label", earlier + 1);
                return Err(Error::Config(problem));
            }
        }
        Ok(())
    }

    /// Keys are used without escaping in a header field, and in the comma-separated list of an
    /// environment variable.
    fn check(&self) -> Result<(), String> {
        let bytes = self.secret.len();
        if bytes < API_KEY_BYTES_MIN {
            return Err(format!("has {bytes} bytes; at least {API_KEY_BYTES_MIN} are needed"));
        }
        if !self.secret.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
            return Err("has other characters than ASCII letters, digits and punctuation without commas".to_owned());
        }
        let is_plain = |label: &str| label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !self.label.as_deref().is_none_or(|label| (1..=LABEL_BYTES_MAX).contains(&label.len()) && is_plain(label)) {
            return Err(format!("has a label that is not 1 to {LABEL_BYTES_MAX} ASCII letters, digits, -, _ and ."));
        }
        let is_empty = |length: Option<usize>| length == Some(0);
        if is_empty(self.limits.commands.as_ref().map(Vec::len)) || is_empty(self.limits.rooms.as_ref().map(Vec::len)) {
            return Err("allows nothing; at least one command and one room are needed".to_owned());
        }
        Ok(())
    }
}

impl FromStr for ApiKey {
    type Err = String;

    /// Reads a line of a file of keys: `KEY name=LABEL commands=publish,broadcast rooms=news-*,lobby`. Everything behind the
    /// key may be missing and may come in any order. A word that begins with `#` begins a comment.
    ///
    /// # Errors
    /// A sentence that repeats nothing of the line, in which a word may be a misplaced key.
    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = line.split_ascii_whitespace().take_while(|word| !word.starts_with('#'));
        let mut key = Self::new(words.next().ok_or("no key")?);
        for (index, word) in words.enumerate() {
            let number = index + 2;
            let twice = |setting: &str| format!("word {number} gives {setting} again");
            match word.split_once('=') {
                Some(("name", _)) if key.label.is_some() => return Err(twice("name=")),
                Some(("name", label)) => key = key.with_label(label),
                Some(("commands", _)) if key.limits.commands.is_some() => return Err(twice("commands=")),
                Some(("commands", commands)) => key = key.with_commands(commands.split(',')),
                Some(("rooms", _)) if key.limits.rooms.is_some() => return Err(twice("rooms=")),
                Some(("rooms", rooms)) => {
                    let pattern = |room: &str| {
                        let problem = format!("word {number} has rooms that are no names, nor beginnings with a star");
                        room.parse::<RoomPattern>().map_err(|_| problem)
                    };
                    let rooms: Result<Vec<_>, _> = rooms.split(',').map(pattern).collect();
                    key = key.with_rooms(rooms?);
                }
                _ => return Err(format!("word {number} is none of name=, commands= and rooms=")),
            }
        }
        Ok(key)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn read(rest: &str) -> Result<ApiKey, String> {
        format!("{SECRET} {rest}").parse()
    }

    fn room(name: &str) -> RoomName {
        RoomName::new(name).unwrap()
    }

    #[test]
    fn a_line_is_a_key_with_or_without_limits() {
        assert_eq!(read(""), Ok(ApiKey::new(SECRET)));
        assert_eq!(read("# of the shop, rooms=a"), Ok(ApiKey::new(SECRET)));
        let key = read("rooms=news-*,lobby name=shop commands=publish,broadcast #all").unwrap();
        assert_eq!(key, read("name=shop  commands=publish,broadcast\trooms=news-*,lobby").unwrap());
        assert_eq!(key.label(), Some("shop"));
        let limits = key.limits();
        assert!(limits.allow_command("publish") && limits.allow_command("broadcast") && !limits.allow_command("kick"));
        assert!(limits.allow_room(&room("lobby")) && limits.allow_room(&room("news-1")));
        assert!(!limits.allow_room(&room("lobby2")) && limits.are_of_rooms());
        let limits = read("").unwrap().limits().clone();
        assert!(limits.allow_command("kick") && limits.allow_room(&room("a")) && !limits.are_of_rooms());
    }

    #[test]
    fn a_line_that_is_not_understood_is_refused_without_being_repeated() {
        for (rest, needle) in [
            ("another-key-0123", "word 2 is none of name=, commands= and rooms="),
            ("name=a allow=publish", "word 3 is none of"),
            ("Commands=publish", "word 2 is none of"),
            ("commands=publish commands=kick", "word 3 gives commands= again"),
            ("rooms=a rooms=b", "word 3 gives rooms= again"),
            ("name=a name=b", "word 3 gives name= again"),
            ("rooms=a*b", "word 2 has rooms"),
            ("rooms=a,,b", "word 2 has rooms"),
            ("rooms=", "word 2 has rooms"),
        ] {
            let problem = read(rest).unwrap_err();
            assert!(problem.contains(needle) && !problem.contains("another"), "{rest}: {problem}");
        }
        for (rest, needle) in [
            ("name=", "api-key 2 has a label"),
            ("name=the/shop", "api-key 2 has a label"),
            (&format!("name={}", "a".repeat(65)), "api-key 2 has a label"),
        ] {
            let keys = [ApiKey::new("fedcba9876543210"), read(rest).unwrap()];
            let problem = ApiKey::check_all(&keys).unwrap_err().to_string();
            assert!(problem.contains(needle), "{rest}: {problem}");
        }
        let nothing = [ApiKey::new(SECRET).with_rooms([])];
        assert!(ApiKey::check_all(&nothing).unwrap_err().to_string().contains("api-key 1 allows nothing"));
        let nothing = [ApiKey::new(SECRET).with_commands([""; 0])];
        assert!(ApiKey::check_all(&nothing).unwrap_err().to_string().contains("api-key 1 allows nothing"));
    }

    #[test]
    fn a_key_has_one_set_of_limits() {
        let [all, shop] = [read("").unwrap(), read("rooms=shop").unwrap()];
        ApiKey::check_all(&[all.clone(), all.clone()]).unwrap();
        let problem = ApiKey::check_all(&[shop, all]).unwrap_err().to_string();
        assert!(problem.contains("api-key 2 is api-key 1 with other limits"), "{problem}");
    }
}
