//! Who was turned away, why, and how often.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// At most one log line per reason in this time: hostile traffic must not fill the disk.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

macro_rules! rejections {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal, $label:literal, $text:literal;)+) => {
        /// Why a peer was turned away. The number is the application's close code on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Rejection {
            $($(#[doc = $doc])+ $variant = $code,)+
        }

        impl Rejection {
            /// Every reason there is, in the order of [`RejectionCounters::snapshot`].
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The reason as a metric label.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// The close code that tells the peer the reason.
            #[must_use]
            pub fn code(self) -> u32 {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The reason that a close code stands for.
            #[must_use]
            pub fn from_code(code: u64) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for Rejection {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)+ })
            }
        }
    };
}

rejections! {
    /// The certificate is not signed by the authority of this trust domain.
    UnknownAuthority = 0x101, "unknown_authority", "the certificate comes from another authority";
    /// The certificate is outside its time of validity.
    Expired = 0x102, "expired", "the certificate is outside its time of validity (check the clock, or enrol again)";
    /// A certificate is needed and none was shown.
    NoCertificate = 0x103, "no_certificate", "no certificate was shown";
    /// The certificate or the identity in it does not parse, or may not be used for this.
    BadCertificate = 0x104, "bad_certificate", "the certificate is damaged or names no identity of a pool";
    /// The identity is of another trust domain.
    WrongTrustDomain = 0x105, "wrong_trust_domain", "the identity is of another trust domain";
    /// The role is not served here.
    WrongRole = 0x106, "wrong_role", "this role is not accepted here";
    /// The element is of another pool.
    WrongPool = 0x107, "wrong_pool", "the element is of another pool";
    /// The identity is not the one that was called.
    WrongPeer = 0x108, "wrong_peer", "another identity answered than the one called";
    /// No protocol version in common.
    Protocol = 0x109, "protocol", "no protocol version in common (upgrade the older side)";
    /// Too many connections or handshakes at once.
    Busy = 0x10a, "busy", "too many connections or handshakes at once";
    /// The handshake or the enrolment took too long.
    Timeout = 0x10b, "timeout", "the handshake took too long";
    /// The handshake broke off in another way.
    Handshake = 0x10c, "handshake", "the handshake failed";
    /// The enrolment token is not known, used up, expired or forged.
    Token = 0x10d, "token", "the enrolment token is not accepted";
    /// The authority pinned in the token is not the one that answered.
    WrongPin = 0x10e, "wrong_pin", "the authority that answered is not the one named in the token";
}

impl std::error::Error for Rejection {}

impl Rejection {
    /// Translates a TLS alert (RFC 8446 §6) into a reason.
    pub(crate) fn from_alert(alert: u8) -> Self {
        match alert {
            48 => Self::UnknownAuthority,
            45 => Self::Expired,
            116 => Self::NoCertificate,
            // bad_certificate, unsupported_, revoked, unknown, decode_error, decrypt_error.
            42 | 43 | 44 | 46 | 50 | 51 => Self::BadCertificate,
            // Raised only by our own verifier, when the identity is not the one expected.
            49 => Self::WrongPeer,
            // protocol_version, no_application_protocol.
            70 | 120 => Self::Protocol,
            _ => Self::Handshake,
        }
    }
}

/// Counts and logs rejections. One per process is enough; every part can share it.
#[derive(Debug)]
pub struct RejectionCounters {
    counts: Vec<AtomicU64>,
    logged: Mutex<Vec<Option<Instant>>>,
}

impl Default for RejectionCounters {
    fn default() -> Self {
        Self {
            counts: Rejection::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            logged: Mutex::new(vec![None; Rejection::ALL.len()]),
        }
    }
}

impl RejectionCounters {
    /// Counts one rejection and logs it, at most once a second per reason.
    pub fn record(&self, reason: Rejection, from: Option<SocketAddr>, detail: &str) {
        let Some(index) = Rejection::ALL.iter().position(|r| *r == reason) else {
            return;
        };
        let total = self.counts[index].fetch_add(1, Ordering::Relaxed) + 1;
        if self.log_is_due(index) {
            tracing::warn!(
                reason = reason.label(),
                total,
                from = from.map(tracing::field::display),
                detail,
                "turned a peer away: {reason}"
            );
        }
    }

    /// How often `reason` occurred.
    #[must_use]
    pub fn count(&self, reason: Rejection) -> u64 {
        Rejection::ALL
            .iter()
            .position(|r| *r == reason)
            .map_or(0, |index| self.counts[index].load(Ordering::Relaxed))
    }

    /// All counts, for the metrics.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(Rejection, u64)> {
        Rejection::ALL
            .iter()
            .map(|reason| (*reason, self.count(*reason)))
            .collect()
    }

    /// The sum of all counts.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|c| c.load(Ordering::Relaxed)).sum()
    }

    fn log_is_due(&self, index: usize) -> bool {
        let now = Instant::now();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let due = logged[index].is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL);
        if due {
            logged[index] = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_round_trip() {
        for reason in Rejection::ALL {
            assert_eq!(
                Rejection::from_code(u64::from(reason.code())),
                Some(*reason)
            );
        }
        assert_eq!(Rejection::from_code(0), None);
    }

    #[test]
    fn each_reason_has_its_own_count() {
        let counters = RejectionCounters::default();
        counters.record(Rejection::Expired, None, "");
        counters.record(Rejection::Expired, None, "");
        counters.record(Rejection::Busy, None, "");
        assert_eq!(counters.count(Rejection::Expired), 2);
        assert_eq!(counters.count(Rejection::Busy), 1);
        assert_eq!(counters.count(Rejection::Token), 0);
        assert_eq!(counters.total(), 3);
    }
}
