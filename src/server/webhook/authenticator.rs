//! Has the back-end decide whose a connection is.

use std::fmt;
use std::time::Duration;

use http::{Request, StatusCode};

use super::answer::{Failure, Reply};
use super::back_end::BackEnd;
use super::question;
use super::question_queue::{Question, QuestionQueue};
use super::threads::{AskingThreads, Errand};
use crate::error::Error;
use crate::id::UserId;
use crate::metric::{Metric, counts};
use crate::net::AdmissionTicket;
use crate::owner::Owners;
use crate::server::HostLoop;
use crate::server::authenticator::{Authentication, Authenticator, Identity, Refusal, owner_of};
use crate::settings::Config;
use crate::time::Now;
use crate::unicode::Escaped;

/// What a question takes beside its text: entries of the queue, with their spare room.
const QUESTION_BYTES: usize = 160;

/// The least time between two warnings about the back-end.
const WARNING_PAUSE: Duration = Duration::from_secs(60);

counts! {
    /// Counts of what a back-end is asked.
    struct WebhookStats {
        /// Requests to the back-end that decides about connections that are under way.
        under_way: usize = Gauge("auth_requests");
        /// Handshakes that wait until the back-end may be asked about them.
        waiting: usize = Gauge("auth_requests_waiting");
        /// Handshakes that the back-end has admitted.
        admitted: u64 = Counter("auth_admitted");
        /// Handshakes that the back-end has refused.
        refused: u64 = Counter("auth_refused");
        /// Requests to which the back-end has given no decision in time, or none at all.
        failed: u64 = Counter("auth_failures");
        /// Handshakes refused because too many wait for the back-end.
        rejected: u64 = Counter("auth_rejected");
    }
}

/// Admits a connection as the user whom a back-end names, which is asked by HTTP.
///
/// The back-end gets a `POST` with a JSON object: the user that the handshake asks for (`user`), where it comes from
/// (`address`), and its `origin`, `cookie`, `authorization` and `token`; what is not there is `null`. It answers 200 with an
/// object of `user` and, if it likes, `name`, `expiresAt` in Unix milliseconds, and `rooms` ([`Grants`](crate::Grants)); or 401
/// or 403 with a reason. Other answers are no decisions: the handshake is answered by 502, and by 503 or 504 if none comes.
///
/// **Bounds:** [`auth_requests_max`] requests under way, each on a thread that waits; [`admissions_pending_max`] with those that
/// wait, beyond which handshakes are answered by 503. Of both each address has a quota. An answer has at most
/// 64 KiB, and [`admission_timeout`].
///
/// [`auth_requests_max`]: crate::settings::NetLimits::auth_requests_max
/// [`admissions_pending_max`]: crate::settings::NetLimits::admissions_pending_max
/// [`admission_timeout`]: crate::settings::Timing::admission_timeout
pub struct WebhookAuthenticator {
    owners: Owners,
    timeout: Duration,
    queue: QuestionQueue,
    threads: AskingThreads,
    last_ticket: u64,
    /// What the question of the last ticket takes.
    last_bytes: usize,
    warned_at: Option<Duration>,
    stats: WebhookStats,
}

impl fmt::Debug for WebhookAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookAuthenticator").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl WebhookAuthenticator {
    /// Asks the back-end at a URL of HTTP or HTTPS. A name and a password in it are sent as `Authorization: Basic`. The
    /// settings and the host are those of the server.
    ///
    /// # Errors
    /// [`Error::Config`] if the URL is none.
    pub fn new(url: &str, config: &Config, host: &HostLoop) -> Result<Self, Error> {
        let requests_max = config.net.auth_requests_max as usize;
        let back_end =
            BackEnd::new(url, requests_max).map_err(|problem| Error::Config(format!("auth-url: {problem}")))?;
        Ok(Self {
            owners: Owners::new(host.seed),
            timeout: config.timing.admission_timeout,
            queue: QuestionQueue::new(config.net.admissions_pending_max as usize, requests_max),
            threads: AskingThreads::new(back_end, requests_max, std::sync::Arc::clone(&host.waker)),
            last_ticket: 0,
            last_bytes: 0,
            warned_at: None,
            stats: WebhookStats::default(),
        })
    }

    /// Counts, as of now.
    pub fn stats(&self) -> WebhookStats {
        WebhookStats { under_way: self.queue.under_way(), waiting: self.queue.waiting(), ..self.stats }
    }

    fn try_later(&mut self, now: Now, request: &Request<()>) -> Result<AdmissionTicket, Refusal> {
        let body = question::body(request)?;
        let owner = owner_of(self.owners, request);
        if !self.queue.has_space(owner) {
            self.stats.rejected += 1;
            let message = "too many connections wait for a decision of the back-end";
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message));
        }
        self.last_ticket += 1;
        self.last_bytes = QUESTION_BYTES + body.capacity();
        let ticket = self.last_ticket;
        self.queue.push(owner, Question { ticket, body, until: now.uptime + self.timeout });
        self.start_questions(now);
        Ok(AdmissionTicket(ticket))
    }

    /// Asks what may be asked now.
    fn start_questions(&mut self, now: Now) {
        while let Some(Question { ticket, body, until }) = self.queue.start() {
            let time = until.saturating_sub(now.uptime);
            if time.is_zero() {
                // It is answered 504 about now.
                self.queue.end(ticket);
                continue;
            }
            if let Err(error) = self.threads.ask(Errand { ticket, body, time }) {
                // The handshake is answered 504 when its time is over.
                self.queue.end(ticket);
                self.warn(now, &format!("there is no thread to ask it: {error}"));
            }
        }
    }

    fn decide(&mut self, now: Now, reply: Reply) -> Result<Identity, Refusal> {
        let is_over = |identity: &Identity| identity.expires_at.is_some_and(|expires_at| now.unix_ms >= expires_at);
        let failure = match reply {
            Ok(Ok(identity)) if is_over(&identity) => {
                Failure::no_decision("expiresAt in its answer is over; milliseconds since 1970 are wanted")
            }
            Ok(decision) => {
                *(if decision.is_ok() { &mut self.stats.admitted } else { &mut self.stats.refused }) += 1;
                return decision;
            }
            Err(failure) => failure,
        };
        self.stats.failed += 1;
        self.warn(now, &failure.problem);
        Err(failure.kind.refusal())
    }

    /// Warns of the back-end, now and then.
    fn warn(&mut self, now: Now, problem: &str) {
        if self.warned_at.is_none_or(|last| now.uptime >= last + WARNING_PAUSE) {
            self.warned_at = Some(now.uptime);
            log::warn!(
                "the back-end of --auth-url gives no decisions, so connections are refused: {}",
                Escaped(problem)
            );
        }
    }
}

impl Authenticator for WebhookAuthenticator {
    fn authenticate(&mut self, now: Now, request: &Request<()>) -> Authentication {
        self.try_later(now, request).map_or_else(Authentication::Refuse, Authentication::Later)
    }

    fn held_bytes(&self, ticket: AdmissionTicket) -> usize {
        if ticket.0 == self.last_ticket { self.last_bytes } else { 0 }
    }

    fn refresh(&mut self, _now: Now, _user: &UserId, _token: &str) -> Authentication {
        let message = "this server asks a back-end about new connections and takes no new tokens; connect again";
        Authentication::Refuse(Refusal::new(StatusCode::UNAUTHORIZED, message))
    }

    fn poll_decision(&mut self, now: Now) -> Option<(AdmissionTicket, Result<Identity, Refusal>)> {
        let (ticket, reply) = self.threads.poll()?;
        self.queue.end(ticket);
        self.start_questions(now);
        Some((AdmissionTicket(ticket), self.decide(now, reply)))
    }

    fn abandon(&mut self, AdmissionTicket(ticket): AdmissionTicket) {
        self.queue.abandon(ticket);
    }

    fn metrics(&self) -> Vec<Metric> {
        self.stats().metrics()
    }
}
