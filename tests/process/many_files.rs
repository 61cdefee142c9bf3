//! `put -r` of directories that change, of files that cannot be sent, and of several commands at once.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, SystemTime},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, process::Command};
use upload_gateway::config::Auth;
use upload_gateway_client::proto::v1::Phase;

use crate::{
    client::{command, uploads},
    common::{TestGateway, bytes},
    resuming::{committed, signal},
};

/// Larger than a part.
const LARGE: usize = 8 << 20;

/// A gateway, and a directory with the directory `files` to send.
struct Sent {
    gateway: TestGateway,
    directory: TempDir,
}

/// What a command with `--json` has printed.
struct Printed {
    is_done: bool,
    lines: Vec<Value>,
    errors: String,
}

impl Sent {
    async fn start(files: &[(&str, usize)]) -> Self {
        Self::to(TestGateway::start().await, files)
    }

    fn to(gateway: TestGateway, files: &[(&str, usize)]) -> Self {
        let sent = Self {
            gateway,
            directory: TempDir::new().unwrap(),
        };
        for (name, size) in files {
            let path = sent.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes(*size)).unwrap();
        }
        sent
    }

    /// The path of a file to send.
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("files").join(name)
    }

    /// `put --json` in the directory, with a state of its own.
    fn put(&self, arguments: &[&str]) -> Command {
        let mut put = command(&self.gateway, &["put", "--json"]);
        put.args(arguments)
            .env("XDG_STATE_HOME", self.directory.path().join("state"))
            .current_dir(self.directory.path());
        put
    }

    async fn run(&self, arguments: &[&str]) -> Printed {
        Printed::of(self.put(arguments).output().await.unwrap())
    }

    /// Sends the directory, which must succeed; returns the files that were sent, without those that were complete before.
    async fn send(&self, arguments: &[&str]) -> Vec<String> {
        let printed = self.run(&[&["-r", "files"], arguments].concat()).await;
        assert!(printed.is_done, "{}", printed.errors);
        printed.sent()
    }

    /// The paths of all complete uploads.
    async fn complete(&self) -> Vec<String> {
        let uploads = uploads(&self.gateway).await.into_iter();
        let complete = uploads.filter(|upload| upload.phase() == Phase::Complete);
        let mut paths: Vec<_> = complete
            .map(|upload| upload.file.unwrap().file_path)
            .collect();
        paths.sort_unstable();
        paths
    }
}

impl Printed {
    fn of(output: Output) -> Self {
        let lines = String::from_utf8(output.stdout).unwrap();
        Self {
            is_done: output.status.success(),
            lines: lines
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect(),
            errors: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn sent(&self) -> Vec<String> {
        let sent = self.lines.iter();
        let sent = sent.filter(|line| line["was_complete"] == false);
        let mut sent: Vec<_> = sent
            .map(|line| line["file"].as_str().unwrap().to_owned())
            .collect();
        sent.sort_unstable();
        sent
    }

    /// The files that failed, with their errors.
    fn failed(&self) -> Vec<(&str, &str)> {
        let failed = self.lines.iter();
        let failed =
            failed.filter_map(|line| Some((line["file"].as_str()?, line["error"].as_str()?)));
        failed.collect()
    }
}

fn touch(path: &Path, seconds: u64) {
    let file = File::options().append(true).open(path).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds);
    file.set_modified(time).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_commands_at_the_same_time_store_no_file_twice() {
    let names: Vec<_> = (0..40).map(|index| format!("{index:02}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), 1000)).collect();
    let sent = Sent::start(&files).await;
    let arguments = ["-r", "files", "--parallel", "8"];
    let (first, second) = tokio::join!(sent.run(&arguments), sent.run(&arguments));
    for (_, error) in [first.failed(), second.failed()].concat() {
        assert!(error.contains("another process"), "{error}");
    }
    assert_eq!(sent.complete().await, names);
    assert_eq!(sent.send(&[]).await.len(), 0);
    assert_eq!(uploads(&sent.gateway).await.len(), names.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_named_twice_is_stored_once() {
    let sent = Sent::start(&[("a", 1000)]).await;
    let printed = sent.run(&["files/a", "files/a", "./files/a"]).await;
    assert!(printed.is_done, "{}", printed.errors);
    assert_eq!(printed.sent().len(), 1);
    assert_eq!(uploads(&sent.gateway).await.len(), 1);
}

#[tokio::test]
async fn only_files_that_have_changed_are_sent_again() {
    let sent = Sent::start(&[("a", 1000), ("b", 1000), ("c", 1000)]).await;
    assert_eq!(sent.send(&[]).await, ["files/a", "files/b", "files/c"]);
    touch(&sent.path("a"), 1);
    assert_eq!(sent.send(&["--checksum"]).await.len(), 0);
    touch(&sent.path("a"), 2);
    assert_eq!(sent.send(&[]).await, ["files/a"]);

    let mut changed = bytes(1000);
    changed[500] ^= 1;
    fs::write(sent.path("b"), changed).unwrap();
    assert_eq!(sent.send(&["--checksum"]).await, ["files/b"]);
    assert_eq!(sent.send(&[]).await.len(), 0);
    assert_eq!(sent.send(&["--again"]).await.len(), 3);

    let uploads = uploads(&sent.gateway).await.into_iter();
    let of_c = uploads.filter(|upload| upload.file.as_ref().unwrap().file_path == "c");
    let ids: Vec<_> = of_c.map(|upload| upload.upload_id).collect();
    for id in &ids {
        let removed = command(&sent.gateway, &["rm", id]).output().await.unwrap();
        assert!(removed.status.success(), "{removed:?}");
    }
    assert_eq!(sent.send(&[]).await, ["files/c"]);
}

#[tokio::test]
async fn files_that_cannot_be_sent_do_not_stop_the_others() {
    let sent = Sent::start(&[("a", LARGE), ("b", 1000), ("c", 1000), ("d.tmp", 1)]).await;
    std::os::unix::fs::symlink("nowhere", sent.path("link")).unwrap();
    let slowly = ["--parallel", "1", "--limit-rate", "8MiB"];
    let directory = ["-r", "files", "--follow-symlinks", "--exclude", "*.tmp"];
    let running = sent
        .put(&[&directory[..], &slowly].concat())
        .spawn()
        .unwrap();
    committed(&sent.gateway).await;
    let mut growing = File::options().append(true).open(sent.path("a")).unwrap();
    growing.write_all(b"more").unwrap();
    fs::remove_file(sent.path("b")).unwrap();
    let printed = Printed::of(running.wait_with_output().await.unwrap());
    assert!(!printed.is_done);
    assert_eq!(printed.sent(), ["files/c"]);
    let failed = printed.failed();
    for (file, error) in [
        ("files/a", "changed"),
        ("files/b", "open files/b"),
        ("files/link", "files/link"),
    ] {
        let is_there = |(name, text): &&(&str, &str)| *name == file && text.contains(error);
        assert_eq!(failed.iter().filter(is_there).count(), 1, "{failed:?}");
        assert!(printed.errors.contains(&format!("error: {file}: ")));
    }
    assert_eq!(failed.len(), 3, "{failed:?}");
    let summary = "3 files not sent; the same command sends them again";
    assert!(printed.errors.contains(summary), "{}", printed.errors);

    fs::remove_file(sent.path("link")).unwrap();
    assert_eq!(sent.send(&["--exclude", "*.tmp"]).await, ["files/a"]);
    assert_eq!(sent.complete().await, ["a", "c"]);
}

#[tokio::test]
async fn a_signal_ends_all_files_and_the_same_command_continues() {
    for (name, again) in [("INT", &[][..]), ("TERM", &["--again"])] {
        let sent = Sent::start(&[("a", LARGE), ("b", LARGE)]).await;
        let slowly = ["-r", "files", "--limit-rate", "8MiB"];
        let running = sent.put(&[&slowly, again].concat()).spawn().unwrap();
        committed(&sent.gateway).await;
        signal(running.id().unwrap(), name).await;
        let printed = Printed::of(running.wait_with_output().await.unwrap());
        assert!(!printed.is_done);
        for line in [
            match again.is_empty() {
                true => "the same command again sends what is missing".to_owned(),
                false => "the same command without --again sends what is missing".to_owned(),
            },
            format!("interrupted by SIG{name}"),
        ] {
            assert!(printed.errors.contains(&line), "{}", printed.errors);
        }
        let printed = sent.run(&["-r", "files"]).await;
        let offsets = printed.lines.iter().map(|line| &line["resumed_from"]);
        let resumed = offsets.filter_map(Value::as_u64).max();
        assert!(resumed >= Some(5 << 20), "{:?}", printed.lines);
        assert_eq!(uploads(&sent.gateway).await.len(), 2);
    }
}

#[tokio::test]
async fn a_list_on_standard_input_names_the_files() {
    let sent = Sent::start(&[("a", 1), ("b c", 1), ("d", 1)]).await;
    let mut put = sent.put(&["--from-list", "-"]);
    let mut running = put.stdin(Stdio::piped()).spawn().unwrap();
    let mut list = running.stdin.take().unwrap();
    list.write_all(b"files/a\nfiles/b c\nfiles/none\n")
        .await
        .unwrap();
    drop(list);
    let printed = Printed::of(running.wait_with_output().await.unwrap());
    assert_eq!(printed.sent(), ["files/a", "files/b c"]);
    assert_eq!(printed.failed()[0].0, "files/none");
}

#[tokio::test]
async fn files_are_sent_without_a_place_for_the_state() {
    let sent = Sent::start(&[("a", 1)]).await;
    let mut put = sent.put(&["-r", "files"]);
    put.env("XDG_STATE_HOME", "/proc/none");
    let printed = Printed::of(put.output().await.unwrap());
    assert!(
        printed.is_done && printed.errors.contains("no state is kept"),
        "{}",
        printed.errors
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_outputs_neither_stop_nor_break_a_directory() {
    let sent = Sent::start(&[("a", 1), ("b", 1), ("c", 1)]).await;
    let binary = env!("CARGO_BIN_EXE_upload-gateway");
    for (redirection, code) in [
        ("2>&- >&-", "0"),
        ("2>&1 >/dev/null | exec 0<&-", "0"),
        ("| exec 0<&-", "141"),
    ] {
        let script =
            format!("{binary} put --again -r files {redirection}; echo ${{PIPESTATUS[0]}}");
        let output = Command::new("bash")
            .args(["-c", &script])
            .env("UPLOAD_GATEWAY_SERVER", &sent.gateway.grpc)
            .env("XDG_STATE_HOME", sent.directory.path())
            .current_dir(sent.directory.path())
            .output()
            .await
            .unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap().trim(),
            code,
            "{redirection}"
        );
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(
            !errors.contains("panicked") && !errors.contains("error"),
            "{errors}"
        );
    }
}

#[tokio::test]
async fn a_refused_credential_ends_the_command_and_not_each_file() {
    let gateway = TestGateway::with(|config| {
        let digest = "0".repeat(64);
        let key = format!("id = 'a'\nsha256 = '{digest}'\ntenant = 't'\nsubject = 's'");
        config.auth = Auth::Required;
        config.api_key = vec![toml::from_str(&key).unwrap()];
    });
    let names: Vec<_> = (0..100).map(|index| index.to_string()).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), 10)).collect();
    let sent = Sent::to(gateway.await, &files);
    let printed = sent.run(&["-r", "files"]).await;
    assert!(!printed.is_done && printed.lines.is_empty());
    let is_error = |line: &&str| line.starts_with("error: ");
    let errors: Vec<_> = printed.errors.lines().filter(is_error).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
}

#[tokio::test]
async fn what_the_options_say_of_a_file_is_in_its_record() {
    let sent = Sent::start(&[("a/b.bin", 5)]).await;
    let options = [
        "-r",
        "files",
        "--tag",
        "x",
        "--mime",
        "text/css",
        "--metadata",
        "album=spring",
    ];
    let kept = ["--expire-after", "30d"];
    let printed = sent.run(&[&options[..], &kept].concat()).await;
    assert!(printed.is_done, "{}", printed.errors);
    let upload = uploads(&sent.gateway).await.remove(0);
    let file = upload.file.unwrap();
    assert_eq!(
        (&*file.file_path, &*file.file_mime),
        ("a/b.bin", "text/css")
    );
    assert_eq!(file.tags, ["x"]);
    assert_eq!(file.expire_after.unwrap().seconds, 30 * 86_400);
    let placement = file.placement.unwrap();
    assert_eq!(placement.metadata["album"], "spring");
    // The embedded store has no classes.
    let class = ["--storage-class", "STANDARD_IA"];
    let printed = sent.run(&[&options[..], &class].concat()).await;
    assert!(
        printed.errors.contains("STANDARD_IA [NOT_SUPPORTED]"),
        "{}",
        printed.errors
    );
}

/// Its writer would fail if it were opened, closed and opened again.
#[tokio::test]
async fn a_named_pipe_is_opened_once() {
    let sent = Sent::start(&[("a.bin", 5)]).await;
    let pipe = sent.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let writing = tokio::task::spawn_blocking(move || {
        let mut pipe = fs::OpenOptions::new().write(true).open(pipe).unwrap();
        // More than a pipe holds.
        (0..20).try_for_each(|_| pipe.write_all(&bytes(50_000)))
    });
    let printed = sent.run(&["files/pipe"]).await;
    assert!(printed.is_done, "{}", printed.errors);
    writing.await.unwrap().unwrap();
    assert_eq!(printed.lines[0]["size"], 1_000_000);
}
