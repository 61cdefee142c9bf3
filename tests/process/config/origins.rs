//! An error names the flag, the variable, or the line of the file that it comes from, and what is expected.

use std::fs;

use tempfile::TempDir;
use upload_gateway::config::{ConfigError, Flags, load};

use super::owned;
use crate::common::binary;

/// The text of the error that a file with this text causes, from the key, without the directory of the file.
fn of_file(text: &str) -> String {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("gateway.toml");
    fs::write(&file, text).unwrap();
    let error = load(Some(&file), [], &Flags::default()).unwrap_err();
    let text = error.to_string();
    text.replace(&format!("{}/", directory.path().display()), "")
}

fn of_variable(name: &str, value: &str) -> ConfigError {
    let variables = owned(&[(name, value)]);
    load(None, variables, &Flags::default()).unwrap_err()
}

#[test]
fn an_error_in_the_file_names_the_line() {
    let s3 = "[[storage]]\nid = 'a'\nkind = 's3'\nbucket = 'b'\n";
    let second = format!("{s3}default = true\n\n{}", s3.replace("'a'", "'a.b'"));
    for (text, expected) in [
        // Top-level keys.
        (
            "\ncolour = 1".to_owned(),
            "colour: unknown key; expected one of grpc_listen, ",
        ),
        ("\ncolour = 1".into(), "storage (in gateway.toml, line 2)"),
        (
            "\n\ndata_dir = 5".into(),
            "data_dir: expected text in quotes (in gateway.toml, line 3)",
        ),
        (
            "http_listen = 'localhost'".into(),
            "http_listen: expected an address and a port, such as 127.0.0.1:50051, [::1]:50051 or localhost:50051 (in gateway.toml, line 1)",
        ),
        (
            "limits = 3".into(),
            "limits: expected a table (in gateway.toml, line 1)",
        ),
        // Keys of tables.
        (
            "[limits]\n# more\nmemory_bugdet = 1".into(),
            "limits.memory_bugdet: unknown key; did you mean `memory_budget`? (in gateway.toml, line 3)",
        ),
        (
            "data_dir = 'a'\nlimits.parts_in_flight = 1.5".into(),
            "limits.parts_in_flight: expected a whole number from 0 to 4294967295 (in gateway.toml, line 2)",
        ),
        (
            "[limits]\n\nparts_in_flight = 0".into(),
            "limits.parts_in_flight: must be at least 1 (in gateway.toml, line 3)",
        ),
        (
            "[faults]\nenabled = 'perhaps'".into(),
            "faults.enabled: expected true or false (in gateway.toml, line 2)",
        ),
        (
            "[redis]\nmode = 4".into(),
            "redis.mode: must be one of single, sentinel, cluster (in gateway.toml, line 2)",
        ),
        (
            "\n[redis]\nmode = 'sentinel'".into(),
            "monitor the primary (in gateway.toml, line 2)",
        ),
        (
            "[log]\nfilter = 'a=b'".into(),
            "log.filter: must be a level (error, warn, ",
        ),
        // Items of lists.
        (
            "[rest]\ncors_origins = [\n  'https://app.example',\n  3,\n]".into(),
            "rest.cors_origins.1: expected text in quotes (in gateway.toml, line 4)",
        ),
        // Keys of arrays of tables, by index and by id.
        (
            format!("{second}buket = 'c'"),
            "storage.1.buket: unknown key; did you mean `bucket`? (in gateway.toml, line 11)",
        ),
        (
            format!("{second}allow_http = 3"),
            "storage.1.allow_http: expected true or false (in gateway.toml, line 11)",
        ),
        (
            format!("{second}prefix = 'a//b'"),
            "storage.a.b.prefix: must be names separated by `/`, without `.`, `..` and control or invisible characters (in gateway.toml, line 11)",
        ),
        (
            "\n[[storage]]\nid = 'a'\nkind = 's3'".into(),
            "storage.0: `bucket` is required (in gateway.toml, line 2)",
        ),
    ] {
        let error = of_file(&text);
        assert!(error.contains(expected), "{error}\n{expected}");
    }
}

#[test]
fn an_error_in_a_variable_names_it_and_what_is_expected() {
    for (name, value, expected) in [
        (
            "COLOUR",
            "1",
            "colour: unknown key; expected one of grpc_listen, ",
        ),
        (
            "LIMITS__MEMORY_BUGDET",
            "1",
            "did you mean `memory_budget`?",
        ),
        (
            "LIMITS__PARTS_IN_FLIGHT",
            "many",
            "expected a whole number from 0 to 4294967295",
        ),
        ("LIMITS__PARTS_IN_FLIGHT", "0", "must be at least 1"),
        ("LIMITS__MEMORY_BUDGET", "much", "expected a size such as "),
        ("LOG", "debug", "log: expected a table"),
        (
            "HTTP_HOSTS",
            "a.example, b:80",
            "expected a host name such as ",
        ),
        ("REST__CORS_ORIGINS", "app.example", "rest.cors_origins"),
    ] {
        let name = format!("UPLOAD_GATEWAY_{name}");
        let error = of_variable(&name, value);
        assert_eq!(error.origin, Some(name), "{error}");
        assert!(error.to_string().contains(expected), "{error}\n{expected}");
    }
    let error = of_variable("UPLOAD_GATEWAY_REDIS__MODE", "sentinel");
    let missing = "; UPLOAD_GATEWAY_REDIS__SERVICE_NAME sets it";
    assert!(error.to_string().ends_with(missing), "{error}");
}

#[test]
fn an_error_in_a_flag_names_it_and_what_is_expected() {
    for (flag, value, code, expected) in [
        (
            "--grpc-listen",
            "localhost",
            2,
            "expected an address and a port, such as ",
        ),
        (
            "--grpc-listen",
            "0.0.0.0:1",
            64,
            "is not a loopback address",
        ),
        ("--redis-url", "http://a", 64, "begins with redis://"),
        (
            "--redis-ulr",
            "redis://a",
            2,
            "a similar argument exists: '--redis-url'",
        ),
    ] {
        let mut serve = binary();
        let output = serve.args(["serve", flag, value]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(flag) && text.contains(expected), "{text}");
    }
}
