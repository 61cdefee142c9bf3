//! A Redis Cluster of three primaries.

use super::{
    programs,
    redis_server::{self, query, url},
    server::{self, Server, free_port},
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
    let (nodes, bus_ports): (Vec<_>, Vec<_>) = (0..3)
        .map(|_| {
            // The nodes' own port, by default 10,000 above the other, might not be free.
            let bus_port = free_port();
            let node = Server::start_until(redis_server::answers, |port, directory| {
                let mut command = redis_server::command(&program, directory);
                command
                    .args(["--port", &port.to_string(), "--cluster-enabled", "yes"])
                    .args([
                        "--cluster-port",
                        &bus_port.to_string(),
                        "--cluster-node-timeout",
                        "2000",
                    ])
                    .args(["--appendonly", "yes", "--appendfsync", "always"]);
                command
            });
            (node, bus_port)
        })
        .unzip();
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
        let meet = redis::cmd("CLUSTER")
            .arg("MEET")
            .arg("127.0.0.1")
            .arg(node.port())
            .arg(bus_port)
            .to_owned();
        let () = query(&urls[0], &meet);
    }
    for url in &urls {
        server::poll(|| is_complete(url).then_some(())).expect("the cluster came up");
    }
    Some(RedisCluster { urls, nodes })
}

fn is_complete(url: &str) -> bool {
    let state: String = query(url, redis::cmd("CLUSTER").arg("INFO"));
    state.contains("cluster_state:ok") && state.contains("cluster_known_nodes:3")
}
