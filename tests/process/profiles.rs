//! Profiles: the file that `config` changes, and the gateways that commands call by it.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Output};

use tempfile::TempDir;

use crate::common::{self, TestGateway, binary};

/// Runs a command of a user whose files are in `home`.
fn run(home: &Path, arguments: &[&str]) -> Output {
    let mut command = binary();
    command.env("HOME", home).args(arguments);
    command.output().unwrap()
}

fn text(home: &Path, arguments: &[&str]) -> String {
    let output = run(home, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn failure(home: &Path, arguments: &[&str]) -> String {
    let output = run(home, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_profile_is_made_shown_and_removed_and_comments_stay() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    let path = text(home, &["config", "path"]);
    let path = Path::new(path.trim());
    assert_eq!(path, home.join(".config/upload-gateway/config.toml"));
    let set = |arguments: &[&str]| text(home, &[&["config", "set"], arguments].concat());
    set(&[
        "server",
        "https://uploads.example:50051",
        "--profile",
        "work",
    ]);
    set(&[
        "token_command",
        "--profile",
        "work",
        "--",
        "sh",
        "-c",
        "echo secret",
    ]);
    set(&["ca", "ca.pem"]);
    let mode = fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let shown = text(home, &["config", "show"]);
    let absolute = std::path::absolute("ca.pem").unwrap();
    let expected = format!(
        "server = \"https://uploads.example:50051\"\ntoken_command = [\"sh\", \"-c\", \"echo secret\"]\nca = \"{}\"\n",
        absolute.display()
    );
    assert_eq!(shown, expected);

    let written = fs::read_to_string(path).unwrap();
    fs::write(path, format!("# mine\n{written}")).unwrap();
    set(&["server", "http://127.0.0.1:50051", "--profile", "home"]);
    let list = text(home, &["config"]);
    assert!(
        list.contains("work (default)  https://uploads.example:50051"),
        "{list}"
    );
    text(home, &["config", "use", "home"]);
    assert!(text(home, &["config", "list"]).contains("home (default)"));
    text(home, &["config", "unset", "ca", "--profile", "work"]);
    let refused = failure(home, &["config", "unset", "--profile", "home"]);
    assert!(refused.contains("home is the default profile"), "{refused}");
    text(home, &["config", "use", "work"]);
    text(home, &["config", "unset", "--profile", "home"]);
    let written = fs::read_to_string(path).unwrap();
    assert!(written.starts_with("# mine\n"), "{written}");
    assert!(
        !written.contains("home") && !written.contains("ca.pem"),
        "{written}"
    );
}

#[test]
fn an_invalid_setting_changes_nothing_and_a_broken_file_is_an_error() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    for (arguments, reason) in [
        (["set", "server", "nowhere"], "expected a URL"),
        (["set", "token", "hunter2"], "unknown field `token`"),
        (
            ["set", "cert", "cert.pem"],
            "cert and key must be set together",
        ),
        (["unset", "ca", "--"], "no profile default"),
    ] {
        let error = failure(home, &[&["config"], &arguments[..]].concat());
        assert!(error.contains(reason), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let path = home.join(".config/upload-gateway/config.toml");
    assert!(!path.exists());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "[profile.a]\nserver = \n").unwrap();
    let error = failure(home, &["ls"]);
    assert!(error.contains("config.toml line 2: "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_call_the_gateway_of_the_profile() {
    let gateway = TestGateway::start().await;
    let home = TempDir::new().unwrap();
    let home = home.path();
    let unknown = failure(home, &["ls", "--profile", "work"]);
    assert!(unknown.contains("no profile work"), "{unknown}");
    text(
        home,
        &[
            "config",
            "set",
            "--profile",
            "work",
            "server",
            &gateway.grpc,
        ],
    );
    let list = text(home, &["ls", "--json"]);
    assert_eq!(list, "[]\n");
    let other = failure(home, &["ls", "--server", "http://127.0.0.1:1"]);
    assert!(
        other.contains("no gateway answers at http://127.0.0.1:1"),
        "{other}"
    );
}

#[test]
fn the_command_of_a_profile_prints_the_token() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    let secret = home.join("secret");
    let print = ["token", "--secret-file", secret.to_str().unwrap()];
    let print = [&print[..], &["--tenant", "acme", "--subject", "me"]].concat();
    let print = [&print[..], &["--roles", "admin"]].concat();
    let made = run(home, &print);
    let table = String::from_utf8(made.stderr).unwrap();
    let server = common::gateway_process(&format!("auth = \"required\"\n{table}"));
    let url = format!("http://{}", server.address());
    text(home, &["config", "set", "server", &url]);
    let refused = failure(home, &["ls"]);
    assert!(refused.contains("[CREDENTIAL_MISSING]"), "{refused}");

    let program = env!("CARGO_BIN_EXE_upload-gateway");
    let set = ["config", "set", "token_command", "--", program];
    text(home, &[&set[..], &print].concat());
    assert_eq!(text(home, &["ls", "--json"]), "[]\n");
    let all = text(home, &["ls", "--all-owners"]);
    assert!(all.ends_with("UPDATED  OWNER  NAME\n"), "{all}");
    text(home, &["config", "set", "token_command", "--", "false"]);
    let failed = failure(home, &["ls"]);
    assert!(
        failed.contains("the token command false failed"),
        "{failed}"
    );
}
