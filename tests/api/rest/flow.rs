//! The flow that PlaceOS documents, call by call: a file in parts, a small one, an interrupted one, and older clients.

use serde_json::{Value, json};
use upload_gateway::config::{Config, PartDataForm};
use upload_gateway_core::upload::Md5;

use super::{
    client::{Answer, Http, file, keys, part_of, text},
    common::{self, TestGateway, bytes},
};

const MIB: usize = 1 << 20;

/// Makes one test of each case for the embedded S3 and for Azurite.
macro_rules! on_both_stores {
    ($($case:ident),* $(,)?) => {
        mod s3 { $(
            #[tokio::test]
            async fn $case() {
                let gateway = super::TestGateway::start().await;
                super::$case(&gateway, "AmazonS3").await;
            }
        )* }
        mod azure { $(
            #[tokio::test]
            async fn $case() {
                let Some(azure) = super::common::azure().await else { return };
                let storage = vec![azure.storage()];
                let gateway = super::TestGateway::with(|config| config.storage = storage).await;
                super::$case(&gateway, "AzureStorage").await;
            }
        )* }
    };
}

on_both_stores!(
    a_file_is_uploaded_in_parts,
    an_interrupted_upload_is_found_by_the_same_create,
    a_small_file_is_put_whole,
    an_older_client_can_upload,
);

fn md5(bytes: &[u8]) -> String {
    Md5::of(bytes).to_string()
}

/// What clients report about the parts 1 to `count`.
fn reported(sent: &[u8], count: usize) -> Value {
    let data = (1..=count).map(|part| json!({"md5": md5(part_of(sent, part)), "part": part}));
    json!({
        "part_list": (1..=count).collect::<Vec<_>>(),
        "part_data": data.collect::<Vec<_>>(),
    })
}

async fn reads(http: &Http, id: &str, sent: &[u8]) {
    let link = http.get(&format!("/{id}/url?expiry=5")).await;
    assert_eq!(link.status, 303);
    let found = reqwest::get(link.header("location")).await.unwrap();
    assert!(
        found.bytes().await.unwrap() == sent,
        "the store has other bytes"
    );
    let through = http.get(&format!("/{id}/download")).await;
    assert!(through.body == sent, "the gateway returns other bytes");
}

async fn a_file_is_uploaded_in_parts(gateway: &TestGateway, residence: &str) {
    let (http, sent) = (Http::of(gateway), bytes(12 * MIB));
    let query = format!(
        "/new?file_size={}&file_name=film.mp4&public=true",
        sent.len()
    );
    let place = http.get(&query).await;
    assert_eq!(place.json(), json!({"residence": residence}));

    let created = http.call("POST", "", file("film.mp4", &sent)).await;
    let step = created.json();
    assert_eq!(
        (created.status, &step["type"]),
        (201, &json!("chunked_upload"))
    );
    assert_eq!(
        keys(&step),
        ["part_size", "residence", "signature", "type", "upload_id"]
    );
    assert_eq!(keys(&step["signature"]), ["headers", "url", "verb"]);
    assert_eq!(
        (&step["residence"], &step["part_size"]),
        (&json!(residence), &json!(5 * MIB))
    );
    let (id, session) = (text(&step["upload_id"]), http.begin(&step).await);

    for part in 1..=3 {
        let body = part_of(&sent, part);
        // As PlaceOS documents it: the `+` of the MD5 is not encoded.
        let path = format!("/{id}?part={part}&file_id={}", md5(body));
        let report = match part {
            1 => json!({"resumable_id": session}),
            _ => reported(&sent, part - 1),
        };
        let answer = http.call("PATCH", &path, report).await;
        let step = answer.json();
        assert_eq!(
            (answer.status, &step["type"]),
            (200, &json!("part_upload")),
            "{step}"
        );
        assert_eq!(keys(&step), ["signature", "type", "upload_id"]);
        http.deliver(&step, body.to_vec()).await;
    }
    let step = http
        .call("PATCH", &format!("/{id}"), reported(&sent, 3))
        .await
        .json();
    assert_eq!(step["type"], "finish");
    assert_eq!(keys(&step), ["body", "signature", "type", "upload_id"]);
    http.deliver(&step, text(&step["body"]).into_bytes()).await;

    for _ in 0..2 {
        let done = http.call("PUT", &format!("/{id}"), json!({})).await;
        assert_eq!((done.status, done.json()), (200, json!({"ok": true})));
    }
    // A client that lost the store's answer to the commit asks for it again.
    for late in [
        http.call("PATCH", &format!("/{id}"), reported(&sent, 3))
            .await,
        http.get(&format!("/{id}/edit?part=finish")).await,
    ] {
        let step = late.json();
        assert_eq!((late.status, &step["type"]), (200, &json!("finish")));
        assert_eq!(keys(&step), ["signature", "type", "upload_id"]);
        assert_eq!(step["signature"]["url"], "");
    }
    let part = format!("/{id}?part=1&file_id={}", md5(part_of(&sent, 1)));
    let late = http.call("PATCH", &part, json!({})).await;
    assert_eq!(
        (late.status, &late.json()["reason"]),
        (412, &json!("WRONG_PHASE"))
    );
    reads(&http, &id, &sent).await;
    // Also repeated.
    for _ in 0..2 {
        let deleted = http.call("DELETE", &format!("/{id}"), json!({})).await;
        assert_eq!(deleted.status, 202);
    }
    for gone in ["/url", "/download", "/edit?part=finish"] {
        let answer = http.get(&format!("/{id}{gone}")).await;
        assert_eq!(answer.status, 404, "{gone}");
    }
}

async fn an_interrupted_upload_is_found_by_the_same_create(gateway: &TestGateway, residence: &str) {
    let (http, sent) = (Http::of(gateway), bytes(6 * MIB));
    let step = http.call("POST", "", file("film.mp4", &sent)).await.json();
    let (id, session) = (text(&step["upload_id"]), http.begin(&step).await);
    let first = json!({"part": 1, "file_id": md5(part_of(&sent, 1)), "resumable_id": session});
    let step = http.call("PATCH", &format!("/{id}"), first).await.json();
    http.deliver(&step, part_of(&sent, 1).to_vec()).await;

    let found = http.call("POST", "", file("film.mp4", &sent)).await;
    let step = found.json();
    assert_eq!((found.status, &step["type"]), (200, &json!("parts")));
    let shape = [
        "part_data",
        "part_list",
        "part_size",
        "residence",
        "signature",
        "type",
        "upload_id",
    ];
    assert_eq!(keys(&step), shape);
    assert_eq!(
        (&step["upload_id"], &step["residence"]),
        (&json!(id), &json!(residence))
    );
    let expected = reported(&sent, 1);
    assert_eq!(step["part_list"], expected["part_list"]);
    assert_eq!(step["part_data"], expected["part_data"]);

    // As clients report parts that they sent before a failure.
    let unknown = json!({"part_list": [1], "part_data": [{"part": 1, "md5": ""}]});
    let early = http.call("PATCH", &format!("/{id}"), unknown).await;
    assert_eq!(
        (early.status, &early.json()["reason"]),
        (412, &json!("INCOMPLETE"))
    );
    assert_eq!(early.json()["missing_parts"], json!([2]));
    let body = part_of(&sent, 2);
    let step = http
        .get(&format!("/{id}/edit?part=2&file_id={}", md5(body)))
        .await
        .json();
    assert_eq!(step["type"], "part_upload");
    http.deliver(&step, body.to_vec()).await;
    let step = http.get(&format!("/{id}/edit?part=finish")).await.json();
    http.deliver(&step, text(&step["body"]).into_bytes()).await;
    assert_eq!(
        http.call("PUT", &format!("/{id}"), json!({})).await.status,
        200
    );
    reads(&http, &id, &sent).await;
}

async fn a_small_file_is_put_whole(gateway: &TestGateway, residence: &str) {
    let http = Http::of(gateway);
    for size in [0, 3 * MIB] {
        let sent = bytes(size);
        let created = http.call("POST", "", file("plan.pdf", &sent)).await;
        let step = created.json();
        assert_eq!(
            (created.status, &step["type"]),
            (201, &json!("direct_upload"))
        );
        assert_eq!(step["residence"], residence);
        let id = text(&step["upload_id"]);
        let early = http.call("PUT", &format!("/{id}"), json!({})).await;
        assert_eq!(
            (early.status, &early.json()["reason"]),
            (412, &json!("INCOMPLETE"))
        );
        http.deliver(&step, sent.clone()).await;
        assert_eq!(
            http.call("PUT", &format!("/{id}"), json!({})).await.status,
            200
        );
        reads(&http, &id, &sent).await;
    }
}

/// MD5s in hexadecimal, the first part's MD5 as the file's, parameters in the body, parts reported while in flight.
async fn an_older_client_can_upload(gateway: &TestGateway, _residence: &str) {
    let (http, sent) = (Http::of(gateway), bytes(6 * MIB));
    let hex = |part| Md5::of(part_of(&sent, part)).to_hex();
    let mut described = file("film.mp4", &sent);
    described["file_id"] = json!(hex(1));
    let step = http.call("POST", "", described).await.json();
    let (id, session) = (text(&step["upload_id"]), http.begin(&step).await);
    let path = format!("/{id}");
    let first = json!({"resumable_id": session, "file_id": hex(1), "part": 1});
    let one = http.call("PATCH", &path, first).await.json();
    let lane = json!({"part_list": [1, 2], "part_data": [{"md5": hex(1), "part": 1}]});
    let second = format!("{path}?part=2&file_id={}&file_mime=video%2Fmp4", hex(2));
    let two = http.call("PATCH", &second, lane).await.json();
    http.deliver(&two, part_of(&sent, 2).to_vec()).await;
    http.deliver(&one, part_of(&sent, 1).to_vec()).await;
    let report = json!({"part_list": [1, 2], "part_data": [], "part_update": true});
    let noted = http.call("PATCH", &path, report.clone()).await;
    assert_eq!((noted.status, noted.json()), (200, json!({"ok": true})));
    let step = http.get(&format!("{path}/edit?part=finish")).await.json();
    http.deliver(&step, text(&step["body"]).into_bytes()).await;
    assert_eq!(http.call("PUT", &path, json!({})).await.status, 200);
    let late = http.call("PATCH", &path, report).await;
    assert_eq!((late.status, late.json()), (200, json!({"ok": true})));
    reads(&http, &id, &sent).await;
}

#[tokio::test]
async fn part_data_is_an_object_for_older_clients() {
    let as_map = |config: &mut Config| config.rest.part_data = PartDataForm::Map;
    let gateway = TestGateway::with(as_map).await;
    let (http, sent) = (Http::of(&gateway), bytes(6 * MIB));
    let step = http.call("POST", "", file("film.mp4", &sent)).await.json();
    let (id, session) = (text(&step["upload_id"]), http.begin(&step).await);
    let first = json!({"part": 1, "file_id": md5(part_of(&sent, 1)), "resumable_id": session});
    let step = http.call("PATCH", &format!("/{id}"), first).await.json();
    http.deliver(&step, part_of(&sent, 1).to_vec()).await;
    let step = http.call("POST", "", file("film.mp4", &sent)).await.json();
    let part = json!({"md5": md5(part_of(&sent, 1)), "part": 1});
    assert_eq!(step["part_data"], json!({"1": part}));
}

#[tokio::test]
async fn an_aborted_upload_stays_aborted() {
    let gateway = TestGateway::start().await;
    let http = Http::of(&gateway);
    let step = http.call("POST", "", file("a.bin", b"abc")).await.json();
    let path = format!("/{}", text(&step["upload_id"]));
    for _ in 0..2 {
        let Answer { status, body, .. } = http.call("DELETE", &path, json!({})).await;
        assert_eq!((status, body.len()), (202, 0));
    }
    let late = http.call("PUT", &path, json!({})).await;
    assert_eq!(
        (late.status, &late.json()["reason"]),
        (412, &json!("WRONG_PHASE"))
    );
}
