//! The page of `examples/browser` in Chromium, which `tests/browser` drives.
//!
//! The page is served by the gateway at `/demo/`, or by another server, so that gateway and store are of another origin.

mod published;
mod site;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, process::Command};
use upload_gateway_client::{
    Client,
    proto::v1::{Phase, Upload},
};

use self::site::Site;
use super::common::{
    self, Chromium, TestGateway, bytes,
    stores::{self, Stores},
};

/// The size of a file in twelve parts: when some are stored, others are still to be sent, also on a slow machine.
const TWELVE_PARTS: usize = 60_000_001;

/// The name of a scenario, and the names and sizes of its files.
type Scenario<'a> = (&'a str, &'a [(&'a str, usize)]);

/// A gateway, and a page that uses it.
struct World {
    gateway: TestGateway,
    page: String,
    picture: PathBuf,
    files: TempDir,
    chromium: Chromium,
    _site: Site,
    _stores: Stores,
}

// === impl World ===

impl World {
    /// The page that the gateway serves.
    async fn demo() -> Option<Self> {
        let mut world = Self::embedded().await?;
        world.page = format!("{}/demo", world.gateway.http);
        Some(world)
    }

    /// A page of another origin, for the embedded S3.
    async fn embedded() -> Option<Self> {
        Self::embedded_with(|_| {}).await
    }

    async fn embedded_with(configure: impl FnOnce(&mut Stores)) -> Option<Self> {
        Some(Self::over(stores::embedded(), common::chromium()?, configure).await)
    }

    /// A page of another origin, for a bucket with a CORS rule.
    async fn s3() -> Option<Self> {
        Some(Self::over(stores::s3().await?, common::chromium()?, |_| {}).await)
    }

    /// A page of another origin, for a container of an account with a CORS rule.
    async fn azure() -> Option<Self> {
        Self::azure_with(|_| {}).await
    }

    async fn azure_with(configure: impl FnOnce(&mut Stores)) -> Option<Self> {
        Some(Self::over(stores::azure().await?, common::chromium()?, configure).await)
    }

    async fn over(
        mut stores: Stores,
        chromium: Chromium,
        configure: impl FnOnce(&mut Stores),
    ) -> Self {
        let site = Site::start(&chromium.packages).await;
        common::allow_pages(&stores.config, &site.origin).await;
        stores.config.rest.cors_origins = vec![site.origin.parse().unwrap()];
        configure(&mut stores);
        let gateway = stores.gateway().await;
        let files = TempDir::new().unwrap();
        Self {
            page: format!("{}/page/index.html?gateway={}", site.origin, gateway.http),
            picture: files.path().join("picture.png"),
            gateway,
            files,
            chromium,
            _site: site,
            _stores: stores,
        }
    }

    /// Runs scenarios one after the other, and returns what each returned.
    async fn drive(&self, scenarios: &[Scenario<'_>]) -> Vec<Value> {
        let scenarios = scenarios.iter().map(|(name, files)| {
            let files: Vec<_> = files.iter().map(|file| self.write(file)).collect();
            json!({"name": name, "files": files})
        });
        let options = json!({
            "chromium": self.chromium.program,
            "packages": self.chromium.packages,
            "url": self.page,
            "picture": self.picture,
            "scenarios": scenarios.collect::<Vec<_>>(),
        });
        let mut driver = Command::new(&self.chromium.node)
            .arg(repository().join("tests/browser/drive.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut input = driver.stdin.take().unwrap();
        let options = options.to_string();
        input.write_all(options.as_bytes()).await.unwrap();
        drop(input);
        let output = driver.wait_with_output().await.unwrap();
        let failure = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{failure}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn write(&self, (name, size): &(&str, usize)) -> PathBuf {
        let path = self.files.path().join(name);
        fs::write(&path, bytes(*size)).unwrap();
        path
    }

    async fn uploads(&self) -> Vec<Upload> {
        let client = Client::connect(&self.gateway.grpc).unwrap();
        client.list(Default::default()).await.unwrap().uploads
    }

    /// Checks that there is one upload of this name, and that the store has its bytes.
    async fn assert_stored(&self, files: &[(&str, usize)]) {
        let uploads = self.uploads().await;
        for (name, size) in files {
            let of_name = |upload: &&Upload| upload.file.as_ref().unwrap().file_name == *name;
            let found: Vec<_> = uploads.iter().filter(of_name).collect();
            let [upload] = found[..] else {
                panic!("not one upload of {name}: {found:?}");
            };
            assert_eq!(upload.phase(), Phase::Complete, "{name}");
            let stored = stores::read(&self.gateway, upload).await;
            assert!(stored == bytes(*size), "{name} has other bytes");
        }
    }
}

/// Sends files in one request and in parts, and compares the downloads in the page. Then reloads the page when the store has
/// some parts of a file: they are not sent again.
async fn uploads_and_resumes(world: World) {
    let files = [
        ("small.txt", 100),
        ("empty.txt", 0),
        ("film.mp4", 12 << 20 | 1),
    ];
    let large = [("large.mp4", TWELVE_PARTS)];
    let results = world.drive(&[("upload", &files), ("reload", &large)]).await;
    assert_resumed(&results[1]);
    world.assert_stored(&files).await;
    world.assert_stored(&large).await;
}

/// Checks that parts that were sent before the interruption are not sent again. A part whose response the page did not see
/// can be in the store, too.
fn assert_resumed(parts: &Value) {
    let list = |key| parts[key].as_array().unwrap().clone();
    let (before, after) = (list("before"), list("after"));
    assert!(before.len() >= 2, "{parts}");
    assert!(after.len() + before.len() <= 12, "{parts}");
    assert!(before.iter().all(|part| !after.contains(part)), "{parts}");
}

#[tokio::test]
async fn the_page_of_the_gateway_uploads_and_resumes() {
    let Some(world) = World::demo().await else {
        return;
    };
    uploads_and_resumes(world).await;
}

#[tokio::test]
async fn a_page_of_another_origin_uploads_to_the_embedded_s3_and_resumes() {
    let Some(world) = World::embedded().await else {
        return;
    };
    uploads_and_resumes(world).await;
}

#[tokio::test]
async fn a_page_of_another_origin_uploads_to_s3_and_resumes() {
    let Some(world) = World::s3().await else {
        return;
    };
    uploads_and_resumes(world).await;
}

#[tokio::test]
async fn a_page_of_another_origin_uploads_to_azure_and_resumes() {
    let Some(world) = World::azure().await else {
        return;
    };
    uploads_and_resumes(world).await;
}

#[tokio::test]
async fn two_pages_upload_the_same_file_at_once() {
    let Some(world) = World::s3().await else {
        return;
    };
    let files = [("film.mp4", TWELVE_PARTS)];
    world.drive(&[("tabs", &files)]).await;
    for upload in world.uploads().await {
        assert_eq!(upload.phase(), Phase::Complete);
        assert!(stores::read(&world.gateway, &upload).await == bytes(TWELVE_PARTS));
    }
}

#[tokio::test]
async fn the_page_waits_ten_seconds_for_the_network() {
    let Some(world) = World::demo().await else {
        return;
    };
    let files = [("film.mp4", TWELVE_PARTS)];
    world.drive(&[("offline", &files)]).await;
    world.assert_stored(&files).await;
}

#[tokio::test]
async fn the_page_pauses_resumes_cancels_and_retries() {
    let Some(world) = World::demo().await else {
        return;
    };
    let (paused, cancelled) = (
        ("paused.bin", TWELVE_PARTS),
        ("cancelled.bin", TWELVE_PARTS),
    );
    let failed = ("failed.bin", 10);
    let results = world
        .drive(&[("buttons", &[paused, cancelled, failed])])
        .await;
    assert_resumed(&results[0]);
    world.assert_stored(&[paused, failed]).await;
    let uploads = world.uploads().await;
    let aborted = uploads
        .iter()
        .filter(|upload| upload.phase() == Phase::Aborted);
    assert_eq!(aborted.count(), 1, "{uploads:?}");
}

/// With `PICTURE=docs/demo.png`, makes the picture of the README.
#[tokio::test]
async fn the_page_has_a_picture() {
    let Some(mut world) = World::demo().await else {
        return;
    };
    if let Some(path) = env::var_os("PICTURE") {
        world.picture = repository().join(path);
    }
    let files = [
        ("floor-plan.pdf", 2_345_678),
        ("lobby-signage.mp4", 40_000_001),
        ("welcome-film.mp4", 60_000_001),
    ];
    world.drive(&[("picture", &files)]).await;
    let picture = fs::read(&world.picture).unwrap();
    assert!(picture.starts_with(b"\x89PNG"));
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
