//! The marker in each text, which is found again wherever a server puts the text: publisher, serial number, due time.

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// No JSON around the texts contains it, and `~` is nowhere else in a text.
const NEEDLE: &[u8] = b"~rc";

/// The length of a marker, and so the minimum of a text.
pub(crate) const MARKER_BYTES: usize = NEEDLE.len() + 5 + 8 + 10;

static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(NEEDLE));

/// Identifies one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marker {
    /// The client that published it; below 2^20.
    pub(crate) publisher: u32,
    pub(crate) serial: u32,
    /// When it was to be published, in microseconds of the run; below 2^40.
    pub(crate) due_micros: u64,
}

impl Marker {
    /// A text of `bytes` that begins with the marker.
    pub(crate) fn text(self, bytes: usize) -> String {
        let Self { publisher, serial, due_micros } = self;
        let mut text = format!("~rc{publisher:05x}{serial:08x}{due_micros:010x}");
        text.extend(std::iter::repeat_n('.', bytes.saturating_sub(text.len())));
        text
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let hex = |digits: &[u8]| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        Some(Self {
            publisher: hex(&bytes[3..8])? as u32,
            serial: hex(&bytes[8..16])? as u32,
            due_micros: hex(&bytes[16..26])?,
        })
    }
}

/// The end of a read, if a marker may continue in the next one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tail {
    bytes: [u8; MARKER_BYTES - 1],
    len: u8,
}

impl Tail {
    pub(crate) const BYTES_MAX: usize = MARKER_BYTES - 1;

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }

    /// `rest` is shorter than a marker.
    fn keep(&mut self, rest: &[u8]) {
        self.bytes[..rest.len()].copy_from_slice(rest);
        self.len = rest.len() as u8;
    }
}

/// Counts the markers in `read`, which begins with the tail of the read before.
pub(crate) fn count(read: &[u8], tail: &mut Tail) -> u64 {
    let mut count = 0;
    let mut end = 0;
    for at in FINDER.find_iter(read) {
        count += 1;
        end = at + NEEDLE.len();
    }
    let rest = &read[end.max(read.len().saturating_sub(NEEDLE.len() - 1))..];
    tail.keep(rest.iter().position(|byte| *byte == NEEDLE[0]).map_or(&[][..], |at| &rest[at..]));
    count
}

/// Gives every marker in `read`, which begins with the tail of the read before, to `each`.
pub(crate) fn find(read: &[u8], tail: &mut Tail, mut each: impl FnMut(Marker)) {
    let mut end = 0;
    for at in FINDER.find_iter(read) {
        let Some(bytes) = read.get(at..at + MARKER_BYTES) else {
            return tail.keep(&read[at..]);
        };
        if let Some(marker) = Marker::parse(bytes) {
            each(marker);
        }
        end = at + MARKER_BYTES;
    }
    let rest = &read[end.max(read.len().saturating_sub(NEEDLE.len() - 1))..];
    tail.keep(rest.iter().position(|byte| *byte == NEEDLE[0]).map_or(&[][..], |at| &rest[at..]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_found_and_counted_wherever_the_bytes_are_cut() {
        let markers: Vec<_> =
            (0..3).map(|i| Marker { publisher: 7 + i, serial: 4_000_000_000 + i, due_micros: 1 << 39 }).collect();
        let stream = markers.iter().map(|marker| format!("{{\"text\":\"{}\"}}~r", marker.text(64))).collect::<String>();
        for cut in 0..stream.len() {
            for second in cut..stream.len() {
                let mut found = Vec::new();
                let mut counted = 0;
                let (mut tail_found, mut tail_counted) = (Tail::default(), Tail::default());
                for part in [&stream[..cut], &stream[cut..second], &stream[second..]] {
                    let read = [tail_found.bytes(), part.as_bytes()].concat();
                    find(&read, &mut tail_found, |marker| found.push(marker));
                    let read = [tail_counted.bytes(), part.as_bytes()].concat();
                    counted += count(&read, &mut tail_counted);
                }
                assert_eq!(found, markers, "cut at {cut} and {second}");
                assert_eq!(counted, 3, "cut at {cut} and {second}");
            }
        }
    }

    #[test]
    fn texts_have_the_length_that_was_asked_for() {
        assert_eq!(Marker::default().text(64).len(), 64);
        assert_eq!(Marker::default().text(1).len(), MARKER_BYTES);
    }
}
