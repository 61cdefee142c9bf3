//! Certificates, authorities, key sets and API keys that change under uploads.

use std::{
    fs,
    io::Cursor,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use upload_gateway_client::{Client, ConnectOptions, Event, Source, proto::v1::ListUploadsRequest};

use super::{
    key_server::{KeyServer, TOKEN},
    tls::certificates,
};
use crate::common::{self, Server, until};

/// How often everything is replaced.
const ROTATIONS: usize = 20;

/// How many uploads there are at least, beside the one that lasts.
const UPLOADS: usize = 200;

/// How long before its use a key is published: twice the time in which the gateway sees it.
const AHEAD: Duration = Duration::from_secs(2);

/// How long after its last use a key is withdrawn.
const IN_FLIGHT: Duration = Duration::from_secs(1);

/// Until when an old key must be refused.
const UNTIL_REFUSED: Duration = Duration::from_secs(5);

/// The gateway, and the files that are replaced.
struct Rotation {
    server: Server,
    keys: KeyServer,
}

/// How a call authenticates itself.
#[derive(Debug, Clone, Copy)]
enum By {
    Token,
    ApiKey,
    Certificate,
}

/// Everything that is used before the first rotation, and what later ones use, in files whose names end with a number.
fn prepare(directory: &Path, python: &Path) {
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process/authentication/rotate.py");
    let generations = (ROTATIONS + 1).to_string();
    let made = Command::new(python)
        .arg(script)
        .arg(directory)
        .arg(generations)
        .status();
    assert!(made.unwrap().success());
    for number in 0..=ROTATIONS {
        certificates(
            directory,
            &format!("ca-{number}"),
            &format!("server-{number}"),
            "IP:127.0.0.1",
        );
        let (authority, name) = (format!("clients-{number}"), format!("client-{number}"));
        certificates(
            directory,
            &authority,
            &name,
            "URI:spiffe://example.org/owner",
        );
        let made = common::binary()
            .args([
                "api-key",
                "--tenant",
                "a",
                "--subject",
                "owner",
                "--id",
                "web",
            ])
            .output()
            .unwrap();
        fs::write(directory.join(format!("api-{number}")), made.stdout).unwrap();
        let table = String::from_utf8(made.stderr).unwrap();
        let digest = table
            .lines()
            .find_map(|line| line.strip_prefix("sha256 = \""));
        let digest = digest.unwrap().trim_end_matches('"');
        fs::write(directory.join(format!("digest-{number}")), digest).unwrap();
    }
    for (from, to) in [
        ("ca-0.pem", "ca.pem"),
        ("clients-0.pem", "clients.pem"),
        ("server-0.pem", "server.pem"),
        ("server-0.key", "server.key"),
        ("client-0.pem", "client.pem"),
        ("client-0.key", "client.key"),
        ("digest-0", "digest"),
        ("token-0", "token"),
        ("api-0", "api"),
    ] {
        fs::copy(directory.join(from), directory.join(to)).unwrap();
    }
    fs::write(directory.join("cluster-token"), TOKEN).unwrap();
}

fn config(directory: &Path, keys: SocketAddr) -> String {
    let path = |name: &str| format!("{:?}", directory.join(name));
    format!(
        "auth = \"required\"\n[tls]\ncert_file = {}\nkey_file = {}\nclient_auth = \"optional\"\n\
         [[client_certificate]]\nca_file = {}\nspiffe_trust_domain = \"example.org\"\ntenant = \"a\"\n\
         [[issuer]]\nissuer = \"https://issuer.example\"\naudiences = [\"uploads\"]\ntenant = \"/tenant\"\n\
         jwks_url = \"http://{keys}/keys\"\nbearer_token_file = {}\nrefresh_seconds = 1\n\
         [[api_key]]\nid = \"web\"\nsha256_file = {}\ntenant = \"a\"\nsubject = \"owner\"\n",
        path("server.pem"),
        path("server.key"),
        path("clients.pem"),
        path("cluster-token"),
        path("digest"),
    )
}

// === impl Rotation ===

impl Rotation {
    /// `None`: Python or openssl is not installed.
    async fn start() -> Option<Self> {
        let python = common::python()?;
        common::find("openssl")?;
        let (keys, address) = KeyServer::start().await;
        let server = Server::start(|port, directory| {
            prepare(directory, &python);
            keys.publish(fs::read(directory.join("jwks-0.json")).unwrap());
            common::serve(&config(directory, address), port, directory)
        });
        Some(Self { server, keys })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.server.directory().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }

    /// Replaces a file at once, as Kubernetes does.
    fn replace(&self, name: &str, text: impl AsRef<[u8]>) {
        let next = self.file(&format!("{name}.next"));
        fs::write(&next, text).unwrap();
        fs::rename(next, self.file(name)).unwrap();
    }

    fn publish(&self, name: &str) {
        self.keys.publish(fs::read(self.file(name)).unwrap());
    }

    fn options(&self) -> ConnectOptions {
        ConnectOptions {
            authorities: Some(self.read("ca.pem")),
            ..ConnectOptions::default()
        }
    }

    fn connect(&self, options: &ConnectOptions) -> Client {
        Client::connect_with(&format!("https://{}", self.server.address()), options).unwrap()
    }

    fn client(&self, by: By) -> Client {
        let mut options = self.options();
        match by {
            By::Token => options.token_file = Some(self.file("token")),
            By::ApiKey => options.api_key_file = Some(self.file("api")),
            By::Certificate => {
                options.certificate = Some(self.read("client.pem"));
                options.key = Some(self.read("client.key"));
            }
        }
        self.connect(&options)
    }

    /// Publishes what generation `number` uses beside what the one before uses, then uses it, then withdraws the older one.
    async fn rotate(&self, number: usize) {
        let (old, new) = (number - 1, number);
        let both = |name: &str| {
            self.read(&format!("{name}-{old}.pem")) + &self.read(&format!("{name}-{new}.pem"))
        };
        let digest = |number| self.read(&format!("digest-{number}"));
        self.replace("ca.pem", both("ca"));
        self.replace("clients.pem", both("clients"));
        self.replace("digest", format!("{} {}", digest(old), digest(new)));
        self.publish(&format!("jwks-{new}.json"));
        let is_at_once = new % 2 == 1;
        if is_at_once {
            self.replace("token", self.read(&format!("token-{new}")));
        }
        sleep(AHEAD).await;
        self.replace("server.pem", self.read(&format!("server-{new}.pem")));
        self.replace("server.key", self.read(&format!("server-{new}.key")));
        self.replace("client.key", self.read(&format!("client-{new}.key")));
        self.replace("client.pem", self.read(&format!("client-{new}.pem")));
        self.replace("token", self.read(&format!("token-{new}")));
        self.replace("api", self.read(&format!("api-{new}")));
        // Calls that read the old files a moment ago are still in flight.
        sleep(IN_FLIGHT).await;
        self.publish(&format!("only-{new}.json"));
        self.replace("digest", digest(new));
        let withdrawn = Instant::now();
        for (file, by) in [("token", By::Token), ("api", By::ApiKey)] {
            self.is_refused(&format!("{file}-{old}"), by).await;
            assert!(
                withdrawn.elapsed() < UNTIL_REFUSED,
                "{by:?} {old}: {:?}",
                withdrawn.elapsed()
            );
        }
        self.has_certificate_of(new).await;
    }

    /// Waits until new connections get the certificate of a generation.
    async fn has_certificate_of(&self, number: usize) {
        let options = ConnectOptions {
            authorities: Some(self.read(&format!("ca-{number}.pem"))),
            token_file: Some(self.file("token")),
            ..ConnectOptions::default()
        };
        until("the new certificate is used", async || {
            self.connect(&options)
                .list(ListUploadsRequest::default())
                .await
                .is_ok()
        })
        .await;
    }

    /// Waits until a credential is refused.
    async fn is_refused(&self, file: &str, by: By) {
        let mut options = self.options();
        match by {
            By::Token => options.token_file = Some(self.file(file)),
            By::ApiKey | By::Certificate => options.api_key_file = Some(self.file(file)),
        }
        let client = self.connect(&options);
        until("the old credential is refused", async || {
            let refused = client.list(ListUploadsRequest::default()).await;
            refused.is_err_and(|error| error.to_string().contains("not accepted"))
        })
        .await;
    }
}

/// Uploads until enough is uploaded and `is_done`.
async fn upload_on(
    rotation: &Rotation,
    worker: usize,
    uploads: &AtomicUsize,
    is_done: &AtomicBool,
) {
    let mut number = worker;
    while !is_done.load(Ordering::Relaxed) || uploads.load(Ordering::Relaxed) < UPLOADS {
        let by = [By::Token, By::ApiKey, By::Certificate][number % 3];
        number += 1;
        let source = Source::seekable(Cursor::new(vec![7; 64 << 10]));
        let upload = rotation.client(by).upload("file.bin", source);
        upload
            .size(64 << 10)
            .await
            .unwrap_or_else(|error| panic!("{by:?}: {error}\n{}", rotation.server.log()));
        uploads.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(500)).await;
    }
}

/// One upload that lasts for more than a minute, a dozen rotations, on one connection.
async fn lasting_upload(rotation: &Rotation) {
    let size = 4 << 20;
    let source = Source::seekable(Cursor::new(vec![7; size]));
    let mut opened = 0;
    let upload = rotation.client(By::Token).upload("long.bin", source);
    let mut transfer = upload.size(size as u64).limit_rate(64 << 10).start();
    while let Some(event) = transfer.next().await {
        opened += usize::from(matches!(event, Event::Opened { .. }));
    }
    transfer.finish().await.unwrap();
    assert_eq!(opened, 1, "the stream continues");
}

#[tokio::test]
async fn everything_is_replaced_under_uploads() {
    let Some(rotation) = Rotation::start().await else {
        return;
    };
    let (uploads, is_done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let rotations = async {
        for number in 1..=ROTATIONS {
            rotation.rotate(number).await;
            // What is no key set, and half of a pair, changes nothing.
            let wrong = [
                b"<html>".to_vec(),
                vec![b' '; 10 << 20],
                b"{\"keys\":[]}".to_vec(),
            ];
            rotation.keys.publish(wrong[number % 3].clone());
            rotation.replace("server.key", rotation.read("client.key"));
        }
        is_done.store(true, Ordering::Relaxed);
    };
    let workers = (0..6).map(|worker| upload_on(&rotation, worker, &uploads, &is_done));
    let workers = futures::future::join_all(workers);
    tokio::join!(rotations, workers, lasting_upload(&rotation));
    assert!(uploads.load(Ordering::Relaxed) >= UPLOADS);
}
