//! Encodes the calls of presence.

use super::Packer;
use crate::bus::redis::commands::presence::{PresenceCall, USERS_MAX, changes_json};
use crate::bus::redis::presence::delta::{CHANGES_MAX, PresenceRequest};
use crate::bus::redis::presence::nodes::Heartbeat;

impl Packer {
    pub(super) fn pack_presence(&mut self, call: &PresenceCall, sha: usize, out: &mut Vec<u8>) {
        let Self { names, node, shas, life, command, text, .. } = self;
        command.clear();
        command.arg("EVALSHA").arg(&shas[sha]);
        match call {
            PresenceCall::Room(room, request) => {
                command.arg(2);
                names.write_key(text, room, "nodes");
                command.arg(&*text);
                names.write_key(text, room, "on:");
                text.push_str(node);
                command.arg(&*text).arg(*life).arg(&*node);
                match request {
                    PresenceRequest::Update { base, version, changes } => {
                        let is_told = changes.len() <= CHANGES_MAX;
                        let base = base.map(|base| base.to_string()).unwrap_or_default();
                        command.arg(base).arg(*version).arg(changes_json(changes)).arg(u8::from(is_told));
                    }
                    PresenceRequest::Query { known, tombstones } => {
                        command.arg(USERS_MAX).arg(known.len());
                        for (node, version) in known.iter().chain(tombstones) {
                            command.arg(node.as_str()).arg(*version);
                        }
                    }
                }
            }
            PresenceCall::Heartbeat(Heartbeat { text: says, last_text, remove }) => {
                names.write_nodes_key(text);
                command.arg(1).arg(&*text).arg(*life).arg(&*node).arg(says.as_deref().unwrap_or_default());
                command.arg(last_text.as_str());
                for (node, text) in remove {
                    command.arg(node.as_str()).arg(text.as_str());
                }
            }
        }
        command.write_packed_command(out);
    }
}
