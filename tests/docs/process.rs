//! What users see of the process: options, messages, and the Python example with a gateway that is killed.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;
use upload_gateway_client::{
    Client,
    proto::v1::{ListUploadsRequest, Phase},
};
use upload_gateway_core::upload::Md5;

use super::{
    common::{self, Server, binary, bytes},
    page::{Page, code},
    run::{assert_prints, repository, squeeze},
};

#[test]
fn every_command_and_every_option_of_put_has_a_row() {
    let page = Page::read("docs/cli.md");
    let rows = page.table(&["command"]);
    let rows: BTreeSet<&str> = rows.iter().filter_map(|row| code(&row[0])).collect();
    let help = shown(&["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    let commands = commands.filter_map(|line| line.split_whitespace().next());
    let commands: BTreeSet<&str> = commands.filter(|command| *command != "help").collect();
    assert_eq!(rows, commands);

    let rows = page.table(&["option of `put`"]);
    let first = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
    let rows: BTreeSet<String> = rows
        .iter()
        .filter_map(|row| code(&row[0]).map(first))
        .collect();
    let help = shown(&["put", "--help"]);
    let options = help.lines().filter_map(|line| {
        let option = line
            .split_whitespace()
            .find(|word| word.starts_with("--"))?;
        line.trim_start()
            .starts_with('-')
            .then(|| option.to_owned())
    });
    let options: BTreeSet<String> = options.filter(|option| option != "--help").collect();
    assert_eq!(rows, options);
}

#[test]
fn the_defaults_of_put_are_those_of_its_table() {
    let help = squeeze(&shown(&["put", "--help"]).replace('\n', " "));
    for row in Page::read("docs/cli.md").table(&["option of `put`"]) {
        let (Some(option), Some(default)) = (code(&row[0]), code(&row[1])) else {
            continue;
        };
        let name = option.split(' ').next().unwrap();
        let begin = help.find(&format!("{name} <")).unwrap();
        let (text, _) = help[begin..].split_once(']').unwrap();
        assert!(
            text.contains(&format!("[default: {default}")) || text.contains("[env: "),
            "{name}: {text}"
        );
    }
}

#[test]
fn operators_see_the_messages_that_the_page_explains() {
    let page = Page::read("docs/operations.md");
    let rows = page.table(&["what you see"]);
    let explained: Vec<&str> = rows.iter().filter_map(|row| code(&row[0])).collect();
    let is_explained = |text: &str, output: &Output, code: i32| {
        assert!(explained.contains(&text), "{text} is not explained");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let printed = String::from_utf8(output.stderr.clone()).unwrap();
        assert_prints(text, &printed);
    };
    let directory = TempDir::new().unwrap();
    let data = directory.path().join("data");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = "grpc_listen: listen on 127.0.0.1:50051: Address already in use …";
    assert!(explained.contains(&text), "{text} is not explained");
    let output = serve(&data, &["--grpc-listen", &address]);
    let printed = String::from_utf8(output.stderr).unwrap();
    assert_prints(&text.replace("127.0.0.1:50051", &address), &printed);

    let text = "… WARN … the state store cannot be used …";
    assert!(explained.contains(&text), "{text} is not explained");
    let mut gateway = serving(&data, "127.0.0.1:0");
    let gateway = gateway.args(["--redis-url", "redis://127.0.0.1:1"]);
    let mut gateway = gateway.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(gateway.stderr.take().unwrap()).lines();
    let warning = log.find_map(|line| line.ok().filter(|line| line.contains("state store cannot")));
    gateway.kill().unwrap();
    gateway.wait().unwrap();
    assert_prints(text, &warning.unwrap());

    let mut unknown = binary();
    unknown.arg("serve").env("UPLOAD_GATEWAY_NOTHING", "1");
    is_explained("configuration: …", &unknown.output().unwrap(), 64);

    let mut gateway = Server::start(|port, _| serving(&data, &format!("127.0.0.1:{port}")));
    // Its port accepts connections before it has opened the file.
    common::poll(|| gateway.log().contains("grpc listening on").then_some(())).unwrap();
    is_explained(
        "another gateway has …/state.redb open",
        &serve(&data, &[]),
        1,
    );
    gateway.kill();
}

#[tokio::test]
async fn operators_see_a_redis_that_evicts() {
    let Some((_server, url)) = common::private_redis(&["--maxmemory-policy", "allkeys-lru"]) else {
        return;
    };
    let rows = Page::read("docs/operations.md").table(&["what you see"]);
    let mut explained = rows.iter().filter_map(|row| code(&row[0]));
    let text = explained.find(|text| text.contains("maxmemory-policy"));
    let directory = TempDir::new().unwrap();
    let output = serve(directory.path(), &["--redis-url", &url]);
    let printed = String::from_utf8(output.stderr).unwrap();
    assert_prints(text.unwrap(), &printed);
}

#[tokio::test]
async fn the_python_example_resumes_when_the_gateway_is_killed() {
    let Some(python) = common::python() else {
        return;
    };
    let mut gateway = Server::start(|port, directory| {
        serving(&directory.join("data"), &format!("127.0.0.1:{port}"))
    });
    let file = gateway.directory().join("long.bin");
    let content = bytes(64 << 20);
    fs::write(&file, &content).unwrap();
    let address = format!("127.0.0.1:{}", gateway.port());
    let mut example = Command::new(python)
        .arg(repository().join("examples/python/upload.py"))
        .args([file.as_os_str(), address.as_ref()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut committed = BufReader::new(example.stderr.take().unwrap())
        .lines()
        .filter_map(|line| {
            line.unwrap()
                .strip_suffix(" bytes committed")?
                .parse::<u64>()
                .ok()
        });
    let before = committed.by_ref().find(|size| *size > 0).unwrap();
    assert!(before < 64 << 20, "the upload was over before the kill");
    gateway.restart();
    assert_eq!(committed.last(), Some(64 << 20));
    assert!(example.wait().unwrap().success());
    let mut object = String::new();
    example
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut object)
        .unwrap();
    assert!(object.contains(&Md5::of(&content).to_string()), "{object}");

    let client = Client::connect(&format!("http://{address}")).unwrap();
    let uploads = client
        .list(ListUploadsRequest::default())
        .await
        .unwrap()
        .uploads;
    let phases: Vec<Phase> = uploads.iter().map(|upload| upload.phase()).collect();
    assert_eq!(
        phases,
        [Phase::Complete],
        "it was resumed, not started again"
    );
}

fn shown(arguments: &[&str]) -> String {
    let output = binary().args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A gateway on free ports that does not start.
fn serve(data: &Path, arguments: &[&str]) -> Output {
    let mut command = binary();
    command.args(["serve", "--http-listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(data).args(arguments);
    if !arguments.contains(&"--grpc-listen") {
        command.args(["--grpc-listen", "127.0.0.1:0"]);
    }
    command.output().unwrap()
}

fn serving(data: &Path, listen: &str) -> Command {
    let mut command = binary();
    command.args(["serve", "--http-listen", "127.0.0.1:0", "--grpc-listen"]);
    command.arg(listen).arg("--data-dir").arg(data);
    command
}
