//! The attacks, by what they aim at.

mod floods;
mod members;
mod readers;
mod requests;
mod unfinished;

use super::attack::{Attack, LARGE_TEXT_BYTES, Reads};
use crate::hostile_flags::AttackKind;

/// 43 bytes in each tenth of a second.
const TRICKLE_BYTES: usize = 43;

pub(super) fn of_kind(kind: AttackKind) -> Box<dyn Attack> {
    match kind {
        AttackKind::Ids => Box::new(floods::IdFlood::default()),
        AttackKind::History => Box::new(floods::HistoryFlood::default()),
        AttackKind::Rooms => Box::new(floods::RoomFlood::default()),
        AttackKind::Unread => Box::new(readers::PageReader::new(Reads::Nothing)),
        AttackKind::Trickle => Box::new(readers::PageReader::new(Reads::Trickle(TRICKLE_BYTES))),
        AttackKind::Pages => Box::new(readers::PageReader::new(Reads::All)),
        AttackKind::Epochs => Box::new(readers::LongEpochs::default()),
        AttackKind::Unfinished => Box::new(unfinished::UnfinishedMessage::default()),
        AttackKind::Fragments => Box::new(unfinished::TinyFragments::default()),
        AttackKind::HangUps => Box::new(members::HangUp),
        AttackKind::BigRooms => Box::new(members::BigRooms::new("to all of you".to_owned())),
        AttackKind::LoudRooms => Box::new(members::BigRooms::new("x".repeat(LARGE_TEXT_BYTES))),
        AttackKind::Moves => Box::new(members::Moves),
        AttackKind::Gets => Box::new(requests::PageRequests),
        AttackKind::Silent => Box::new(requests::SilentSocket { hello: b"" }),
        AttackKind::Tls => Box::new(requests::SilentSocket { hello: requests::TLS_HELLO }),
        AttackKind::Refused => Box::new(requests::RefusedRequest::default()),
    }
}
