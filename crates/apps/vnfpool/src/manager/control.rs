//! The control connection of one element, from its first message to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use prost::Message as _;
use tokio::sync::mpsc;
use vnfpool_model::{ElementId, Incarnation, PoolHandle, Timing};
use vnfpool_transport::Identity;
use vnfpool_transport::quic::{Connection, FrameReader, FrameWriter, StreamKind};
use vnfpool_wire::control::frame::Kind;
use vnfpool_wire::control::{self, Frame, Hello, Refusal, Welcome};
use vnfpool_wire::datagram::NodeId;

use super::Shared;
use super::pulse::{Command, View};
use super::registry::{Element, Live, labels_are_valid, paths_are_valid};
use crate::pulse::{KEY_LABEL, now};

/// A lone element that has not been heard for a manager lease and this time serves no longer. It
/// is also time enough to find a manager that has started again.
pub(super) const SILENCE_OF_THE_DEAD: Duration = Duration::from_secs(4);

/// An element has to say who it is within this time.
const HELLO_TIME_MAX: Duration = Duration::from_secs(5);

/// Last words have to arrive within this time.
const DELIVERY_TIME_MAX: Duration = Duration::from_secs(2);

/// Frames that wait for a slow element; more means that it is stuck.
const OUTBOX_MAX: usize = 32;

/// Serves a member until its connection ends.
pub(super) async fn serve(shared: Arc<Shared>, connection: Connection) {
    let Identity::Element { pool, element } = connection.peer().clone() else {
        return connection.close(1, "only elements have business here");
    };
    let remote = connection.remote_address();
    match converse(&shared, &connection, &pool, &element).await {
        Ok(()) => tracing::info!(%pool, %element, %remote, "element disconnected"),
        Err(error) => {
            tracing::warn!(%pool, %element, %remote, "element disconnected: {error:#}");
        }
    }
    shared.disconnected(&pool, &element, connection.stable_id());
}

async fn converse(
    shared: &Shared,
    connection: &Connection,
    pool: &PoolHandle,
    element: &ElementId,
) -> anyhow::Result<()> {
    let (mut writer, mut reader, hello) = tokio::time::timeout(HELLO_TIME_MAX, greet(connection))
        .await
        .context("no hello in time")??;
    let version = match admit(shared, pool, element, &hello) {
        Ok(version) => version,
        Err(refusal) => {
            shared.count_refusal(&refusal.code);
            let text = format!("refused ({}): {}", refusal.code, refusal.text);
            send(&mut writer, Kind::Refusal(refusal)).await?;
            end(&mut writer).await?;
            bail!(text);
        }
    };
    let node = shared.number_of(pool, element).await?;
    let secret = connection.export_key(KEY_LABEL, b"")?;
    shared.pulse.send(Command::Keys {
        node,
        pool: pool.clone(),
        secret,
        side: connection.side(),
    });
    let welcome = Welcome {
        version,
        node: node.0,
        datagram: shared.datagram_address().to_string(),
        program_version: crate::VERSION.to_owned(),
    };
    send(&mut writer, Kind::Welcome(welcome)).await?;

    let (outbox, mut out) = mpsc::channel(OUTBOX_MAX);
    let (replaced, mut replacement) = mpsc::channel(1);
    tracing::info!(%pool, %element, incarnation = hello.incarnation, "element registered");
    shared.connected(
        pool,
        element,
        Live {
            connection: connection.stable_id(),
            hello,
            report: control::ElementReport::default(),
            outbox,
            replaced,
            configuration: None,
        },
    );
    loop {
        tokio::select! {
            // First: it also ends the outbox, and there are no last words then.
            biased;
            Some(()) = replacement.recv() => {
                connection.close(control::CLOSE_REPLACED, "another agent with this identity has registered");
                bail!("replaced by a newer agent with the same identity");
            }
            frame = out.recv() => match frame {
                Some(frame) => writer.send(frame.encode_to_vec()).await?,
                None => return end(&mut writer).await,
            },
            frame = reader.recv() => match frame? {
                Some(bytes) => heard(shared, pool, element, decode(&bytes)?),
                None => return Ok(()),
            },
        }
    }
}

/// Ends a connection that the manager has no more use for. What was said last must arrive: the
/// element would serve on without it.
async fn end(writer: &mut FrameWriter) -> anyhow::Result<()> {
    writer.finish().await?;
    let delivered = tokio::time::timeout(DELIVERY_TIME_MAX, writer.delivered());
    delivered.await.context("the element took no notice")
}

async fn greet(connection: &Connection) -> anyhow::Result<(FrameWriter, FrameReader, Hello)> {
    let (kind, writer, mut reader) = connection.accept_stream().await?;
    if kind != StreamKind::Control {
        bail!("the first stream is not a control stream");
    }
    let bytes = reader.recv().await?.context("no hello")?;
    match decode(&bytes)? {
        Some(Kind::Hello(hello)) => Ok((writer, reader, hello)),
        _ => bail!("the first message is not a hello"),
    }
}

/// Whether the element may register; the version that both speak.
fn admit(
    shared: &Shared,
    pool: &PoolHandle,
    element: &ElementId,
    hello: &Hello,
) -> Result<u32, Refusal> {
    let refuse = |code: &str, text: String| Refusal {
        code: code.to_owned(),
        text,
    };
    let version = control::negotiate(hello.version_min, hello.version_max).ok_or_else(|| {
        let ours = control::VERSIONS;
        refuse(
            "version",
            format!(
                "this manager speaks control versions {} to {}, the element {} to {}: upgrade the older one",
                ours.start(), ours.end(), hello.version_min, hello.version_max
            ),
        )
    })?;
    if !paths_are_valid(&hello.paths) || hello.host.len() > 255 || !labels_are_valid(&hello.labels)
    {
        return Err(refuse(
            "hello",
            "the hello has malformed paths, host or labels".to_owned(),
        ));
    }
    let registry = shared.registry();
    let Some(record) = registry.pools.get(pool) else {
        let text = format!("there is no pool '{pool}': create it with `vnfpool pool apply`");
        return Err(refuse("pool", text));
    };
    if record.spec.function != hello.function {
        let text = format!(
            "pool '{pool}' provides the function '{}', this element '{}'",
            record.spec.function, hello.function
        );
        return Err(refuse("function", text));
    }
    for lan in record
        .spec
        .slots
        .iter()
        .flat_map(|s| &s.addresses)
        .map(|a| &a.lan)
    {
        if !hello.lans.contains(lan) {
            let text = format!(
                "pool '{pool}' has addresses on the LAN '{lan}', for which this element names no \
                 interface: add it as a [[lan]] to its configuration"
            );
            return Err(refuse("lan", text));
        }
    }
    match registry.elements.get(&(pool.clone(), element.clone())) {
        Some(known) if known.is_over(Incarnation(hello.incarnation)) => {
            let text = format!(
                "this life of '{element}' was declared off (`vnfpool fence`) and others may serve \
                 by now: start the agent again"
            );
            Err(refuse("fenced", text))
        }
        Some(known) => {
            let may_serve = earlier_may_serve(shared, known, hello, record.spec.timing);
            not_beside(known, may_serve, element, hello).map(|()| version)
        }
        None => Ok(version),
    }
}

/// Whether an earlier life of an element may still serve, as far as the manager can know.
fn earlier_may_serve(shared: &Shared, known: &Element, hello: &Hello, timing: Timing) -> bool {
    let lease = Duration::from_millis(timing.manager_lease_ms.into());
    let silence = SILENCE_OF_THE_DEAD + lease;
    let view = shared.pulse.view();
    let mut heard = view.slots.values().flat_map(|slot| &slot.heard);
    let heard_lately = heard.any(|(node, at, incarnation)| {
        *node == known.node && incarnation.0 < hello.incarnation && now().since(*at) < silence
    });
    let earlier = known.live.as_ref();
    !known.fenced
        && (lives_on_promises(&view, known.node, Incarnation(hello.incarnation))
            || earlier.is_some_and(|live| live.incarnation().0 < hello.incarnation)
            || heard_lately
            // Nobody has had the time to be heard.
            || shared.started.elapsed() < silence)
}

/// Whether a record names an earlier life of an element with a successor armed: as long as the two
/// hear each other, it serves or stands by without being heard here. Also when the other one is not
/// heard either, since one cut may part the manager from both.
fn lives_on_promises(view: &View, node: NodeId, life: Incarnation) -> bool {
    let mut records = view.slots.values().filter_map(|slot| slot.record);
    records.any(|record| {
        let members = [Some(record.first), record.second];
        let mut members = members.into_iter().flatten();
        record.armed() && members.any(|m| m.node == node && m.incarnation < life)
    })
}

/// Whether an agent may take the place of an earlier one. A later life on the same machine is a
/// restart: it has closed the gate of the earlier one. Elsewhere it is a copy, which cannot, and
/// whose registration would give the slot to two.
fn not_beside(
    known: &Element,
    may_serve: bool,
    element: &ElementId,
    hello: &Hello,
) -> Result<(), Refusal> {
    let duplicate = |text| {
        Err(Refusal {
            code: "duplicate".to_owned(),
            text,
        })
    };
    let live = known.live.as_ref();
    if live.is_some_and(|live| live.incarnation().0 > hello.incarnation) {
        let text = format!("a newer agent with the identity of '{element}' is registered");
        return duplicate(text);
    }
    if may_serve && is_elsewhere(&known.paths, &hello.paths) {
        let host = live.map_or_else(String::new, |l| format!(" host '{}' and", l.hello.host));
        let text = format!(
            "another agent with the identity of '{element}' may still serve, from{host} other \
             addresses: stop that one, or enrol this one under a name of its own"
        );
        return duplicate(text);
    }
    Ok(())
}

/// Whether two lives of an element have no address in common. A changed configuration alone
/// leaves some of them.
fn is_elsewhere(earlier: &[control::Path], later: &[control::Path]) -> bool {
    let address = |path: &control::Path| path.datagram.parse().ok().map(|a: SocketAddr| a.ip());
    let stayed = |path| later.iter().any(|other| address(other) == address(path));
    !earlier.is_empty() && !earlier.iter().any(stayed)
}

fn heard(shared: &Shared, pool: &PoolHandle, element: &ElementId, kind: Option<Kind>) {
    match kind {
        Some(Kind::ElementReport(report)) => shared.reported(pool, element, report),
        Some(Kind::SwitchoverResult(result)) => shared.switchover_result(result),
        // A newer element may say more than we know.
        _ => shared.not_understood(pool, element),
    }
}

/// A message; none when it is of a kind that only newer elements know.
fn decode(bytes: &[u8]) -> anyhow::Result<Option<Kind>> {
    Ok(Frame::decode(bytes)
        .context("decode a control message")?
        .kind)
}

async fn send(writer: &mut FrameWriter, kind: Kind) -> anyhow::Result<()> {
    let frame = Frame { kind: Some(kind) };
    Ok(writer.send(frame.encode_to_vec()).await?)
}

#[cfg(test)]
mod tests {
    use vnfpool_model::SlotId;
    use vnfpool_wire::datagram::{Member, Record};

    use super::*;
    use crate::manager::pulse::SlotView;

    /// Goal: a copy is not let in beside an active that only its successor hears. Method: views
    /// in which nobody has been heard lately; the control is the same record without a successor.
    #[test]
    fn the_earlier_life_of_an_armed_pair_may_serve_unheard() {
        let member = |node| Member {
            node: NodeId(node),
            incarnation: Incarnation(5),
        };
        let view = |second| {
            let record = Some(Record {
                term: 3,
                first: member(1),
                second,
                pace: Timing::DEFAULT.pace(),
            });
            let slot = SlotView {
                record,
                ..SlotView::default()
            };
            View {
                slots: [(SlotId(1), slot)].into(),
                ..View::default()
            }
        };
        let later = Incarnation(6);
        let armed = view(Some(member(2)));
        assert!(lives_on_promises(&armed, NodeId(1), later));
        assert!(lives_on_promises(&armed, NodeId(2), later));
        assert!(!lives_on_promises(&armed, NodeId(3), later));
        assert!(!lives_on_promises(&armed, NodeId(1), Incarnation(5)));
        // Alone it lives on what the manager grants it.
        assert!(!lives_on_promises(&view(None), NodeId(1), later));
    }

    #[test]
    fn only_who_has_no_address_in_common_is_elsewhere() {
        let paths = |addresses: &[&str]| -> Vec<control::Path> {
            let path = |address: &&str| control::Path {
                datagram: (*address).to_owned(),
                ..control::Path::default()
            };
            addresses.iter().map(path).collect()
        };
        let known = paths(&["10.3.0.1:7401", "10.1.0.1:7401"]);
        assert!(!is_elsewhere(&known, &known));
        // Another port, one path less, one more.
        assert!(!is_elsewhere(&known, &paths(&["10.3.0.1:9401"])));
        let more = paths(&["10.8.0.1:7401", "10.3.0.1:7401", "10.1.0.1:7401"]);
        assert!(!is_elsewhere(&known, &more));
        assert!(is_elsewhere(
            &known,
            &paths(&["10.3.0.2:7401", "10.1.0.2:7401"])
        ));
        // Never registered.
        assert!(!is_elsewhere(&[], &known));
    }
}
