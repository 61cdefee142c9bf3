//! Commands and scripts on one connection.

use futures::future::try_join_all;
use redis::{
    Cmd, Pipeline, RedisFuture, RedisResult, ScriptInvocation, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster_async::ClusterConnection,
    cluster_routing::{RoutingInfo, SingleNodeRoutingInfo},
};

/// A connection that commands can be sent on; clones share it.
#[derive(Clone)]
pub(in crate::state::redis) enum Connection {
    /// To one server.
    Server(MultiplexedConnection),
    /// To all nodes of a cluster.
    Cluster(ClusterConnection),
}

/// Runs a command on the node of a cluster with this address. Another server has only one node.
pub(super) async fn on_node(
    node: &str,
    command: &Cmd,
    connection: &mut Connection,
) -> RedisResult<Value> {
    match (connection, address(node)) {
        (Connection::Cluster(cluster), Some((host, port))) => {
            let host = host.to_owned();
            let node = SingleNodeRoutingInfo::ByAddress { host, port };
            cluster
                .route_command(command.clone(), RoutingInfo::SingleNode(node))
                .await
        }
        (connection, _) => command.query_async(connection).await,
    }
}

fn address(node: &str) -> Option<(&str, u16)> {
    let (host, port) = node.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

/// Runs scripts that only read, without waiting for one answer before the next script is sent.
pub(super) async fn pipelined(
    scripts: &[ScriptInvocation<'_>],
    connection: &mut Connection,
) -> RedisResult<Value> {
    if let Connection::Cluster(cluster) = connection {
        // A pipeline must not cross slots. The connection sends what is called at the same time to each node in a row.
        let answers = scripts.iter().map(|script| {
            let mut cluster = cluster.clone();
            async move { script.invoke_async::<Value>(&mut cluster).await }
        });
        return try_join_all(answers).await.map(Value::Array);
    }
    let mut all = redis::pipe();
    for script in scripts {
        all.invoke_script(script);
    }
    let mut answers = connection
        .req_packed_commands(&all, 0, scripts.len())
        .await?;
    let refused = answers
        .iter()
        .position(|answer| matches!(answer, Value::ServerError(_)));
    if let Some(script) = refused.and_then(|index| scripts.get(index)) {
        // Outside of a pipeline the client loads a missing script. If the script fails again, that error is the answer.
        script.invoke_async::<Value>(connection).await?;
        answers = connection
            .req_packed_commands(&all, 0, scripts.len())
            .await?;
    }
    Ok(Value::Array(answers))
}

// === impl Connection ===

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Server(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Server(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Server(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
