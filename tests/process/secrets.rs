//! No command prints a configured secret, and other users of the machine can read no file of the gateway.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tempfile::TempDir;

use crate::common::{binary, bytes};

/// The end of the announcement of a gateway on its embedded stores.
const READY: &str = "embedded s3 at ";

/// The secrets of a configuration, which are in every key that can have one.
struct Secrets {
    texts: Vec<String>,
    directory: TempDir,
}

// === impl Secrets ===

impl Secrets {
    fn new() -> Self {
        let key = BASE64_STANDARD.encode(bytes(32));
        let plain = [
            "redis", "socket", "node", "sentinel", "s3-key", "embedded", "aws", "token", "azure",
            "proxy",
        ];
        let mut texts: Vec<_> = plain.map(|name| format!("hunter-{name}-2")).into();
        texts.push(key);
        Self {
            texts,
            directory: TempDir::new().unwrap(),
        }
    }

    fn base64(&self) -> &str {
        self.texts.last().unwrap()
    }

    /// The path of a configuration with this beginning.
    fn file(&self, name: &str, begin: &str, end: &str) -> String {
        let key = self.base64();
        let path = self.directory.path().join(name);
        let text = format!(
            "{begin}data_dir = '{}'\n[embedded]\nsecret_access_key = 'hunter-embedded-2'\n\
             [log]\nfilter = 'debug'\n[[resume_tokens.keys]]\nid = 'a'\nkey = '{key}'\n{end}",
            self.directory.path().join("data").display()
        );
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().into()
    }

    /// With two storages, whose endpoints do not answer.
    fn with_storages(&self, name: &str, begin: &str) -> String {
        let storages = format!(
            "[[storage]]\nid = 'a'\ndefault = true\nkind = 's3'\nbucket = 'b'\nregion = 'r'\n\
             endpoint = 'http://127.0.0.1:1'\naccess_key_id = 'a'\nsecret_access_key = 'hunter-s3-key-2'\n\
             [[storage]]\nid = 'c'\nkind = 'azure'\naccount = 'd'\ncontainer = 'e'\n\
             endpoint = 'http://127.0.0.1:1/d'\naccount_key = '{}'\n",
            self.base64()
        );
        self.file(name, begin, &storages)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = binary();
        command
            .args(arguments)
            .env("AWS_SECRET_ACCESS_KEY", "hunter-aws-2")
            .env("AWS_ACCESS_KEY_ID", "a")
            .env("AWS_SESSION_TOKEN", "hunter-token-2")
            .env("AZURE_CLIENT_SECRET", "hunter-azure-2")
            .env("HTTPS_PROXY", "http://user:hunter-proxy-2@127.0.0.1:1")
            .env("UPLOAD_GATEWAY_SERVER", "http://127.0.0.1:1")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().unwrap();
        self.search(arguments, &output.stdout);
        self.search(arguments, &output.stderr);
        output
    }

    /// Runs `serve` until it prints `line`, and stops it. Returns what it printed.
    fn serve(&self, file: &str, line: &str) -> String {
        let listen = [
            "--http-listen",
            "127.0.0.1:0",
            "--grpc-listen",
            "127.0.0.1:0",
        ];
        let arguments = [&["serve", "--config", file][..], &listen].concat();
        let mut child = self
            .command(&arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut lines = String::new();
        while !lines.contains(line) {
            assert_ne!(output.read_line(&mut lines).unwrap(), 0, "{lines}");
        }
        terminate(child.id());
        output.read_to_string(&mut lines).unwrap();
        let ended = child.wait_with_output().unwrap();
        self.search(&arguments, lines.as_bytes());
        self.search(&arguments, &ended.stderr);
        assert!(ended.status.success(), "{ended:?}");
        lines
    }

    fn search(&self, arguments: &[&str], output: &[u8]) {
        let output = String::from_utf8_lossy(output);
        for secret in &self.texts {
            assert!(!output.contains(secret), "{arguments:?}: {output}");
        }
    }
}

/// Sends SIGTERM.
fn terminate(process: u32) {
    let mut kill = Command::new("kill");
    assert!(kill.arg(process.to_string()).status().unwrap().success());
}

#[test]
fn no_output_of_any_command_has_a_secret() {
    let secrets = Secrets::new();
    let redis = "redis_url = 'redis://user:hunter-redis-2@127.0.0.1:1'\nredis.mode = 'cluster'\n\
                 redis.nodes = ['redis://:hunter-node-2@127.0.0.1:2']\n";
    let sentinel = "redis_url = 'redis://127.0.0.1:1'\nredis.mode = 'sentinel'\nredis.service_name = 'a'\n\
                    redis.sentinel_user = 'b'\nredis.sentinel_password = 'hunter-sentinel-2'\n";
    let socket = "redis_url = 'unix:///nonexistent/r.sock?user=a&pass=hunter-socket-2'\n";
    let files = [
        secrets.with_storages("cluster.toml", redis),
        secrets.with_storages("socket.toml", socket),
        secrets.with_storages("sentinel.toml", sentinel),
        secrets.with_storages("embedded.toml", ""),
    ];
    for file in &files {
        let printed = secrets.run(&["serve", "--config", file, "--print-config"]);
        assert!(printed.status.success(), "{printed:?}");
        secrets.run(&["doctor", "--config", file]);
        secrets.run(&["sweep", "--config", file, "--dry-run"]);
    }
    // Nodes of a cluster have the same credentials.
    let refused = secrets.run(&["serve", "--config", &files[0]]);
    assert!(!refused.status.success(), "{refused:?}");
    for file in &files[1..3] {
        // It has tried to reach Redis by then.
        secrets.serve(file, "http listening on ");
    }
    let any_file = files[0].as_str();
    for arguments in [
        &["ls"][..],
        &["status", "x"],
        &["url", "x"],
        &["rm", "x"],
        &["put", any_file, "--retry-timeout", "0"],
        &["--help"],
        &["serve", "--help"],
        &["demo", "--nonexistent"],
    ] {
        secrets.run(arguments);
    }
}

#[test]
fn serve_announces_the_embedded_store_without_a_configured_secret() {
    let secrets = Secrets::new();
    let file = secrets.file("gateway.toml", "", "");
    let lines = secrets.serve(&file, READY);
    assert!(lines.contains("secret_access_key=[redacted]"), "{lines}");
}

#[test]
fn a_file_that_is_not_toml_is_refused_without_its_secrets() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("gateway.toml");
    for text in [
        "redis_url = redis://:hunter2@cache",
        "redis_url = 'redis://:hunter2@cache",
        "redis_url = 'redis://:hunter2@cache' oops",
        "redis_url = 'a'\nredis_url = 'hunter2'",
        "redis_url = \"\\hunter2\"",
        "redis_url = [hunter2",
        "redis_url: hunter2",
        "redis_url hunter2",
        "redis_url = 0xhunter2",
        "redis_url = \"\"\"hunter2",
        "redis_url = 'redis://a:12#hunter2@cache'",
        "redis_url = 'redis://a:12/hunter2@cache'",
        "redis_url = 'http://:hunter2@cache'",
        "redis_url = ['hunter2']",
        "[embedded]\nsecret_access_key = hunter2 broken",
        "[embedded]\nsecret_access_key = ['hunter2']",
        "[embedded]\nsecret_access_key = { a = 'hunter2' }",
        "[[resume_tokens.keys]]\nid = 'a'\nkey = 'hunter2'",
        "[[storage]]\nid = 'a'\nkind = 's3'\nbucket = 'b'\nendpoint = 'https://u:hunter2@s3.example'",
        "[[storage]]\nid = 'a'\nkind = 's3'\nbucket = 'b'\nendpoint = 'https://s3.example?sig=hunter2'",
    ] {
        fs::write(&file, text).unwrap();
        let mut serve = binary();
        let refused = serve
            .args(["serve", "--config"])
            .arg(&file)
            .output()
            .unwrap();
        assert_eq!(refused.status.code(), Some(64), "{text}: {refused:?}");
        let said = [refused.stdout, refused.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(!said.contains("hunter2"), "{text}: {said}");
    }
}

#[test]
fn a_password_on_the_command_line_is_refused() {
    for (url, code) in [
        ("redis://user:hunter2@127.0.0.1:1", 64),
        ("unix:///nonexistent/r.sock?pass=hunter2", 64),
        ("redis://127.0.0.1:1", 0),
    ] {
        let mut serve = binary();
        let serve = serve.args(["serve", "--print-config", "--redis-url", url]);
        let output = serve.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{url}: {output:?}");
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!said.contains("hunter2"), "{said}");
        assert_eq!(
            said.contains("UPLOAD_GATEWAY_REDIS_URL"),
            code == 64,
            "{said}"
        );
    }
}

/// The modes of everything in `directory`, with it.
fn check_modes(directory: &Path) -> usize {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(directory), 0o700, "{}", directory.display());
    let mut files = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files += check_modes(&path);
        } else {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            files += 1;
        }
    }
    files
}

/// Runs `doctor`, which opens the embedded stores and writes objects, with this umask.
fn run_with_umask(umask: &str, data: &Path) {
    let doctor = format!(
        "umask {umask}; exec '{}' doctor --data-dir '{}'",
        env!("CARGO_BIN_EXE_upload-gateway"),
        data.display()
    );
    let output = Command::new("sh")
        .args(["-c", &doctor])
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn other_users_can_read_no_file_of_the_embedded_stores() {
    for umask in ["000", "022", "077"] {
        let directory = TempDir::new().unwrap();
        let data = directory.path().join("deep/data");
        run_with_umask(umask, &data);
        // The state file, a lock and a format at least.
        assert!(check_modes(&directory.path().join("deep")) >= 3);
    }
}

#[test]
fn files_of_earlier_builds_become_private() {
    let directory = TempDir::new().unwrap();
    let data = directory.path().join("data");
    run_with_umask("022", &data);
    let readable = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    readable(&data.join("state.redb"), 0o644);
    readable(&data.join("blobs"), 0o755);
    run_with_umask("022", &data);
    check_modes(&data);
}
