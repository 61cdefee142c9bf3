//! Set-ups with Redis, and the embedded storage.

use super::Setups;
use crate::{
    common::{self, Server, free_port, try_query},
    redis_user::user_like_it,
};

/// Seals records.
const RECORD_KEY: &str =
    "[[records.key]]\nid = \"a\"\nkey = \"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\"\n";

fn toml(url: &str, keys: &str) -> String {
    format!("redis_url = \"{url}\"\n{keys}\n{RECORD_KEY}")
}

pub(super) async fn setups() -> Option<Setups> {
    let mut setups = Setups::default();
    let closed = format!("redis://127.0.0.1:{}", free_port());
    setups.add("Redis does not run", toml(&closed, ""));
    setups.add(
        "the host name in `redis_url` is misspelt",
        toml("redis://redis.invalid:6379", ""),
    );

    let (server, url) = common::private_redis(&[])?;
    setups.add(
        "one server is configured as a Cluster",
        toml(&url, "[redis]\nmode = \"cluster\""),
    );
    setups.add(
        "one server is configured as a Sentinel",
        toml(
            &url,
            "[redis]\nmode = \"sentinel\"\nservice_name = \"gateway\"",
        ),
    );
    setups.add(
        "`redis_url` requires TLS and the server has none",
        toml(&url.replace("redis://", "rediss://"), ""),
    );
    setups.add(
        "more replicas are waited for than Redis has",
        toml(&url, "[redis]\nwait_replicas = 3"),
    );
    setups.add(
        "`records.key` is missing",
        format!("redis_url = \"{url}\"\n"),
    );
    setups.extend(users(&url).await);
    setups.extend(others(&server)?);
    setups.keep(server);
    setups.extend(options()?);
    setups.extend(tls()?);
    setups.extend(full()?);
    Some(setups)
}

/// Servers beside this one.
fn others(primary: &Server) -> Option<Setups> {
    let mut setups = Setups::default();
    let port = primary.port().to_string();
    let (replica, of_replica) = common::private_redis(&["--replicaof", "127.0.0.1", &port])?;
    setups.add("`redis_url` names a replica", toml(&of_replica, ""));
    let watch = format!("bind 127.0.0.1\nsentinel monitor gateway 127.0.0.1 {port} 1\n");
    let sentinel = common::redis_sentinel(&watch)?;
    let of_sentinel = format!("redis://127.0.0.1:{}", sentinel.port());
    setups.add(
        "a Sentinel is configured as one server",
        toml(&of_sentinel, ""),
    );
    setups.add(
        "the Sentinels know the primary by another name",
        toml(
            &of_sentinel,
            "[redis]\nmode = \"sentinel\"\nservice_name = \"other\"",
        ),
    );
    setups.keep((replica, sentinel));
    Some(setups)
}

/// Servers with these options.
fn options() -> Option<Setups> {
    let mut setups = Setups::default();
    for (name, options) in [
        (
            "the password of Redis is wrong",
            &["--requirepass", "hunter3"][..],
        ),
        (
            "a node of a Cluster is configured as one server",
            &["--cluster-enabled", "yes"],
        ),
        ("Redis evicts keys", &["--maxmemory-policy", "allkeys-lru"]),
        (
            "Redis forgets its records at a restart",
            &["--appendonly", "no"],
        ),
        (
            "Redis refuses writes without a replica",
            &["--min-replicas-to-write", "1"],
        ),
    ] {
        // A server with a password does not answer the PING of `private_redis`.
        let needs_password = options.contains(&"--requirepass");
        let (server, url) = common::private_redis(if needs_password { &[] } else { options })?;
        if needs_password {
            let set = redis::cmd("CONFIG")
                .arg("SET")
                .arg("requirepass")
                .arg("hunter3")
                .to_owned();
            try_query::<()>(&url, &set).unwrap();
        }
        let url = match needs_password {
            true => url.replace("redis://", "redis://:hunter2@"),
            false => url,
        };
        setups.add(name, toml(&url, ""));
        setups.keep(server);
    }
    Some(setups)
}

/// Users of this server that may not do everything.
async fn users(admin: &str) -> Setups {
    let mut setups = Setups::default();
    for (name, user, rules) in [
        (
            "the user of Redis lacks commands",
            "commands",
            &["-hset", "-zadd", "-scan"][..],
        ),
        (
            "the user of Redis lacks the keys",
            "keys",
            &["resetkeys", "~other:*"],
        ),
        (
            "the user of Redis lacks the channels",
            "channels",
            &["resetchannels"],
        ),
        ("the user of Redis may not read its settings", "reader", &[]),
    ] {
        setups.add(name, toml(&user_like_it(admin, user, rules).await, ""));
    }
    setups
}

/// Servers with TLS.
fn tls() -> Option<Setups> {
    let mut setups = Setups::default();
    let server = common::redis_tls()?;
    let plain = server.url.replace("rediss://", "redis://");
    setups.add(
        "`redis_url` lacks TLS that the server requires",
        toml(&plain, ""),
    );
    setups.add(
        "the authority of Redis is not trusted",
        toml(&server.url, ""),
    );
    let mutual = common::redis_tls_for_clients_with_certificates()?;
    let authority = format!("[redis]\nca_file = \"{}\"", mutual.authority_file.display());
    setups.add(
        "Redis requires a client certificate",
        toml(&mutual.url, &authority),
    );
    setups.keep((server, mutual));
    Some(setups)
}

/// A server that has more than it may have.
fn full() -> Option<Setups> {
    let mut setups = Setups::default();
    let (server, url) = common::private_redis(&[])?;
    let filler = vec![b'x'; 12 << 20];
    try_query::<()>(&url, redis::cmd("SET").arg("filler").arg(filler)).unwrap();
    let limit = "[records]\nmax_memory = \"8MiB\"";
    setups.add(
        "the records need more memory than they may use",
        toml(&url, limit),
    );
    setups.keep(server);
    Some(setups)
}
