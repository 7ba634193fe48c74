//! Mutations of inputs that are valid.

use fastrand::Rng;

/// No input grows beyond this.
const INPUT_BYTES_MAX: usize = 8 * 1024;

/// Numbers at which parsers go wrong.
const NUMBERS: [&str; 18] = [
    "0",
    "-0",
    "-1",
    "1",
    "00",
    "1e3",
    "1.5",
    "+1",
    "125",
    "126",
    "65535",
    "65536",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "9223372036854775808",
    "18446744073709551616",
    "1e999",
];

/// Bytes that overwrite others.
const BYTES: [u8; 12] = [0, 1, 0x0a, 0x0d, b' ', b'"', b'\\', b'{', 0x7f, 0x80, 0xfe, 0xff];

/// Valid inputs of a target, and words that are inserted.
pub(crate) struct Corpus {
    pub(crate) inputs: Vec<Vec<u8>>,
    pub(crate) words: &'static [&'static [u8]],
}

impl Corpus {
    /// One of the inputs, changed up to four times; sometimes not at all.
    pub(crate) fn mutated(&self, rng: &mut Rng) -> Vec<u8> {
        let input = rng.choice(&self.inputs).expect("a corpus has inputs").clone();
        self.varied(rng, input)
    }

    /// An input, changed up to four times; sometimes not at all.
    pub(crate) fn varied(&self, rng: &mut Rng, mut input: Vec<u8>) -> Vec<u8> {
        for _ in 0..rng.u32(..5) {
            self.mutate(rng, &mut input);
        }
        input
    }

    /// Changes an input once.
    pub(crate) fn mutate(&self, rng: &mut Rng, input: &mut Vec<u8>) {
        let at = if rng.u32(..8) == 0 { input.len() } else { rng.usize(..=input.len()) };
        // Short pieces mostly, so that most of the input stays valid.
        let span = if rng.u32(..4) == 0 { input.len() } else { 8 };
        let end = input.len().min(at + rng.usize(..=span));
        match rng.u32(..9) {
            0 if at < input.len() => input[at] ^= 1 << rng.u32(..8),
            1 if at < input.len() => input[at] = *rng.choice(&BYTES).expect("a byte"),
            2 => insert(input, at, rng.choice(self.words).expect("a corpus has words")),
            3 => drop(input.drain(at..end)),
            4 => {
                let piece = input[at..end].to_vec();
                (0..1 << rng.u32(..4)).for_each(|_| insert(input, at, &piece));
            }
            5 => {
                let other = rng.choice(&self.inputs).expect("a corpus has inputs");
                let from = rng.usize(..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            6 => change_number(rng, input, at),
            7 => {
                let width = 1 << rng.u32(..4);
                let byte = *rng.choice(&BYTES).expect("a byte");
                input.iter_mut().skip(at).take(width).for_each(|old| *old = byte);
            }
            _ if rng.u32(..4) == 0 => input.truncate(at),
            _ => insert(input, at, &[rng.u8(..)]),
        }
        input.truncate(INPUT_BYTES_MAX);
    }
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    if input.len() + piece.len() <= INPUT_BYTES_MAX {
        drop(input.splice(at..at, piece.iter().copied()));
    }
}

/// Replaces the first number behind `at`.
fn change_number(rng: &mut Rng, input: &mut Vec<u8>, at: usize) {
    let Some(start) = input[at..].iter().position(u8::is_ascii_digit).map(|digits| at + digits) else { return };
    let digits = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = rng.choice(NUMBERS).expect("a number");
    drop(input.splice(start..start + digits, number.bytes()));
}

/// The same bytes in pieces, up to eight of them or one for each byte.
pub(crate) fn pieces<'i>(rng: &mut Rng, input: &'i [u8]) -> Vec<&'i [u8]> {
    if input.len() <= 256 && rng.u32(..8) == 0 {
        return input.chunks(1).collect();
    }
    let mut cuts: Vec<_> = (0..rng.u32(1..8)).map(|_| rng.usize(..=input.len())).collect();
    cuts.extend([0, input.len()]);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]).collect()
}
