//! The script of the bus without a node: by redis-benchmark, or, since that knows only one room, by a bare pipeline.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use redis::cmd;
use roomcast::bus::Publication;
use roomcast::internals::PublishScript;
use roomcast::{Config, Owner, RoomName, UserId};

use super::nodes::PREFIX;
use crate::error::LoadError;
use crate::redis_server::{RedisServer, ask};

/// Requests that redis-benchmark pipelines on each connection, and requests per write of the bare pipeline.
const PIPELINE: u32 = 64;

/// In place of a message's id. redis-benchmark replaces it by a random number of twelve digits, the bare pipeline by the
/// next number.
const PLACE: &str = "__rand_int__";

const PATIENCE: Duration = Duration::from_secs(15);

/// The database of these measurements.
pub(super) const DATABASE: u32 = 2;

pub(super) struct Alone {
    port: u16,
    benchmark: Option<PathBuf>,
    /// For each room the command and its arguments.
    rooms: Vec<Vec<String>>,
    requests: f64,
    seconds: f64,
}

impl Alone {
    /// Prepares the publication of `body` in so many rooms.
    pub(super) fn new(redis: &RedisServer, body: &str, rooms: u32) -> Result<Self, LoadError> {
        let mut script = PublishScript::new(&Config::default(), PREFIX);
        let sha: String = ask(&mut redis.connection()?, &["SCRIPT", "LOAD", &script.source()])?;
        let mut command = |room: u32| {
            let publication = Publication {
                room: RoomName::new(&format!("alone-{rooms}-{room}"))?,
                user: UserId::new("alone")?,
                owner: Owner::HOST,
                id: Some(PLACE.into()),
                body: body.to_owned().into(),
                restriction: None,
            };
            Ok::<_, LoadError>(script.call(&sha, publication))
        };
        let rooms: Vec<_> = (0..rooms).map(&mut command).collect::<Result<_, _>>()?;
        let benchmark = which::which("redis-benchmark").ok().filter(|_| rooms.len() == 1);
        Ok(Self { port: redis.port, benchmark, rooms, requests: 0.0, seconds: 0.0 })
    }

    /// The tool, for a remark.
    pub(super) fn tool(&self) -> String {
        match self.benchmark {
            Some(_) => format!("by redis-benchmark -P {PIPELINE}"),
            None => "by one pipelined connection".to_owned(),
        }
    }

    /// Requests a second.
    pub(super) fn rate(&self) -> f64 {
        self.requests / self.seconds
    }

    pub(super) fn requests(&self) -> f64 {
        self.requests
    }

    /// Publishes `count` messages, a bounded number at a time.
    pub(super) fn run(&mut self, under_way: u32, count: u32) -> Result<(), LoadError> {
        let count = count.max(under_way);
        self.seconds += match &self.benchmark {
            Some(program) => self.run_benchmark(program.clone(), count)?,
            None => self.run_pipeline(under_way, count)?.as_secs_f64(),
        };
        self.requests += f64::from(count);
        Ok(())
    }

    fn run_benchmark(&self, program: PathBuf, count: u32) -> Result<f64, LoadError> {
        let mut command = Command::new(program);
        command.args(["-p", &self.port.to_string(), "-P", &PIPELINE.to_string(), "-n", &count.to_string()]);
        // Hardly any of so many ids comes twice.
        command.args(["--dbnum", &DATABASE.to_string()]);
        let output = command.args(["-r", "2000000000", "--csv"]).args(&self.rooms[0]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        // Counted from the end: the name in front of the figures has commas.
        let rate = text.lines().last().and_then(|line| line.rsplit(',').nth(6)?.trim_matches('"').parse::<f64>().ok());
        let rate =
            rate.ok_or_else(|| LoadError::Timeout(format!("redis-benchmark's figures; its output was {text:?}")))?;
        Ok(f64::from(count) / rate)
    }

    fn run_pipeline(&self, under_way: u32, count: u32) -> Result<Duration, LoadError> {
        let pack = |command: &Vec<String>| {
            let packed = cmd(&command[0]).arg(&command[1..]).get_packed_command();
            let place = memchr::memmem::find(&packed, PLACE.as_bytes());
            Some((packed, place?))
        };
        let mut commands: Vec<_> = self.rooms.iter().filter_map(pack).collect();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (mut sent, mut answered) = (0, 0);
        let mut ok = [0; 5];
        stream.write_all(&cmd("SELECT").arg(DATABASE).get_packed_command())?;
        stream.read_exact(&mut ok)?;
        let (mut out, mut chunk) = (Vec::new(), vec![0; 64 * 1024]);
        let began = Instant::now();
        while answered < count {
            if sent < count && sent - answered + PIPELINE <= under_way {
                out.clear();
                for _ in 0..PIPELINE.min(count - sent) {
                    let room = sent as usize % commands.len();
                    let (packed, place) = &mut commands[room];
                    packed[*place..*place + PLACE.len()].copy_from_slice(format!("{sent:012}").as_bytes());
                    out.extend_from_slice(packed);
                    sent += 1;
                }
                stream.write_all(&out)?;
                continue;
            }
            let bytes = stream.read(&mut chunk)?;
            // An answer is a string with an epoch and a number. Neither contains `-`, which begins an error, or `$`.
            if bytes == 0 || chunk[..bytes].contains(&b'-') {
                let answer = String::from_utf8_lossy(&chunk[..bytes.min(200)]).into_owned();
                return Err(LoadError::Timeout(format!("redis to publish; it answered {answer:?}")));
            }
            answered += memchr::memchr_iter(b'$', &chunk[..bytes]).count() as u32;
        }
        Ok(began.elapsed())
    }
}
