//! `doctor` and the CORS rules of stores: it reports that pages may not send files, and the rule that it prints helps.

use std::{fs, process::Stdio};

use aws_sdk_s3::primitives::SdkBody;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use md5::{Digest, Md5};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{self, AzureBackend, S3Backend, binary};

/// The exit code and the lines of `doctor`, with these origins.
async fn doctor(storage: &str, origins: &str) -> (Option<i32>, String) {
    let directory = TempDir::new().unwrap();
    let config = directory.path().join("gateway.toml");
    fs::write(
        &config,
        format!("[rest]\ncors_origins = {origins}\n{storage}"),
    )
    .unwrap();
    let mut command = tokio::process::Command::from(binary());
    let output = command
        .args(["doctor", "--config"])
        .arg(&config)
        .arg("--data-dir")
        .arg(directory.path().join("data"))
        .stdin(Stdio::null())
        .output();
    let output = output.await.unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

/// The only line of the report that begins with this, after its indentation.
fn line<'a>(report: &'a str, begin: &str) -> &'a str {
    let mut lines = report
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with(begin));
    let found = lines
        .next()
        .unwrap_or_else(|| panic!("no {begin}: {report}"));
    assert_eq!(lines.next(), None, "{report}");
    found
}

/// The rule on the page that begins with this, in the form of the API of the store.
fn documented(begin: &str) -> String {
    let mut lines = include_str!("../../docs/operations.md").lines();
    lines
        .find(|line| line.starts_with(begin))
        .unwrap()
        .to_owned()
}

/// Sets the printed rule, as an operator does with the command that is printed with it.
async fn put_printed_rule(s3: &S3Backend, rule: &Value) {
    let rule = &rule["CORSRules"][0];
    let texts = |name: &str| -> Vec<String> {
        let texts = rule[name].as_array().unwrap().iter();
        texts
            .map(|text| text.as_str().unwrap().to_owned())
            .collect()
    };
    let rule = aws_sdk_s3::types::CorsRule::builder()
        .set_allowed_origins(Some(texts("AllowedOrigins")))
        .set_allowed_methods(Some(texts("AllowedMethods")))
        .set_allowed_headers(Some(texts("AllowedHeaders")))
        .set_expose_headers(Some(texts("ExposeHeaders")));
    let rules = aws_sdk_s3::types::CorsConfiguration::builder().cors_rules(rule.build().unwrap());
    let put = s3.client().put_bucket_cors().bucket(&s3.bucket);
    let put = put.cors_configuration(rules.build().unwrap());
    put.send().await.unwrap();
}

/// Sets the rule in the form of the API, as an operator who pastes it.
async fn put_bucket_rule(s3: &S3Backend, xml: String) {
    let placeholder = aws_sdk_s3::types::CorsRule::builder()
        .allowed_methods("GET")
        .allowed_origins("https://placeholder.example");
    let placeholder = aws_sdk_s3::types::CorsConfiguration::builder()
        .cors_rules(placeholder.build().unwrap())
        .build()
        .unwrap();
    let put = s3.client().put_bucket_cors().bucket(&s3.bucket);
    let put = put.cors_configuration(placeholder).customize();
    let put = put.mutate_request(move |request| {
        let md5 = BASE64_STANDARD.encode(Md5::digest(&xml));
        let headers = request.headers_mut();
        headers.remove("x-amz-checksum-crc32");
        headers.remove("x-amz-sdk-checksum-algorithm");
        headers.insert("content-md5", md5);
        headers.insert("content-length", xml.len().to_string());
        *request.body_mut() = SdkBody::from(xml.as_str());
    });
    put.send().await.unwrap();
}

fn azure_toml(azure: &AzureBackend) -> String {
    format!(
        "[[storage]]\nid = \"media\"\nkind = \"azure\"\nendpoint = \"{}\"\naccount = \"{}\"\naccount_key = \"{}\"\n\
         container = \"{}\"\n",
        azure.endpoint, azure.account, azure.account_key, azure.container
    )
}

const ORIGINS: &str = r#"["https://app.example", "http://localhost:4200"]"#;

#[tokio::test]
async fn the_printed_rule_lets_pages_send_files_to_a_bucket() {
    let Some(s3) = common::s3().await else { return };
    let (code, report) = doctor(&s3.toml(), ORIGINS).await;
    assert_eq!(code, Some(1), "{report}");
    let failed = line(&report, "FAIL  storage media: allow pages to send files:");
    for origin in ["https://app.example", "http://localhost:4200"] {
        assert!(
            failed.contains(&format!("{origin}: the store answered 4")),
            "{report}"
        );
    }
    let rule: Value = serde_json::from_str(line(&report, "{")).unwrap();
    let expected = json!({"CORSRules": [{
        "AllowedOrigins": ["https://app.example", "http://localhost:4200"],
        "AllowedMethods": ["GET", "HEAD", "POST", "PUT"],
        "AllowedHeaders": ["*"],
        "ExposeHeaders": ["ETag"],
        "MaxAgeSeconds": 3600,
    }]});
    assert_eq!(rule, expected);

    put_bucket_rule(&s3, documented("<CORSConfiguration>")).await;
    let (code, report) = doctor(&s3.toml(), ORIGINS).await;
    assert_eq!(code, Some(0), "{report}");
    line(
        &report,
        "ok    storage media: pages of https://app.example may send files",
    );
    line(
        &report,
        "ok    storage media: pages of http://localhost:4200 may send files",
    );

    // The rule is for these origins only.
    let (code, report) = doctor(
        &s3.toml(),
        r#"["https://app.example", "https://new.example"]"#,
    )
    .await;
    assert_eq!(code, Some(1), "{report}");
    line(
        &report,
        "ok    storage media: pages of https://app.example may send files",
    );
    line(
        &report,
        "FAIL  storage media: allow pages to send files: https://new.example: ",
    );
}

#[tokio::test]
async fn the_printed_rule_lets_pages_send_files_to_an_account() {
    let Some((_server, azure)) = common::private_azure().await else {
        return;
    };
    let toml = azure_toml(&azure);
    let (code, report) = doctor(&toml, ORIGINS).await;
    assert_eq!(code, Some(1), "{report}");
    line(&report, "FAIL  storage media: allow pages to send files:");
    let rule: Value = serde_json::from_str(line(&report, "{")).unwrap();
    let expected = json!({"properties": {"cors": {"corsRules": [{
        "allowedOrigins": ["https://app.example", "http://localhost:4200"],
        "allowedMethods": ["GET", "HEAD", "PUT"],
        "allowedHeaders": ["*"],
        "exposedHeaders": ["ETag"],
        "maxAgeInSeconds": 3600,
    }]}}});
    assert_eq!(rule, expected);

    assert!(!report.contains('<'), "{report}");
    let xml = documented("<StorageServiceProperties>");
    common::set_account_rule(&azure.endpoint, xml).await;
    let (code, report) = doctor(&toml, ORIGINS).await;
    assert_eq!(code, Some(0), "{report}");
    line(
        &report,
        "ok    storage media: pages of https://app.example may send files",
    );
    line(
        &report,
        "ok    storage media: pages of http://localhost:4200 may send files",
    );
}

#[tokio::test]
async fn all_origins_need_a_rule_for_all_and_no_origin_needs_none() {
    let Some(s3) = common::s3().await else { return };
    let (code, report) = doctor(&s3.toml(), "[]").await;
    assert_eq!(code, Some(0), "{report}");
    assert!(!report.contains("pages of"), "{report}");

    let (code, report) = doctor(&s3.toml(), r#"["*"]"#).await;
    assert_eq!(code, Some(1), "{report}");
    put_printed_rule(&s3, &serde_json::from_str(line(&report, "{")).unwrap()).await;
    let (code, report) = doctor(&s3.toml(), r#"["*"]"#).await;
    assert_eq!(code, Some(0), "{report}");
    line(&report, "ok    storage media: pages of * may send files");
}
