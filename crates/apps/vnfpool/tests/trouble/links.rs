//! The port of links for service state (TCP 7402) under hostile peers: nobody keeps the active out, and the
//! pool comes back into sync from whatever one says with the active's own certificate.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use vnfpool_lab::Gateway::{self, Gw1, Gw2};
use vnfpool_statesync::Item;
use vnfpool_statesync::wire::record::{Record, Records};
use vnfpool_statesync::wire::{Body, HEADER_BYTES, PAYLOAD_BYTES_MAX};

use crate::caller::{
    Caller, PORT, encoded, frame, hello, preface, slot_and_life, wait_armed_again, wait_in_sync,
};
use crate::daemon::wait;
use crate::packets::Random;
use crate::site::Site;

/// Of both gateways, where clients are.
const LANS: [[u8; 4]; 2] = [[10, 1, 0, 1], [10, 1, 0, 2]];

/// Connections that an attacker holds open to each gateway.
const HELD: usize = 96;

/// More than an agent may need for all of that.
const THREADS_MORE_MAX: usize = 80;
const MEMORY_MORE_MAX_KB: usize = 64 * 1024;

/// Threads and resident memory (KiB) of an agent.
fn resources(site: &Site, gateway: Gateway) -> [usize; 2] {
    let pid = site.element(gateway).pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    ["Threads:", "VmRSS:"].map(|name| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    })
}

fn rejected(site: &Site, gateway: Gateway, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    site.metric(gateway.name(), "vnfpool_connections_rejected_total", &label)
}

/// Until told to stop: holds connections that say nothing, or a byte from time to time of what might
/// become a handshake, opens another one for each that is closed, and makes noise on others.
fn besiege(stop: &AtomicBool, random: &mut Random) -> anyhow::Result<()> {
    let hello: &[u8] = b"\x16\x03\x01\x00\xfa\x01\x00\x00\xf6\x03\x03";
    // With how much each has said.
    let mut held: [Vec<(TcpStream, usize)>; 2] = Default::default();
    for round in 0_usize.. {
        for (lan, held) in LANS.into_iter().zip(&mut held) {
            let address = SocketAddr::from((lan, PORT));
            // A closed one reads as its end.
            held.retain_mut(|(stream, said)| {
                if let Some(byte) = hello.get(*said).filter(|_| round % 4 == 0) {
                    *said += stream.write(&[*byte]).unwrap_or_default();
                }
                !matches!(stream.read(&mut [0]), Ok(0))
            });
            // None while the agent is dead.
            let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
            while held.len() < HELD
                && let Some(stream) = connect()
            {
                stream.set_nonblocking(true)?;
                held.push((stream, 0));
            }
            if let Some(mut noise) = connect() {
                // It may be closed at the first wrong byte.
                let _ = noise.write_all(&random.spoil(hello));
            }
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Goal: strangers that leave handshakes lying, say nothing, little or nonsense, and come again at once, keep
/// no stream from beginning, and cost a bounded number of threads and bytes. Method: all of that from the LAN
/// of the clients at both gateways, while the roles change, for which state has to go both ways.
#[test]
fn strangers_at_the_links_keep_no_state_out() {
    let site = Site::serving();
    let talk = site.talk();
    let before = Gateway::BOTH.map(|gateway| resources(&site, gateway));
    let stop = AtomicBool::new(false);
    let mut random = Random::seeded();
    std::thread::scope(|scope| {
        let stopped = StopAtEnd(&stop);
        let client = site.lab.namespace("client").unwrap();
        let siege = scope.spawn(|| client.run(|| besiege(&stop, &mut random)));
        for gateway in Gateway::BOTH {
            for reason in ["busy", "timeout"] {
                wait(&format!("a stranger that is turned away: {reason}"), || {
                    (rejected(&site, gateway, reason) > 0.0).then_some(())
                });
            }
        }
        for to in [Gw2, Gw1] {
            // A machine that stands still for a lease may disarm the standby for a moment.
            wait(&format!("a switchover to {to}"), || {
                let done = site.try_operate(&["switchover", "edge", "--to", to.name()]);
                (done.code == Some(0)).then_some(())
            });
            site.wait_owner(to);
            wait_armed_again(&site);
            wait_in_sync(&site, to);
            talk.goes_on();
        }
        for gateway in Gateway::BOTH {
            // A refused call is made again, and gets through some time; but none has to be refused.
            let log = site.element(gateway).log();
            let broke_off = "the connection to the server broke off";
            assert!(!log.contains(broke_off), "{gateway} was kept out: {log}");
        }
        // A stream that has to begin anew, in the middle of it.
        site.element(Gw2).kill();
        site.start_element(Gw2);
        wait_armed_again(&site);
        wait_in_sync(&site, Gw1);
        for gateway in Gateway::BOTH {
            let [threads, memory] = resources(&site, gateway);
            let [threads_before, memory_before] = before[gateway.index()];
            assert!(threads <= threads_before + THREADS_MORE_MAX, "{threads}");
            assert!(memory <= memory_before + MEMORY_MORE_MAX_KB, "{memory}");
        }
        drop(stopped);
        siege.join().unwrap().unwrap();
    });
    talk.goes_on();
    site.ends_well();
}

/// Also when a test fails: its thread has to end.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Goal: with a certificate of another pool nobody gets a link; with one of this pool somebody who is not the
/// active gets one, and nothing he says is taken, however many he opens. Neither is what the standby says that
/// the active knows well.
#[test]
fn only_the_active_is_taken_in() {
    const MANY: usize = 60;
    let site = Site::serving();
    let talk = site.talk();
    let enrolled = |pool: &str| {
        let token = site.operate(&["token", "create", "--pool", pool, "--element", "gw9"]);
        let name = format!("gw9-of-{pool}");
        let said = site.join(Gw1, &name, token.trim());
        assert_eq!(said.code, Some(0), "{said:?}");
        Caller::new(&site, "gw1", site.lab.directory().join(name))
    };
    let other = crate::site::pool_file("other", ["inside", "outside"], 2);
    let file = site.write("other.toml", &other);
    site.operate(&["pool", "apply", "-f", &file]);
    // It is told at its first reading.
    let stranger = enrolled("other").call(Gw2).unwrap();
    assert!(stranger.hear_end().is_empty());
    wait("a rejection", || {
        (rejected(&site, Gw2, "wrong_pool") > 0.0).then_some(())
    });

    let (slot, life) = slot_and_life(&site, Gw1);
    let rogue = enrolled("edge");
    let mut begin = preface(slot, life);
    begin.extend_from_slice(&encoded(&hello("conntrack")));
    let called = (0..MANY).map(|_| {
        // Not all get so far.
        let mut link = rogue.call(Gw2).ok()?;
        link.say(&begin);
        Some(link)
    });
    let called: Vec<_> = called.flatten().collect();
    assert!(!called.is_empty());
    // Meanwhile the active's own stream goes on, and another one could begin.
    wait_in_sync(&site, Gw1);
    for link in called {
        assert!(link.hear_end().is_empty(), "it was answered");
    }
    site.element(Gw2)
        .wait_log("it is not of the active of slot");
    let (slot, life) = slot_and_life(&site, Gw2);
    let mut link = Caller::as_gateway(&site, Gw2).call(Gw1).unwrap();
    link.say(&preface(slot, life));
    link.say(&encoded(&hello("conntrack")));
    assert!(link.hear_end().is_empty(), "it was answered");
    site.element(Gw1)
        .wait_log("it is not of the active of slot");
    talk.goes_on();
    site.operate(&["switchover", "edge", "--to", "gw2"]);
    site.wait_owner(Gw2);
    talk.goes_on();
    site.ends_well();
}

/// A frame of records in generation 1.
fn told(sequence: u64, records: &[Record]) -> BytesMut {
    encoded(&frame(1, sequence, Body::Records(Records::new(records))))
}

fn begin() -> Record {
    Record::Begin {
        generation: 1,
        resync: true,
        whole: None,
    }
}

/// What the active must not say, and what the standby's log says then.
fn wrong_words(slot: u32, life: u64) -> Vec<(Vec<u8>, &'static str)> {
    let good = preface(slot, life);
    let hello = encoded(&hello("conntrack"));
    let after_hello = |bytes: &[u8]| [&good[..], &hello, bytes].concat();
    let begun = told(1, &[begin()]);
    let nonsense = Item {
        key: Bytes::from_static(b"no connection"),
        value: Bytes::from_static(b"at all"),
        ttl_s: 60,
    };
    let item = nonsense;
    let put = told(2, &[Record::Put { item, is_new: true }]);
    let mut oversize = BytesMut::from(&begun[..]);
    oversize[20..24].copy_from_slice(&u32::MAX.to_be_bytes());
    let mut many = BytesMut::from(&begun[..HEADER_BYTES]);
    many[20..24].copy_from_slice(&u32::try_from(PAYLOAD_BYTES_MAX).unwrap().to_be_bytes());
    many.put_bytes(0xff, PAYLOAD_BYTES_MAX);
    let unknown = encoded(&crate::caller::hello("unheard-of"));
    let ack = encoded(&frame(0, 0, Body::Ack));
    let not_alive = preface(slot, life + 1);
    let elsewhere = preface(slot + 1, life);
    vec![
        (b"VPSS but no preface".to_vec(), "does not begin as one"),
        ([&not_alive[..], &hello].concat(), "not of the active"),
        ([&elsewhere[..], &hello].concat(), "not of the active"),
        ([&good[..], &ack].concat(), "not begin with a hello"),
        (
            [&good[..], b"HTTP/1.1 200"].concat(),
            "are not a state stream",
        ),
        (
            [&good[..], &unknown].concat(),
            "'unheard-of' of state is not known",
        ),
        (
            after_hello(b"garbage that is no frame"),
            "is no frame of the state stream",
        ),
        (after_hello(&oversize), "is no frame of the state stream"),
        (after_hello(&[&begun[..], &many].concat()), "missed a part"),
        (after_hello(&hello), "missed a part of the state stream"),
        (after_hello(&told(7, &[begin()])), "missed a part"),
        (
            after_hello(&[&begun[..], &put].concat()),
            "could not be applied",
        ),
    ]
}

/// Goal: whatever is said with the certificate of the active, in its name and its epoch or above, is refused by
/// name, replaces no entry for good, and the active's own stream is back in sync at once after it. Method:
/// wrong words of every kind; links that end, or stand still, in the middle.
#[test]
fn wrong_words_of_the_active_are_refused_and_mended() {
    let site = Site::serving();
    let talk = site.talk();
    wait_in_sync(&site, Gw1);
    let (slot, life) = slot_and_life(&site, Gw1);
    let active = Caller::as_gateway(&site, Gw1);
    for (words, answer) in wrong_words(slot, life) {
        let before = site.element(Gw2).log().len();
        let mut link = active.call(Gw2).unwrap();
        link.say(&words);
        link.hear_end();
        let said = || {
            site.element(Gw2).log()[before..]
                .contains(answer)
                .then_some(())
        };
        wait(
            &format!("the refusal {answer:?} of {} bytes", words.len()),
            said,
        );
        wait_in_sync(&site, Gw1);
        talk.goes_on();
    }
    ends_in_the_middle(&site, &active, (slot, life));
    stands_still(&site, &active, (slot, life));
    wait_in_sync(&site, Gw1);
    talk.goes_on();
    // And the copy is what it should be.
    site.element(Gw1).kill();
    site.wait_owner(Gw2);
    talk.goes_on();
    site.ends_well();
}

/// A beginning of which every byte is right.
fn right_words((slot, life): (u32, u64)) -> BytesMut {
    let mut words = preface(slot, life);
    words.extend_from_slice(&encoded(&hello("conntrack")));
    words.extend_from_slice(&told(1, &[begin()]));
    words.extend_from_slice(&told(2, &[Record::Barrier, Record::End { generation: 1 }]));
    words
}

fn ends_in_the_middle(site: &Site, active: &Caller<'_>, of: (u32, u64)) {
    let words = right_words(of);
    let mut random = Random::seeded();
    for _ in 0..24 {
        let mut link = active.call(Gw2).unwrap();
        link.say(&words[..1 + random.below(words.len() - 1)]);
        drop(link);
        wait_in_sync(site, Gw1);
    }
}

/// A byte now and then, until the standby has had enough of it.
fn stands_still(site: &Site, active: &Caller<'_>, of: (u32, u64)) {
    let before = site.element(Gw2).log().len();
    let mut link = active.call(Gw2).unwrap();
    for byte in right_words(of).chunks(1) {
        if link.is_over() {
            break;
        }
        link.say(byte);
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(link.is_over(), "it was waited for");
    let said = "a link on which nothing came";
    assert!(site.element(Gw2).log()[before..].contains(said));
}
