//! Before anything counts, everybody who publishes says one thing, and everybody else must hear it: then all have joined,
//! and the server speaks the words that it is spoken to in.

use std::time::{Duration, Instant};

use crate::client::{ClientIndex, Ear};
use crate::crowd::Crowd;
use crate::error::LoadError;
use crate::marker::{MARKER_BYTES, Marker};

/// How long nothing may come before it is said again: a server may not have been done with joining.
const QUIET: Duration = Duration::from_secs(1);

const ATTEMPTS: usize = 4;

/// Publishers with their rooms, each of which has as many members. From now on they hear markers, and complaints.
///
/// # Errors
/// If not everybody hears everything, however often it is said.
pub(crate) fn rehearse(crowd: &mut Crowd, publishers: &[(ClientIndex, u32)], members: usize) -> Result<(), LoadError> {
    for (publisher, _) in publishers {
        crowd.set_ear(*publisher, Ear::Markers);
    }
    let expected = (publishers.len() * members) as u64;
    let mut heard = 0;
    for _ in 0..ATTEMPTS {
        let before = crowd.counts().markers;
        for (publisher, room) in publishers {
            let text = Marker { publisher: *publisher, ..Marker::default() }.text(MARKER_BYTES);
            let bytes = crowd.chat_bytes(*room, &text);
            crowd.say(*publisher, &bytes)?;
        }
        let mut quiet_until = Instant::now() + QUIET;
        heard = 0;
        while heard < expected && Instant::now() < quiet_until {
            crowd.turn(Some(quiet_until))?;
            crowd.expect_nobody_gone()?;
            let now = crowd.counts().markers - before;
            if now > heard {
                (heard, quiet_until) = (now, Instant::now() + QUIET);
            }
        }
        if heard >= expected {
            crowd.take_markers(&mut Vec::new());
            return Ok(());
        }
    }
    let complaint = crowd.take_complaint().map(|words| format!("; it complained: {words}")).unwrap_or_default();
    Err(LoadError::Unheard { heard, expected, complaint })
}
