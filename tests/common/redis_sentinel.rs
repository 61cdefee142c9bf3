//! Redis with fail-over: a primary, a replica, and three Sentinels that watch them.

use std::{collections::HashMap, fs};

use super::{
    programs,
    redis_server::{private_redis, query, try_query, url},
    server::Server,
    wait,
};

/// A primary that Sentinels watch. A few seconds after `primary` is killed, `replica` is the new primary.
#[derive(Debug)]
pub struct RedisSentinels {
    /// The name under which the Sentinels know the primary.
    pub name: &'static str,
    /// `redis://127.0.0.1:PORT` of each Sentinel.
    pub urls: Vec<String>,
    /// Accepts the writes.
    pub primary: Server,
    /// Follows the primary.
    pub replica: Server,
    sentinels: Vec<Server>,
}

/// The name under which the Sentinels know the primary.
pub const NAME: &str = "gateway";

/// A set for the caller alone; the Sentinels know each other and the replica when this returns.
pub fn redis_sentinels() -> Option<RedisSentinels> {
    let (primary, _) = private_redis(&[])?;
    let (replica, _) = private_redis(&["--replicaof", "127.0.0.1", &primary.port().to_string()])?;
    let watch = format!(
        "bind 127.0.0.1\nsentinel monitor {NAME} 127.0.0.1 {} 2\nsentinel down-after-milliseconds {NAME} 500\n\
         sentinel failover-timeout {NAME} 2000\n",
        primary.port()
    );
    let sentinels: Option<Vec<_>> = (0..3).map(|_| redis_sentinel(&watch)).collect();
    let sentinels = sentinels?;
    let urls: Vec<_> = sentinels.iter().map(url).collect();
    for sentinel in &urls {
        wait::poll(|| knows_the_others(sentinel).then_some(()))
            .expect("the Sentinels found each other");
    }
    Some(RedisSentinels {
        name: NAME,
        urls,
        primary,
        replica,
        sentinels,
    })
}

/// One Sentinel with this configuration, which lacks a port and a directory.
pub fn redis_sentinel(configuration: &str) -> Option<Server> {
    let program = programs::find("redis-server")?;
    Some(Server::start(|port, directory| {
        let file = directory.join("sentinel.conf");
        let directory = directory.display();
        let text = format!("port {port}\ndir {directory}\n{configuration}");
        fs::write(&file, text).unwrap();
        let mut command = std::process::Command::new(&program);
        command.arg(file).arg("--sentinel");
        command
    }))
}

impl RedisSentinels {
    /// The port of the server that is the primary now, according to the Sentinels.
    pub fn primary_port(&self) -> u16 {
        let (_, port): (String, u16) = query(
            &self.urls[0],
            redis::cmd("SENTINEL")
                .arg("get-master-addr-by-name")
                .arg(NAME),
        );
        port
    }

    /// Returns when the replica has all writes so far: a fail-over may lose the others.
    pub fn wait_for_replica(&self) {
        let offset = |server: &Server, name: &str| -> Option<u64> {
            let state: String = query(&url(server), redis::cmd("INFO").arg("replication"));
            let line = state.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        let wanted = offset(&self.primary, "master_repl_offset:");
        wait::poll(|| (offset(&self.replica, "slave_repl_offset:") >= wanted).then_some(()))
            .expect("the replica follows the primary");
    }

    /// Kills the primary and returns when the replica has replaced it.
    pub fn fail_over(&mut self) {
        self.primary.kill();
        let promoted = || {
            let role: redis::RedisResult<Vec<redis::Value>> =
                try_query(&url(&self.replica), &redis::cmd("ROLE"));
            let is_primary = role.is_ok_and(|role| {
                role.first() == Some(&redis::Value::BulkString(b"master".into()))
            });
            (is_primary && self.primary_port() == self.replica.port()).then_some(())
        };
        wait::poll(promoted).expect("the Sentinels promoted the replica");
    }
}

fn knows_the_others(sentinel: &str) -> bool {
    let state: redis::RedisResult<HashMap<String, String>> =
        try_query(sentinel, redis::cmd("SENTINEL").arg("master").arg(NAME));
    state.is_ok_and(|state| state["num-other-sentinels"] == "2" && state["num-slaves"] == "1")
}
