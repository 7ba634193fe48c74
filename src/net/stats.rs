//! What a net counts.

use crate::metric::counts;

counts! {
    /// Counts of what a [`Net`](super::Net) holds and has done.
    struct NetStats {
        /// Sockets that were accepted and are not closed yet.
        sockets: usize = Gauge("sockets");
        /// Open WebSockets, without those that are closing.
        open: usize = Gauge("websockets");
        /// Sockets accepted.
        accepted: u64 = Counter("sockets_accepted");
        /// Connections refused because their address had `--connections-per-address` already.
        address_connections_rejected: u64 = Counter("address_connections_rejected");
        /// Connections refused because their address exceeded `--connects-per-address`.
        address_connects_rejected: u64 = Counter("address_connects_rejected");
        /// HTTP requests refused because their address exceeded `--requests-per-address`.
        address_requests_rejected: u64 = Counter("address_requests_rejected");
        /// Sockets closed to make room while there were more than `--max-connections`: they had sent no request, or were answered.
        spare_sockets_reclaimed: u64 = Counter("spare_sockets_reclaimed");
        /// Connections that were closed or answered 503 because memory was short and their owner held the most.
        connections_shed: u64 = Counter("memory_connections_closed");
        /// Bytes of write buffers and unfinished messages.
        buffer_bytes: usize = Share("buffers");
        /// Handshakes that wait for a decision.
        admissions_pending: usize = Gauge("admissions_pending");
        /// Handshakes refused because too many waited for a decision.
        admissions_rejected: u64 = Counter("admissions_rejected");
        /// Handshakes refused because no decision came in time.
        admission_timeouts: u64 = Counter("admission_timeouts");
        /// TLS handshakes that were completed, resumptions among them.
        tls_handshakes: u64 = Counter("tls_handshakes");
        /// TLS handshakes that resumed an earlier session.
        tls_resumptions: u64 = Counter("tls_resumptions");
        /// Connections that ended because their TLS handshake failed, or their records broke the protocol.
        tls_failures: u64 = Counter("tls_failures");
        /// HTTP requests upgraded to a WebSocket.
        upgraded: u64 = Counter("http_upgrades");
        /// HTTP requests answered without an upgrade, timeouts included.
        answered: u64 = Counter("http_responses");
        /// Times that accepting paused because the system was out of file descriptors or memory, or a listener did not work.
        accept_pauses: u64 = Counter("accept_pauses");
        /// Bytes received from sockets.
        received_bytes: u64 = Counter("received_bytes");
        /// Bytes copied because a socket took only part of a frame.
        partial_frame_bytes: u64 = Counter("partial_frame_bytes");
        /// Connections closed because no answer to a ping came within `--pong-timeout`.
        heartbeat_timeouts: u64 = Counter("heartbeat_timeouts");
    }
}
