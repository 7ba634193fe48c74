//! A way to Redis that can be long, narrow or held up, as a network is.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// The fate of bytes under way, in both directions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Course {
    /// How long they take.
    pub(crate) delay: Duration,
    /// Whether only those are late that go to, and come from, a subscription.
    pub(crate) spares_calls: bool,
    /// At most so many arrive at once; the next a moment later.
    pub(crate) piece_bytes: Option<usize>,
    /// Nothing arrives, and bytes under way are lost when the connection ends.
    pub(crate) is_held: bool,
}

/// The pause between pieces, so that a reader finds one at a time.
const BETWEEN_PIECES: Duration = Duration::from_micros(100);

#[derive(Default)]
struct State {
    course: Mutex<Course>,
    changed: Condvar,
    /// The connections that are open.
    open: Mutex<Vec<Arc<Connection>>>,
    is_cut: AtomicBool,
    /// How many connections were made.
    made: AtomicUsize,
    is_over: AtomicBool,
}

impl State {
    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until bytes may arrive; false if the connection has ended meanwhile.
    fn pass(&self, connection: &Connection) -> bool {
        let mut course = self.course();
        while course.is_held && !connection.has_ended.load(SeqCst) {
            let look = Duration::from_millis(10);
            course = self.changed.wait_timeout(course, look).unwrap_or_else(PoisonError::into_inner).0;
        }
        !course.is_held
    }
}

/// Two ends; one that is closed closes the other.
struct Connection {
    ends: [TcpStream; 2],
    /// Whether it has a subscription.
    listens: AtomicBool,
    has_ended: AtomicBool,
}

impl Connection {
    /// Carries bytes from one end to the other, in order.
    fn carry(self: Arc<Self>, from: usize, state: &Arc<State>) {
        let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
        let (writer, writer_state) = (Arc::clone(&self), Arc::clone(state));
        thread::spawn(move || {
            for (due, bytes) in receiver {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if !writer_state.pass(&writer) || !writer.put(1 - from, &bytes, writer_state.course().piece_bytes) {
                    break;
                }
            }
            writer.ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
        });
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = (&self.ends[from]).read(&mut buffer) {
            let bytes = buffer[..count].to_vec();
            if bytes.windows(9).any(|word| word == b"SUBSCRIBE") {
                self.listens.store(true, SeqCst);
            }
            let course = *state.course();
            let is_late = !course.spares_calls || self.listens.load(SeqCst);
            let delay = if is_late { course.delay } else { Duration::ZERO };
            if sender.send((Instant::now() + delay, bytes)).is_err() {
                break;
            }
        }
        self.has_ended.store(true, SeqCst);
    }

    fn put(&self, to: usize, bytes: &[u8], piece_bytes: Option<usize>) -> bool {
        let Some(most) = piece_bytes else { return (&self.ends[to]).write_all(bytes).is_ok() };
        bytes.chunks(most).all(|piece| {
            thread::sleep(BETWEEN_PIECES);
            (&self.ends[to]).write_all(piece).is_ok()
        })
    }
}

/// See the [module](self).
pub(crate) struct Way {
    address: SocketAddr,
    state: Arc<State>,
}

impl Way {
    /// Leads to a port of this machine.
    pub(crate) fn to(port: u16, course: Course) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State { course: Mutex::new(course), ..State::default() });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for near in listener.incoming() {
                let (true, Ok(near)) = (!shared.is_over.load(SeqCst), near) else { return };
                // A cut waits for this lock, and ends the connection that begins here.
                let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
                if shared.is_cut.load(SeqCst) {
                    continue;
                }
                // Closed at once where nobody listens, as a network does that still carries the refusal.
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                shared.made.fetch_add(1, SeqCst);
                [&near, &far].into_iter().for_each(|end| end.set_nodelay(true).expect("set TCP_NODELAY"));
                let [listens, has_ended] = [false, false].map(AtomicBool::new);
                let connection = Arc::new(Connection { ends: [near, far], listens, has_ended });
                open.push(Arc::clone(&connection));
                for from in [0, 1] {
                    let (connection, state) = (Arc::clone(&connection), Arc::clone(&shared));
                    thread::spawn(move || connection.carry(from, &state));
                }
            }
        });
        Self { address, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub(crate) fn set(&self, course: Course) {
        *self.state.course() = course;
        self.state.changed.notify_all();
    }

    /// Ends all connections, and lets none begin.
    pub(crate) fn cut(&self) {
        let mut open = self.state.open.lock().unwrap_or_else(PoisonError::into_inner);
        self.state.is_cut.store(true, SeqCst);
        for connection in open.drain(..) {
            connection.ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
        }
    }

    /// Lets connections begin again.
    pub(crate) fn mend(&self) {
        self.state.is_cut.store(false, SeqCst);
    }

    /// How many connections were made so far.
    pub(crate) fn made(&self) -> usize {
        self.state.made.load(SeqCst)
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.state.is_over.store(true, SeqCst);
        // Wakes the one that accepts.
        let _ = TcpStream::connect(self.address);
    }
}
