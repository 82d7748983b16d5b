use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::identity::{Identity, PrincipalId, SpiffeId, TrustDomain};

fn domain() -> TrustDomain {
    TrustDomain::new("lab.example").unwrap()
}

fn element() -> Identity {
    Identity::Element {
        pool: "edge".parse().unwrap(),
        element: "gw1".parse().unwrap(),
    }
}

/// Goal: a created authority is found again, with its trust domain, and is never overwritten.
#[test]
fn an_authority_is_created_once() {
    let dir = tempfile::tempdir().unwrap();
    let created = Authority::create(dir.path(), &domain()).unwrap();
    let loaded = Authority::load(dir.path()).unwrap();
    assert_eq!(created.fingerprint(), loaded.fingerprint());
    assert_eq!(loaded.trust_domain(), &domain());
    let key = std::fs::read(dir.path().join(CA_KEY_FILE)).unwrap();
    assert!(matches!(
        Authority::create(dir.path(), &domain()),
        Err(PkiError::Exists { .. })
    ));
    assert_eq!(key, std::fs::read(dir.path().join(CA_KEY_FILE)).unwrap());
}

#[test]
fn keys_are_readable_by_their_owner_only_and_no_scraps_are_left() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(dir.path(), &domain()).unwrap();
    let own = dir.path().join("operator");
    let id = Identity::Operator {
        id: PrincipalId::new("first").unwrap(),
    };
    let names = [
        AlternativeName::Dns("manager.lab.example".into()),
        AlternativeName::Address("10.9.0.10".parse().unwrap()),
    ];
    authority
        .issue_local(&own, &id, &names, Validity::standard())
        .unwrap();
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(dir.path().join(CA_KEY_FILE)), 0o600);
    assert_eq!(mode(own.join(KEY_FILE)), 0o600);
    assert_eq!(mode(own.clone()), 0o700);
    let mut files: Vec<_> = std::fs::read_dir(&own)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, [CA_FILE, CERTIFICATE_FILE, KEY_FILE]);
}

/// Goal: a joiner's request becomes a certificate with the identity that the authority gave, and
/// an interrupted join goes on with the same key.
#[test]
fn a_request_becomes_a_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(&dir.path().join("ca"), &domain()).unwrap();
    let own = dir.path().join("gw1");
    let first = PendingKey::create(&own).unwrap();
    let first_key = first.pair().public_key_raw().to_vec();
    drop(first);
    let again = PendingKey::create(&own).unwrap();
    assert_eq!(first_key, again.pair().public_key_raw());
    let request = again.request_pem().unwrap();
    let certificate = authority
        .issue(&request, &element(), Validity::standard())
        .unwrap();
    let credentials = again
        .complete(&certificate, authority.certificate())
        .unwrap();
    assert_eq!(credentials.id(), &SpiffeId::new(domain(), element()));
    assert_eq!(credentials.authority_fingerprint(), authority.fingerprint());
    assert!(matches!(
        PendingKey::create(&own),
        Err(PkiError::Exists { .. })
    ));
}

#[test]
fn bad_requests_and_foreign_certificates_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(&dir.path().join("ca"), &domain()).unwrap();
    let key = PendingKey::create(&dir.path().join("a")).unwrap();
    let other = PendingKey::create(&dir.path().join("b")).unwrap();
    let request = key.request_pem().unwrap();
    for bad in ["", "-----BEGIN CERTIFICATE REQUEST-----", &request[..200]] {
        assert!(matches!(
            authority.issue(bad, &element(), Validity::standard()),
            Err(PkiError::Request)
        ));
    }
    // One byte of the signature changed: the request is not signed by its own key any more.
    let mut der = data_encoding::BASE64
        .decode(
            request
                .lines()
                .filter(|line| !line.starts_with("---"))
                .collect::<String>()
                .as_bytes(),
        )
        .unwrap();
    let last = der.len() - 1;
    der[last] ^= 1;
    let forged = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        data_encoding::BASE64.encode(&der)
    );
    assert!(matches!(
        authority.issue(&forged, &element(), Validity::standard()),
        Err(PkiError::Request)
    ));
    let certificate = authority
        .issue(
            &request,
            &element(),
            Validity::from_now(Duration::from_secs(60)),
        )
        .unwrap();
    assert!(matches!(
        other.complete(&certificate, authority.certificate()),
        Err(PkiError::ForeignCertificate)
    ));
}

#[test]
fn damaged_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(dir.path(), &domain()).unwrap();
    let own = dir.path().join("m");
    let id = Identity::Manager {
        id: PrincipalId::new("m1").unwrap(),
    };
    authority
        .issue_local(&own, &id, &[], Validity::standard())
        .unwrap();
    std::fs::write(own.join(KEY_FILE), "garbage").unwrap();
    let error = Credentials::load(&own).unwrap_err();
    assert!(error.to_string().contains("key.pem"), "{error}");
    // A valid key, but not the certificate's.
    std::fs::copy(dir.path().join(CA_KEY_FILE), own.join(KEY_FILE)).unwrap();
    assert!(matches!(
        Credentials::load(&own),
        Err(PkiError::KeyMismatch { .. })
    ));
    std::fs::remove_file(own.join(CERTIFICATE_FILE)).unwrap();
    assert!(matches!(
        Credentials::load(&own),
        Err(PkiError::Read { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Goal: a hostile request is refused, whatever is in it; it never panics. (What is not signed, such
    /// as the padding of the signature, may differ: the key is the same then.)
    #[test]
    fn hostile_requests_are_refused(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        noise in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let request = PendingKey::create(dir.path()).unwrap().request_pem().unwrap();
        let own = KeyFingerprint::of_request(&request).unwrap();
        let body: String = request.lines().filter(|line| !line.starts_with("---")).collect();
        let whole = data_encoding::BASE64.decode(body.as_bytes()).unwrap();
        let mut changed = whole.clone();
        for (index, byte) in changes {
            let index = index.index(changed.len());
            changed[index] = byte;
        }
        let cut = whole[..cut.index(whole.len())].to_vec();
        for der in [changed, cut, noise] {
            let pem = format!(
                "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
                data_encoding::BASE64.encode(&der)
            );
            let read = KeyFingerprint::of_request(&pem);
            prop_assert!(read.is_err() || read.is_ok_and(|key| key == own));
        }
    }
}
