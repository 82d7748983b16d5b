//! Refusals, as RFC 9457 problem details with stable codes.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use vnfpool_config::{Conflict, Diagnostics, Finding};
use vnfpool_model::PoolHandle;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident $word:literal $status:literal $title:literal;)+) => {
        /// The stable code of a refusal. This is the one table of them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)+
            /// A code of a newer manager.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl Code {
            /// All codes that a manager of this version uses.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The code as it is sent.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Unknown => "unknown",
                }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self {
                    $(Self::$variant => $status,)+
                    Self::Unknown => 500,
                }
            }

            /// The same for every refusal of this code.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$variant => $title,)+
                    Self::Unknown => "unknown problem",
                }
            }
        }
    };
}

codes! {
    /// The request is not well-formed.
    InvalidRequest "invalid-request" 400 "the request is not well-formed";
    /// The caller's role may not do this.
    RoleNotPermitted "role-not-permitted" 403 "the caller's role does not permit this";
    /// No such path.
    NotFound "not-found" 404 "there is nothing at this path";
    /// No such pool.
    PoolUnknown "pool-unknown" 404 "there is no such pool";
    /// No such slot.
    SlotUnknown "slot-unknown" 404 "the pool has no such slot";
    /// No such element.
    ElementUnknown "element-unknown" 404 "the pool has no such element";
    /// The path is there, the method is not.
    MethodNotAllowed "method-not-allowed" 405 "this path does not know this method";
    /// Another pool has an address or a virtual router of this one.
    PoolOverlap "pool-overlap" 409 "another pool uses the same address or virtual router";
    /// The change is not possible while the pool is as it is.
    PoolBusy "pool-busy" 409 "the pool cannot be changed in this way now";
    /// Nobody is armed to take over.
    NotArmed "not-armed" 409 "no standby is armed";
    /// The wanted element is not the armed standby.
    NotStandby "not-standby" 409 "the element is not the armed standby";
    /// The wanted element serves already.
    AlreadyActive "already-active" 409 "the element serves already";
    /// Active or standby refused to switch over.
    SwitchoverRefused "switchover-refused" 409 "the switchover was refused";
    /// The element that was declared dead speaks.
    ElementAlive "element-alive" 409 "the element is alive";
    /// The request is too large.
    TooLarge "too-large" 413 "the request is too large";
    /// The pool is contradictory.
    PoolInvalid "pool-invalid" 422 "the description of the pool is not valid";
    /// A bug, or something nobody foresaw.
    Internal "internal" 500 "the manager failed";
    /// The disk refuses writes; what was promised is kept.
    StoreUnavailable "store-unavailable" 503 "the store refuses changes";
    /// Too much at once.
    Busy "busy" 503 "the manager is busy";
    /// Not done in time; it may still be done later.
    Timeout "timeout" 504 "it was not done in time";
}

/// One error of many, with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// `file:line:column` or the path of a key; empty when it is about the whole.
    pub place: String,
    /// What is wrong and what was expected.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// A refusal. As an error its text is the detail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// `urn:vnfpool:problem:` and the code.
    #[serde(rename = "type", default)]
    kind: String,
    /// The same for every refusal of this code.
    #[serde(default)]
    title: String,
    /// The HTTP status.
    #[serde(default)]
    status: u16,
    /// The stable code.
    pub code: Code,
    /// What was refused, why, and what to do.
    pub detail: String,
    /// All errors, where there can be several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
}

impl Problem {
    /// A refusal; `detail` says what was refused, why, and what to do.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:vnfpool:problem:{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// A pool file that does not parse or is contradictory.
    #[must_use]
    pub fn from_diagnostics(diagnostics: &Diagnostics) -> Self {
        let fault = |diagnostic: &vnfpool_config::Diagnostic| Fault {
            place: format!(
                "{}:{}:{}",
                diagnostic.file, diagnostic.line, diagnostic.column
            ),
            message: diagnostic.message.clone(),
            help: diagnostic.help.clone(),
        };
        Self::invalid_pool(diagnostics.as_slice().iter().map(fault).collect())
    }

    /// A pool that is contradictory.
    #[must_use]
    pub fn from_findings(findings: Vec<Finding>) -> Self {
        let fault = |finding: Finding| Fault {
            place: finding.path,
            message: finding.message,
            help: finding.help,
        };
        Self::invalid_pool(findings.into_iter().map(fault).collect())
    }

    /// Pool `handle` takes what another one has; none if there is no conflict.
    #[must_use]
    pub fn from_conflicts(handle: &PoolHandle, conflicts: &[Conflict]) -> Option<Self> {
        let why = match conflicts {
            [] => return None,
            [only] => only.to_string(),
            more => format!(
                "{} of its addresses and virtual routers belong to other pools",
                more.len()
            ),
        };
        let detail = format!("pool '{handle}' was not applied: {why}");
        let mut problem = Self::new(Code::PoolOverlap, detail);
        let fault = |conflict: &Conflict| Fault {
            place: String::new(),
            message: conflict.to_string(),
            help: None,
        };
        problem.errors = conflicts.iter().map(fault).collect();
        Some(problem)
    }

    fn invalid_pool(errors: Vec<Fault>) -> Self {
        let detail = match errors.as_slice() {
            [only] => only.message.clone(),
            more => format!("the pool has {} errors", more.len()),
        };
        let mut problem = Self::new(Code::PoolInvalid, detail);
        problem.errors = errors;
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // A struct of texts and numbers always becomes JSON.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let media_type = HeaderValue::from_static("application/problem+json");
        (status, [(header::CONTENT_TYPE, media_type)], body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_distinct_and_read_back() {
        let words: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!((400..600).contains(&code.status()), "{code:?}");
            let json = serde_json::to_string(&Problem::new(*code, "why")).unwrap();
            let back: Problem = serde_json::from_str(&json).unwrap();
            assert_eq!(back, Problem::new(*code, "why"));
        }
    }

    #[test]
    fn a_code_of_a_newer_manager_is_understood_as_unknown() {
        let json = r#"{"type":"x","code":"from-the-future","detail":"why"}"#;
        let problem: Problem = serde_json::from_str(json).unwrap();
        assert_eq!(problem.code, Code::Unknown);
    }
}
