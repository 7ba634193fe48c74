//! A way to a server that can be cut: what is in between when one node alone loses its Redis.
#![allow(dead_code, unreachable_pub, reason = "every test binary compiles this module by itself")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// See the [module](self).
pub struct Proxy {
    address: SocketAddr,
    ways: Arc<Mutex<Ways>>,
}

/// What goes through, while anything does.
#[derive(Default)]
struct Ways {
    is_cut: bool,
    streams: Vec<TcpStream>,
}

impl Proxy {
    /// To a port of this machine.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let ways = Arc::new(Mutex::new(Ways::default()));
        let of_thread = Arc::clone(&ways);
        // It ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming() {
                let mut ways = of_thread.lock().expect("the lock");
                // Dropped, it ends.
                let Some(client) = client.ok().filter(|_| !ways.is_cut) else { continue };
                let server = TcpStream::connect(("127.0.0.1", port)).expect("the server behind the proxy");
                let clone = |stream: &TcpStream| stream.try_clone().expect("a second handle");
                ways.streams.extend([clone(&client), clone(&server)]);
                let (back, there) = (clone(&server), clone(&client));
                thread::spawn(move || pass(client, server));
                thread::spawn(move || pass(back, there));
            }
        });
        Self { address, ways }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// From now on nothing goes through.
    pub fn cut(&self) {
        let mut ways = self.ways.lock().expect("the lock");
        ways.is_cut = true;
        for stream in ways.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn mend(&self) {
        self.ways.lock().expect("the lock").is_cut = false;
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(bytes @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..bytes]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
