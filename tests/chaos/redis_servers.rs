//! Redis in each topology, and its faults.

use std::{mem, time::Duration};

use tokio::time::sleep;

use crate::{
    common::{self, RedisCluster, RedisSentinels, Server},
    schedule::{ProcessFault, Topology},
};

/// The servers that keep the state.
#[derive(Debug)]
pub(crate) enum RedisServers {
    /// One server.
    Single(Box<Server>),
    /// A primary, a replica, and Sentinels.
    Sentinel(Box<RedisSentinels>),
    /// Three primaries.
    Cluster(RedisCluster),
}

// === impl RedisServers ===

impl RedisServers {
    /// Starts the servers of `topology`; `None` if Redis is not installed.
    pub(crate) fn start(topology: Topology) -> Option<Self> {
        Some(match topology {
            Topology::Single => Self::Single(Box::new(common::private_redis(&[])?.0)),
            Topology::Sentinel => {
                let mut set = common::redis_sentinels()?;
                join(&mut set);
                Self::Sentinel(Box::new(set))
            }
            Topology::Cluster => Self::Cluster(common::redis_cluster()?),
        })
    }

    /// The state store in a gateway's configuration; a single server is reached through `port`.
    pub(crate) fn configuration(&self, port: u16) -> String {
        let list = |urls: &[String]| format!("{urls:?}");
        match self {
            Self::Single(_) => format!("redis_url = \"redis://127.0.0.1:{port}\"\n"),
            Self::Sentinel(set) => format!(
                "redis_url = \"{}\"\nredis.mode = \"sentinel\"\nredis.service_name = \"{}\"\nredis.nodes = {}\n",
                set.urls[0],
                set.name,
                list(&set.urls[1..])
            ),
            Self::Cluster(cluster) => format!(
                "redis_url = \"{}\"\nredis.mode = \"cluster\"\nredis.nodes = {}\n",
                cluster.urls[0],
                list(&cluster.urls[1..])
            ),
        }
    }

    /// The ports of the servers that hold data.
    pub(crate) fn ports(&self) -> Vec<u16> {
        match self {
            Self::Single(server) => vec![server.port()],
            Self::Sentinel(set) => vec![set.primary.port(), set.replica.port()],
            Self::Cluster(cluster) => cluster.nodes.iter().map(Server::port).collect(),
        }
    }

    /// Injects the fault into the server with this number.
    pub(crate) async fn inject(&mut self, number: usize, fault: ProcessFault) {
        let server = self.server(number);
        match fault {
            ProcessFault::Kill(down) => {
                server.kill();
                sleep(down).await;
                tokio::task::block_in_place(|| server.restart());
            }
            ProcessFault::Terminate => {
                tokio::task::block_in_place(|| {
                    server.stop();
                    server.restart();
                });
            }
            ProcessFault::Pause(time) => {
                server.pause();
                sleep(time).await;
                server.resume();
            }
        }
        if let Self::Sentinel(set) = self {
            tokio::task::block_in_place(|| join(set));
        }
    }

    /// Removes everything.
    pub(crate) async fn flush(&self) {
        for port in self.ports() {
            // A replica refuses; it gets the flush from its primary.
            let _: redis::RedisResult<()> =
                common::try_query(&url(port), redis::cmd("FLUSHALL").arg("SYNC"));
        }
    }

    /// Makes the replica the primary, without what was written in the last `cut_off`.
    pub(crate) async fn fail_over(&mut self, cut_off: Duration) {
        let Self::Sentinel(set) = self else {
            return;
        };
        // No server listens on port 1. The Sentinels correct this, but only after the fail-over.
        follow(&set.replica, 1);
        sleep(cut_off).await;
        tokio::task::block_in_place(|| {
            set.fail_over();
            set.primary.restart();
            join(set);
        });
    }

    /// The output of its servers.
    pub(crate) fn logs(&self) -> Vec<(String, String)> {
        let servers: Vec<&Server> = match self {
            Self::Single(server) => vec![server],
            Self::Sentinel(set) => vec![&set.primary, &set.replica],
            Self::Cluster(cluster) => cluster.nodes.iter().collect(),
        };
        let log = |server: &Server| (format!("redis-{}.log", server.port()), server.log());
        servers.into_iter().map(log).collect()
    }

    fn server(&mut self, number: usize) -> &mut Server {
        match self {
            Self::Single(server) => server,
            Self::Sentinel(set) => &mut set.primary,
            Self::Cluster(cluster) => &mut cluster.nodes[number],
        }
    }
}

/// Assigns the servers to the roles that the Sentinels gave them, and waits until the replica has all writes: a
/// fail-over to a replica that never had them would be another fault.
fn join(set: &mut RedisSentinels) {
    if set.primary_port() == set.replica.port() {
        mem::swap(&mut set.primary, &mut set.replica);
    }
    let at_once = ["SET", "repl-diskless-sync-delay", "0"];
    let _: redis::RedisResult<()> =
        common::try_query(&url(set.primary.port()), redis::cmd("CONFIG").arg(&at_once));
    let is_joined = || {
        // Repeated: a Sentinel that was suspended may change the roles once more.
        follow(&set.replica, set.primary.port());
        let state: redis::RedisResult<String> = common::try_query(
            &url(set.replica.port()),
            redis::cmd("INFO").arg("replication"),
        );
        state
            .is_ok_and(|state| state.contains("master_link_status:up"))
            .then_some(())
    };
    common::poll(is_joined).expect("the replica follows the primary");
}

fn follow(replica: &Server, port: u16) {
    let follow = redis::cmd("REPLICAOF")
        .arg("127.0.0.1")
        .arg(port)
        .to_owned();
    let _: redis::RedisResult<()> = common::try_query(&url(replica.port()), &follow);
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}
