//! The example of a configuration file.

use serde_json::Value;
use upload_gateway::config::{Config, Limits};

use super::load_text;

const EXAMPLE: &str = include_str!("../../../deploy/config.example.toml");

#[test]
fn the_example_as_it_is_changes_nothing() {
    assert_eq!(load_text(EXAMPLE, &[]).unwrap(), Config::default());
}

#[test]
fn the_example_uncommented_holds_every_key_and_the_defaults() {
    let config: Config = toml::from_str(&uncommented()).unwrap();
    let default = Config::default();
    assert_eq!(config.grpc_listen, default.grpc_listen);
    assert_eq!(config.http_listen, default.http_listen);
    assert_eq!(config.data_dir, default.data_dir);
    assert_eq!(config.rest, default.rest);
    assert_eq!(config.log, default.log);
    assert_eq!(config.embedded, default.embedded);
    let limits = Limits {
        max_file_size: None,
        ..config.limits.clone()
    };
    assert_eq!(limits, default.limits);
    assert_eq!(config.redis.key_prefix, default.redis.key_prefix);

    let schema = serde_json::to_value(&config).unwrap();
    let written: Value =
        serde_json::to_value(toml::from_str::<toml::Value>(&uncommented()).unwrap()).unwrap();
    assert_every_key("", &schema, &written);
}

/// The example with every key uncommented. Prose has a space after its `#`, a key has none.
fn uncommented() -> String {
    let is_key =
        |rest: &str| rest.starts_with(|first: char| first.is_ascii_lowercase() || first == '[');
    EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if is_key(rest) => rest,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// Checks that the example contains every key of the types, also those that are not set by default.
fn assert_every_key(path: &str, schema: &Value, written: &Value) {
    match schema {
        Value::Object(keys) => {
            for (key, value) in keys {
                let path = format!("{path}.{key}");
                let found = written.get(key);
                assert_every_key(
                    &path,
                    value,
                    found.unwrap_or_else(|| panic!("{path} is not in the example")),
                );
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                assert_every_key(&format!("{path}.{index}"), item, &written[index]);
            }
        }
        _ => {}
    }
}
