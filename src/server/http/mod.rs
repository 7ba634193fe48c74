//! The resources that the server answers over HTTP.

pub(super) mod api;
mod content_coding;
mod health;
mod origin;
mod page;
mod request_context;
mod routes;
mod static_file;
mod websocket;

pub(super) use self::request_context::RequestContext;
pub(super) use self::routes::{Decision, Routes};
