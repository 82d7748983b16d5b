//! One function per path and method.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use serde::Deserialize;
use vnfpool_config::PoolFile;
use vnfpool_model::{PoolHandle, PoolSpec};

use super::extract::{Body, Caller, Handle, Parameters, PoolBody, TOML};
use crate::api::{
    Applied, AuditEntry, Event, FenceRequest, PardonRequest, Status, SwitchoverDone,
    SwitchoverRequest, Token, TokenRequest,
};
use crate::operations::Operations;
use crate::problem::{Code, Problem};

type Answer<T> = Result<Json<T>, Problem>;

pub(super) async fn status<O: Operations>(State(operations): State<Arc<O>>) -> Answer<Status> {
    operations.status().await.map(Json)
}

pub(super) async fn list_pools<O: Operations>(
    State(operations): State<Arc<O>>,
) -> Answer<Vec<PoolSpec>> {
    operations.pools().await.map(Json)
}

pub(super) async fn show_pool<O: Operations>(
    State(operations): State<Arc<O>>,
    Handle(handle): Handle,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let pools = operations.pools().await?;
    let pool = pools.into_iter().find(|pool| pool.handle == handle);
    let pool = pool
        .ok_or_else(|| Problem::new(Code::PoolUnknown, format!("there is no pool '{handle}'")))?;
    let accept = headers.get(header::ACCEPT);
    if accept.is_some_and(|value| value.as_bytes().starts_with(TOML)) {
        let media_type = [(header::CONTENT_TYPE, "application/toml; charset=utf-8")];
        return Ok((media_type, PoolFile::render(&pool)).into_response());
    }
    Ok(Json(pool).into_response())
}

pub(super) async fn apply_pool<O: Operations>(
    State(operations): State<Arc<O>>,
    Handle(handle): Handle,
    Caller(by): Caller,
    PoolBody(spec): PoolBody,
) -> Result<(StatusCode, Json<Applied>), Problem> {
    if spec.handle != handle {
        let detail = format!(
            "the path names pool '{handle}', the body pool '{}'",
            spec.handle
        );
        return Err(Problem::new(Code::InvalidRequest, detail));
    }
    let applied = operations.apply_pool(spec, &by).await?;
    let status = if applied.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(applied)))
}

pub(super) async fn delete_pool<O: Operations>(
    State(operations): State<Arc<O>>,
    Handle(handle): Handle,
    Caller(by): Caller,
) -> Result<StatusCode, Problem> {
    operations.delete_pool(&handle, &by).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn switchover<O: Operations>(
    State(operations): State<Arc<O>>,
    Handle(handle): Handle,
    Caller(by): Caller,
    Body(request): Body<SwitchoverRequest>,
) -> Answer<SwitchoverDone> {
    let done = operations.switchover(&handle, request, &by);
    match tokio::time::timeout(SWITCHOVER_TIME_MAX, done).await {
        Ok(done) => done.map(Json),
        Err(_) => {
            let seconds = SWITCHOVER_TIME_MAX.as_secs();
            let detail = format!(
                "the switchover of pool '{handle}' was not done within {seconds} s; it may still \
                 happen: see `vnfpool status`"
            );
            Err(Problem::new(Code::Timeout, detail))
        }
    }
}

pub(super) async fn fence<O: Operations>(
    State(operations): State<Arc<O>>,
    Handle(handle): Handle,
    Caller(by): Caller,
    Body(request): Body<FenceRequest>,
) -> Result<StatusCode, Problem> {
    if !request.it_is_off {
        let detail = "an element is declared dead only with it_is_off = true: if it is alive, two \
                      elements may serve the same address";
        return Err(Problem::new(Code::InvalidRequest, detail));
    }
    operations.fence(&handle, request, &by).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn pardon<O: Operations>(
    State(operations): State<Arc<O>>,
    Handle(handle): Handle,
    Caller(by): Caller,
    Body(request): Body<PardonRequest>,
) -> Result<StatusCode, Problem> {
    operations.pardon(&handle, request, &by).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn create_token<O: Operations>(
    State(operations): State<Arc<O>>,
    Caller(by): Caller,
    Body(request): Body<TokenRequest>,
) -> Answer<Token> {
    if !(1..=TOKEN_TTL_S_MAX).contains(&request.ttl_s) {
        let detail = format!(
            "ttl_s: expected 1 to {TOKEN_TTL_S_MAX} s, found {}",
            request.ttl_s
        );
        return Err(Problem::new(Code::InvalidRequest, detail));
    }
    operations.create_token(request, &by).await.map(Json)
}

#[derive(Deserialize)]
pub(super) struct AuditParameters {
    #[serde(default = "audit_lines_default")]
    lines: usize,
}

pub(super) async fn audit<O: Operations>(
    State(operations): State<Arc<O>>,
    Parameters(parameters): Parameters<AuditParameters>,
) -> Answer<Vec<AuditEntry>> {
    let lines = parameters.lines.min(AUDIT_LINES_MAX);
    operations.audit(lines).await.map(Json)
}

#[derive(Deserialize)]
pub(super) struct EventParameters {
    after: Option<u64>,
    pool: Option<PoolHandle>,
}

pub(super) async fn events<O: Operations>(
    State(operations): State<Arc<O>>,
    Parameters(parameters): Parameters<EventParameters>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    // What a browser sends when it connects again.
    let last = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let after = last.or(parameters.after);
    let events = operations.events(after).await?;
    let wanted = parameters.pool;
    let events = events.filter_map(move |event| {
        let is_wanted = wanted.is_none() || event.pool == wanted;
        std::future::ready(is_wanted.then(|| sse_event(&event)).flatten().map(Ok))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_INTERVAL)))
}

fn sse_event(event: &Event) -> Option<sse::Event> {
    // The library refuses line ends in these fields by a panic; the number has none, the JSON
    // writer escapes them, and the kind is ours but checked all the same.
    let kind = event.kind.replace(['\n', '\r'], " ");
    let data = serde_json::to_string(event).ok()?;
    Some(
        sse::Event::default()
            .id(event.sequence.to_string())
            .event(kind)
            .data(data),
    )
}

const fn audit_lines_default() -> usize {
    50
}

/// An audit log keeps ten thousand entries; a request gets a bounded part of it.
const AUDIT_LINES_MAX: usize = 10_000;
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const SWITCHOVER_TIME_MAX: Duration = Duration::from_secs(10);
const TOKEN_TTL_S_MAX: u64 = 30 * 86_400;
