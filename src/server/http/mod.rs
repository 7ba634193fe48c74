//! The resources that the server answers over HTTP.

pub(super) mod api;
mod health;
mod origin;
mod page;
mod request_context;
mod routes;
mod websocket;

pub(super) use self::request_context::RequestContext;
pub(super) use self::routes::{Decision, Routes};
