//! Who is connected, and in which rooms.

use std::collections::{HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::Sender;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::messages::{Received, Sent, bad_message};

/// In bigger rooms nobody is told who comes and goes.
const PRESENCE_MEMBERS_MAX: usize = 200;

/// All senders of a connection's queue are in here, so that the queue ends when the hub drops the client.
#[derive(Default)]
pub struct Hub {
    clients: HashMap<u64, Client>,
    rooms: HashMap<String, Room>,
    slow: Vec<u64>,
}

struct Client {
    user_id: String,
    sender: Sender<Utf8Bytes>,
    rooms: HashSet<String>,
}

#[derive(Default)]
struct Room {
    members: HashMap<u64, Sender<Utf8Bytes>>,
    seq: u64,
}

impl Hub {
    pub fn come(&mut self, id: u64, user_id: String, sender: Sender<Utf8Bytes>) {
        self.clients.insert(id, Client { user_id, sender, rooms: HashSet::new() });
    }

    pub fn receive(&mut self, id: u64, text: &str) {
        let refusal = match serde_json::from_str::<Received>(text) {
            Ok(received) => match &*received.kind {
                "join" => self.join(id, &received.room),
                "chat" => self.chat(id, &received),
                _ => Some("unknown type"),
            },
            Err(_) => Some("not JSON, or a field is of the wrong kind"),
        };
        if let (Some(message), Some(client)) = (refusal, self.clients.get(&id))
            && client.sender.try_send(bad_message(message)).is_err()
        {
            self.slow.push(id);
        }
        // Dropping somebody tells others, which may find more who are slow.
        while let Some(id) = self.slow.pop() {
            self.leave(id);
        }
    }

    fn join(&mut self, id: u64, name: &str) -> Option<&'static str> {
        let client = self.clients.get_mut(&id)?;
        if name.is_empty() {
            return Some("room is missing");
        }
        if !client.rooms.insert(name.to_owned()) {
            return Some("already joined");
        }
        let room = self.rooms.entry(name.to_owned()).or_default();
        room.members.insert(id, client.sender.clone());
        let count = room.members.len();
        if client.sender.try_send(Sent::Joined { room: name, count }.encode()).is_err() {
            self.slow.push(id);
        }
        if count <= PRESENCE_MEMBERS_MAX {
            let message = Sent::Presence { room: name, user_id: &client.user_id, status: "online" };
            room.broadcast(&message, &mut self.slow);
        }
        None
    }

    fn chat(&mut self, id: u64, received: &Received) -> Option<&'static str> {
        let client = self.clients.get(&id)?;
        let name = &*received.room;
        if !client.rooms.contains(name) {
            return Some("not joined");
        }
        if received.text.is_empty() {
            return Some("text is empty");
        }
        let room = self.rooms.get_mut(name)?;
        room.seq += 1;
        let message = Sent::Chat {
            room: name,
            user_id: &client.user_id,
            text: &received.text,
            id: received.id.as_deref(),
            ts: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
            seq: room.seq,
        };
        room.broadcast(&message, &mut self.slow);
        None
    }

    pub fn leave(&mut self, id: u64) {
        let Some(client) = self.clients.remove(&id) else { return };
        for name in &client.rooms {
            let Some(room) = self.rooms.get_mut(name) else { continue };
            let told = room.members.len() <= PRESENCE_MEMBERS_MAX;
            room.members.remove(&id);
            if room.members.is_empty() {
                self.rooms.remove(name);
            } else if told {
                let message = Sent::Presence { room: name, user_id: &client.user_id, status: "offline" };
                room.broadcast(&message, &mut self.slow);
            }
        }
    }
}

impl Room {
    /// A client whose queue is full is to be dropped.
    fn broadcast(&self, message: &Sent, slow: &mut Vec<u64>) {
        let encoded = message.encode();
        for (id, sender) in &self.members {
            if sender.try_send(encoded.clone()).is_err() {
                slow.push(*id);
            }
        }
    }
}
