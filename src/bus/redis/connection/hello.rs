//! The first commands on a connection, and whether the answers allow to use it.

use std::collections::VecDeque;
use std::sync::Arc;

use redis::Cmd;
use rustls::ClientConfig;

use super::error::LinkError;
use super::resp::Value;
use super::run_id::RunId;

/// The scripts need this major version of Redis, or of a server that reports itself as Redis.
const MAJOR_MIN: u32 = 7;

/// A link that does not know its run of Redis would take messages for those that were lost.
const INFO: &str = "give the user +info (ACL SETUSER): without it nobody is told that a Redis came back with less than \
                    it had, if the room is open on no node";

/// User, password and database of a Redis, and the certificates to trust.
#[derive(Clone, Default)]
pub(crate) struct Login {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: i64,
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

impl Login {
    /// Appends AUTH, if there is a password. Returns the number of answers that will come.
    pub(super) fn write_auth(&self, out: &mut Vec<u8>) -> usize {
        let Some(password) = &self.password else { return 0 };
        Cmd::new().arg("AUTH").arg(self.username.as_ref()).arg(password).write_packed_command(out);
        1
    }
}

/// A command of the hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// AUTH or SELECT.
    Login,
    Role,
    SetName,
    Info,
    Ping,
}

pub(crate) struct RedisHello {
    /// Commands that are not answered yet.
    left: VecDeque<Step>,
    run_id: RunId,
}

impl RedisHello {
    /// Writes the commands. PING is the last: a Redis that is loading its data refuses PING only.
    pub(crate) fn write(login: &Login, asks_for_role: bool, out: &mut Vec<u8>) -> Self {
        let mut left: VecDeque<_> = (0..login.write_auth(out)).map(|_| Step::Login).collect();
        let mut push = |step, command: &[&[u8]]| {
            Cmd::new().arg(command).write_packed_command(out);
            left.push_back(step);
        };
        if login.database != 0 {
            push(Step::Login, &[b"SELECT", login.database.to_string().as_bytes()]);
        }
        if asks_for_role {
            push(Step::Role, &[b"ROLE"]);
        }
        push(Step::SetName, &[b"CLIENT", b"SETNAME", b"roomcast"]);
        push(Step::Info, &[b"INFO", b"server"]);
        push(Step::Ping, &[b"PING"]);
        Self { left, run_id: RunId::UNKNOWN }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.left.is_empty()
    }

    /// The run of the Redis process, if it is known yet.
    pub(crate) fn run_id(&self) -> RunId {
        self.run_id
    }

    pub(crate) fn take(&mut self, answer: &Value<'_>) -> Result<(), LinkError> {
        match (self.left.pop_front(), answer) {
            // The user may lack the permission to set a name or to ask for the role, and still be
            // allowed to do the rest. A link without PING would not notice that it is dead.
            (Some(Step::Role | Step::SetName), Value::Error(text)) if text.starts_with(b"NOPERM") => Ok(()),
            (Some(Step::Info), Value::Error(text)) if text.starts_with(b"NOPERM") => {
                Err(LinkError::refusal(LinkError::reply(text).to_string(), INFO))
            }
            (_, Value::Error(text)) => Err(LinkError::reply(text)),
            (Some(Step::Role), Value::Array(role)) => match role.clone().next() {
                Some(Value::Bulk(b"master")) => Ok(()),
                _ => Err(LinkError::lost("the server is not a master now")),
            },
            (Some(Step::Info), Value::Bulk(info)) => {
                let info = String::from_utf8_lossy(info);
                self.run_id = RunId::read(&info);
                check_version(&info)
            }
            (Some(Step::Login | Step::SetName), Value::Status(b"OK")) => Ok(()),
            (Some(Step::Ping), answer) if is_pong(answer) => Ok(()),
            _ => Err(LinkError::lost("redis sends an unexpected reply to the login")),
        }
    }
}

pub(super) fn is_pong(value: &Value<'_>) -> bool {
    match value {
        Value::Status(text) => *text == b"PONG",
        // On a link that subscribes, PING is answered by an array.
        Value::Array(items) => items.clone().next() == Some(Value::Bulk(b"pong")),
        _ => false,
    }
}

/// Checks the version. A server that does not report one may be new enough.
fn check_version(info: &str) -> Result<(), LinkError> {
    let Some(version) = info.lines().find_map(|line| line.strip_prefix("redis_version:")) else { return Ok(()) };
    match version.split('.').next().and_then(|major| major.parse::<u32>().ok()) {
        Some(major) if major < MAJOR_MIN => {
            Err(LinkError::refusal(format!("it is version {version}"), "7.0 or newer is needed"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::redis::connection::resp;

    /// The outcome of a hello with these answers.
    fn take(answers: &[u8]) -> Result<bool, String> {
        let mut hello = RedisHello::write(&Login::default(), true, &mut Vec::new());
        let mut at = 0;
        while let Some((answer, bytes)) = resp::parse(&answers[at..]).unwrap() {
            hello.take(&answer).map_err(|error| error.to_string())?;
            at += bytes;
        }
        Ok(hello.is_over())
    }

    #[test]
    fn it_is_over_with_the_last_answer_whatever_may_not_be_asked() {
        assert_eq!(take(b"*1\r\n$6\r\nmaster\r\n+OK\r\n$8\r\n# Server\r\n"), Ok(false));
        assert_eq!(take(b"*1\r\n$6\r\nmaster\r\n+OK\r\n$8\r\n# Server\r\n+PONG\r\n"), Ok(true));
        assert_eq!(take(b"-NOPERM a\r\n-NOPERM b\r\n$8\r\n# Server\r\n+PONG\r\n"), Ok(true));
    }

    #[test]
    fn a_user_who_may_not_ask_for_the_run_will_not_do_and_its_right_is_named() {
        let mut hello = RedisHello::write(&Login::default(), false, &mut Vec::new());
        hello.take(&Value::Status(b"OK")).unwrap();
        let refused = hello.take(&Value::Error(b"NOPERM no permissions to run the 'info' command")).unwrap_err();
        let found = "NOPERM no permissions to run the 'info' command".to_owned();
        assert_eq!(refused, LinkError::refusal(found, INFO));
        assert!(INFO.contains("+info"));
    }

    #[test]
    fn a_user_who_may_not_ping_and_a_reply_to_something_else_will_not_do() {
        let answered = b"*1\r\n$6\r\nmaster\r\n+OK\r\n$8\r\n# Server\r\n";
        assert_eq!(take(&[answered, &b"-NOPERM ping\r\n"[..]].concat()).unwrap_err(), "NOPERM ping");
        for wrong in [":1\r\n", "+OK\r\n", "$4\r\nPONG\r\n", "$-1\r\n"] {
            assert!(take(&[answered, wrong.as_bytes()].concat()).is_err(), "{wrong:?} is no answer to PING");
        }
        assert!(take(b"+OK\r\n").is_err(), "no answer to ROLE");
    }

    #[test]
    fn a_replica_and_a_redis_that_loads_will_not_do() {
        assert_eq!(take(b"*1\r\n$5\r\nslave\r\n").unwrap_err(), "the server is not a master now");
        let loading = b"*1\r\n$6\r\nmaster\r\n+OK\r\n$8\r\n# Server\r\n-LOADING x\r\n";
        assert_eq!(take(loading).unwrap_err(), "LOADING x");
    }

    #[test]
    fn an_older_redis_will_not_do_and_its_version_is_said() {
        let old = check_version("# Server\r\nredis_version:6.0.16\r\nredis_mode:standalone\r\n");
        assert_eq!(old, Err(LinkError::refusal("it is version 6.0.16".to_owned(), "7.0 or newer is needed")));
        for new in ["# Server\r\nredis_version:7.0.15\r\n", "redis_version:10.1.0", "redis_version:unstable", ""] {
            assert_eq!(check_version(new), Ok(()), "{new}");
        }
    }
}
