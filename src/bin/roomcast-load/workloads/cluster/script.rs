//! The script with which the bus publishes, loaded into Redis and called without a node.

use roomcast::bus::Publication;
use roomcast::internals::PublishScript;
use roomcast::{Config, Owner, RoomName, UserId};

use super::nodes::{Cluster, PREFIX};
use crate::error::LoadError;
use crate::redis_server::ask;

/// A room that no node has open.
const ROOM: &str = "latency-alone";

pub(super) struct Script {
    script: PublishScript,
    sha: String,
    published: u64,
}

impl Script {
    pub(super) fn load(cluster: &Cluster<'_, '_>) -> Result<Self, LoadError> {
        let script = PublishScript::new(&Config::default(), PREFIX);
        let sha = ask(&mut cluster.redis.connection()?, &["SCRIPT", "LOAD", &script.source()])?;
        Ok(Self { script, sha, published: 0 })
    }

    /// The command that publishes a text.
    pub(super) fn call(&mut self, serial: u32, text: &str) -> Result<Vec<String>, LoadError> {
        let publication = Publication {
            room: RoomName::new(ROOM)?,
            user: UserId::new("alone")?,
            owner: Owner::HOST,
            id: Some(serial.to_string().into()),
            body: format!(r#"{{"type":"chat","room":"{ROOM}","userId":"alone","text":"{text}""#).into(),
            restriction: None,
        };
        Ok(self.script.call(&self.sha, publication))
    }

    /// The end of the answer to the next command.
    pub(super) fn answer(&mut self) -> Vec<u8> {
        self.published += 1;
        format!(" {}\r\n", self.published).into_bytes()
    }

    /// The channel of its room: the prefix of the room's keys.
    pub(super) fn channel(&mut self) -> Result<String, LoadError> {
        let command = self.call(0, "")?;
        let channel = command.iter().find_map(|word| word.strip_suffix(":meta"));
        channel.map(str::to_owned).ok_or_else(|| LoadError::Timeout(format!("a key in {command:?}")))
    }
}
