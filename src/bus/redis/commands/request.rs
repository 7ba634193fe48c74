//! Requests of the loop to the command thread, and its responses.

use super::call::{ScriptCall, ScriptResult};
use crate::bus::message::BusRefusal;

/// A call, and the id under which it is answered.
#[derive(Debug)]
pub(crate) struct Request {
    /// Increases with each request.
    pub(crate) id: u64,
    pub(crate) call: ScriptCall,
}

/// The outcome of a request. Each request gets one response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) id: u64,
    pub(crate) result: Result<ScriptResult, BusRefusal>,
}
