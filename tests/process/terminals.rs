//! What commands do with terminals, shells and closed outputs.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Output, Stdio},
};

use console::measure_text_width;
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
            command.env("TERM", "xterm").env("CI", "true");
            is_coloured(command.env(variable, value))
        };
        assert!(terminal("A", "b"), "{arguments:?}");
        assert!(!terminal("NO_COLOR", "1"), "{arguments:?}");
        assert!(!terminal("TERM", "dumb"), "{arguments:?}");
    }
}

/// What a line of a shell writes to a terminal of this width, as script(1) makes one. There `ug` is the binary.
async fn on_terminal(gateway: &TestGateway, at: &Path, line: &str, width: usize) -> String {
    let binary = env!("CARGO_BIN_EXE_upload-gateway");
    let line = format!("ug() {{ {binary} \"$@\"; }}; stty cols {width} rows 24; {line}");
    let mut script = tokio::process::Command::new("script");
    script
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::null())
        .current_dir(at)
        .env("UPLOAD_GATEWAY_SERVER", &gateway.grpc)
        .env("XDG_STATE_HOME", at)
        .env("TERM", "xterm");
    let output = script.output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{line}: {text}");
    text
}

/// A directory `files` with long and wide names, one of them of a file of several parts.
fn long_names() -> TempDir {
    let directory = TempDir::new().unwrap();
    let files = directory.path().join("files").join("写真".repeat(20));
    fs::create_dir_all(&files).unwrap();
    for index in 0..20 {
        let name = format!("{}{index}.bin", "long".repeat(10));
        fs::write(files.join(name), bytes(1000)).unwrap();
    }
    fs::write(directory.path().join("a.bin"), bytes(12 << 20)).unwrap();
    directory
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_and_tables_fit_the_terminal() {
    let directory = long_names();
    let at = directory.path();
    for width in [40, 80, 200] {
        let gateway = TestGateway::start().await;
        let put = "ug put --again --limit-rate 12MiB";
        let open = "ug ls -n 1 --phase open --quiet";
        let watch = format!(
            "{put} a.bin > /dev/null 2>&1 & until id=$({open}) && [ $id ]; do :; done; ug watch $id"
        );
        for (arguments, mark, lines) in [
            (&format!("{put} a.bin > /dev/null")[..], "ETA", 1),
            (
                &format!("{put} -r a.bin files > /dev/null"),
                "of 21 files",
                5,
            ),
            ("ug get --name long -o new/ > /dev/null", "of 20 files", 5),
            (&watch, "ETA", 1),
            ("ug ls", "PHASE", 1),
        ] {
            fs::create_dir_all(at.join("new")).unwrap();
            let text = on_terminal(&gateway, at, arguments, width).await;
            fs::remove_dir_all(at.join("new")).unwrap();
            assert!(text.contains(mark), "{arguments}: {text}");
            // The lines that remain, such as a summary, may be wrapped.
            let is_drawn = |line: &&str| {
                arguments == "ug ls"
                    || ["ETA", "█", "░", "%"]
                        .iter()
                        .any(|mark| line.contains(mark))
            };
            for line in text.split(['\r', '\n']).filter(is_drawn) {
                // Bars follow each other without line feeds, each with its whole last line.
                assert!(
                    measure_text_width(line) <= lines * width,
                    "{arguments}, {width}: {line:?}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simple_terminal_gets_lines_and_no_color_no_colours() {
    let (gateway, directory) = (TestGateway::start().await, long_names());
    let at = directory.path();
    for command in [
        "ug put --again -r a.bin files",
        "ug put --again a.bin",
        "ug ls",
        "ug watch $(ug ls -n 1 --quiet)",
        "ug status $(ug ls -n 1 --quiet)",
    ] {
        let simple = format!("export TERM=dumb; {command}");
        let simple = on_terminal(&gateway, at, &simple, 80).await;
        assert!(!simple.contains('\x1b'), "{command}: {simple:?}");
        let plain = format!("export NO_COLOR=1; {command}");
        let plain = on_terminal(&gateway, at, &plain, 80).await;
        // A sequence that ends with `m` sets colours.
        let ends = plain.split("\x1b[").skip(1).map(|rest| {
            rest.find(|end: char| end.is_ascii_alphabetic())
                .map(|at| &rest[at..=at])
        });
        assert!(
            ends.into_iter().all(|end| end != Some("m")),
            "{command}: {plain:?}"
        );
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
