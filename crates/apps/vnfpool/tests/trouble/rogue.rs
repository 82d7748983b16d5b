//! Members with valid certificates that do what they must not.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use prost::Message as _;
use vnfpool_lab::Gateway;
use vnfpool_model::{Epoch, Incarnation, SlotId, Time};
use vnfpool_transport::pki::Credentials;
use vnfpool_transport::quic::{
    Connection, Endpoint, EndpointOptions, FrameReader, FrameWriter, StreamKind,
};
use vnfpool_transport::{PeerPolicy, RejectionCounters, datagram};
use vnfpool_wire::control::frame::Kind;
use vnfpool_wire::control::{self, ElementReport, Frame, Hello, SlotReport, Welcome};
use vnfpool_wire::datagram::{BODY_BYTES_MAX, Message, Request, Split, Token};

use crate::daemon::wait;
use crate::packets::{Random, breathe};
use crate::site::{Site, pool_file};

/// As `vnfpool element` does.
const KEY_LABEL: &[u8] = b"EXPORTER-vnfpool-datagram-1";

/// Somebody with an element's certificate, in the namespace of gw2.
struct Rogue {
    directory: PathBuf,
}

impl Rogue {
    /// Enrols as `pool/element`.
    fn enrol(site: &Site, pool: &str, element: &str) -> Self {
        let create = ["token", "create", "--pool", pool, "--element", element];
        let token = site.operate(&create);
        let name = format!("rogue-{pool}");
        let said = site.join(Gateway::Gw2, &name, token.trim());
        assert_eq!(said.code, Some(0), "{said:?}");
        Self {
            directory: site.lab.directory().join(name),
        }
    }

    /// Calls somebody, and does something with the connection.
    fn call<T: Send>(
        &self,
        site: &Site,
        to: SocketAddr,
        expected: PeerPolicy,
        then: impl AsyncFnOnce(Connection) -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let calling = async || {
            let credentials = Credentials::load(&self.directory)?;
            let endpoint = Endpoint::bind(
                "0.0.0.0:0".parse()?,
                credentials,
                EndpointOptions::default(),
                Arc::new(RejectionCounters::default()),
            )?;
            let connection = endpoint.connect(to, expected).await?;
            then(connection).await
        };
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(calling())
        };
        site.lab.namespace("gw2").unwrap().run(run)
    }

    fn call_manager<T: Send>(
        &self,
        site: &Site,
        then: impl AsyncFnOnce(Connection) -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        self.call(
            site,
            site.control.parse().unwrap(),
            PeerPolicy::Manager,
            then,
        )
    }
}

fn hello(function: &str) -> Frame {
    let hello = Hello {
        version_min: *control::VERSIONS.start(),
        version_max: *control::VERSIONS.end(),
        function: function.to_owned(),
        host: "elsewhere".to_owned(),
        incarnation: u64::MAX / 2,
        lans: vec!["inside".to_owned(), "outside".to_owned()],
        ..Hello::default()
    };
    Frame {
        kind: Some(Kind::Hello(hello)),
    }
}

/// Registers as an element does; the manager's welcome.
async fn register(connection: &Connection) -> anyhow::Result<(Welcome, FrameWriter, FrameReader)> {
    register_with(connection, hello("nat-gateway")).await
}

async fn register_with(
    connection: &Connection,
    hello: Frame,
) -> anyhow::Result<(Welcome, FrameWriter, FrameReader)> {
    let (mut writer, mut reader) = connection.open_stream(StreamKind::Control).await?;
    writer.send(hello.encode_to_vec()).await?;
    let answer = reader.recv().await?.context("no answer")?;
    match Frame::decode(answer)?.kind {
        Some(Kind::Welcome(welcome)) => Ok((welcome, writer, reader)),
        other => anyhow::bail!("no welcome, but {other:?}"),
    }
}

/// What two real agents on one machine cannot do, since the second does not get the sockets: here
/// the newer life is played, with the certificate and an address of the older one.
#[test]
fn an_agent_ends_when_a_newer_life_of_it_has_registered() {
    let site = Site::serving();
    let newer = Rogue {
        directory: site.lab.directory().join("gw1"),
    };
    let mut hello = hello("nat-gateway");
    if let Some(Kind::Hello(hello)) = &mut hello.kind {
        hello.paths = vec![control::Path {
            name: "link".to_owned(),
            datagram: "10.3.0.1:7401".to_owned(),
            peer: "10.3.0.1:7402".to_owned(),
        }];
    }
    let registered = newer.call_manager(&site, async |connection| {
        let (_, _writer, mut reader) = register_with(&connection, hello).await?;
        // Its configuration: the manager has it in its books.
        reader.recv().await?.context("no configuration")
    });
    registered.unwrap();
    let ended = site.element(Gateway::Gw1).wait_end();
    assert_eq!(ended.code(), Some(1));
    let log = site.element(Gateway::Gw1).log();
    assert!(log.contains("error: this agent must not run: "), "{log}");
    assert_eq!(site.virtual_devices(Gateway::Gw1), Vec::<String>::new());
    site.wait_owner(Gateway::Gw2);
    site.ends_well();
}

/// Everything about a slot that might make the manager give it away.
fn lies(number: u64) -> [Message; 2] {
    let incarnation = Incarnation(u64::MAX / 2);
    let term = number % 8;
    let sent_at = Time(u64::MAX / 4 + number);
    [
        Message::Request(Request {
            epoch: Epoch::first_of(term),
            incarnation,
            sent_at,
            heard_manager: true,
            able: true,
            renounces: false,
            candidate: None,
        }),
        Message::Split(Split {
            term,
            incarnation,
            sent_at,
            token: Token {
                boot: 1,
                clock: sent_at,
            },
            able: true,
        }),
    ]
}

#[test]
fn an_element_of_one_pool_has_no_say_in_another() {
    const ROUNDS: u64 = 200;
    let site = Site::serving();
    let talk = site.talk();
    let other = pool_file("other", ["inside", "outside"], 2);
    let file = site.write("other.toml", &other);
    site.operate(&["pool", "apply", "-f", &file]);
    let rogue = Rogue::enrol(&site, "other", "gw9");
    let slot = SlotId(u32::try_from(site.slot().unwrap()["id"].as_u64().unwrap()).unwrap());

    site.changes_nothing(|| {
        rogue
            .call_manager(&site, async |connection| {
                let (welcome, _writer, _reader) = register(&connection).await?;
                let secret = connection.export_key(KEY_LABEL, b"")?;
                let (mut seal, _) = datagram::derive(&secret, connection.side())?;
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.connect(&welcome.datagram)?;
                for round in 0..ROUNDS {
                    for message in lies(round) {
                        let mut body = [0; BODY_BYTES_MAX];
                        let length = message.encode(slot, &mut body);
                        let mut sealed = [0; 256];
                        let length = seal.seal(message.kind(), &body[..length], &mut sealed)?;
                        socket.send(&sealed[..length])?;
                    }
                    breathe(usize::try_from(round)?);
                }
                Ok(())
            })
            .unwrap();
        wait("the refused lies", || {
            let foreign = "outcome=\"foreign\"";
            let refused = site.metric("manager", "vnfpool_datagrams_total", foreign);
            // Some may be lost on the way, not many.
            (refused >= 1.8 * f64::from(u32::try_from(ROUNDS).unwrap())).then_some(())
        });
    });
    let elements = site.status()["pools"][0]["elements"].to_string();
    assert!(!elements.contains("gw9"), "{elements}");

    // Nor do the elements of that pool talk to it.
    let edge = PeerPolicy::ElementOf("edge".parse().unwrap());
    let gw1 = "10.3.0.1:7402".parse().unwrap();
    let refused = rogue.call(&site, gw1, edge, async |_| Ok(()));
    let text = format!("{:#}", refused.unwrap_err());
    assert!(text.contains("of another pool"), "{text}");
    let wrong_pool = "reason=\"wrong_pool\"";
    let counted = site.metric("gw1", "vnfpool_connections_rejected_total", wrong_pool);
    assert!(counted >= 1.0);
    talk.goes_on();
    site.ends_well();
}

/// A member that says nonsense on an authenticated connection.
#[test]
fn spoiled_messages_of_a_member_are_refused() {
    let site = Site::serving();
    let talk = site.talk();
    let rogue = Rogue::enrol(&site, "edge", "gw9");
    let report = Frame {
        kind: Some(Kind::ElementReport(ElementReport {
            able: true,
            slots: vec![SlotReport::default(); 3],
            ..ElementReport::default()
        })),
    };
    let mut random = Random::seeded();
    site.changes_nothing(|| {
        for round in 0..80 {
            // Before it is known, on a stream for something else, and once it is registered.
            let (kind, registered) = match round % 4 {
                0 => (StreamKind::Enrolment, false),
                1 => (StreamKind::Control, false),
                _ => (StreamKind::Control, true),
            };
            let original = if registered {
                &report
            } else {
                &hello("nat-gateway")
            };
            let spoiled = random.spoil(&original.encode_to_vec());
            // Some are refused, some are let in: a spoiled name is as good as any other.
            let _ = rogue.call_manager(&site, async |connection| {
                let (mut writer, mut reader) = if registered {
                    let (_, writer, reader) = register(&connection).await?;
                    (writer, reader)
                } else {
                    connection.open_stream(kind).await?
                };
                writer.send(spoiled).await?;
                writer.finish().await?;
                // Until it is turned away, or ignored.
                let answer = async {
                    while reader.recv().await?.is_some() {}
                    anyhow::Ok(())
                };
                tokio::time::timeout(Duration::from_millis(50), answer).await??;
                Ok(())
            });
        }
    });
    let log = site.manager().log();
    for said in [
        "decode a control message",
        "the first stream is not a control stream",
        "element registered pool=edge element=gw9",
    ] {
        assert!(log.contains(said), "{said:?} was not said, but\n{log}");
    }
    assert_eq!(site.manager().ended(), None);
    talk.goes_on();
    site.wait_first();
    site.operate(&["switchover", "edge", "--to", "gw2"]);
    site.wait_owner(Gateway::Gw2);
    talk.goes_on();
    site.ends_well();
}
