//! A single Redis server.

use std::{env, path::Path, process::Command, sync::Arc};

use super::{
    programs,
    server::{self, Server, Shared},
};

/// The number of databases of a shared server, and so of the tests that can have one.
const DATABASES: &str = "4096";

/// An empty database of the shared Redis server.
#[derive(Debug)]
pub struct RedisBackend {
    /// `redis://127.0.0.1:PORT/DATABASE`.
    pub url: String,
    server: Option<Arc<Server>>,
}

/// A database of its own for each caller.
pub async fn redis() -> Option<RedisBackend> {
    static SHARED: Shared = Shared::new(std::sync::Weak::new());
    let (address, server) = match env::var("TEST_REDIS_URL") {
        Ok(address) => (address, None),
        Err(_) => {
            let server = server::shared(&SHARED, || start(&["--databases", DATABASES]))?;
            (url(&server), Some(server))
        }
    };
    // Database 0 counts the databases in use, over all test programs.
    let database: u32 = query(&address, redis::cmd("INCR").arg("databases"));
    Some(RedisBackend {
        url: format!("{address}/{database}"),
        server,
    })
}

/// A server for the caller alone, with its `redis://` URL. It syncs each write to its file, so that
/// [`Server::restart`] loses nothing. `options` go to `redis-server`, as in `["--maxmemory-policy", "allkeys-lru"]`.
pub fn private_redis(options: &[&str]) -> Option<(Server, String)> {
    let server = start(&[&["--appendonly", "yes", "--appendfsync", "always"], options].concat())?;
    let url = url(&server);
    Some((server, url))
}

/// Starts `redis-server` with `options`.
pub fn start(options: &[&str]) -> Option<Server> {
    let program = programs::find("redis-server")?;
    Some(Server::start_until(answers, |port, directory| {
        let mut command = command(&program, directory);
        command.args(["--port", &port.to_string()]).args(options);
        command
    }))
}

/// Whether a server answers; a server that is still loading its file refuses.
pub fn answers(port: u16) -> bool {
    try_query::<String>(&format!("redis://127.0.0.1:{port}"), &redis::cmd("PING")).is_ok()
}

/// `redis-server` on loopback, with its files in `directory`; the caller adds the port.
pub fn command(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args([
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--maxmemory-policy",
            "noeviction",
            "--dir",
        ])
        .arg(directory);
    command
}

/// The URL of `server`, without a database.
pub fn url(server: &Server) -> String {
    format!("redis://127.0.0.1:{}", server.port())
}

/// One command on a connection of its own.
pub fn query<T: redis::FromRedisValue>(url: &str, command: &redis::Cmd) -> T {
    try_query(url, command).unwrap()
}

/// As [`query`], but returns the error.
pub fn try_query<T: redis::FromRedisValue>(
    url: &str,
    command: &redis::Cmd,
) -> redis::RedisResult<T> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    command.query(&mut connection)
}
