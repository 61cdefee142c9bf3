//! The checks of Redis: its mode, what it does if it is full or restarts, its replicas, and the permissions of the user.

use std::time::SystemTime;

use super::{
    advice::of_unreachable,
    bucket_rules::not_checked,
    clock,
    report::{Check, Fix},
};
use crate::{
    seen::{Seen, Unseen},
    state::redis::{Inspection, Problem, RedisConfig, RedisMode, Refused, ServerInfo},
};

const URL: &str = "redis_url";
const CONNECT: &str = "connect";
const SERVERS: &str = "settings of the servers";

/// The oldest release with all commands that the gateway uses.
const OLDEST: u32 = 7;

/// Settings that are only visible with `CONFIG GET`.
struct Settings {
    save: Seen<String>,
    min_replicas: Seen<String>,
}

/// Looks at the servers of `config`.
pub(super) async fn check(subject: &str, config: &RedisConfig) -> Vec<Check> {
    let mut inspection = match Inspection::connect(config).await {
        Ok(inspection) => inspection,
        Err(problem) => return vec![unusable(subject, config, &problem)],
    };
    let mut checks = Vec::new();
    match inspection.servers().await {
        Ok(servers) => {
            let settings = Settings {
                save: inspection.setting("save").await,
                min_replicas: inspection.setting("min-replicas-to-write").await,
            };
            for server in &servers {
                checks.extend(of_server(subject, config, server, &settings));
            }
            // Another kind of server does not have the commands of Redis.
            if checks.iter().any(|check| check.check == CONNECT) {
                return checks;
            }
        }
        Err(unseen) => checks.push(not_checked(subject, SERVERS, unseen)),
    }
    checks.push(permissions(subject, config, &inspection.refused().await));
    checks.push(match inspection.clock().await {
        Ok(time) => clock::check(subject, time, SystemTime::now()),
        Err(unseen) => not_checked(subject, clock::NAME, unseen),
    });
    checks
}

fn unusable(subject: &str, config: &RedisConfig, problem: &Problem) -> Check {
    let failed = |found: String, fix: Fix| Check::failed(subject, CONNECT, found).with(fix);
    match problem {
        Problem::Invalid(problem) => {
            failed(problem.clone(), Fix::key("redis", "correct the table"))
        }
        Problem::Unreachable(problem) => {
            let url = config.url.to_string();
            failed(
                problem.to_string(),
                of_unreachable(problem, URL, &url, "redis.ca_file"),
            )
        }
        Problem::Mode(mode) => wrong_mode(subject, *mode, config.mode),
        Problem::Credentials(answer) => failed(
            format!("the user or the password is wrong: {answer}"),
            match config.mode {
                RedisMode::Sentinel => Fix::key(
                    "redis.sentinel_password",
                    "correct it if the Sentinels ask for a password of their own; otherwise the user and the password in redis_url",
                ),
                RedisMode::Single | RedisMode::Cluster => {
                    Fix::key(URL, "correct the user and the password in it")
                }
            },
        ),
        Problem::UnknownService => failed(
            "the Sentinels do not monitor a primary with this name".into(),
            Fix::key(
                "redis.service_name",
                "name a primary that SENTINEL MASTERS lists",
            ),
        ),
        Problem::NeedsCertificate => failed(
            "the server requires a certificate of the client".into(),
            Fix::key("redis.client_cert_file", "set it and redis.client_key_file"),
        ),
        Problem::Other(problem) => {
            failed(problem.clone(), Fix::key(URL, "check it, and redis.mode"))
        }
    }
}

fn wrong_mode(subject: &str, found: RedisMode, configured: RedisMode) -> Check {
    let (found, configured) = (name_of(found), name_of(configured));
    let problem = format!("the server is of mode {found}, and redis.mode is {configured}");
    Check::failed(subject, CONNECT, problem).with(Fix::set("redis.mode", found))
}

fn name_of(mode: RedisMode) -> &'static str {
    match mode {
        RedisMode::Single => "single",
        RedisMode::Sentinel => "sentinel",
        RedisMode::Cluster => "cluster",
    }
}

/// What one server says of itself.
fn of_server(
    subject: &str,
    config: &RedisConfig,
    server: &ServerInfo,
    settings: &Settings,
) -> Vec<Check> {
    let subject = match &*server.address {
        "" => subject.to_owned(),
        address => format!("{subject}, node {address}"),
    };
    // Behind Sentinels it is the primary, which is a single server.
    let expected = match config.mode {
        RedisMode::Cluster => RedisMode::Cluster,
        RedisMode::Single | RedisMode::Sentinel => RedisMode::Single,
    };
    if let Some(mode) = server.mode().filter(|mode| *mode != expected) {
        return vec![wrong_mode(&subject, mode, config.mode)];
    }
    let mut checks = vec![
        version(&subject, server),
        eviction(&subject, config, server),
    ];
    checks.push(persistence(&subject, server));
    checks.push(snapshots(&subject, &settings.save));
    checks.extend(replicas(&subject, config, server, &settings.min_replicas));
    checks
}

fn version(subject: &str, server: &ServerInfo) -> Check {
    let name = "version of Redis";
    let Some(version) = server.value("redis_version") else {
        return not_checked(
            subject,
            name,
            Unseen::never("Redis does not report its version"),
        );
    };
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major < OLDEST => Check::failed(
            subject,
            name,
            format!("Redis {version} lacks commands that the gateway uses"),
        )
        .with(Fix::key(URL, format!("use Redis {OLDEST} or later"))),
        _ => Check::ok(subject, name, format!("Redis {version}")),
    }
}

fn eviction(subject: &str, config: &RedisConfig, server: &ServerInfo) -> Check {
    let name = "eviction";
    let fix = || {
        Fix {
        key: Some("maxmemory-policy of Redis".into()),
        value: Some("noeviction".into()),
        advice: Some("with redis.allow_eviction = true the gateway starts nevertheless, and may lose uploads".into()),
        rule: None,
    }
    };
    let Some(policy) = server.value("maxmemory_policy") else {
        let unseen = Unseen::never("Redis does not report its maxmemory-policy");
        return not_checked(subject, name, unseen).with(fix());
    };
    let found = format!(
        "maxmemory-policy is {policy}: records of uploads are deleted when the memory is full"
    );
    match (policy, config.allow_eviction) {
        ("noeviction", _) => Check::ok(
            subject,
            name,
            "no record is deleted when the memory is full",
        ),
        (_, true) => Check::warning(subject, name, found).with(fix()),
        (_, false) => Check::failed(subject, name, found).with(fix()),
    }
}

fn persistence(subject: &str, server: &ServerInfo) -> Check {
    let name = "persistence";
    let fix = |advice: &str| Fix {
        key: Some("appendonly of Redis".into()),
        value: Some("yes".into()),
        advice: Some(advice.into()),
        rule: None,
    };
    let is_failing = |field| server.value(field) == Some("err");
    match server.number("aof_enabled") {
        None => {
            let unseen = Unseen::never("Redis does not report its persistence");
            not_checked(subject, name, unseen)
        }
        Some(0) if is_failing("rdb_last_bgsave_status") => Check::failed(
            subject,
            name,
            "Redis cannot write its snapshot, and therefore may refuse all writes",
        )
        .with(fix("look at the log of Redis: the disk may be full")),
        Some(0) => Check::warning(
            subject,
            name,
            "appendonly is no: a restart of Redis loses the records since its last snapshot",
        )
        .with(fix("by CONFIG SET and in redis.conf")),
        Some(_)
            if is_failing("aof_last_write_status") || is_failing("aof_last_bgrewrite_status") =>
        {
            Check::failed(subject, name, "Redis cannot write its append-only file")
                .with(fix("look at the log of Redis: the disk may be full"))
        }
        Some(_) => Check::ok(
            subject,
            name,
            "Redis keeps its records over a restart (appendonly)",
        ),
    }
}

fn snapshots(subject: &str, save: &Seen<String>) -> Check {
    let name = "snapshots";
    match save {
        Ok(save) if save.is_empty() => Check::ok(subject, name, "Redis makes no snapshots (save)"),
        Ok(save) => Check::ok(
            subject,
            name,
            format!("Redis makes snapshots (save {save})"),
        ),
        Err(unseen) => not_checked(subject, name, unseen.clone()),
    }
}

fn replicas(
    subject: &str,
    config: &RedisConfig,
    server: &ServerInfo,
    min_replicas: &Seen<String>,
) -> Vec<Check> {
    let name = "replicas";
    if server.value("role") == Some("slave") && config.mode != RedisMode::Cluster {
        let host = server.value("master_host").unwrap_or_default();
        let port = server.value("master_port").unwrap_or_default();
        let failed = Check::failed(
            subject,
            name,
            format!("the server is a replica, and refuses writes; {host}:{port} is its primary"),
        );
        let fix = Fix::key(
            URL,
            format!("name the primary, {host}:{port}, or Sentinels with redis.mode = \"sentinel\""),
        );
        return vec![failed.with(fix)];
    }
    let Some(connected) = server
        .number("connected_slaves")
        .filter(|_| server.value("role") == Some("master"))
    else {
        return Vec::new();
    };
    let wanted = u64::from(config.wait_replicas);
    let mut checks = vec![if connected < wanted {
        Check::failed(
            subject,
            name,
            format!(
                "{connected} replicas are connected, and writes wait for {wanted}: all of them fail"
            ),
        )
        .with(Fix {
            key: Some("redis.wait_replicas".into()),
            value: Some(connected.to_string()),
            advice: Some("or add replicas".into()),
            rule: None,
        })
    } else {
        let found = format!("{connected} replicas are connected, and writes wait for {wanted}");
        Check::ok(subject, name, found)
    }];
    // Reported only if Redis itself demands replicas.
    if let Some(good) = server.number("min_slaves_good_slaves") {
        let name = "replicas that Redis demands";
        checks.push(match min_replicas {
            Err(unseen) => not_checked(subject, name, unseen.clone()),
            Ok(min) if min.parse::<u64>().is_ok_and(|min| good < min) => Check::failed(
                subject,
                name,
                format!("{good} replicas keep up, and Redis refuses writes with fewer than {min}"),
            )
            .with(Fix::key(
                "min-replicas-to-write of Redis",
                "add replicas, or lower it",
            )),
            Ok(min) => Check::ok(
                subject,
                name,
                format!("{good} replicas keep up, and Redis demands {min}"),
            ),
        });
    }
    checks
}

fn permissions(subject: &str, config: &RedisConfig, refused: &Refused) -> Check {
    let name = "permissions of the user";
    let prefix = &config.key_prefix;
    let mut lacks = Vec::new();
    if refused.keys {
        lacks.push(format!("~{prefix}*"));
    }
    if refused.channels {
        lacks.push(format!("&{prefix}*"));
    }
    lacks.extend(refused.commands.iter().map(|command| format!("+{command}")));
    if lacks.is_empty() && refused.has_unknown {
        let unseen = Unseen::never("a server did not answer some commands");
        return not_checked(subject, name, unseen);
    }
    if lacks.is_empty() {
        return Check::ok(
            subject,
            name,
            "the user may use all commands, keys and channels that the gateway needs",
        );
    }
    let lacks = lacks.join(" ");
    let found = format!("the user lacks {lacks}");
    let fix = Fix::key(
        URL,
        format!("ACL SETUSER its user {lacks}; or name another user in it"),
    );
    // Without channels, a takeover ends the older stream later.
    let is_minor = !refused.keys
        && refused
            .commands
            .iter()
            .all(|command| ["publish", "subscribe"].contains(command));
    match is_minor {
        true => Check::warning(subject, name, found).with(fix),
        false => Check::failed(subject, name, found).with(fix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Outcome;

    fn server(lines: &[&str]) -> ServerInfo {
        ServerInfo::new(String::new(), &lines.join("\r\n"))
    }

    fn found(check: &Check) -> (Outcome, Option<&str>, Option<&str>) {
        (
            check.result,
            check.fix.key.as_deref(),
            check.fix.value.as_deref(),
        )
    }

    #[test]
    fn a_server_that_evicts_is_a_failure_unless_it_is_allowed() {
        let server = server(&["# Memory", "maxmemory_policy:allkeys-lru"]);
        let mut config = RedisConfig::default();
        let key = Some("maxmemory-policy of Redis");
        let expected = (Outcome::Failed, key, Some("noeviction"));
        assert_eq!(found(&eviction("s", &config, &server)), expected);
        config.allow_eviction = true;
        assert_eq!(eviction("s", &config, &server).result, Outcome::Warning);
        let silent = eviction("s", &config, &ServerInfo::default());
        assert_eq!(silent.result, Outcome::NotChecked);
    }

    #[test]
    fn a_server_that_forgets_or_cannot_write_is_named() {
        let result = |lines: &[&str]| persistence("s", &server(lines)).result;
        assert_eq!(result(&["aof_enabled:1"]), Outcome::Ok);
        assert_eq!(result(&["aof_enabled:0"]), Outcome::Warning);
        assert_eq!(
            result(&["aof_enabled:1", "aof_last_write_status:err"]),
            Outcome::Failed
        );
        assert_eq!(
            result(&["aof_enabled:0", "rdb_last_bgsave_status:err"]),
            Outcome::Failed
        );
        assert_eq!(result(&[]), Outcome::NotChecked);
    }

    #[test]
    fn too_few_replicas_and_a_replica_itself_are_failures() {
        let config = RedisConfig {
            wait_replicas: 2,
            ..RedisConfig::default()
        };
        let primary = server(&[
            "role:master",
            "connected_slaves:1",
            "min_slaves_good_slaves:1",
        ]);
        let checks = replicas("s", &config, &primary, &Ok("2".into()));
        let expected = (Outcome::Failed, Some("redis.wait_replicas"), Some("1"));
        assert_eq!(found(&checks[0]), expected);
        assert_eq!(checks[1].result, Outcome::Failed);
        let unseen = replicas("s", &config, &primary, &Err(Unseen::never("x")));
        assert_eq!(unseen[1].result, Outcome::NotChecked);
        let replica = server(&["role:slave", "master_host:a", "master_port:6379"]);
        let checks = replicas("s", &config, &replica, &Ok("0".into()));
        assert_eq!(found(&checks[0]).1, Some("redis_url"));
        assert!(checks[0].found.contains("a:6379"));
    }

    #[test]
    fn missing_permissions_are_listed_as_access_rules() {
        let config = RedisConfig::default();
        let refused = Refused {
            commands: vec!["get", "script|load"],
            keys: true,
            channels: true,
            has_unknown: true,
        };
        let check = permissions("s", &config, &refused);
        let rules = "~upload-gateway:* &upload-gateway:* +get +script|load";
        assert_eq!(check.found, format!("the user lacks {rules}"));
        assert_eq!(check.result, Outcome::Failed);
        let refused = Refused {
            channels: true,
            ..Refused::default()
        };
        assert_eq!(permissions("s", &config, &refused).result, Outcome::Warning);
        let refused = Refused {
            has_unknown: true,
            ..Refused::default()
        };
        let unknown = permissions("s", &config, &refused);
        assert_eq!(unknown.result, Outcome::NotChecked);
        let nothing = permissions("s", &config, &Refused::default());
        assert_eq!(nothing.result, Outcome::Ok);
    }

    #[test]
    fn another_mode_and_an_old_release_are_named() {
        let config = RedisConfig::default();
        let settings = Settings {
            save: Ok(String::new()),
            min_replicas: Ok("0".into()),
        };
        let cluster = server(&["redis_mode:cluster", "redis_version:7.0.15"]);
        let checks = of_server("s", &config, &cluster, &settings);
        let expected = (Outcome::Failed, Some("redis.mode"), Some("\"cluster\""));
        assert_eq!(found(&checks[0]), expected);
        assert_eq!(checks.len(), 1);
        let old = version("s", &server(&["redis_version:6.2.1"]));
        assert_eq!(old.result, Outcome::Failed);
        let current = version("s", &server(&["redis_version:7.0.15"]));
        assert_eq!(current.result, Outcome::Ok);
    }
}
