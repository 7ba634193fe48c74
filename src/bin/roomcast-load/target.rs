//! What is measured: a running server, one that is started for each workload, or the bare sender.

use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::LoadError;
use crate::flags::Flags;
use crate::machine::{self, Cores};
use crate::tls::TlsConnector;
use crate::wire::{Templates, Wire};

/// The name of the bare sender among the targets.
pub(crate) const FLOOR: &str = "floor";

/// In the command of a server that speaks TLS, in place of `{address}`.
const TLS_ADDRESS: &str = "{tls-address}";

/// The name of the server that is measured by default.
pub(crate) const ROOMCAST: &str = "roomcast";

#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    kind: Kind,
    templates: Templates,
}

#[derive(Clone, Debug)]
enum Kind {
    Running { address: SocketAddr, pid: Option<u32> },
    Command(String),
    Floor,
}

/// Whether a Roomcast that is started limits what a client or an address may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RateLimits {
    /// As it does by default.
    Default,
    /// All are turned off: the load is to reach what the server can do.
    Off,
}

/// The flags that turn them off.
const NO_LIMITS: &str =
    "--message-rate 0 --connections-per-address 0 --connects-per-address 0 --requests-per-address 0";

/// A running server. Dropping it ends the server if it was started here.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) pid: Option<u32>,
    pub(crate) wire: Wire,
    child: Option<Child>,
}

impl Target {
    /// The targets that the flags name.
    pub(crate) fn of_flags(flags: &Flags) -> Result<Vec<Self>, LoadError> {
        let templates = Templates {
            host: "localhost".to_owned(),
            path: "/ws".to_owned(),
            join: flags.join_template.clone(),
            chat: flags.chat_template.clone(),
            tls: None,
        };
        templates.check()?;
        let mut serve = flags.serve.clone();
        if serve.is_empty() && flags.url.is_none() {
            let command = format!("{} --listen {{address}} {{no-limits}} {{flags}}", server_beside()?);
            serve = vec![format!("{ROOMCAST}={command}"), FLOOR.to_owned()];
        }
        let running = flags.url.iter().map(|url| Self::at_url(url, flags, templates.clone()));
        running.chain(serve.iter().map(|serve| Self::to_start(serve, flags, templates.clone()))).collect()
    }

    fn at_url(url: &str, flags: &Flags, mut templates: Templates) -> Result<Self, LoadError> {
        let usage = |found: &str| LoadError::Usage(format!("--url {url}: {found}; expected is ws://127.0.0.1:8080/ws"));
        let (rest, speaks_tls, port) = match (url.strip_prefix("ws://"), url.strip_prefix("wss://")) {
            (Some(rest), _) => (rest, false, 80),
            (_, Some(rest)) => (rest, true, 443),
            _ => return Err(usage("the scheme is neither ws:// nor wss://")),
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let with_port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            host.to_owned()
        } else {
            format!("{host}:{port}")
        };
        let mut addresses = with_port.to_socket_addrs().map_err(|error| usage(&error.to_string()))?;
        let address = addresses.next().ok_or_else(|| usage("the name has no address"))?;
        if speaks_tls {
            let name = with_port.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
            templates.tls = Some(TlsConnector::new(flags.trust(), name)?);
        }
        (templates.host, templates.path) = (host.to_owned(), format!("/{path}"));
        let pid = flags.server_pid;
        Ok(Self { name: host.to_owned(), kind: Kind::Running { address, pid }, templates })
    }

    fn to_start(serve: &str, flags: &Flags, mut templates: Templates) -> Result<Self, LoadError> {
        if serve == FLOOR {
            return Ok(Self { name: FLOOR.to_owned(), kind: Kind::Floor, templates });
        }
        match serve.split_once('=') {
            Some((name, command)) if !name.is_empty() && command.contains(TLS_ADDRESS) => {
                templates.tls = Some(TlsConnector::new(flags.trust(), "localhost")?);
                let command = command.replace(TLS_ADDRESS, "{address}");
                Ok(Self { name: name.to_owned(), kind: Kind::Command(command), templates })
            }
            Some((name, command)) if !name.is_empty() && command.contains("{address}") => {
                Ok(Self { name: name.to_owned(), kind: Kind::Command(command.to_owned()), templates })
            }
            _ => Err(LoadError::Usage(format!(
                "--serve {serve:?}: expected is NAME=COMMAND, with {{address}} or {{tls-address}} in COMMAND where the address goes, or floor"
            ))),
        }
    }

    pub(crate) fn is_floor(&self) -> bool {
        matches!(self.kind, Kind::Floor)
    }

    pub(crate) fn speaks_tls(&self) -> bool {
        self.templates.tls.is_some()
    }

    /// Whether workloads may add flags to its command.
    pub(crate) fn takes_flags(&self) -> bool {
        matches!(&self.kind, Kind::Command(command) if command.contains("{flags}"))
    }

    /// Starts it, with these flags if it is a Roomcast, and waits until it listens.
    pub(crate) fn start(&self, flags: &str, limits: RateLimits, cores: &Cores) -> Result<Running, LoadError> {
        let line = match &self.kind {
            Kind::Running { address, pid } => {
                let wire = Wire::WebSocket(self.templates.clone());
                return Ok(Running { address: *address, pid: *pid, wire, child: None });
            }
            Kind::Command(command) => {
                let no_limits = if limits == RateLimits::Off { NO_LIMITS } else { "" };
                command.replace("{flags}", flags).replace("{no-limits}", no_limits)
            }
            Kind::Floor => {
                let me = std::env::current_exe()?;
                format!("{} floor {{address}} {flags}", me.display())
            }
        };
        // Another program could take the port in between; the server then ends with an error.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let line = line.replace("{address}", &address.to_string());
        let mut words = line.split_ascii_whitespace();
        let program = words.next().unwrap_or_default();
        let failed = |source| LoadError::Start { command: line.clone(), source };
        // A child inherits its parent's cores. If pinning fails, the program has warned at the start.
        let _ = machine::pin_to(&cores.server);
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "warn");
        }
        let child = command.spawn();
        let _ = machine::pin_to(&cores.load);
        let child = child.map_err(failed)?;
        let wire = if self.is_floor() { Wire::Bare } else { Wire::WebSocket(self.templates.clone()) };
        let mut running = Running { address, pid: Some(child.id()), wire, child: Some(child) };
        running.wait_until_it_listens(&line)?;
        Ok(running)
    }
}

/// The server that was built together with this program.
fn server_beside() -> Result<String, LoadError> {
    let path = std::env::current_exe()?.with_file_name(format!("roomcast{}", std::env::consts::EXE_SUFFIX));
    if path.exists() {
        return Ok(path.display().to_string());
    }
    Err(LoadError::Usage(format!(
        "there is no {}; build it with cargo build --release, or name a server with --url or --serve",
        path.display()
    )))
}

impl Running {
    fn wait_until_it_listens(&mut self, command: &str) -> Result<(), LoadError> {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            if TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_ok() {
                return Ok(());
            }
            let status = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if let Some(status) = status {
                let (command, status) = (command.to_owned(), status.to_string());
                return Err(LoadError::ExitedEarly { command, address: self.address, status });
            }
            if Instant::now() > deadline {
                return Err(LoadError::Timeout(format!("{command:?} to listen on {}", self.address)));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Both fail if the server has ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
