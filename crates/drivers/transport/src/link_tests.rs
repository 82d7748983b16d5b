use std::net::SocketAddr;

use super::*;
use crate::testing::Domain;

const ANY: &str = "127.0.0.1:0";

fn elements() -> PeerPolicy {
    PeerPolicy::ElementOf("edge".parse().unwrap())
}

fn only(name: &str) -> PeerPolicy {
    PeerPolicy::Element {
        pool: "edge".parse().unwrap(),
        element: name.parse().unwrap(),
    }
}

fn listen(domain: &Domain) -> (LinkListener, SocketAddr, Arc<RejectionCounters>) {
    let counters = Arc::new(RejectionCounters::default());
    // The address is free a moment before it is taken.
    let address = std::net::TcpListener::bind(ANY)
        .unwrap()
        .local_addr()
        .unwrap();
    let gw2 = domain.member("pool/edge/element/gw2");
    let listener = LinkListener::bind(address, &gw2, elements(), Arc::clone(&counters)).unwrap();
    (listener, address, counters)
}

fn until<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "it never happens"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Goal: megabytes go both ways between threads that never block, and the end is told.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_both_ways_until_one_end_is_dropped() {
    const BYTES: usize = 5_000_000;
    let domain = Domain::new();
    let (mut listener, address, _) = listen(&domain);
    let gw1 = domain.member("pool/edge/element/gw1");
    let mut caller = connect(&gw1, only("gw2"), address).await.unwrap();
    let mut called = listener.accept().await.unwrap();
    assert_eq!(caller.peer().to_string(), "pool/edge/element/gw2");
    assert_eq!(called.peer().to_string(), "pool/edge/element/gw1");
    let echo = std::thread::spawn(move || {
        let mut bytes = BytesMut::new();
        until(|| {
            let received = called.receive(&mut bytes).unwrap();
            called.send(&bytes.split()).unwrap();
            called.flush().unwrap();
            (received == Received::Closed).then_some(())
        });
    });
    let sent: Vec<u8> = (0..BYTES).map(|n| n.to_le_bytes()[0]).collect();
    caller.send(&sent).unwrap();
    let mut back = BytesMut::new();
    until(|| {
        caller.flush().unwrap();
        assert_ne!(caller.receive(&mut back).unwrap(), Received::Closed);
        (back.len() == BYTES).then_some(())
    });
    assert_eq!(back, sent);
    drop(caller);
    echo.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_no_link_and_the_wrong_one_is_not_called() {
    let domain = Domain::new();
    let (mut listener, address, counters) = listen(&domain);
    let gw1 = domain.member("pool/edge/element/gw1");
    let wrong = connect(&gw1, only("gw3"), address).await;
    assert!(
        matches!(wrong, Err(CallError::Server(Rejection::WrongPeer))),
        "{wrong:?}"
    );
    // These are turned away after their own handshake is done: the first read says so.
    for (name, reason) in [
        ("pool/core/element/gw1", Rejection::WrongPool),
        ("operator/o", Rejection::WrongRole),
    ] {
        let stranger = domain.member(name);
        let mut link = connect(&stranger, only("gw2"), address).await.unwrap();
        let mut bytes = BytesMut::new();
        until(|| match link.receive(&mut bytes) {
            Ok(Received::Closed) | Err(_) => Some(()),
            Ok(_) => None,
        });
        until(|| (counters.count(reason) == 1).then_some(()));
    }
    assert!(listener.arrivals.try_recv().is_err());
}

/// Goal: bytes that are no TLS are counted and do not keep others out.
#[tokio::test(flavor = "multi_thread")]
async fn noise_is_counted() {
    let domain = Domain::new();
    let (mut listener, address, counters) = listen(&domain);
    let mut noise = TcpStream::connect(address).unwrap();
    noise.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    until(|| (counters.count(Rejection::Handshake) > 0).then_some(()));
    let gw1 = domain.member("pool/edge/element/gw1");
    let _caller = connect(&gw1, only("gw2"), address).await.unwrap();
    assert!(listener.accept().await.is_some());
}

/// Goal: whoever begins handshakes and leaves them lying keeps no member out. Method: as many as there may be,
/// and more, from an address that is no member's.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_lie_around_keep_no_member_out() {
    let domain = Domain::new();
    let (mut listener, address, counters) = listen(&domain);
    listener.members().set([address.ip()]);
    let silent = (0..2 * HANDSHAKES_MAX).map(|_| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let elsewhere: SocketAddr = "127.0.0.9:0".parse().unwrap();
        socket.bind(&elsewhere.into()).unwrap();
        socket.connect(&address.into()).unwrap();
        TcpStream::from(socket)
    });
    let silent: Vec<TcpStream> = silent.collect();
    let turned_away = HANDSHAKES_MAX as u64;
    until(|| (counters.count(Rejection::Busy) == turned_away).then_some(()));
    let gw1 = domain.member("pool/edge/element/gw1");
    let _caller = connect(&gw1, only("gw2"), address).await.unwrap();
    assert!(listener.accept().await.is_some());
    drop(silent);
}
