//! Connections without sockets, to measure how many connections a machine with more descriptors could hold.
//!
//! Such a peer sends all that it has to say at once and takes whatever it is sent, so it needs no memory of its own. What
//! remains is what the server keeps of a connection.

use std::cell::{Cell, RefCell};
use std::io::{self, Read};

use crate::error::Error;

thread_local! {
    /// What the peer that was connected last has still to say.
    static UNREAD: RefCell<io::Cursor<Vec<u8>>> = RefCell::default();
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

/// Reads from the peer that was connected last.
pub(super) fn read(buffer: &mut [u8]) -> io::Result<usize> {
    match UNREAD.with_borrow_mut(|unread| unread.read(buffer))? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        bytes => Ok(bytes),
    }
}

/// Writes to a peer, which takes everything.
pub(super) fn write(bytes: &[u8]) -> usize {
    TAKEN.set(TAKEN.get() + bytes.len() as u64);
    bytes.len()
}

/// How many bytes peers of this thread have taken.
pub fn taken_bytes() -> u64 {
    TAKEN.get()
}

/// Has the peer that is connected next say `input`.
///
/// # Errors
/// [`Error::Command`] if the last peer's input has not been read.
pub(super) fn set_input(input: &[u8]) -> Result<(), Error> {
    UNREAD.with_borrow_mut(|unread| {
        if unread.position() < unread.get_ref().len() as u64 {
            return Err(Error::Command("the last peer's input has not been read yet".to_owned()));
        }
        unread.set_position(0);
        unread.get_mut().clear();
        unread.get_mut().extend_from_slice(input);
        Ok(())
    })
}
