//! The flag of the back-end that decides about connections.

use clap::Args;

/// Where the back-end is.
#[derive(Debug, Args)]
#[command(next_help_heading = "Webhook")]
pub(super) struct WebhookFlags {
    /// The URL of a back-end that decides whose a connection is: https, unless it runs on this machine. It gets a `POST` with the
    /// cookie, the origin and the address of each handshake. A name and a password in the URL are sent along; set it in the
    /// environment then, which lists of processes do not show. Without it and without keys for tokens everybody is believed to be
    /// whom they say.
    #[arg(long, value_name = "URL", env = "ROOMCAST_AUTH_URL", hide_env_values = true)]
    pub(super) auth_url: Option<String>,
}
