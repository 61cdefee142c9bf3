//! A server process on a free loopback port, with a temporary directory for its files.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use rand::RngExt as _;
use tempfile::TempDir;

use super::wait::poll;

/// A running server. Dropping it kills the process and removes its files.
#[derive(Debug)]
pub struct Server {
    child: Child,
    command: Command,
    port: u16,
    directory: TempDir,
    is_ready: fn(u16) -> bool,
}

impl Server {
    /// Starts what `command` makes of a free port and an empty directory, and returns once the port is listened on.
    pub fn start(command: impl Fn(u16, &Path) -> Command) -> Self {
        Self::start_until(
            |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok(),
            command,
        )
    }

    /// As [`Server::start`], but returns once the server on the port `is_ready`.
    pub fn start_until(is_ready: fn(u16) -> bool, command: impl Fn(u16, &Path) -> Command) -> Self {
        let mut failure = String::new();
        // Again if another process took the port first.
        for _ in 0..5 {
            let directory = TempDir::with_prefix("upload-gateway-test.").unwrap();
            let port = free_port();
            let log = File::create(directory.path().join("log")).unwrap();
            let mut command = command(port, directory.path());
            command
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log);
            let child = command.spawn().unwrap();
            let mut server = Self {
                child,
                command,
                port,
                directory,
                is_ready,
            };
            if server.wait_until_ready() {
                return server;
            }
            failure = server.log();
        }
        panic!("the server did not start: {failure}");
    }

    /// The port of 127.0.0.1 it listens on; the same after [`Server::restart`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The directory of its files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Ends it at once, with SIGKILL. Its files stay.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> ExitStatus {
        poll(|| self.child.try_wait().unwrap()).expect("the server goes on")
    }

    /// Lets it save its files and end (SIGTERM).
    pub fn stop(&mut self) {
        self.signal("TERM");
        self.child.wait().unwrap();
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        poll(|| self.child.try_wait().unwrap()).expect("the server does not end")
    }

    /// Kills it if it runs, and starts it again on the same port and files.
    pub fn restart(&mut self) {
        self.kill();
        self.child = self.command.spawn().unwrap();
        assert!(
            self.wait_until_ready(),
            "the server did not come back: {}",
            self.log()
        );
    }

    /// Stops it from answering without closing a connection (SIGSTOP).
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on after [`Server::pause`].
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Sends it a signal, `TERM`.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(
            Command::new("sh")
                .args(["-c", &kill])
                .status()
                .unwrap()
                .success()
        );
    }

    fn wait_until_ready(&mut self) -> bool {
        poll(|| {
            let ended = self.child.try_wait().unwrap().is_some();
            (ended || (self.is_ready)(self.port)).then_some(!ended)
        })
        .unwrap_or(false)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server all tests of this program share: started by the first that asks, stopped when the last has dropped it.
pub type Shared = Mutex<Weak<Server>>;

/// The shared server, started with `start` if none runs.
pub fn shared(slot: &Shared, start: impl FnOnce() -> Option<Server>) -> Option<Arc<Server>> {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = slot.upgrade() {
        return Some(server);
    }
    let server = Arc::new(start()?);
    *slot = Arc::downgrade(&server);
    Some(server)
}

/// A port nobody listens on, below those Linux gives to outgoing connections: a restarted server finds it free.
pub fn free_port() -> u16 {
    loop {
        let port = rand::rng().random_range(10_240..32_768);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A name no other test uses, fit for a bucket or a container.
pub fn unique_name() -> String {
    format!("test-{:016x}", rand::rng().random::<u64>())
}
