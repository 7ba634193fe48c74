//! The run of a Redis process. A process that has restarted, or a replica that has taken over,
//! has another run id and may lack messages that were delivered. Sequence numbers are unique only
//! within a run.

use std::fmt;

/// The first 32 bits of the `run_id` that `INFO server` reports. If the server reports none, it is
/// [`RunId::UNKNOWN`]. Then only nodes that have the room open notice that Redis lost messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunId(u32);

impl RunId {
    pub(crate) const UNKNOWN: Self = Self(0);

    /// Reads the answer to `INFO server`.
    pub(crate) fn read(info: &str) -> Self {
        let text = info.lines().find_map(|line| line.strip_prefix("run_id:"));
        let digits = text.and_then(|text| text.get(..8));
        digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).map_or(Self::UNKNOWN, Self)
    }

    #[cfg(test)]
    pub(crate) fn new(number: u32) -> Self {
        Self(number)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_beginning_of_what_redis_says() {
        let info = "# Server\r\nredis_version:7.0.15\r\nrun_id:0a1b2c3d4e5f60718293a4b5c6d7e8f901234567\r\n";
        assert_eq!(RunId::read(info).to_string(), "0a1b2c3d");
        for unknown in ["", "run_id:", "run_id:xyz", "redis_version:7.0.15\r\n"] {
            assert_eq!(RunId::read(unknown), RunId::UNKNOWN, "{unknown}");
        }
    }
}
