//! A check before each measurement: every publisher sends one message, and every member must receive it.
//!
//! Then all members have joined, and the server understands the templates.

use std::time::{Duration, Instant};

use crate::client::{ClientIndex, ReadMode};
use crate::crowd::Crowd;
use crate::error::LoadError;
use crate::marker::{MARKER_BYTES, Marker};

/// After this time without any delivery the messages are sent again: the server may not have carried out all joins.
const QUIET: Duration = Duration::from_secs(1);

const ATTEMPTS: usize = 4;

/// Checks publishers, given with their rooms, each of which has as many members. Afterwards they read markers.
///
/// # Errors
/// If deliveries are missing in all attempts.
pub(crate) fn check_delivery(
    crowd: &mut Crowd,
    publishers: &[(ClientIndex, u32)],
    members: usize,
) -> Result<(), LoadError> {
    for (publisher, _) in publishers {
        crowd.set_read_mode(*publisher, ReadMode::Markers);
    }
    let expected = (publishers.len() * members) as u64;
    let mut received = 0;
    for _ in 0..ATTEMPTS {
        let before = crowd.counts().markers;
        for (publisher, room) in publishers {
            let text = Marker { publisher: *publisher, ..Marker::default() }.text(MARKER_BYTES);
            let bytes = crowd.chat_bytes(*room, &text);
            crowd.send(*publisher, &bytes)?;
        }
        let mut quiet_until = Instant::now() + QUIET;
        received = 0;
        while received < expected && Instant::now() < quiet_until {
            crowd.turn(Some(quiet_until))?;
            crowd.check_all_connected()?;
            let now = crowd.counts().markers - before;
            if now > received {
                (received, quiet_until) = (now, Instant::now() + QUIET);
            }
        }
        if received >= expected {
            crowd.take_markers(&mut Vec::new());
            return Ok(());
        }
    }
    let answer = crowd.take_error_message().map(|message| format!("; it answered: {message}")).unwrap_or_default();
    Err(LoadError::Undelivered { received, expected, answer })
}
