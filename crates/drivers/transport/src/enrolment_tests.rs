//! Joining from token to mutually authenticated connection, over loopback.

use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::policy::PeerPolicy;
use crate::quic::{Acceptance, Arrival, EndpointOptions, Listener};
use crate::rejection::Rejection;
use crate::testing::{Domain, endpoint};
use crate::token::TokenRecord;

struct Manager {
    listener: Listener,
    counters: Arc<RejectionCounters>,
    address: SocketAddr,
}

fn manager(domain: &Domain) -> Manager {
    let (endpoint, counters, address) =
        endpoint(&domain.member("manager/m1"), EndpointOptions::default());
    let acceptance = Acceptance {
        members: PeerPolicy::Members,
        enrolment: true,
    };
    Manager {
        listener: Listener::start(&[endpoint], acceptance).unwrap(),
        counters,
        address,
    }
}

fn token(domain: &Domain, address: SocketAddr) -> (Token, TokenRecord) {
    Token::create(
        "edge".parse().unwrap(),
        "gw1".parse().unwrap(),
        domain.authority.fingerprint(),
        &[address],
        1_000,
    )
    .unwrap()
}

impl Manager {
    /// What the daemon does with one joiner, the record standing for its store.
    async fn serve_one(&mut self, domain: &Domain, record: &mut TokenRecord, now_ms: u64) {
        let Some(Arrival::Joiner(enrolment)) = self.listener.accept().await else {
            panic!("expected a joiner");
        };
        let (request, answer) = enrolment.request().await.unwrap();
        if request.token != record.id {
            answer.refuse(TokenRefusal::Unknown).await.unwrap();
            return;
        }
        match record.redeem(&request.secret, request.key, now_ms) {
            Ok(()) => {
                let identity = Identity::Element {
                    pool: record.pool.clone(),
                    element: record.element.clone(),
                };
                answer
                    .grant(&domain.authority, &request, &identity, Validity::standard())
                    .await
                    .unwrap();
            }
            Err(refusal) => answer.refuse(refusal).await.unwrap(),
        }
    }
}

/// Goal: token, request, certificate, then a connection as the element that the token named. The
/// token is good for nobody else afterwards.
#[tokio::test]
async fn a_token_becomes_a_member_once() {
    let domain = Domain::new();
    let mut manager = manager(&domain);
    let (token, mut record) = token(&domain, manager.address);
    let token: Token = token.to_string().parse().unwrap();
    let address = token.managers()[0];
    let dir = domain.path("joined");
    let joining = join(address, &token, &dir);
    let (credentials, ()) = tokio::join!(joining, manager.serve_one(&domain, &mut record, 1));
    let credentials = credentials.unwrap();
    assert_eq!(credentials.identity().to_string(), "pool/edge/element/gw1");

    let (endpoint, _, _) = endpoint(&credentials, EndpointOptions::default());
    let calling = endpoint.connect(address, PeerPolicy::Manager);
    let (ours, arrival) = tokio::join!(calling, manager.listener.accept());
    ours.unwrap();
    let Some(Arrival::Member(theirs)) = arrival else {
        panic!("expected a member");
    };
    assert_eq!(theirs.peer(), credentials.identity());

    let used = record.clone();
    let other = domain.path("thief");
    let joining = join(address, &token, &other);
    let (refused, ()) = tokio::join!(joining, manager.serve_one(&domain, &mut record, 2));
    assert!(
        matches!(refused, Err(EnrolError::Refused { .. })),
        "{refused:?}"
    );
    assert_eq!(record, used);
    assert_eq!(manager.counters.count(Rejection::Token), 1);
    assert!(!other.join(crate::pki::CERTIFICATE_FILE).exists());
}

/// Goal: a join whose answer was lost goes on with the same key and token.
#[tokio::test]
async fn a_lost_answer_can_be_asked_for_again() {
    let domain = Domain::new();
    let mut manager = manager(&domain);
    let (token, mut record) = token(&domain, manager.address);
    let dir = domain.path("joined");
    let address = manager.address;
    let losing = async {
        let Some(Arrival::Joiner(enrolment)) = manager.listener.accept().await else {
            panic!("expected a joiner");
        };
        let (request, answer) = enrolment.request().await.unwrap();
        record.redeem(&request.secret, request.key, 1).unwrap();
        // The manager dies between the store and the answer.
        drop(answer);
    };
    let (lost, ()) = tokio::join!(join(address, &token, &dir), losing);
    assert!(matches!(lost, Err(EnrolError::Frame(_))), "{lost:?}");
    let joining = join(address, &token, &dir);
    let (credentials, ()) = tokio::join!(joining, manager.serve_one(&domain, &mut record, 2));
    credentials.unwrap();
    let again = join(address, &token, &dir).await;
    assert!(
        matches!(again, Err(EnrolError::Pki(PkiError::Exists { .. }))),
        "{again:?}"
    );
}

#[tokio::test]
async fn expired_unknown_and_forged_tokens_are_refused_alike() {
    let domain = Domain::new();
    let mut manager = manager(&domain);
    let (good, record) = token(&domain, manager.address);
    let (unknown, _) = token(&domain, manager.address);
    let mut texts = Vec::new();
    let mut forged = good.clone();
    forged.forge_secret();
    for (token, now_ms) in [(&good, 1_000), (&unknown, 1), (&forged, 1)] {
        let dir = domain.path(&format!("try-{}", texts.len()));
        let mut changed = record.clone();
        let joining = join(manager.address, token, &dir);
        let serving = manager.serve_one(&domain, &mut changed, now_ms);
        let (refused, ()) = tokio::join!(joining, serving);
        texts.push(refused.unwrap_err().to_string());
        assert_eq!(changed, record);
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "the joiner must not learn which: {texts:?}");
    assert_eq!(manager.counters.count(Rejection::Token), 3);
}

/// Goal: the secret is not shown to anybody but a manager of the pinned authority.
#[tokio::test]
async fn an_impostor_never_sees_the_secret() {
    let domain = Domain::new();
    let impostor = Domain::new();
    let real = manager(&domain);
    let (token, _) = token(&domain, real.address);
    let elements = domain.member("pool/edge/element/gw9");
    let (element, _, element_address) = endpoint(&elements, EndpointOptions::default());
    let acceptance = Acceptance {
        members: PeerPolicy::Members,
        enrolment: true,
    };
    let _element = Listener::start(&[element], acceptance).unwrap();
    let fake = manager(&impostor);
    for (address, expected) in [
        (fake.address, Rejection::WrongPin),
        (element_address, Rejection::WrongRole),
    ] {
        let error = join(address, &token, &domain.path("victim"))
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                EnrolError::Connect(ConnectError::Peer { reason, .. }) if reason == expected
            ),
            "{error:?}"
        );
    }
}

/// Goal: a joiner that talks nonsense is counted and turned away; the next one is served.
#[tokio::test]
async fn nonsense_is_turned_away() {
    let domain = Domain::new();
    let mut manager = manager(&domain);
    let pin = domain.authority.fingerprint();
    let any = "127.0.0.1:0".parse().unwrap();
    for bytes in [&[3, 0, 0, 0, 3, 255, 255, 255][..], &[1], &[3, 0, 0, 0, 0]] {
        let endpoint = Endpoint::anonymous(any).unwrap();
        let calling = endpoint.connect_for_enrolment(manager.address, pin);
        let (connection, arrival) = tokio::join!(calling, manager.listener.accept());
        let Some(Arrival::Joiner(enrolment)) = arrival else {
            panic!("expected a joiner");
        };
        let (mut send, _recv) = connection.unwrap().open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
        assert_eq!(enrolment.request().await.unwrap_err(), Rejection::Protocol);
    }
    assert_eq!(manager.counters.count(Rejection::Protocol), 3);
}
