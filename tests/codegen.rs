//! The protos pass buf's checks, the code that `proto/buf.gen.yaml` generates from them works, and so does the example of
//! the Rust client.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]

#[path = "common/lib.rs"]
mod common;
#[allow(dead_code, reason = "the tests call what `main` calls")]
#[path = "../crates/client/examples/upload.rs"]
mod example;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::{TestGateway, bytes, open};
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tempfile::TempDir;
use upload_gateway::proto::FILE_DESCRIPTOR_SET;
use upload_gateway_client::Client;
use upload_gateway_core::upload::PART_SIZE;

/// What `buf generate` starts, beside `node`.
const GENERATORS: [&str; 6] = [
    "protoc",
    "protoc-gen-go",
    "protoc-gen-go-grpc",
    "protoc-gen-es",
    "grpc_python_plugin",
    "grpc_java_plugin",
];

#[test]
fn the_protos_pass_the_linter_and_are_formatted() {
    for arguments in [&["lint"][..], &["format", "--diff", "--exit-code"]] {
        let Some(mut buf) = common::command("buf") else {
            return;
        };
        run(buf.args(arguments).arg("proto").current_dir(repository()));
    }
}

#[tokio::test]
async fn a_client_in_go_uploads_a_file_and_gets_a_signed_download() {
    let (Some(generated), Some(mut go)) = (generate(), common::command("go")) else {
        return;
    };
    let module = generated.path().join("gen/go");
    for file in ["go.mod", "go.sum", "main.go"] {
        let original = repository().join("tests/codegen/go").join(file);
        fs::copy(original, module.join(file)).unwrap();
    }
    // As `tests/backends/install` builds: Go then compiles a package that both import only once.
    go.env("CGO_ENABLED", "0").current_dir(&module);
    run(go.args(["build", "-o", "client", "."]));

    let gateway = TestGateway::start().await;
    let address = gateway.grpc.trim_start_matches("http://").to_owned();
    let client = module.join("client");
    let printed = tokio::task::spawn_blocking(move || run(Command::new(client).arg(address)));
    let printed = printed.await.unwrap();
    assert!(printed.contains("PHASE_COMPLETE\nGET http"), "{printed}");
}

#[tokio::test]
async fn the_example_in_rust_uploads_a_file_and_resumes_an_upload() {
    let gateway = TestGateway::start().await;
    let client = Client::connect(&gateway.grpc).unwrap();
    let part_size = usize::try_from(PART_SIZE).unwrap();
    let data = bytes(part_size + 10);
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("example.bin");
    fs::write(&file, &data).unwrap();
    let file = file.to_str().unwrap();
    example::send(file, &gateway.grpc, None).await.unwrap();
    let page = client.list(Default::default()).await.unwrap();
    assert_eq!(gateway.read(&page.uploads[0]).await, data);

    let mut stream = gateway.converse().await;
    stream.send(open("example.bin", Some(data.len()))).await;
    let upload_id = stream.next().await.unwrap().upload_id;
    stream.send_in_chunks(0, &data[..part_size], 1 << 20).await;
    stream.committed(part_size).await;
    drop(stream);
    example::send(file, &gateway.grpc, Some(&upload_id))
        .await
        .unwrap();
    let upload = client.get(&upload_id).await.unwrap();
    assert_eq!(gateway.read(&upload).await, data);
}

#[test]
fn java_gets_a_file_for_each_message_enum_and_service() {
    let Some(generated) = generate() else { return };
    let package = generated.path().join("gen/java/uploadgateway/v1");
    let found: BTreeSet<String> = fs::read_dir(package)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected = own_files().flat_map(|file| java_classes(&file));
    let expected: BTreeSet<String> = expected.map(|class| format!("{class}.java")).collect();
    assert_eq!(found, expected);
}

#[test]
fn python_imports_the_generated_code() {
    let (Some(generated), Some(python)) = (generate(), common::python()) else {
        return;
    };
    let program = "from uploadgateway.v1 import errors_pb2, signing_pb2_grpc, upload_pb2_grpc\n\
        print(errors_pb2.ErrorReason.Name(errors_pb2.ERROR_REASON_WRONG_OFFSET))\n\
        upload_pb2_grpc.UploadServiceStub, signing_pb2_grpc.SigningServiceStub";
    let printed = run(Command::new(python)
        .args(["-W", "error", "-c", program])
        .current_dir(generated.path().join("gen/python")));
    assert_eq!(printed, "ERROR_REASON_WRONG_OFFSET\n");
}

#[test]
fn typescript_exports_both_services() {
    let Some(generated) = generate() else { return };
    let package = generated.path().join("gen/typescript/uploadgateway/v1");
    for (file, service) in [
        ("upload_pb.ts", "UploadService"),
        ("signing_pb.ts", "SigningService"),
    ] {
        let code = fs::read_to_string(package.join(file)).unwrap();
        assert!(
            code.contains(&format!("export const {service}: ")),
            "{file}"
        );
    }
}

/// Generates the code of all languages into a new directory.
fn generate() -> Option<TempDir> {
    for program in GENERATORS {
        common::command(program)?;
    }
    let directory = TempDir::new().unwrap();
    run(common::command("buf")?
        .args(["generate", "proto", "--template", "proto/buf.gen.yaml"])
        .arg("--output")
        .arg(directory.path())
        .current_dir(repository()));
    Some(directory)
}

/// Runs `command` and returns its standard output.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {printed}{errors}");
    printed
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The files of this API, without those that it imports.
fn own_files() -> impl Iterator<Item = FileDescriptorProto> {
    let descriptors = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let files = descriptors.file.into_iter();
    files.filter(|file| file.package() == "uploadgateway.v1")
}

/// The public classes that protoc and its gRPC plugin generate from `file`.
fn java_classes(file: &FileDescriptorProto) -> Vec<String> {
    let mut classes = vec![
        file.options
            .clone()
            .unwrap()
            .java_outer_classname()
            .to_owned(),
    ];
    for message in &file.message_type {
        classes.extend([
            message.name().to_owned(),
            format!("{}OrBuilder", message.name()),
        ]);
    }
    classes.extend(file.enum_type.iter().map(|kind| kind.name().to_owned()));
    classes.extend(
        file.service
            .iter()
            .map(|service| format!("{}Grpc", service.name())),
    );
    classes
}
