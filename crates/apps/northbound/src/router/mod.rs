//! The operator API as an HTTP service, without TLS.
//!
//! | method and path | answer |
//! |---|---|
//! | `GET /v1/status` | [`crate::Status`] |
//! | `GET /v1/pools` | list of pools |
//! | `GET /v1/pools/{handle}` | the pool, as JSON or (`Accept: application/toml`) as a pool file |
//! | `PUT /v1/pools/{handle}` | creates or changes it; body JSON or `application/toml` |
//! | `DELETE /v1/pools/{handle}` | deletes it |
//! | `POST /v1/pools/{handle}/switchover` | [`crate::SwitchoverDone`] |
//! | `POST /v1/pools/{handle}/fence` | nothing |
//! | `POST /v1/pools/{handle}/pardon` | nothing |
//! | `POST /v1/tokens` | [`crate::Token`] |
//! | `GET /v1/events?after=N&pool=H` | server-sent events, each a [`crate::Event`] |
//! | `GET /v1/audit?lines=N` | list of [`crate::AuditEntry`] |

mod extract;
mod handlers;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use vnfpool_transport::Identity;

use crate::operations::Operations;
use crate::problem::{Code, Problem};

/// The service. Each request must carry the caller's [`Identity`] as an extension; without one, or
/// with another role than operator, it is refused.
pub fn router<O: Operations>(operations: Arc<O>) -> Router {
    let quick = Router::new()
        .route("/v1/status", get(handlers::status::<O>))
        .route("/v1/pools", get(handlers::list_pools::<O>))
        .route(
            "/v1/pools/{handle}",
            get(handlers::show_pool::<O>)
                .put(handlers::apply_pool::<O>)
                .delete(handlers::delete_pool::<O>),
        )
        .route(
            "/v1/pools/{handle}/switchover",
            post(handlers::switchover::<O>),
        )
        .route("/v1/pools/{handle}/fence", post(handlers::fence::<O>))
        .route("/v1/pools/{handle}/pardon", post(handlers::pardon::<O>))
        .route("/v1/tokens", post(handlers::create_token::<O>))
        .route("/v1/audit", get(handlers::audit::<O>))
        .layer(middleware::from_fn(bound_in_time));
    Router::new()
        .merge(quick)
        .route("/v1/events", get(handlers::events::<O>))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(authorise))
        .with_state(operations)
}

/// Lets operators in and nobody else: the role comes from the certificate.
async fn authorise(request: Request, next: Next) -> Response {
    match request.extensions().get::<Identity>() {
        Some(Identity::Operator { .. }) => next.run(request).await,
        Some(other) => {
            let detail = format!("{other} is no operator, and this is the operators' API");
            Problem::new(Code::RoleNotPermitted, detail).into_response()
        }
        None => Problem::new(Code::RoleNotPermitted, "the caller is not known").into_response(),
    }
}

/// Ends a request that takes too long, the reading of its body included. A switchover has a
/// bound of its own below this one.
async fn bound_in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIME_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("no answer within {} s", REQUEST_TIME_MAX.as_secs());
            Problem::new(Code::Timeout, detail).into_response()
        }
    }
}

async fn not_found(request: Request) -> Problem {
    let path: String = request.uri().path().chars().take(PATH_QUOTED_MAX).collect();
    Problem::new(Code::NotFound, format!("there is nothing at {path}"))
}

async fn method_not_allowed(request: Request) -> Problem {
    let detail = format!("{} is not known at this path", request.method());
    Problem::new(Code::MethodNotAllowed, detail)
}

/// The largest request: a pool with a thousand slots fits.
const BODY_BYTES_MAX: usize = 256 * 1024;
const REQUEST_TIME_MAX: Duration = Duration::from_secs(15);
const PATH_QUOTED_MAX: usize = 100;
