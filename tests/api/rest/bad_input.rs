//! Mistakes of callers: each is answered with a 4xx that names the parameter, never with a 500.

use serde_json::{Value, json};

use super::{
    client::{Answer, BASE, Http, UNKNOWN, answer, file, text},
    common::{TestGateway, azure, bytes},
};

const MD5: &str = "5ymJIxM7GVLfTbMS6YI1Bw==";

/// The path of an upload of two parts whose session has begun.
async fn two_parts(http: &Http) -> String {
    let sent = bytes(6 << 20);
    let step = http.call("POST", "", file("film.mp4", &sent)).await.json();
    let path = format!("/{}", text(&step["upload_id"]));
    let session = json!({"resumable_id": http.begin(&step).await, "part_update": true});
    assert_eq!(http.call("PATCH", &path, session).await.status, 200);
    path
}

#[tokio::test]
async fn an_invalid_file_is_refused_and_its_parameter_named() {
    let gateway = TestGateway::start().await;
    let http = Http::of(&gateway);
    for (key, value) in [
        ("file_name", json!("")),
        ("file_name", json!(null)),
        ("file_name", json!(5)),
        ("file_name", json!("a/b")),
        ("file_name", json!("nul")),
        ("file_name", json!("a".repeat(1025))),
        ("file_size", json!(null)),
        ("file_size", json!(-1)),
        ("file_size", json!("12 MB")),
        ("file_size", json!("")),
        ("file_size", json!(1.5)),
        ("file_size", json!("99999999999999999999999")),
        ("file_id", json!("not an MD5")),
        ("file_id", json!(7)),
        ("file_mime", json!("text/\nplain")),
        ("file_mime", json!(["text/plain"])),
        ("permissions", json!("all")),
        ("public", json!("perhaps")),
        ("tags", json!(5)),
        ("tags", json!([1])),
        ("file_path", json!("a\u{0}b")),
    ] {
        let mut body = file("a.bin", b"abc");
        body[key] = value.clone();
        let refused = http.call("POST", "", body).await;
        assert_eq!(refused.refusal(), (400, key.into()), "{key} {value}");
    }
    for name in ["a?b", "a%26b", "a%25b", "a=b", "a:b", "..", "a%0Ab"] {
        let refused = http
            .get(&format!("/new?file_size=1&file_name={name}"))
            .await;
        assert_eq!(refused.refusal(), (400, "file_name".into()), "{name}");
        let why = "filename contains unsupported characters or words";
        assert_eq!(refused.json()["error"], why, "{name}");
    }
    let mut body = file("a.bin", b"abc");
    body["storage_id"] = json!("nowhere");
    assert_eq!(http.call("POST", "", body).await.status, 404);
    let too_large = http
        .get("/new?file_name=a&file_size=9999999999999999")
        .await;
    assert_eq!(too_large.status, 413);
}

/// The parameters that a refusal names, in alphabetical order. The first one is also in the fields that PlaceOS has.
fn violations(refused: &Answer) -> Vec<String> {
    let body = refused.json();
    let all = body["violations"].as_array().unwrap();
    assert_eq!(all[0]["parameter"], body["parameter"]);
    assert_eq!(all[0]["error"], body["error"]);
    let mut named: Vec<_> = all.iter().map(|one| text(&one["parameter"])).collect();
    named.sort();
    named
}

#[tokio::test]
async fn all_invalid_parameters_are_reported_together() {
    let gateway = TestGateway::start().await;
    let http = Http::of(&gateway);
    let nothing = http.call("POST", "", json!({})).await;
    assert_eq!(violations(&nothing), ["file_name", "file_size"]);
    let nothing = http.get("/new").await;
    assert_eq!(violations(&nothing), ["file_name", "file_size"]);
    let body = json!({
        "file_name": "a?b",
        "file_size": -1,
        "file_id": 7,
        "file_mime": "ü",
        "file_path": "a\u{0}b",
        "permissions": "all",
        "public": "perhaps",
        "tags": [1],
    });
    let refused = http.call("POST", "", body.clone()).await;
    let named = body.as_object().unwrap().keys().cloned();
    let mut expected: Vec<_> = named.collect();
    expected.sort();
    assert_eq!(violations(&refused), expected);

    let path = two_parts(&http).await;
    let body = json!({
        "part": 0,
        "file_id": "x",
        "part_list": [0],
        "part_data": [{"part": 0}],
        "part_update": "later",
        "resumable_id": 5,
    });
    let refused = http.call("PATCH", &path, body).await;
    let expected = [
        "file_id",
        "part",
        "part_data",
        "part_list",
        "part_update",
        "resumable_id",
    ];
    assert_eq!(violations(&refused), expected);
    let refused = http.get(&format!("{path}/edit?part=0&file_id=x")).await;
    assert_eq!(violations(&refused), ["file_id", "part"]);
    let refused = http.get("?limit=x&offset=-1&tags=").await;
    assert_eq!(violations(&refused), ["limit", "offset"]);
    // Errors about something else name no parameters.
    let unknown = http.get(&format!("/{UNKNOWN}/url")).await;
    assert_eq!(unknown.json().get("violations"), None);
}

#[tokio::test]
async fn an_invalid_part_is_refused_and_never_becomes_a_commit() {
    let gateway = TestGateway::start().await;
    let http = Http::of(&gateway);
    let path = two_parts(&http).await;
    for (query, parameter) in [
        ("part=0", "part"),
        ("part=3", "part"),
        ("part=10001", "part"),
        ("part=99999999999", "part"),
        ("part=-1", "part"),
        ("part=abc", "part"),
        ("part=", "part"),
        ("part=1.0", "part"),
        ("part", "part"),
        ("part=Finish", "part"),
    ] {
        let query = format!("?{query}&file_id={MD5}");
        let got = http.get(&format!("{path}/edit{query}")).await;
        assert_eq!(got.refusal(), (400, parameter.into()), "{query}");
        let patched = http
            .call("PATCH", &format!("{path}{query}"), json!({}))
            .await;
        assert_eq!(patched.refusal(), (400, parameter.into()), "{query}");
    }
    for (query, parameter) in [
        ("part=1", "file_id"),
        ("part=1&file_id=", "file_id"),
        ("part=1&file_id=abc", "file_id"),
        ("part=1&file_id=5ymJIxM7GVLfTbMS6YI1", "file_id"),
        ("file_id=5ymJIxM7GVLfTbMS6YI1Bw==", "part"),
        ("part=1&file_id=%ff", "file_id"),
    ] {
        let got = http.get(&format!("{path}/edit?{query}")).await;
        assert_eq!(got.refusal(), (400, parameter.into()), "{query}");
        let patched = http
            .call("PATCH", &format!("{path}?{query}"), json!({}))
            .await;
        assert_eq!(patched.refusal(), (400, parameter.into()), "{query}");
    }
    assert_eq!(
        http.get(&format!("{path}/edit")).await.refusal(),
        (400, "part".into())
    );
    for (body, parameter) in [
        (json!({"part": 1}), "file_id"),
        (json!({"file_id": MD5}), "part"),
        (json!({"part": {}, "file_id": MD5}), "part"),
        (json!({"part_list": [3]}), "part"),
        (json!({"part_list": [0]}), "part_list"),
        (json!({"part_list": "x"}), "part_list"),
        (json!({"part_list": {"1": 1}}), "part_list"),
        (json!({"part_data": "x"}), "part_data"),
        (json!({"part_data": [{"md5": MD5}]}), "part_data"),
        (json!({"part_data": [{"part": 1, "md5": "x"}]}), "part_data"),
        (json!({"part_update": "later"}), "part_update"),
        (json!({"resumable_id": 5}), "resumable_id"),
    ] {
        let refused = http.call("PATCH", &path, body.clone()).await;
        assert_eq!(refused.refusal(), (400, parameter.into()), "{body}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_an_object_is_refused() {
    let gateway = TestGateway::start().await;
    let http = Http::of(&gateway);
    let path = two_parts(&http).await;
    for (method, path) in [("POST", ""), ("PATCH", path.as_str())] {
        for body in [&b"{"[..], b"[1]", b"\"text\"", b"5", b"a=b", b"\xff\xfe"] {
            let refused = answer(http.request(method, path).body(body.to_vec())).await;
            assert_eq!(refused.refusal(), (400, "body".into()), "{method} {body:?}");
        }
        let deep = "[".repeat(100_000);
        let refused = answer(http.request(method, path).body(deep)).await;
        assert_eq!(refused.status, 400);
        let large = format!("{{\"file_name\": \"{}\"}}", "a".repeat(3 << 20));
        let refused = answer(http.request(method, path).body(large)).await;
        assert_eq!((refused.status, refused.refusal().1), (413, String::new()));
    }
    // A body that the call does not use is not parsed.
    let ignored = answer(http.request("PUT", &path).body("{")).await;
    assert_eq!(ignored.status, 412);
}

#[tokio::test]
async fn unknown_parameters_are_ignored_and_any_content_type_is_accepted() {
    let gateway = TestGateway::start().await;
    let http = Http::of(&gateway);
    let mut body = file("a.bin", b"abc");
    body["expires"] = json!(5);
    body["surprise_too"] = json!({"a": [1]});
    body["object"] = json!(null);
    let request = http
        .request("POST", "?surprise=1&file_name=b.bin")
        .body(body.to_string());
    let created = answer(request.header("Content-Type", "text/plain; charset=latin1")).await;
    assert_eq!(created.status, 201);
    let records = http.get("").await.json();
    assert_eq!(records[0]["file_name"], "b.bin", "the query wins");
    let created = answer(http.request("POST", "?file_name=c.bin&file_size=3")).await;
    assert_eq!(created.status, 201, "no body is an empty one");
}

#[tokio::test]
async fn no_call_finds_an_unknown_upload() {
    let gateway = TestGateway::start().await;
    let http = Http::of(&gateway);
    let step = format!("part=1&file_id={MD5}");
    let names = [
        UNKNOWN,
        "x",
        "a%2Fb",
        "..%2F..",
        "%ff",
        "%00",
        "%zz",
        "uploads-%F0%9F%98%80",
    ];
    for id in names {
        for (method, path) in [
            ("PATCH", format!("/{id}?{step}")),
            ("PATCH", format!("/{id}?part_update=true")),
            ("PUT", format!("/{id}")),
            ("DELETE", format!("/{id}")),
            ("GET", format!("/{id}/edit?{step}")),
            ("GET", format!("/{id}/edit?part=finish")),
            ("GET", format!("/{id}/url")),
            ("GET", format!("/{id}/download")),
        ] {
            let refused = answer(http.request(method, &path)).await;
            assert_eq!(refused.status, 404, "{method} {path}");
            assert_eq!(
                refused.json()["reason"],
                "UPLOAD_NOT_FOUND",
                "{method} {path}"
            );
        }
    }
    let long = "x".repeat(10_000);
    let refused = http.call("PUT", &format!("/{long}"), json!({})).await;
    assert!(
        refused.status == 404 && refused.body.len() < 300,
        "{refused:?}"
    );
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_in_json() {
    let gateway = TestGateway::start().await;
    let http = Http::of(&gateway);
    for path in ["/", "/api", "/api/engine/v2", "/healthz/x"] {
        let refused = answer(http.request_at("GET", path)).await;
        assert_eq!(refused.refusal().0, 404, "{path}");
    }
    for path in ["/a/b", "/a/b/c", "/a/edit/b", "//"] {
        assert_eq!(http.get(path).await.refusal().0, 404, "{path}");
    }
    for (method, path, allowed) in [
        ("GET", "/x", vec!["PATCH", "PUT", "DELETE"]),
        ("DELETE", "", vec!["GET", "HEAD", "POST"]),
        ("POST", "/new", vec!["GET", "HEAD"]),
        ("OPTIONS", "", vec!["GET", "HEAD", "POST"]),
        ("TRACE", "/x/edit", vec!["GET", "HEAD"]),
    ] {
        let refused = answer(http.request(method, path)).await;
        assert_eq!(refused.refusal().0, 405, "{method} {path}");
        let mut methods: Vec<&str> = refused.header("allow").split(',').collect();
        let mut allowed = allowed;
        methods.sort_unstable();
        allowed.sort_unstable();
        assert_eq!(methods, allowed, "{method} {path}");
    }
    let head = answer(http.request("HEAD", "")).await;
    assert_eq!(
        (head.status, head.body.len(), head.header("x-total-count")),
        (200, 0, "0")
    );
    let slash = answer(http.request_at("GET", &format!("{BASE}/"))).await;
    assert_eq!(
        (slash.status, slash.json()),
        (200, Value::Array(Vec::new()))
    );
}

#[tokio::test]
async fn an_invalid_page_or_expiry_is_refused_and_its_parameter_named() {
    let gateway = TestGateway::start().await;
    let http = Http::of(&gateway);
    for (query, parameter) in [
        ("limit=0", "limit"),
        ("page_token=x", "page_token"),
        ("limit=-1", "limit"),
        ("limit=many", "limit"),
        ("offset=-1", "offset"),
        ("offset=10001", "offset"),
        ("offset=1e3", "offset"),
        ("offset=99999999999999999999", "offset"),
        ("tags=%ff", "tags"),
        ("file_search=%c3%28", "file_search"),
        ("phase=done", "phase"),
        ("created_after=yesterday", "created_after"),
        ("%ff=1", "query"),
    ] {
        let refused = http.get(&format!("?{query}")).await;
        assert_eq!(refused.refusal(), (400, parameter.into()), "{query}");
    }
    for expiry in ["0", "-5", "soon", ""] {
        let refused = http.get(&format!("/{UNKNOWN}/url?expiry={expiry}")).await;
        assert_eq!(refused.refusal(), (400, "expiry".into()), "{expiry}");
    }
}

#[tokio::test]
async fn a_refused_file_type_gets_the_list_of_accepted_ones() {
    let Some(azure) = azure().await else { return };
    let mut storage = azure.storage();
    storage.options.ext_filter = vec!["pdf".into(), "png".into()];
    let gateway = TestGateway::with(|config| config.storage = vec![storage]).await;
    let refused = Http::of(&gateway)
        .call("POST", "", file("a.exe", b"abc"))
        .await;
    assert_eq!(refused.refusal(), (400, "file_name".into()));
    assert_eq!(refused.json()["error"], "File extension not allowed");
    assert_eq!(refused.json()["restriction"], "pdf,png");
}
