//! The bounds of time, one declaration a setting.

use std::time::Duration;

use super::declare::settings;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The least value of a timeout. The timer is coarse, so a smaller one would promise more than it
/// keeps.
const TICK: Duration = Duration::from_millis(100);

settings! {
    /// How long everything may take. The timer is coarse: a deadline is noticed up to 250 ms late.
    struct Timing at timing, "Timing" {
        /// Silence of a client after which it is pinged.
        ping_interval: Duration = Time(25 * SECOND), TICK => DAY, "ping-interval";
        /// Silence after a ping at which the connection ends (4001).
        pong_timeout: Duration = Time(10 * SECOND), TICK => DAY, "pong-timeout";
        /// How long a client that is owed bytes may take none before its connection ends (4002). Of its own write buffer it has to
        /// take a sixteenth of `output_bytes_max` in that time, or all.
        stall_timeout: Duration = Time(30 * SECOND), TICK => DAY, "stall-timeout";
        /// How long a request head may take from accepting the connection, a TLS handshake before it included, its body
        /// from there, and the next head after an answer; beyond it 408, or the end where there are no keys to answer with.
        handshake_timeout: Duration = Time(10 * SECOND), TICK => DAY, "handshake-timeout";
        /// How long a request over HTTP may wait for the bus to keep its message; beyond it 504. With API keys and Redis it
        /// must exceed `redis-hold`.
        answer_timeout: Duration = Time(75 * SECOND), TICK => DAY, "answer-timeout";
        /// How long a handshake may wait for a decision: of the back-end of `auth-url`, or of any `Authenticator`; beyond it 504.
        admission_timeout: Duration = Time(10 * SECOND), TICK => DAY, "auth-timeout";
        /// How long a closing connection may take to answer the Close before it is cut.
        close_timeout: Duration = Time(5 * SECOND), TICK => DAY, library;
        /// How long a shutdown waits for clients to take the bytes that they are owed.
        drain_timeout: Duration = Time(10 * SECOND), Duration::ZERO => DAY, "drain-timeout";
        /// How long a user whose last connection dropped still counts as present.
        presence_grace: Duration = Time(5 * SECOND), Duration::ZERO => DAY, "presence-grace";
        /// Least time between two `members` messages of a big room.
        members_interval: Duration = Time(SECOND), Duration::ZERO => DAY, library;
        /// Least time between two rounds of sends of one room. The first message after a quiet time goes out at once;
        /// messages that follow within this time go out together, in fewer and larger sends.
        batch_delay: Duration = Time(Duration::ZERO), Duration::ZERO => SECOND, "batch-delay";
        /// How long accepting pauses when the system is out of descriptors or memory, and until a listener is tried again that does
        /// not work.
        accept_pause: Duration = Time(SECOND), TICK => DAY, library;
    }
}
