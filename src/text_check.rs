//! Checks text of clients before it is complete, so that bytes that are no UTF-8 end a connection when they come
//! (RFC 6455 section 8.1), not when the frame around them ends.

/// How much is unmasked at a time; a multiple of the mask.
const CHUNK_BYTES: usize = 1024;

/// The longest beginning of a character that is not complete.
const CARRIED_MAX: usize = 3;

/// Follows the payloads of text messages as far as it is shown them. A parser checks each frame when it is complete; this
/// checks frames that are not.
#[derive(Debug, Default)]
pub(crate) struct TextCheck {
    /// A continuation would be of a text.
    is_text: bool,
    /// The frame that is being received is of it, and its payload can be read.
    is_followed: bool,
    is_bad: bool,
    mask: [u8; 4],
    /// The beginning of a character whose other bytes are still to come.
    carried: [u8; CARRIED_MAX],
    carried_bytes: u8,
}

impl TextCheck {
    /// A frame begins. It has no mask if its payload is not to be looked at.
    pub(crate) fn begin(&mut self, opcode: u8, mask: Option<[u8; 4]>) {
        let is_data = opcode < 8;
        if is_data && opcode != 0 {
            // The parser refuses a message within a text, for a reason of its own.
            *self = Self { is_text: opcode == 1 && !self.is_text, is_bad: self.is_bad, ..Self::default() };
        }
        self.is_followed = self.is_text && is_data && mask.is_some();
        self.mask = mask.unwrap_or_default();
    }

    /// The frame that has begun is the last one of its message, so a continuation behind it is of none. The parser refuses it,
    /// for a reason of its own.
    pub(crate) fn begin_last(&mut self) {
        self.is_text = false;
    }

    /// The next bytes of the frame's payload, masked as they have come. All of them are shown, in order, unless the rest of
    /// the message is not.
    pub(crate) fn check(&mut self, payload: &[u8]) {
        if !self.is_followed || self.is_bad {
            return;
        }
        let mut text = [0; CARRIED_MAX + CHUNK_BYTES];
        for chunk in payload.chunks(CHUNK_BYTES) {
            let carried = usize::from(self.carried_bytes);
            text[..carried].copy_from_slice(&self.carried[..carried]);
            let end = carried + chunk.len();
            text[carried..end].copy_from_slice(chunk);
            unmask(&mut text[carried..end], self.mask);
            self.mask.rotate_left(chunk.len() % 4);
            self.carried_bytes = 0;
            let Err(error) = str::from_utf8(&text[..end]) else { continue };
            if error.error_len().is_some() {
                self.is_bad = true;
                return;
            }
            let rest = &text[error.valid_up_to()..end];
            self.carried[..rest.len()].copy_from_slice(rest);
            self.carried_bytes = rest.len() as u8;
        }
    }

    /// Whether text was shown that no further byte makes UTF-8.
    pub(crate) fn is_bad(&self) -> bool {
        self.is_bad
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let mut fours = bytes.chunks_exact_mut(4);
    for four in &mut fours {
        four.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
    fours.into_remainder().iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn masked(payload: &[u8]) -> Vec<u8> {
        payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
    }

    /// Where text is found bad that comes byte by byte.
    fn bad_at(text: &[u8]) -> Option<usize> {
        let mut check = TextCheck::default();
        check.begin(1, Some(MASK));
        masked(text).iter().position(|byte| {
            check.check(&[*byte]);
            check.is_bad()
        })
    }

    #[test]
    fn a_frame_that_belongs_to_no_message_is_not_looked_at() {
        let mut check = TextCheck::default();
        check.begin(1, Some(MASK));
        check.begin_last();
        check.check(&masked(b"a"));
        check.begin(0, Some(MASK));
        check.check(&masked(b"\xff"));
        check.begin(1, Some(MASK));
        check.begin(1, Some(MASK));
        check.check(&masked(b"\xff"));
        assert!(!check.is_bad());
    }

    #[test]
    fn the_first_byte_that_cannot_be_text_is_found() {
        assert_eq!(bad_at("aé日𝄞κόσμε".as_bytes()), None);
        assert_eq!(bad_at(b"\xf0\x9d\x84"), None, "it may go on");
        for (text, at) in [
            (&b"ab\xff"[..], 2),
            (b"\x80", 0),
            (b"\xc0\x80", 0),
            (b"\xed\xa0\x80", 1),
            (b"\xf4\x90\x80\x80", 1),
            (b"\xe6\x97a", 2),
            (b"\xf0\x9d\x84\xf0", 3),
        ] {
            assert_eq!(bad_at(text), Some(at), "{text:x?}");
        }
    }

    #[test]
    fn it_makes_no_difference_how_text_is_cut() {
        let good = "aé日𝄞".repeat(300).into_bytes();
        let mut bad = good.clone();
        bad[2500] = 0xff;
        for (text, is_bad) in [(good, false), (bad, true)] {
            let input = masked(&text);
            for cut in (0..=input.len()).step_by(7).chain(1020..1030) {
                let mut check = TextCheck::default();
                check.begin(1, Some(MASK));
                check.check(&input[..cut]);
                check.check(&input[cut..]);
                assert_eq!(check.is_bad(), is_bad, "cut at {cut}");
            }
        }
    }

    #[test]
    fn fragments_are_one_text_and_frames_between_them_are_not_of_it() {
        let mut check = TextCheck::default();
        check.begin(1, Some(MASK));
        check.check(&masked(b"\xe6\x97"));
        check.begin(9, Some(MASK));
        check.check(&masked(b"\xff"));
        check.begin(0, Some(MASK));
        check.check(&masked(b"\xa5"));
        assert!(!check.is_bad());
        check.begin(0, Some(MASK));
        check.check(&masked(b"\xa5"));
        assert!(check.is_bad());
        let mut check = TextCheck::default();
        check.begin(2, Some(MASK));
        check.check(&masked(b"\xff"));
        check.begin(0, Some(MASK));
        check.check(&masked(b"\xff"));
        check.begin(1, None);
        check.check(&masked(b"\xff"));
        assert!(!check.is_bad(), "bytes are no text, and a frame without a mask is not read");
    }
}
