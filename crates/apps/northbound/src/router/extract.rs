//! Parts of a request, refused as problems.

use std::fmt::Display;

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use vnfpool_config::{PoolFile, check_pool};
use vnfpool_model::{PoolHandle, PoolSpec};
use vnfpool_transport::Identity;

use crate::problem::{Code, Problem};

/// The operator who asks. The router has checked the role.
pub(super) struct Caller(pub(super) Identity);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let identity = parts.extensions.get::<Identity>().cloned();
        identity
            .map(Self)
            .ok_or_else(|| Problem::new(Code::RoleNotPermitted, "the caller is not known"))
    }
}

/// The handle in the path.
pub(super) struct Handle(pub(super) PoolHandle);

impl<S: Send + Sync> FromRequestParts<S> for Handle {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) = path.map_err(invalid)?;
        PoolHandle::new(text).map(Self).map_err(invalid)
    }
}

/// The query part of the URI.
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(value)| Self(value)).map_err(invalid)
    }
}

/// A body in JSON; an empty one counts as `{}`.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = read_body(request, state).await?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(text).map(Self).map_err(invalid)
    }
}

/// A pool, in JSON or as a pool file; valid in itself.
pub(super) struct PoolBody(pub(super) PoolSpec);

impl<S: Send + Sync> FromRequest<S> for PoolBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let is_toml = content_type.is_some_and(|value| value.as_bytes().starts_with(TOML));
        let bytes = read_body(request, state).await?;
        if is_toml {
            let text = std::str::from_utf8(&bytes).map_err(invalid)?;
            let spec = PoolFile::parse(text, "pool.toml");
            return spec
                .map(Self)
                .map_err(|errors| Problem::from_diagnostics(&errors));
        }
        let spec: PoolSpec = serde_json::from_slice(&bytes).map_err(invalid)?;
        match check_pool(&spec) {
            findings if findings.is_empty() => Ok(Self(spec)),
            findings => Err(Problem::from_findings(findings)),
        }
    }
}

pub(super) const TOML: &[u8] = b"application/toml";

async fn read_body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    let bytes = Bytes::from_request(request, state).await;
    bytes.map_err(|rejection: BytesRejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let detail = format!("a request has at most {} bytes", super::BODY_BYTES_MAX);
            Problem::new(Code::TooLarge, detail)
        } else {
            invalid(rejection)
        }
    })
}

fn invalid(error: impl Display) -> Problem {
    Problem::new(Code::InvalidRequest, error.to_string())
}
