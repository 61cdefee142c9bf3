//! More than the gateway can take: too many streams are refused early, slow ones end, memory stays within its bounds, and
//! who is honest gets on.

#[path = "../../benches/gateway/discard.rs"]
mod discard;

mod crowd;
mod deadlines;
mod limits;
mod throttling;

use crate::common::{self, RedisBackend, Server};

const PART: usize = 5 * 1024 * 1024;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A gateway of its own process, on Redis and the stores at `endpoints`: storages `0`, the default, and so on.
fn gateway(redis: &RedisBackend, endpoints: &[String], limits: &str) -> Server {
    let storages = endpoints.iter().enumerate().map(|(id, endpoint)| {
        format!(
            "[[storage]]\nid = \"{id}\"\ndefault = {}\nkind = \"s3\"\nbucket = \"discarded\"\n\
             endpoint = \"{endpoint}\"\naccess_key_id = \"anybody\"\nsecret_access_key = \"anything\"\n",
            id == 0
        )
    });
    let storages: String = storages.collect();
    common::gateway_process(&format!("{}[limits]\n{limits}\n{storages}", redis.toml()))
}
