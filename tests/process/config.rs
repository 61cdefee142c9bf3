//! Configuration: precedence, errors that name the key, secrets.

mod example;
mod listen;
mod memory;
mod origins;
mod pem_files;
mod storages;

use std::{fs, path::Path};

use tempfile::TempDir;
use upload_gateway::config::{
    ByteSize, Config, ConfigError, CorsOrigin, Flags, PartDataForm, RedisMode, S3Profile,
    StoreConfig, load,
};

const TWO_STORAGES: &str = r#"
    [[storage]]
    id = "media-1"
    kind = "s3"
    bucket = "media"
    default = true

    [[storage]]
    id = "archive"
    kind = "azure"
    account = "acme"
    container = "files"
"#;

/// Loads a file with this text, and these variables.
fn load_text(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("gateway.toml");
    fs::write(&file, text).unwrap();
    load(Some(&file), owned(variables), &Flags::default())
}

fn owned(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// The text and the key of the error.
fn refusal(text: &str) -> (String, String) {
    let error = load_text(text, &[]).unwrap_err();
    (error.to_string(), error.key)
}

#[test]
fn without_settings_the_defaults_apply() {
    let config = load(None, [], &Flags::default()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.grpc_listen.to_string(), "127.0.0.1:50051");
    assert_eq!(config.default_storage(), None);
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let text = "grpc_listen = '127.0.0.1:1'\nhttp_listen = '127.0.0.1:1'\ndata_dir = 'file'";
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("gateway.toml");
    fs::write(&file, text).unwrap();
    let variables = owned(&[
        ("UPLOAD_GATEWAY_GRPC_LISTEN", "127.0.0.1:2"),
        ("UPLOAD_GATEWAY_HTTP_LISTEN", "127.0.0.1:2"),
    ]);
    let flags = Flags {
        grpc_listen: Some("127.0.0.1:3".parse().unwrap()),
        ..Flags::default()
    };
    let config = load(Some(&file), variables, &flags).unwrap();
    assert_eq!(config.grpc_listen.port(), 3);
    assert_eq!(config.http_listen.port(), 2);
    assert_eq!(config.data_dir, Path::new("file"));

    let flags = Flags {
        redis_url: Some("http://cache".into()),
        ..flags
    };
    let error = load(None, [], &flags).unwrap_err();
    assert_eq!(error.origin.as_deref(), Some("--redis-url"));
}

#[test]
fn a_variable_reaches_every_type_of_key() {
    let variables = [
        ("UPLOAD_GATEWAY_LIMITS__MEMORY_BUDGET", "64MiB"),
        ("UPLOAD_GATEWAY_LIMITS__STREAM_WINDOW", "131072"),
        ("UPLOAD_GATEWAY_LIMITS__PARTS_IN_FLIGHT", "2"),
        ("UPLOAD_GATEWAY_REDIS_URL", "redis://cache:6379"),
        ("UPLOAD_GATEWAY_REDIS__MODE", "cluster"),
        ("UPLOAD_GATEWAY_REDIS__ALLOW_EVICTION", "true"),
        ("UPLOAD_GATEWAY_EMBEDDED__SECRET_ACCESS_KEY", "00123"),
        ("UPLOAD_GATEWAY_REST__PART_DATA", "map"),
        (
            "UPLOAD_GATEWAY_REST__CORS_ORIGINS",
            "https://app.example, http://localhost:4200",
        ),
        ("UPLOAD_GATEWAY_AUTH", "none"),
        ("PATH", "/bin"),
    ];
    let config = load(None, owned(&variables), &Flags::default()).unwrap();
    assert_eq!(config.limits.memory_budget, ByteSize(64 << 20));
    assert_eq!(config.limits.stream_window, ByteSize(131_072));
    assert_eq!(config.limits.parts_in_flight, 2);
    assert_eq!(config.redis.mode, RedisMode::Cluster);
    assert!(config.redis.allow_eviction);
    assert_eq!(config.rest.part_data, PartDataForm::Map);
    let origins: Vec<_> = config
        .rest
        .cors_origins
        .iter()
        .map(CorsOrigin::as_str)
        .collect();
    assert_eq!(origins, ["https://app.example", "http://localhost:4200"]);
    assert_eq!(config.embedded.secret_access_key.expose(), "00123");
}

#[test]
fn a_variable_reaches_a_storage_by_its_id() {
    let key = ("UPLOAD_GATEWAY_STORAGE__ARCHIVE__ACCOUNT_KEY", "c2VjcmV0");
    let size = ("UPLOAD_GATEWAY_STORAGE__MEDIA_1__PART_SIZE", "8MiB");
    let config = load_text(TWO_STORAGES, &[key, size]).unwrap();
    let StoreConfig::Azure(azure) = &config.storage[1].store else {
        panic!("the second storage is Azure");
    };
    assert_eq!(azure.account_key.as_ref().unwrap().expose(), "c2VjcmV0");
    assert_eq!(config.storage[0].options.part_size, ByteSize(8 << 20));

    let unknown = ("UPLOAD_GATEWAY_STORAGE__NOWHERE__PREFIX", "x");
    let error = load_text(TWO_STORAGES, &[unknown]).unwrap_err();
    assert_eq!(error.origin.as_deref(), Some(unknown.0));
}

#[test]
fn text_in_a_variable_of_a_storage_has_the_type_of_its_key() {
    let allow = ("UPLOAD_GATEWAY_STORAGE__MEDIA_1__ALLOW_HTTP", "true");
    let config = load_text(TWO_STORAGES, &[allow]).unwrap();
    assert!(config.storage[0].options.allow_http);
    for (name, value, key) in [
        ("ALLOW_HTTP", "maybe", "storage.0.allow_http"),
        ("PART_SIZE", "1MiB", "storage.media-1.part_size"),
        ("ENDPOINT", "nowhere", "storage.0.endpoint"),
        ("BUKET", "a", "storage.0.buket"),
    ] {
        let name = format!("UPLOAD_GATEWAY_STORAGE__MEDIA_1__{name}");
        let error = load_text(TWO_STORAGES, &[(&name, value)]).unwrap_err();
        assert_eq!(error.key, key);
        assert_eq!(error.origin, Some(name), "{error}");
    }
}

#[test]
fn a_key_of_another_kind_is_named_with_both_kinds() {
    let s3 = "[[storage]]\nid = 'a'\nkind = 's3'\nbucket = 'b'\n";
    let (text, _) = refusal(&format!("{s3}account_key = 'a'"));
    for kind in ["kind = \"azure\"", "kind = \"s3\""] {
        assert!(text.contains(kind), "{text}");
    }
    let (text, key) = refusal(&format!("{s3}prefx = 'a'"));
    assert_eq!(key, "storage.0.prefx");
    assert!(text.contains("did you mean `prefix`?"), "{text}");
    for (kind, key) in [("", "storage.0"), ("kind = 'ftp'", "storage.0.kind")] {
        let (text, refused) = refusal(&format!("[[storage]]\nid = 'a'\n{kind}"));
        assert_eq!(refused, key);
        assert!(text.contains("s3, azure"), "{text}");
    }
}

#[test]
fn an_unknown_key_is_named_with_its_file_and_a_suggestion() {
    let (text, key) = refusal("[limits]\nmemory_bugdet = 1");
    assert_eq!(key, "limits.memory_bugdet");
    assert!(text.contains("did you mean `memory_budget`?"), "{text}");
    assert!(text.contains("gateway.toml"), "{text}");
    assert_eq!(refusal("color = true").1, "color");
    let (_, key) = refusal("[[storage]]\nid = 'a'\nkind = 's3'\nbuket = 'b'");
    assert_eq!(key, "storage.0.buket");
}

#[test]
fn an_unknown_variable_is_named() {
    for name in [
        "UPLOAD_GATEWAY_GRPC_LISTNE",
        "UPLOAD_GATEWAY_LIMITS__NOTHING",
        "UPLOAD_GATEWAY_LIMITS_MEMORY_BUDGET",
    ] {
        let error = load(None, owned(&[(name, "1")]), &Flags::default()).unwrap_err();
        assert_eq!(error.origin.as_deref(), Some(name), "{error}");
        assert!(error.problem.starts_with("unknown key"), "{error}");
    }
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_are_ignored() {
    let variables = [
        ("UPLOAD_GATEWAY_SERVICE_HOST", "10.0.0.1"),
        ("UPLOAD_GATEWAY_SERVICE_PORT_GRPC", "50051"),
        ("UPLOAD_GATEWAY_PORT", "tcp://10.0.0.1:50051"),
        ("UPLOAD_GATEWAY_PORT_50051_TCP_ADDR", "10.0.0.1"),
        ("UPLOAD_GATEWAY_SERVER", "http://127.0.0.1:50051"),
        ("UPLOAD_GATEWAY_PROFILE", "work"),
        ("UPLOAD_GATEWAY_CONFIG", "gateway.toml"),
    ];
    assert!(load(None, owned(&variables), &Flags::default()).is_ok());
}

#[test]
fn an_invalid_value_is_refused_and_its_key_named() {
    let s3 = "[[storage]]\nid = 'a'\nkind = 's3'\nbucket = 'b'\n";
    for (text, key) in [
        ("grpc_listen = '0.0.0.0:50051'".to_owned(), "grpc_listen"),
        ("http_listen = '192.0.2.1:80'".into(), "http_listen"),
        ("grpc_listen = 'localhost'".into(), "grpc_listen"),
        ("auth = 'open'".into(), "auth"),
        ("redis_url = 'http://127.0.0.1'".into(), "redis_url"),
        (
            "[embedded]\ns3_listen = '0.0.0.0:0'".into(),
            "embedded.s3_listen",
        ),
        (
            "[limits]\nparts_in_flight = 0".into(),
            "limits.parts_in_flight",
        ),
        (
            "[limits]\nparts_in_flight = -1".into(),
            "limits.parts_in_flight",
        ),
        (
            "[limits]\nidle_timeout_seconds = 0".into(),
            "limits.idle_timeout_seconds",
        ),
        (
            "[limits]\nmemory_budget = '1MiB'".into(),
            "limits.memory_budget",
        ),
        (
            "[limits]\nmemory_budget = 'much'".into(),
            "limits.memory_budget",
        ),
        (
            "[limits]\nstream_window = '16MiB'".into(),
            "limits.stream_window",
        ),
        (
            "[limits]\nmax_message_size = 1".into(),
            "limits.max_message_size",
        ),
        ("[redis]\nmode = 'sentinel'".into(), "redis.service_name"),
        (
            "[rest]\ncors_origins = ['https://app.example/']".into(),
            "rest.cors_origins.0",
        ),
        ("[rest]\npart_data = 'object'".into(), "rest.part_data"),
        ("[log]\nfilter = 'a=b=c'".into(), "log.filter"),
        (format!("{s3}part_size = '1MiB'"), "storage.a.part_size"),
        (format!("{s3}part_size = 5242881"), "storage.a.part_size"),
        (format!("{s3}part_size = '65MiB'"), "storage.a.part_size"),
        (
            format!("{s3}endpoint = 'http://minio.example'"),
            "storage.a.endpoint",
        ),
        (
            format!("{s3}endpoint = 'ftp://minio.example'"),
            "storage.0.endpoint",
        ),
        (
            format!("{s3}access_key_id = 'a'"),
            "storage.a.secret_access_key",
        ),
        (format!("{s3}account = 'a'"), "storage.0.account"),
        (format!("{s3}acl = 'all'"), "storage.a.acl"),
        (format!("{s3}ext_filter = ['.pdf']"), "storage.a.ext_filter"),
        (format!("{s3}ext_filter = ['PDF']"), "storage.a.ext_filter"),
        (
            format!("{s3}mime_filter = ['pdf']"),
            "storage.a.mime_filter",
        ),
        (format!("{s3}{s3}"), "storage.a"),
        (format!("{s3}{}", s3.replace("'a'", "'c'")), "storage"),
        (
            "[[storage]]\nid = 'a'\nkind = 'azure'\naccount = 'b'".into(),
            "storage.0",
        ),
    ] {
        let (message, refused) = refusal(&text);
        assert_eq!(refused, key, "{text}: {message}");
    }
}

#[test]
fn a_lease_must_be_longer_than_the_retry_timeout() {
    let (_, key) = refusal("[limits]\nstore_retry_timeout_seconds = 90");
    assert_eq!(key, "limits.commit_lease_seconds");
}

#[test]
fn a_listed_host_is_a_name_or_an_address_without_a_port() {
    for host in ["a.example:80", "https://a.example", ""] {
        let (_, key) = refusal(&format!("http_hosts = ['{host}']"));
        assert_eq!(key, "http_hosts.0", "{host}");
    }
    let variable = (
        "UPLOAD_GATEWAY_HTTP_HOSTS",
        "A.example., 10.0.0.1, [fd00::1]",
    );
    let hosts = load_text("", &[variable]).unwrap().http_hosts;
    let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["a.example", "10.0.0.1", "[fd00::1]"]);
}

#[test]
fn a_prefix_of_keys_has_a_separator() {
    for (written, used) in [("x", "x:"), ("x:", "x:"), ("prod/", "prod/"), ("", "")] {
        let text = format!("[redis]\nkey_prefix = '{written}'");
        let config = load_text(&text, &[]).unwrap();
        assert_eq!(config.redis.key_prefix, used);
        let variable = ("UPLOAD_GATEWAY_REDIS__KEY_PREFIX", written);
        let config = load_text("", &[variable]).unwrap();
        assert_eq!(config.redis.key_prefix, used);
    }
}

#[test]
fn faults_are_enabled_by_two_keys() {
    assert_eq!(refusal("[faults]\nenabled = true").1, "faults.enabled");
    let both = "[faults]\nenabled = true\nallow_in_this_environment = true";
    assert!(load_text(both, &[]).unwrap().faults.enabled);
}

#[test]
fn a_prefix_that_clients_would_rewrite_in_a_url_is_refused() {
    for prefix in ["in//media", "in/../media", "./media", ".."] {
        let (_, key) = refusal(&format!(
            "[[storage]]\nid = 'a'\nkind = 's3'\nbucket = 'b'\nprefix = '{prefix}'"
        ));
        assert_eq!(key, "storage.a.prefix", "{prefix}");
    }
}

#[test]
fn filters_are_lists_of_each_storage() {
    let text =
        format!("{TWO_STORAGES}ext_filter = ['pdf', 'tgz']\nmime_filter = ['image/svg+xml']");
    let config = load_text(&text, &[]).unwrap();
    assert!(config.storage[0].options.ext_filter.is_empty());
    assert_eq!(config.storage[1].options.ext_filter, ["pdf", "tgz"]);
    assert_eq!(config.storage[1].options.mime_filter, ["image/svg+xml"]);

    let ext = ("UPLOAD_GATEWAY_STORAGE__MEDIA_1__EXT_FILTER", "png, jpg");
    let mime = ("UPLOAD_GATEWAY_STORAGE__MEDIA_1__MIME_FILTER", "");
    let config = load_text(&text, &[ext, mime]).unwrap();
    assert_eq!(config.storage[0].options.ext_filter, ["png", "jpg"]);
    assert!(config.storage[0].options.mime_filter.is_empty());
}

#[test]
fn a_missing_or_broken_file_is_named() {
    let missing = Path::new("/nonexistent/gateway.toml");
    let error = load(Some(missing), [], &Flags::default()).unwrap_err();
    assert!(
        error.to_string().contains("/nonexistent/gateway.toml"),
        "{error}"
    );
    let (text, _) = refusal("grpc_listen = ");
    assert!(text.contains("gateway.toml"), "{text}");
    let (text, _) = refusal("data_dir = 'a'\nredis_url = 'redis://:hunter2@cache");
    assert!(text.contains("line 2"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn plain_http_is_accepted_on_loopback_or_if_allowed() {
    let s3 = "[[storage]]\nid = 'a'\nkind = 's3'\nbucket = 'b'\n";
    for rest in [
        "endpoint = 'http://127.0.0.1:9000'",
        "endpoint = 'http://localhost:9000'",
        "endpoint = 'http://[::1]:9000'",
        "endpoint = 'http://minio.example'\nallow_http = true",
    ] {
        let config = load_text(&format!("{s3}{rest}"), &[]).unwrap();
        let StoreConfig::S3(store) = &config.storage[0].store else {
            panic!("the storage is S3");
        };
        assert_eq!(store.profile(), S3Profile::Compatible);
    }
}

#[test]
fn secrets_come_from_files_and_only_once() {
    let directory = TempDir::new().unwrap();
    let secret = directory.path().join("secret");
    fs::write(&secret, "redis://:hunter2@cache:6379\n").unwrap();
    let text = format!("redis_url_file = '{}'", secret.display());
    let config = load_text(&text, &[]).unwrap();
    assert_eq!(
        config.redis_url.unwrap().expose(),
        "redis://:hunter2@cache:6379"
    );

    let twice = load_text(&text, &[("UPLOAD_GATEWAY_REDIS_URL", "redis://a")]).unwrap_err();
    assert_eq!(twice.key, "redis_url");
    assert_eq!(
        refusal("redis_url_file = '/nonexistent'").1,
        "redis_url_file"
    );

    fs::write(&secret, "c2VjcmV0\r\n").unwrap();
    let text = format!("{TWO_STORAGES}account_key_file = '{}'", secret.display());
    let config = load_text(&text, &[]).unwrap();
    let StoreConfig::Azure(azure) = &config.storage[1].store else {
        panic!("the second storage is Azure");
    };
    assert_eq!(azure.account_key.as_ref().unwrap().expose(), "c2VjcmV0");
    let twice = ("UPLOAD_GATEWAY_STORAGE__ARCHIVE__ACCOUNT_KEY", "c2VjcmV0");
    let twice = load_text(&text, &[twice]).unwrap_err();
    assert_eq!(twice.key, "storage.1.account_key");
}

#[test]
fn no_secret_is_printed_or_debugged() {
    let text = format!(
        "redis_url = 'redis://user:hunter2@cache:6379'\n{TWO_STORAGES}account_key = 'hunter2'"
    );
    let config = load_text(
        &text,
        &[
            ("UPLOAD_GATEWAY_STORAGE__MEDIA_1__ACCESS_KEY_ID", "AKIA"),
            (
                "UPLOAD_GATEWAY_STORAGE__MEDIA_1__SECRET_ACCESS_KEY",
                "hunter2",
            ),
            ("UPLOAD_GATEWAY_EMBEDDED__SECRET_ACCESS_KEY", "hunter2"),
        ],
    )
    .unwrap();
    let printed = config.to_toml();
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(
        printed.contains("redis://user:[redacted]@cache:6379"),
        "{printed}"
    );
    assert_eq!(printed.matches("\"[redacted]\"").count(), 3, "{printed}");
    assert!(!format!("{config:?}").contains("hunter2"));

    let wrong = load_text("redis_url = 'hunter2'", &[]).unwrap_err();
    assert!(!wrong.to_string().contains("hunter2"), "{wrong}");
}

#[test]
fn the_printed_configuration_can_be_loaded_again() {
    let config = load_text("[limits]\nmax_file_size = '3GiB'", &[]).unwrap();
    let printed = config
        .to_toml()
        .replace("[redacted]", "for-development-only");
    assert_eq!(load_text(&printed, &[]).unwrap(), config);
}

#[test]
fn the_maximum_age_of_an_upload_is_less_than_stores_keep_it() {
    let (message, key) = refusal("limits.upload_max_age_seconds = 604800");
    assert_eq!(key, "limits.upload_max_age_seconds");
    assert!(message.contains("less than 7 days"), "{message}");
    let config = load_text("limits.upload_max_age_seconds = 604799", &[]).unwrap();
    assert_eq!(config.limits.upload_max_age_seconds, 604_799);
}

#[test]
fn a_sweeper_with_a_setting_of_zero_is_refused() {
    for name in ["interval_seconds", "operations_per_second"] {
        let (_, key) = refusal(&format!("sweeper.{name} = 0"));
        assert_eq!(key, format!("sweeper.{name}"));
    }
    let variables = [
        ("UPLOAD_GATEWAY_SWEEPER__ENABLED", "false"),
        ("UPLOAD_GATEWAY_SWEEPER__INTERVAL_SECONDS", "60"),
    ];
    let sweeper = load_text("", &variables).unwrap().sweeper;
    assert_eq!((sweeper.enabled, sweeper.interval_seconds), (false, 60));
}

#[test]
fn traces_have_a_share_from_0_to_1() {
    for share in ["-0.1", "1.1", "2", "nan", "'half'", "true"] {
        let (_, key) = refusal(&format!("traces.sample_ratio = {share}"));
        assert_eq!(key, "traces.sample_ratio", "{share}");
    }
    let variables = [("UPLOAD_GATEWAY_TRACES__SAMPLE_RATIO", "0.05")];
    let traces = load_text("", &variables).unwrap().traces;
    assert!((traces.sample_ratio.get() - 0.05).abs() < 1e-9);
    let (_, key) = refusal("traces.ca_file = 'ca.pem'");
    assert_eq!(key, "traces.ca_file");
}
