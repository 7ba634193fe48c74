//! The script of the bus without the bus: by redis-benchmark, or, since that knows one room only, by a bare pipeline.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use redis::cmd;
use roomcast::bus::Publication;
use roomcast::internals::PublishScript;
use roomcast::{Config, RoomName, UserId};

use super::PREFIX;
use crate::error::LoadError;
use crate::redis_server::{self, RedisServer, ask};

/// Requests that redis-benchmark pipelines on each of its connections, and those of a write of the bare pipeline.
const PIPELINE: u32 = 64;

/// What redis-benchmark replaces by a random number of twelve digits; the bare pipeline does by the next one. It stands where
/// the id of a message does.
const PLACE: &str = "__rand_int__";

const PATIENCE: Duration = Duration::from_secs(15);

/// The database in which it is done.
pub(super) const DATABASE: u32 = 2;

/// See the [module](self).
pub(super) struct Alone {
    port: u16,
    benchmark: Option<PathBuf>,
    /// The words of the command, for each room.
    rooms: Vec<Vec<String>>,
    /// Requests and the seconds that they took.
    said: f64,
    seconds: f64,
}

impl Alone {
    /// Says `body` in as many rooms.
    pub(super) fn new(redis: &RedisServer, body: &str, rooms: u32) -> Result<Self, LoadError> {
        let mut script = PublishScript::new(&Config::default(), PREFIX);
        let sha: String = ask(&mut redis.connection()?, &["SCRIPT", "LOAD", &script.source()])?;
        let name = |error: roomcast::NameError| LoadError::Usage(error.to_string());
        let mut words = |room: u32| {
            let publication = Publication {
                room: RoomName::new(&format!("alone-{rooms}-{room}")).map_err(name)?,
                user: UserId::new("alone").map_err(name)?,
                id: Some(PLACE.into()),
                body: body.to_owned().into(),
            };
            Ok::<_, LoadError>(script.call(&sha, publication))
        };
        let rooms: Vec<_> = (0..rooms).map(&mut words).collect::<Result<_, _>>()?;
        let benchmark = redis_server::find("redis-benchmark").filter(|_| rooms.len() == 1);
        Ok(Self { port: redis.port, benchmark, rooms, said: 0.0, seconds: 0.0 })
    }

    /// By what it is done.
    pub(super) fn tool(&self) -> String {
        match self.benchmark {
            Some(_) => format!("by redis-benchmark -P {PIPELINE}"),
            None => "by one connection, pipelined as the node's".to_owned(),
        }
    }

    /// Requests a second.
    pub(super) fn rate(&self) -> f64 {
        self.said / self.seconds
    }

    pub(super) fn said(&self) -> f64 {
        self.said
    }

    /// Has Redis do it so often, a bounded number at a time.
    pub(super) fn run(&mut self, under_way: u32, count: u32) -> Result<(), LoadError> {
        let count = count.max(under_way);
        self.seconds += match &self.benchmark {
            Some(program) => self.run_benchmark(program.clone(), count)?,
            None => self.run_pipeline(under_way, count)?.as_secs_f64(),
        };
        self.said += f64::from(count);
        Ok(())
    }

    fn run_benchmark(&self, program: PathBuf, count: u32) -> Result<f64, LoadError> {
        let mut command = Command::new(program);
        command.args(["-p", &self.port.to_string(), "-P", &PIPELINE.to_string(), "-n", &count.to_string()]);
        // So many ids that hardly one comes twice.
        command.args(["--dbnum", &DATABASE.to_string()]);
        let output = command.args(["-r", "2000000000", "--csv"]).args(&self.rooms[0]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        // Counted from the end: the name in front of the figures has commas.
        let rate = text.lines().last().and_then(|line| line.rsplit(',').nth(6)?.trim_matches('"').parse::<f64>().ok());
        let rate = rate.ok_or_else(|| LoadError::Silence(format!("redis-benchmark's figures; it said {text:?}")))?;
        Ok(f64::from(count) / rate)
    }

    fn run_pipeline(&self, under_way: u32, count: u32) -> Result<Duration, LoadError> {
        let pack = |words: &Vec<String>| {
            let packed = cmd(&words[0]).arg(&words[1..]).get_packed_command();
            let place = memchr::memmem::find(&packed, PLACE.as_bytes());
            Some((packed, place?))
        };
        let mut commands: Vec<_> = self.rooms.iter().filter_map(pack).collect();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (mut said, mut answered) = (0, 0);
        let mut ok = [0; 5];
        stream.write_all(&cmd("SELECT").arg(DATABASE).get_packed_command())?;
        stream.read_exact(&mut ok)?;
        let (mut out, mut chunk) = (Vec::new(), vec![0; 64 * 1024]);
        let began = Instant::now();
        while answered < count {
            if said < count && said - answered + PIPELINE <= under_way {
                out.clear();
                for _ in 0..PIPELINE.min(count - said) {
                    let room = said as usize % commands.len();
                    let (packed, place) = &mut commands[room];
                    packed[*place..*place + PLACE.len()].copy_from_slice(format!("{said:012}").as_bytes());
                    out.extend_from_slice(packed);
                    said += 1;
                }
                stream.write_all(&out)?;
                continue;
            }
            let bytes = stream.read(&mut chunk)?;
            // An answer is a string of an epoch and a number, in neither of which there is either of these.
            if bytes == 0 || chunk[..bytes].contains(&b'-') {
                let words = String::from_utf8_lossy(&chunk[..bytes.min(200)]).into_owned();
                return Err(LoadError::Silence(format!("redis to publish; it said {words:?}")));
            }
            answered += memchr::memchr_iter(b'$', &chunk[..bytes]).count() as u32;
        }
        Ok(began.elapsed())
    }
}
