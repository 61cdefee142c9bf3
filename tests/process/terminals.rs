//! What commands do with terminals, shells and closed outputs.

use std::{
    fs,
    io::Write,
    process::{Output, Stdio},
};

use tempfile::TempDir;

use crate::{
    client::command,
    common::{TestGateway, binary, bytes, until},
    resuming::{committed, signal},
};

fn run(arguments: &[&str]) -> Output {
    binary().args(arguments).output().unwrap()
}

fn text(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn shells_get_completions_of_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&["completions", shell]);
        for command in ["put", "storages", "--expire-after"] {
            assert!(
                script.contains(command.trim_start_matches('-')),
                "{shell}: {command}"
            );
        }
    }
    assert_eq!(run(&["completions", "none"]).status.code(), Some(2));
}

#[test]
fn every_command_has_a_manual_page() {
    let page = text(&["man", "put"]);
    for part in [
        ".TH upload-gateway-put 1",
        "Examples:",
        "\\-\\-limit\\-rate",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(text(&["man"]).contains("upload\\-gateway\\-put(1)"));
    assert_eq!(run(&["man", "nonsense"]).status.code(), Some(1));
    let directory = TempDir::new().unwrap();
    let directory = directory.path().join("man1");
    text(&["man", "--dir", directory.to_str().unwrap()]);
    for page in [
        "upload-gateway.1",
        "upload-gateway-ls.1",
        "upload-gateway-config-set.1",
    ] {
        assert!(
            fs::metadata(directory.join(page)).unwrap().len() > 0,
            "{page}"
        );
    }
}

#[test]
fn colours_are_for_terminals_unless_an_option_says_otherwise() {
    let is_coloured = |command: &mut std::process::Command| {
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        text.contains(&0x1b)
    };
    for arguments in [&["ls", "--help"] as &[&str], &["man", "nonsense"]] {
        let with = |options: &[&str]| {
            let mut command = binary();
            command.args(arguments).args(options);
            command
        };
        assert!(!is_coloured(&mut with(&[])), "{arguments:?}");
        assert!(is_coloured(&mut with(&["--color=always"])), "{arguments:?}");
        assert!(!is_coloured(
            with(&["--color", "never"]).env("CLICOLOR_FORCE", "1")
        ));
        // A terminal, as script(1) makes one.
        let line = format!(
            "{} {}",
            env!("CARGO_BIN_EXE_upload-gateway"),
            arguments.join(" ")
        );
        let terminal = |variable: &str, value: &str| {
            let mut command = std::process::Command::new("script");
            command
                .args(["-qec", &line, "/dev/null"])
                .stdin(Stdio::null());
            command.env("TERM", "xterm").env(variable, value);
            is_coloured(&mut command)
        };
        assert!(terminal("A", "b"), "{arguments:?}");
        assert!(!terminal("NO_COLOR", "1"), "{arguments:?}");
        assert!(!terminal("TERM", "dumb"), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_output_ends_a_command_without_a_message() {
    let gateway = TestGateway::start().await;
    let closed = |arguments: &str, redirection: &str| {
        let binary = env!("CARGO_BIN_EXE_upload-gateway");
        let script = format!("{binary} {arguments} {redirection}; echo ${{PIPESTATUS[0]}} >&2");
        let mut command = std::process::Command::new("bash");
        command
            .args(["-c", &script])
            .env("UPLOAD_GATEWAY_SERVER", &gateway.grpc);
        let output = command.output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    for arguments in ["ls", "limits", "completions bash", "man"] {
        // The reader has ended before the command prints.
        assert_eq!(closed(arguments, "| exec 0<&-"), "141\n", "{arguments}");
    }
    assert_eq!(closed("man nonsense", "2>&-"), "1\n");
    assert_eq!(closed("ls --help", ">&-"), "0\n");
}

#[tokio::test]
async fn a_second_signal_ends_a_command_at_once() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.bin");
    fs::write(&path, bytes(12 << 20)).unwrap();
    // Standard error is full, so that the command cannot report what the first signal ends.
    let (unread, errors) = std::io::pipe().unwrap();
    let mut filling = errors.try_clone().unwrap();
    std::thread::spawn(move || filling.write_all(&[0; 1 << 20]));
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let gateway = TestGateway::start().await;
        let arguments = ["put", path.to_str().unwrap(), "--json"];
        let mut put = command(&gateway, &arguments);
        put.args(["--limit-rate", "8MiB"]);
        put.stderr(errors.try_clone().unwrap());
        let mut put = put.spawn().unwrap();
        committed(&gateway).await;
        let mut ended = None;
        until("the end of put", async || {
            // Two that arrive at the same time count as one.
            signal(put.id().unwrap(), name).await;
            ended = put.try_wait().unwrap();
            ended.is_some()
        })
        .await;
        assert_eq!(ended.unwrap().code(), Some(code));
    }
    drop(unread);
}
