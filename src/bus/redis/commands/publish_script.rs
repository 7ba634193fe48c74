//! The publishing script by itself, for tools that measure how fast Redis alone runs it.

use std::time::Duration;

use super::names::KeyNames;
use super::packer::{Packer, Server};
use super::request::{PendingPublication, Request};
use super::script::{ChannelKind, Script};
use crate::bus::message::{Publication, Ticket};
use crate::bus::redis::connection::RunId;
use crate::bus::redis::connection::resp;
use crate::settings::{Config, RuleIndex};

/// The script by which a [`RedisBus`](crate::bus::RedisBus) publishes, with its arguments. It is
/// encoded by the code of the bus, so that a measurement cannot be of something else.
pub struct PublishScript {
    packer: Packer,
}

impl PublishScript {
    /// The script for a bus with these settings and this prefix.
    pub fn new(config: &Config, prefix: &str) -> Self {
        Self { packer: Packer::new(config, KeyNames::new(prefix), ChannelKind::Global, "probe".to_owned()) }
    }

    /// The source, for `SCRIPT LOAD`, which answers with the hash of the script.
    pub fn source(&self) -> String {
        Script::Publish.source(ChannelKind::Global)
    }

    /// The words of the command that publishes, given the hash of the script. Bytes of the
    /// publication that are not UTF-8 are replaced.
    pub fn call(&mut self, sha: &str, publication: Publication) -> Vec<String> {
        self.packer.loaded(Script::Publish, sha);
        let rule = RuleIndex::default();
        let mut packed = Vec::new();
        let server = Server { run_id: RunId::UNKNOWN, is_settled: true };
        let pending =
            PendingPublication { ticket: Ticket(0), publication, deletes: None, rule, serial: 0, at: Duration::ZERO };
        self.packer.pack(&Request::Publish(pending), server, &mut packed);
        // The packer has just written an array of strings.
        let parsed = resp::parse(&packed).ok().flatten();
        let words = parsed.and_then(|(value, _)| value.items()).into_iter().flatten();
        words.filter_map(|word| Some(String::from_utf8_lossy(word.bytes()?).into_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::id::{RoomName, UserId};
    use crate::owner::Owner;

    #[test]
    fn the_words_are_those_of_the_bus() {
        let mut script = PublishScript::new(&Config::default(), "roomcast");
        assert!(script.source().contains("'PUBLISH'"));
        let publication = Publication {
            room: RoomName::new("lobby").unwrap(),
            user: UserId::new("ann").unwrap(),
            owner: Owner::HOST,
            id: Some("7".into()),
            body: Bytes::from_static(b"{\"text\":\"hi\""),
            restriction: None,
        };
        let words = script.call("sha", publication);
        let begin =
            ["EVALSHA", "sha", "3", "roomcast:{lobby}:meta", "roomcast:{lobby}:log", "roomcast:{lobby}:id:ann 7"];
        assert_eq!(words[..6], begin);
        assert!(words.contains(&"{\"text\":\"hi\"".to_owned()), "{words:?}");
    }
}
