//! A Redis Cluster of three primaries.

use std::path::Path;

use super::{
    programs,
    redis_server::{self, query, try_query, url},
    server::{Server, free_port},
    wait,
};

/// Three servers that share the hash slots.
#[derive(Debug)]
pub struct RedisCluster {
    /// `redis://127.0.0.1:PORT` of each node.
    pub urls: Vec<String>,
    /// The processes, in the order of `urls`. Killing one takes a third of the slots away.
    pub nodes: Vec<Server>,
}

/// A cluster for the caller alone; every node knows all slots when this returns.
pub fn redis_cluster() -> Option<RedisCluster> {
    let program = programs::find("redis-server")?;
    let (nodes, bus_ports): (Vec<_>, Vec<_>) = (0..3).map(|_| start_node(&program)).unzip();
    let urls: Vec<_> = nodes.iter().map(url).collect();
    for (url, (first, last)) in urls.iter().zip([(0, 5460), (5461, 10922), (10923, 16383)]) {
        let () = query(
            url,
            redis::cmd("CLUSTER")
                .arg("ADDSLOTSRANGE")
                .arg(first)
                .arg(last),
        );
    }
    for (node, bus_port) in nodes.iter().zip(&bus_ports).skip(1) {
        meet(&urls[0], node, *bus_port);
    }
    for url in &urls {
        wait::poll(|| is_complete(url).then_some(())).expect("the cluster came up");
    }
    Some(RedisCluster { urls, nodes })
}

impl RedisCluster {
    /// A replica of that node; it has all of the node's keys when this returns.
    pub fn replica_of(&self, node: usize) -> Server {
        let program = programs::find("redis-server").expect("the nodes run it");
        let (replica, bus_port) = start_node(&program);
        meet(&self.urls[0], &replica, bus_port);
        let of: String = query(&self.urls[node], redis::cmd("CLUSTER").arg("MYID"));
        let replicate = redis::cmd("CLUSTER").arg("REPLICATE").arg(of).to_owned();
        // Refused until it has heard of the node.
        wait::poll(|| try_query::<()>(&url(&replica), &replicate).ok())
            .expect("the replica heard of its node");
        wait::poll(|| {
            let state: String = query(&url(&replica), redis::cmd("INFO").arg("replication"));
            state.contains("master_link_status:up").then_some(())
        })
        .expect("the replica follows its node");
        replica
    }

    /// The slot of a key.
    pub fn slot_of(&self, key: &str) -> u16 {
        query(&self.urls[0], redis::cmd("CLUSTER").arg("KEYSLOT").arg(key))
    }
}

/// A node of its own, and the port the others speak to.
fn start_node(program: &Path) -> (Server, u16) {
    // The nodes' own port, by default 10,000 above the other, might not be free.
    let bus_port = free_port();
    let node = Server::start_until(redis_server::answers, |port, directory| {
        let mut command = redis_server::command(program, directory);
        command
            .args(["--port", &port.to_string(), "--cluster-enabled", "yes"])
            .args(["--cluster-port", &bus_port.to_string()])
            .args(["--cluster-node-timeout", "2000"])
            .args(["--appendonly", "yes", "--appendfsync", "always"]);
        command
    });
    (node, bus_port)
}

fn meet(url: &str, node: &Server, bus_port: u16) {
    let meet = redis::cmd("CLUSTER")
        .arg("MEET")
        .arg("127.0.0.1")
        .arg(node.port())
        .arg(bus_port)
        .to_owned();
    let () = query(url, &meet);
}

fn is_complete(url: &str) -> bool {
    let state: String = query(url, redis::cmd("CLUSTER").arg("INFO"));
    state.contains("cluster_state:ok") && state.contains("cluster_known_nodes:3")
}
