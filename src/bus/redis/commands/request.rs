//! What the loop asks of the command thread, and what it is answered.

use super::call::{ScriptCall, ScriptResult};

/// A call with the name under which it is answered.
#[derive(Debug)]
pub(crate) struct Request {
    /// Grows from request to request.
    pub(crate) id: u64,
    pub(crate) call: ScriptCall,
}

/// What became of an request. Every request is answered once.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) id: u64,
    pub(crate) result: Result<ScriptResult, &'static str>,
}
