//! The program: flags, logger, signals, the poll loop.

mod flags;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use flags::{ApiKeyReader, Flags, Listen, Place, UnknownVariable};
use listenfd::ListenFd;
use mio::{Events, Interest, Poll, Token, Waker};
use roomcast::{
    Authenticator, Config, Escaped, HostLoop, ListenAddress, Listener, ListenerRole, Now, Opening, Preamble, Security,
    Server,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

/// It gives memory that a crowd has left back to the system, which the allocator of the system keeps.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const WAKE: Token = Token(0);
const SIGNAL: Token = Token(1);
const FIRST_OF_SERVER: usize = 2;

/// Descriptors that are not connections: standard streams, poll, waker, signals, listeners, and some for the system.
const DESCRIPTORS_RESERVED: u64 = 64;

/// The exit code of a process that SIGINT ended.
const EXIT_INTERRUPTED: i32 = 130;

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"))
        // Its debug and trace lines contain the text of messages.
        .filter_module("tungstenite", log::LevelFilter::Warn)
        // Peers decide how often it warns.
        .filter_module("rustls", log::LevelFilter::Error)
        // Theirs contain URLs and what is sent, cookies among it.
        .filter_module("ureq", log::LevelFilter::Warn)
        .filter_module("ureq_proto", log::LevelFilter::Warn)
        // Here every record is one line of bounded length, also of crates that log the text of strangers as it came.
        .format(|out, record| {
            let (level, style) = (record.level(), out.default_level_style(record.level()));
            let (time, target) = (out.timestamp(), record.target());
            writeln!(out, "[{time} {style}{level:<5}{style:#} {target}] {}", Escaped(record.args()))
        })
        .init();
    #[cfg_attr(not(feature = "tokens"), expect(unused_mut, reason = "there is no other action than to serve"))]
    let mut flags = Flags::parse();
    #[cfg(feature = "tokens")]
    if let Some(flags::Action::Token(token)) = flags.take_action() {
        return ended(token.issue().map(|token| println!("{token}")));
    }
    for UnknownVariable { name, nearest } in flags::unknown_variables() {
        match nearest {
            Some(nearest) => log::warn!("{name} is no setting and changes nothing; {nearest} is one"),
            None => log::warn!("{name} is no setting and changes nothing; roomcast --help names them all"),
        }
    }
    ended(run(&flags))
}

fn ended(result: Result<(), Box<dyn std::error::Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not through the log, which may be turned off.
            eprintln!("error: {}", Escaped(error));
            ExitCode::from(2)
        }
    }
}

fn run(flags: &Flags) -> Result<(), Box<dyn std::error::Error>> {
    let mut poll = Poll::new()?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    poll.registry().register(&mut signals, SIGNAL, Interest::READABLE)?;
    let config = flags.config(connections_max(flags))?;
    log::info!("{}", summary(&config, flags));
    #[cfg(feature = "tls")]
    check_listeners(&config, flags)?;
    let mut server = new_server(&poll, config, flags)?;
    let addresses = listen(&mut server, ListenerRole::Public, flags.listen())?;
    listen(&mut server, ListenerRole::Admin, flags.admin_listen())?;
    warn_if_open(&addresses, flags);
    let api_keys = flags.api_keys().follow(server.remote())?;
    let mut events = Events::with_capacity(1024);
    while !server.has_ended() {
        if let Err(error) = poll.poll(&mut events, server.timeout())
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        for event in &events {
            match event.token() {
                SIGNAL => handle_signals(&mut signals, &mut server, api_keys.as_ref()),
                WAKE => {}
                token if server.owns(token) => server.handle_event(event),
                token => log::error!("event for {token:?}, which nobody owns"),
            }
        }
        server.turn();
    }
    Ok(())
}

/// What runs here, for a reader of the log who did not start it.
fn summary(config: &Config, flags: &Flags) -> String {
    #[cfg(feature = "redis")]
    let is_shared = flags.redis().is_some();
    #[cfg(not(feature = "redis"))]
    let (is_shared, _) = (false, flags);
    format!(
        "roomcast {}: up to {} connections; history {}; API {}; metrics {}",
        env!("CARGO_PKG_VERSION"),
        config.net.connections_max,
        if is_shared { "in redis, shared by several nodes" } else { "in memory, of this node alone" },
        if config.api_keys.is_empty() { "off" } else { "on" },
        if config.metrics { "on" } else { "off" },
    )
}

fn new_server(poll: &Poll, config: Config, flags: &Flags) -> Result<Server, Box<dyn std::error::Error>> {
    config.check()?;
    let tokens = roomcast::LISTENERS_MAX + (config.net.connections_max + config.net.connections_reserved) as usize;
    let host = HostLoop {
        registry: poll.registry().try_clone()?,
        tokens: FIRST_OF_SERVER..FIRST_OF_SERVER + tokens,
        waker: Arc::new(Waker::new(poll.registry(), WAKE)?),
        clock: Now::system,
        seed: seed(),
    };
    let authenticator = authenticator(&config, &host, flags)?;
    #[cfg(feature = "redis")]
    let bus = match flags.redis() {
        Some(redis) => Some(roomcast::bus::RedisBus::new(&config, &redis, Arc::clone(&host.waker), host.seed)?),
        None => None,
    };
    let builder = Server::builder(config, host);
    let builder = match authenticator {
        Some(authenticator) => builder.boxed_authenticator(authenticator),
        None => builder,
    };
    #[cfg(feature = "redis")]
    let builder = match bus {
        Some(bus) => builder.bus(bus),
        None => builder,
    };
    Ok(builder.build()?)
}

/// The part that decides about handshakes, if the flags ask for one.
fn authenticator(
    config: &Config,
    host: &HostLoop,
    flags: &Flags,
) -> Result<Option<Box<dyn Authenticator>>, Box<dyn std::error::Error>> {
    // Without some features nobody asks for them.
    let _ = (config, host, flags);
    #[cfg(all(feature = "tokens", feature = "webhook"))]
    if flags.tokens().is_some() && flags.auth_url().is_some() {
        return Err("--auth-url and keys for tokens exclude each other; the back-end can verify tokens itself".into());
    }
    #[cfg(feature = "webhook")]
    if let Some(url) = flags.auth_url() {
        return Ok(Some(Box::new(roomcast::WebhookAuthenticator::new(url, config, host)?)));
    }
    #[cfg(feature = "tokens")]
    if let Some(tokens) = flags.tokens() {
        return Ok(Some(Box::new(roomcast::TokenAuthenticator::new(tokens, Arc::clone(&host.waker))?)));
    }
    Ok(None)
}

/// A number that differs in every run: the standard library takes the keys of its hash maps from
/// the system.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

/// Raises the limit of open files as far as the process may. Returns how many connections are
/// allowed.
fn connections_max(flags: &Flags) -> u32 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            log::warn!("cannot raise the limit of open files: {error}");
        }
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let reserved =
        DESCRIPTORS_RESERVED + u64::from(Config::default().net.connections_reserved) + flags.back_end_requests_max();
    let possible = files.saturating_sub(reserved).clamp(1, 1_000_000) as u32;
    match flags.max_connections() {
        None => possible,
        Some(asked) => {
            if asked > possible {
                log::warn!(
                    "--max-connections {asked} is more than the limit of {files} open files allows; beyond \
                     {possible} connections wait to be accepted"
                );
            }
            asked
        }
    }
}

/// Listens on all addresses. Returns those that it has been given.
fn listen(
    server: &mut Server,
    role: ListenerRole,
    addresses: &[Listen],
) -> Result<Vec<ListenAddress>, Box<dyn std::error::Error>> {
    let mut given = Vec::new();
    for Listen { opening, place } in addresses {
        let error = |address: String| move |source| roomcast::Error::Listen { address, source };
        match place {
            Place::Tcp(address) => {
                let listener = Listener::tcp(*address).map_err(error(address.to_string()))?;
                given.push(listen_on(server, role, *opening, listener)?);
            }
            Place::Unix(path) => {
                let address = format!("unix:{}", path.display());
                given.push(listen_on(server, role, *opening, Listener::unix(path).map_err(error(address))?)?);
            }
            Place::Systemd => given.extend(listen_on_systemd(server, *opening)?),
        }
    }
    Ok(given)
}

/// Says what it means that nobody decides about connections where strangers can reach the server.
fn warn_if_open(addresses: &[ListenAddress], flags: &Flags) {
    #[cfg(feature = "tokens")]
    let has_tokens = flags.tokens().is_some();
    #[cfg(not(feature = "tokens"))]
    let (has_tokens, _) = (false, flags);
    #[cfg(feature = "webhook")]
    let has_back_end = flags.auth_url().is_some();
    #[cfg(not(feature = "webhook"))]
    let has_back_end = false;
    let is_open = !has_tokens && !has_back_end;
    let beyond_loopback =
        |address: &&ListenAddress| matches!(address, ListenAddress::Tcp(address) if !address.ip().is_loopback());
    if is_open && let Some(address) = addresses.iter().find(beyond_loopback) {
        log::warn!(
            "everybody who reaches {address} is believed to be whom they say, because neither tokens nor a back-end are \
             asked; see --token-secret-file, --token-key-file, --jwks-file, --jwks-url and --auth-url"
        );
    }
}

/// Refuses a certificate that nothing shows: whoever gives one does not want all to be sent in the clear.
#[cfg(feature = "tls")]
fn check_listeners(config: &Config, flags: &Flags) -> Result<(), roomcast::Error> {
    let mut addresses = flags.listen().iter().chain(flags.admin_listen());
    let speaks_tls = addresses.any(|listen| listen.opening.security == Security::Tls);
    if config.tls.is_empty() || speaks_tls {
        return Ok(());
    }
    let reason =
        "--tls-cert is given, and no address speaks TLS; write tls: in front of one, as in --listen tls:0.0.0.0:443";
    Err(roomcast::Error::Config(reason.to_owned()))
}

fn listen_on(
    server: &mut Server,
    role: ListenerRole,
    opening: Opening,
    listener: Listener,
) -> Result<ListenAddress, roomcast::Error> {
    let (address, purpose) = match role {
        ListenerRole::Public => (server.listen_with(opening, listener)?, ""),
        ListenerRole::Admin => (server.listen_for_admin(opening, listener)?, "for operators, "),
    };
    let url = address.url(opening.security);
    let security = match (opening.security, &address) {
        (Security::Tls, ListenAddress::Unix(_)) => "with TLS, ",
        _ => "",
    };
    match opening.preamble {
        Preamble::None => log::info!("{purpose}{security}listening on {url}"),
        Preamble::ProxyHeader => log::info!("{purpose}with PROXY headers, {security}listening on {url}"),
    }
    Ok(address)
}

fn listen_on_systemd(server: &mut Server, opening: Opening) -> Result<Vec<ListenAddress>, Box<dyn std::error::Error>> {
    let mut given = Vec::new();
    let mut handed_over = ListenFd::from_env();
    if handed_over.len() == 0 {
        return Err("--listen systemd: no sockets were handed over (LISTEN_FDS is not set for this process)".into());
    }
    for index in 0..handed_over.len() {
        // A socket of the other kind is refused, and stays where it is.
        let listener = match handed_over.take_tcp_listener(index) {
            Ok(listener) => listener.map(Listener::Tcp),
            Err(_) => handed_over.take_unix_listener(index)?.map(Listener::Unix),
        };
        if let Some(listener) = listener {
            given.push(listen_on(server, ListenerRole::Public, opening, listener)?);
        }
    }
    Ok(given)
}

fn handle_signals(signals: &mut Signals, server: &mut Server, api_keys: Option<&ApiKeyReader>) {
    for signal in signals.pending() {
        if signal == SIGHUP {
            log::info!("SIGHUP: keys and certificates are read again");
            server.reload();
            if let Some(api_keys) = api_keys {
                api_keys.reload();
            }
            continue;
        }
        if server.is_shutting_down() {
            log::warn!("second signal; ending at once");
            std::process::exit(EXIT_INTERRUPTED);
        }
        server.shutdown();
    }
}
