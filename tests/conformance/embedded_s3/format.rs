//! A directory of an unknown format version.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use upload_gateway::embedded_s3::EmbeddedS3;

use super::server::*;

/// Every file with its content.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

#[tokio::test]
async fn a_directory_of_an_unknown_format_is_refused_and_kept() {
    let server = TestServer::start().await;
    server.upload(&[b"object".to_vec().into()]).await;
    let upload_id = server.create().await;
    server.put_part(&upload_id, 1, b"part").await;
    let config = server.config();
    let directory = config.directory.clone();
    server.server.stop().await;
    // Recovery would remove both.
    fs::write(directory.join("temporary/0123"), b"half a part").unwrap();
    fs::create_dir(directory.join("parts/4567")).unwrap();
    fs::write(directory.join("parts/4567/00001"), b"part of nothing").unwrap();

    let format = directory.join("format");
    assert_eq!(fs::read(&format).unwrap(), b"1");
    for (version, found) in [(Some("2"), "format 2"), (None, "no format version")] {
        match version {
            Some(version) => fs::write(&format, version).unwrap(),
            None => fs::remove_file(&format).unwrap(),
        }
        let before = files(&directory);
        let refused = EmbeddedS3::start(config.clone()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidData);
        let message = refused.to_string();
        let directory_name = directory.display().to_string();
        for words in [
            &*directory_name,
            found,
            "this build reads only format 1",
            "run a release that reads it",
        ] {
            assert!(message.contains(words), "{message}");
        }
        assert_eq!(files(&directory), before);
    }

    fs::write(&format, "1\n").unwrap();
    let server = TestServer::start_in(server.root).await;
    assert_eq!(server.read(None).await.unwrap(), b"object");
    assert_eq!(server.open_uploads().await, [upload_id]);
}
