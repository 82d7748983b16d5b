//! The operator API without TLS: paths, refusals, bounds.

#![allow(clippy::unwrap_used, reason = "a failing test is what unwrap says")]

mod support;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use support::{Fake, POOL, identity, pool};
use tower::ServiceExt;
use vnfpool_config::PoolFile;
use vnfpool_northbound::router;

struct Door {
    fake: Arc<Fake>,
    router: Router,
}

impl Door {
    fn new() -> Self {
        let fake = Arc::new(Fake::default());
        let router = router(Arc::clone(&fake));
        Self { fake, router }
    }

    async fn ask(&self, request: Request<Body>) -> (StatusCode, String) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn json(&self, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = operator(method, path)
            .body(Body::from(body.to_string()))
            .unwrap();
        let (status, text) = self.ask(request).await;
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    /// Status and code of a refusal.
    async fn refused(&self, method: &str, path: &str, body: &Value) -> (u16, String) {
        let (status, problem) = self.json(method, path, body).await;
        (
            status.as_u16(),
            problem["code"].as_str().unwrap_or("none").to_owned(),
        )
    }

    async fn put_toml(&self, path: &str, text: &str) -> (StatusCode, Value) {
        let request = operator("PUT", path)
            .header(header::CONTENT_TYPE, "application/toml")
            .body(Body::from(text.to_owned()))
            .unwrap();
        let (status, text) = self.ask(request).await;
        (status, serde_json::from_str(&text).unwrap())
    }
}

fn operator(method: &str, path: &str) -> axum::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .extension(identity("operator/alice"))
}

fn refusal(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn only_operators_are_let_in() {
    let door = Door::new();
    for path in ["manager/m1", "sce/s", "pool/edge/element/gw1"] {
        let request = Request::get("/v1/status").extension(identity(path));
        let (status, body) = door.ask(request.body(Body::empty()).unwrap()).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
        assert!(body.contains("role-not-permitted"), "{body}");
    }
    let (status, _) = door
        .ask(Request::get("/v1/status").body(Body::empty()).unwrap())
        .await;
    assert_eq!(status, StatusCode::FORBIDDEN, "nobody");
    let (status, body) = door.json("GET", "/v1/status", &Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["manager"]["store"], "ok");
}

#[tokio::test]
async fn a_pool_is_created_changed_shown_and_deleted() {
    let door = Door::new();
    let (status, applied) = door.put_toml("/v1/pools/edge", POOL).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(
        applied,
        json!({"handle": "edge", "created": true, "changed": true})
    );
    let (status, applied) = door
        .json(
            "PUT",
            "/v1/pools/edge",
            &serde_json::to_value(pool()).unwrap(),
        )
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(applied["changed"], false, "JSON and TOML are the same pool");
    let (_, list) = door.json("GET", "/v1/pools", &Value::Null).await;
    assert_eq!(list[0]["handle"], "edge");
    let request = operator("GET", "/v1/pools/edge").header(header::ACCEPT, "application/toml");
    let (_, text) = door.ask(request.body(Body::empty()).unwrap()).await;
    assert_eq!(PoolFile::parse(&text, "x").unwrap(), pool());
    let (status, _) = door.json("DELETE", "/v1/pools/edge", &Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(
        door.refused("GET", "/v1/pools/edge", &Value::Null).await,
        refusal(404, "pool-unknown")
    );
    let journal = door.fake.journal.lock().unwrap().clone();
    let expected = [
        "operator/alice apply edge",
        "operator/alice apply edge",
        "operator/alice delete edge",
    ];
    assert_eq!(journal, expected);
}

#[tokio::test]
async fn a_wrong_pool_is_refused_with_all_its_errors() {
    let door = Door::new();
    let text = POOL
        .replace("vrid = 11", "vrid = 0")
        .replace("profile", "profil");
    let (status, problem) = door.put_toml("/v1/pools/edge", &text).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(problem["type"], "urn:vnfpool:problem:pool-invalid");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 3);
    assert_eq!(problem["errors"][0]["place"], "pool.toml:10:1");
    let mut spec = serde_json::to_value(pool()).unwrap();
    spec["timing"]["lease_ms"] = json!(1);
    let (_, problem) = door.json("PUT", "/v1/pools/edge", &spec).await;
    assert_eq!(problem["errors"][0]["place"], "pool.lease_ms");
    assert!(door.fake.pools.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_two_pools_share_is_refused() {
    let door = Door::new();
    door.put_toml("/v1/pools/edge", POOL).await;
    let other = POOL.replace("\"edge\"", "\"other\"");
    let (status, problem) = door.put_toml("/v1/pools/other", &other).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(problem["code"], "pool-overlap");
    assert_eq!(
        problem["detail"],
        "pool 'other' was not applied: 6 of its addresses and virtual routers belong to other pools"
    );
    assert_eq!(
        problem["errors"][0]["message"],
        "address 10.1.0.254 is already used by pool 'edge', slot 'main'"
    );
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let door = Door::new();
    let none = Value::Null;
    let invalid = refusal(400, "invalid-request");
    assert_eq!(door.refused("GET", "/v1/pools/NO", &none).await, invalid);
    assert_eq!(
        door.refused("GET", "/v1/audit?lines=x", &none).await,
        invalid
    );
    assert_eq!(
        door.refused("POST", "/v1/tokens", &json!({"pool": "edge"}))
            .await,
        invalid
    );
    assert_eq!(
        door.refused("PUT", "/v1/pools/edge", &json!([1])).await,
        invalid
    );
    assert_eq!(
        door.refused("GET", "/v1/nothing", &none).await,
        refusal(404, "not-found")
    );
    assert_eq!(
        door.refused("POST", "/v1/status", &none).await,
        refusal(405, "method-not-allowed")
    );
    let other = serde_json::to_value(pool()).unwrap();
    assert_eq!(
        door.refused("PUT", "/v1/pools/other", &other).await,
        invalid
    );
    let token = |ttl_s: u64| json!({"pool": "edge", "element": "gw1", "ttl_s": ttl_s});
    assert_eq!(door.refused("POST", "/v1/tokens", &token(0)).await, invalid);
    assert_eq!(
        door.refused("POST", "/v1/tokens", &token(u64::MAX)).await,
        invalid
    );
    let fence = json!({"element": "gw1", "it_is_off": false});
    assert_eq!(
        door.refused("POST", "/v1/pools/edge/fence", &fence).await,
        invalid
    );
    let large = Value::String("x".repeat(300 * 1024));
    assert_eq!(
        door.refused("POST", "/v1/tokens", &large).await,
        refusal(413, "too-large")
    );
}

#[tokio::test(start_paused = true)]
async fn a_switchover_is_bounded_in_time() {
    let door = Door::new();
    door.put_toml("/v1/pools/edge", POOL).await;
    let path = "/v1/pools/edge/switchover";
    let (status, done) = door.json("POST", path, &json!({"to": "gw2"})).await;
    assert_eq!((status, &done["active"]), (StatusCode::OK, &json!("gw2")));
    let (_, refused) = door.json("POST", path, &json!({})).await;
    assert_eq!(refused["code"], "not-armed");
    let (status, late) = door.json("POST", path, &json!({"to": "never"})).await;
    assert_eq!(
        (status, &late["code"]),
        (StatusCode::GATEWAY_TIMEOUT, &json!("timeout"))
    );
}

#[tokio::test]
async fn events_go_on_where_the_reader_stopped() {
    let door = Door::new();
    let ids = |text: &str| -> Vec<String> {
        text.lines()
            .filter_map(|line| line.strip_prefix("id: "))
            .map(str::to_owned)
            .collect()
    };
    let ask = |path: &str| operator("GET", path).body(Body::empty()).unwrap();
    let (_, text) = door.ask(ask("/v1/events?after=0")).await;
    assert_eq!(ids(&text), ["1", "2", "3"]);
    assert!(text.contains("event: takeover\n"), "{text}");
    let (_, text) = door.ask(ask("/v1/events?after=0&pool=edge")).await;
    assert_eq!(ids(&text), ["1", "3"]);
    let request = operator("GET", "/v1/events?after=0").header("last-event-id", "2");
    let (_, text) = door.ask(request.body(Body::empty()).unwrap()).await;
    assert_eq!(ids(&text), ["3"], "what a browser sends counts more");
}
