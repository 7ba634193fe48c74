//! The hub's question who is in a room on other nodes now.

/// How far the question is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Check {
    #[default]
    None,
    /// The next query asks it. One that is under way may have been answered already.
    Wanted,
    UnderWay,
    /// All has come.
    Done,
}

impl Check {
    /// A query is sent.
    pub(super) fn begin(&mut self) {
        if *self == Self::Wanted {
            *self = Self::UnderWay;
        }
    }

    /// A query was refused, or its answer is not complete: the next one asks again.
    pub(super) fn repeat(&mut self) {
        if *self == Self::UnderWay {
            *self = Self::Wanted;
        }
    }

    /// All that was queried has come.
    pub(super) fn complete(&mut self) {
        if *self == Self::UnderWay {
            *self = Self::Done;
        }
    }

    /// Whether all has come, once.
    pub(super) fn take_done(&mut self) -> bool {
        let is_done = *self == Self::Done;
        if is_done {
            *self = Self::None;
        }
        is_done
    }
}
