//! The caller's uploads, page by page.

use serde_json::{Value, json};

use super::{
    client::{Http, file, text},
    common::{TestGateway, private_redis},
};
use crate::grpc::records::create_largest;

fn names(records: &Value) -> Vec<String> {
    let records = records.as_array().unwrap();
    records
        .iter()
        .map(|record| text(&record["file_name"]))
        .collect()
}

#[tokio::test]
async fn pages_are_linked_newest_first() {
    let gateway = TestGateway::start().await;
    let http = Http::of(&gateway);
    for number in 0..5 {
        let mut file = file(&format!("Plan {number}.pdf"), b"abc");
        file["tags"] = json!(["ä b", format!("n{number}")]);
        assert_eq!(http.call("POST", "", file).await.status, 201);
    }
    let mut path = "?limit=2&tags=%C3%A4%20b&file_search=pLAN&storage_id=embedded".to_owned();
    let (mut seen, mut ranges) = (Vec::new(), Vec::new());
    loop {
        let page = http.get(&path).await;
        assert_eq!((page.status, page.header("x-total-count")), (200, "5"));
        seen.extend(names(&page.json()));
        ranges.push(page.header("content-range").to_owned());
        let Some(next) = page.next() else {
            break;
        };
        path = next;
    }
    let expected: Vec<_> = (0..5)
        .rev()
        .map(|number| format!("Plan {number}.pdf"))
        .collect();
    assert_eq!(seen, expected);
    assert_eq!(ranges, ["items 0-1/5", "items 2-3/5", "items 4-4/5"]);

    // The link has all filters, and the page keeps its order.
    let mut path = "?limit=1&name_prefix=plan&file_mime=application/*&phase=open\
                    &created_after=1&created_before=99999999999"
        .to_owned();
    let mut by_name = Vec::new();
    loop {
        let page = http.get(&path).await;
        by_name.extend(names(&page.json()));
        let Some(next) = page.next() else {
            break;
        };
        path = next;
    }
    assert!(by_name.iter().eq(expected.iter().rev()), "{by_name:?}");
    let none = http.get("?created_after=99999999999").await;
    assert_eq!(names(&none.json()), [""; 0]);

    let one = http.get("?tags=n3,%C3%A4%20b").await;
    assert_eq!(names(&one.json()), ["Plan 3.pdf"]);
    let none = http.get("?file_search=nothing%20like%20it").await;
    assert_eq!(
        (none.json(), none.header("content-range")),
        (json!([]), "items */0")
    );
    let beyond = http.get("?offset=7").await;
    assert_eq!(
        (beyond.json(), beyond.header("content-range")),
        (json!([]), "items */5")
    );
    assert_eq!(beyond.header("link"), "");
}

#[tokio::test]
async fn a_page_of_the_largest_records_has_at_most_a_mebibyte() {
    let gateway = TestGateway::start().await;
    let ids = create_largest(&gateway, 300).await;
    let http = Http::of(&gateway);
    let (mut listed, mut pages) = (Vec::new(), Vec::new());
    let mut next = Some("?limit=9999".to_owned());
    while let Some(path) = next {
        let page = http.get(&path).await;
        let first = listed.len();
        let records = page.json();
        let records = records.as_array().unwrap().iter();
        listed.extend(records.map(|record| text(&record["id"])));
        let range = format!("items {first}-{}/300", listed.len() - 1);
        assert_eq!(page.header("content-range"), range);
        pages.push(page.body.len());
        next = page.next();
    }
    assert!(pages.iter().all(|size| *size <= 1 << 20), "{pages:?}");
    assert!(pages.len() > 1 && pages[0] > 1_000_000, "{pages:?}");
    listed.sort();
    assert_eq!(listed, ids);
}

#[tokio::test]
async fn a_record_has_the_fields_of_placeos() {
    let gateway = TestGateway::start().await;
    let http = Http::of(&gateway);
    let more = json!({"tags": ["x"], "file_path": "plans/2026", "permissions": "support", "public": false});
    let id = http.upload("a b.pdf", b"abc", &more).await;
    let records = http.get("").await.json();
    let record = &records[0];
    for (key, value) in [
        ("id", json!(id)),
        ("storage_id", json!("embedded")),
        ("uploaded_by", json!("")),
        ("file_name", json!("a b.pdf")),
        ("file_size", json!(3)),
        ("file_mime", json!("application/pdf")),
        ("file_path", json!("plans/2026")),
        ("object_key", json!(format!("{id}/a_b.pdf"))),
        ("file_md5", json!("kAFQmDzST7DWlj99KOF/cg==")),
        ("permissions", json!("support")),
        ("public", json!(false)),
        ("tags", json!(["x"])),
        ("resumable_id", json!(null)),
        ("resumable", json!(false)),
        ("upload_complete", json!(true)),
        ("phase", json!("complete")),
    ] {
        assert_eq!(record[key], value, "{key}");
    }
    let (made, changed) = (&record["created_at"], &record["updated_at"]);
    assert!(made.as_u64().unwrap() > 1_700_000_000 && changed.as_u64() >= made.as_u64());
}

#[tokio::test]
async fn without_its_state_store_the_gateway_sends_retry_after() {
    let Some((mut redis, url)) = private_redis(&[]) else {
        return;
    };
    let gateway = TestGateway::with(|config| {
        config.redis_url = Some(url.parse().unwrap());
        config.limits.store_retry_timeout_seconds = 1;
    })
    .await;
    redis.kill();
    let unavailable = Http::of(&gateway).get("").await;
    assert_eq!(
        (unavailable.status, &unavailable.json()["reason"]),
        (503, &json!("STATE_UNAVAILABLE"))
    );
    assert!(unavailable.header("retry-after").parse::<u64>().unwrap() >= 1);
}
