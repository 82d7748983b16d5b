//! The rules that say which packets are held: a table of our own for each address family.
//!
//! ```text
//! table ip vnfpool-hold {                    # flags owner: gone when this process is
//!     chain postrouting {
//!         type filter hook postrouting priority 300
//!         ct status & confirmed == 0  jump hold
//!     }
//!     chain hold {
//!         meta skuid (any)            accept # made on this machine
//!         [oifname <interface>]       counter queue num <n> bypass
//!     }
//! }
//! ```

use std::io;

use rustix::io::Errno;

use crate::error::HoldError;
use crate::netlink::{
    Head, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, Socket,
    Writer, attributes, find, message,
};

/// The table's name.
pub(crate) const TABLE: &str = "vnfpool-hold";
/// After source translation (100), long before connection tracking confirms (the last).
const PRIORITY: u32 = 300;
const BASE_CHAIN: &str = "postrouting";
const HOLD_CHAIN: &str = "hold";
/// `AF_INET` and `AF_INET6`.
pub(crate) const FAMILIES: [u8; 2] = [2, 10];

const NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = NFTABLES << 8;
const NEW_CHAIN: u16 = NFTABLES << 8 | 3;
const NEW_RULE: u16 = NFTABLES << 8 | 6;
const GET_RULE: u16 = NFTABLES << 8 | 7;
const DELETE_RULE: u16 = NFTABLES << 8 | 8;

const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const TABLE_FLAG_OWNER: u32 = 2;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const POSTROUTING: u32 = 4;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const COUNTER_PACKETS: u16 = 2;

const REGISTER_VERDICT: u32 = 0;
const REGISTER: u32 = 1;
const KEY_CT_STATUS: u32 = 2;
const KEY_META_OIFNAME: u32 = 7;
const KEY_META_SKUID: u32 = 10;
const EQUAL: u32 = 0;
const STATUS_CONFIRMED: u32 = 1 << 3;
const VERDICT_ACCEPT: u32 = 1;
const VERDICT_JUMP: u32 = (-3_i32).cast_unsigned();
const QUEUE_BYPASS: u16 = 1;
const INTERFACE_NAME_BYTES: usize = 16;

/// The rules, which are there as long as this value.
#[derive(Debug)]
pub(crate) struct Rules {
    socket: Socket,
}

/// How a rule says that a packet is to be queued.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// nftables' own expression (`CONFIG_NFT_QUEUE`).
    Native,
    /// The target of iptables (`CONFIG_NFT_COMPAT` and `CONFIG_NETFILTER_XT_TARGET_NFQUEUE`).
    Target,
}

impl Rules {
    /// Sends packets of new connections to queue `number`: those that leave by one of
    /// `interfaces`, or by any if none is named.
    pub(crate) fn install(number: u16, interfaces: &[String]) -> Result<Self, HoldError> {
        let socket = Socket::open()?;
        // The first refusal decides, and it is told by the message that it answers. ENOENT is
        // what the kernel says of an expression that it does not know.
        let result = match socket.ask(&batch(number, interfaces, Form::Native))? {
            Err((RULE_SEQUENCE, Errno::NOENT)) => {
                socket.ask(&batch(number, interfaces, Form::Target))?
            }
            other => other,
        };
        match result {
            Ok(()) => Ok(Self { socket }),
            Err((TABLE_SEQUENCE, Errno::EXIST | Errno::PERM)) => Err(HoldError::Taken {
                place: "the nftables table 'vnfpool-hold'",
            }),
            Err((sequence, errno)) => Err(HoldError::Refused {
                attempt: match sequence {
                    TABLE_SEQUENCE => "make an nftables table of our own (since Linux 5.12)",
                    CHAIN_SEQUENCE => "make an nftables chain after source translation",
                    _ => {
                        "make a rule that queues packets (needs CONFIG_NFT_CT=y and \
                         CONFIG_NFT_QUEUE=y, or CONFIG_NFT_COMPAT=y and \
                         CONFIG_NETFILTER_XT_TARGET_NFQUEUE=y)"
                    }
                },
                source: io::Error::from(errno),
            }),
        }
    }

    /// Packets that the rules have sent to the queue, whether or not it took them.
    pub(crate) fn queued(&self) -> Result<u64, HoldError> {
        let mut packets = 0;
        for family in FAMILIES {
            let mut request = Vec::new();
            let head = Head {
                kind: GET_RULE,
                flags: NLM_F_REQUEST | NLM_F_DUMP,
                sequence: 1,
                family,
                resource: 0,
            };
            message(&mut request, head, |writer| {
                writer.put_text(RULE_TABLE, TABLE);
                writer.put_text(RULE_CHAIN, HOLD_CHAIN);
            });
            self.socket
                .dump(&request, |rule| packets += counted(rule))?;
        }
        Ok(packets)
    }

    /// From now on nothing goes to the queue. The chains stay until this value is dropped: when a
    /// chain goes, the kernel drops what is in the queues of the network namespace.
    pub(crate) fn stop(&self) -> Result<(), HoldError> {
        let request = transaction(|out| {
            for family in FAMILIES {
                message(out, head(DELETE_RULE, family, RULE_SEQUENCE), |writer| {
                    writer.put_text(RULE_TABLE, TABLE);
                    writer.put_text(RULE_CHAIN, HOLD_CHAIN);
                });
            }
        });
        self.socket
            .ask(&request)?
            .map_err(|(_, errno)| HoldError::Refused {
                attempt: "remove our nftables rules",
                source: io::Error::from(errno),
            })
    }
}

// What a refusal is about. Messages of a kind have one number.
const TABLE_SEQUENCE: u32 = 1;
const CHAIN_SEQUENCE: u32 = 2;
const RULE_SEQUENCE: u32 = 3;

const fn head(kind: u16, family: u8, sequence: u32) -> Head {
    Head {
        kind,
        flags: NLM_F_REQUEST | NLM_F_ACK,
        sequence,
        family,
        resource: 0,
    }
}

/// Messages that take effect together or not at all.
fn transaction(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let limit = |kind| Head {
        kind,
        flags: NLM_F_REQUEST,
        sequence: 0,
        family: 0,
        resource: NFTABLES,
    };
    let mut out = Vec::new();
    message(&mut out, limit(BATCH_BEGIN), |_| {});
    fill(&mut out);
    message(&mut out, limit(BATCH_END), |_| {});
    out
}

fn batch(number: u16, interfaces: &[String], form: Form) -> Vec<u8> {
    transaction(|out| {
        for family in FAMILIES {
            let create = |kind, sequence, more| {
                let plain = head(kind, family, sequence);
                Head {
                    flags: plain.flags | NLM_F_CREATE | more,
                    ..plain
                }
            };
            message(
                out,
                create(NEW_TABLE, TABLE_SEQUENCE, NLM_F_EXCL),
                |writer| {
                    writer.put_text(TABLE_NAME, TABLE);
                    writer.put_u32(TABLE_FLAGS, TABLE_FLAG_OWNER);
                },
            );
            let chain = create(NEW_CHAIN, CHAIN_SEQUENCE, 0);
            message(out, chain, |writer| {
                writer.put_text(CHAIN_TABLE, TABLE);
                writer.put_text(CHAIN_NAME, HOLD_CHAIN);
            });
            message(out, chain, |writer| {
                writer.put_text(CHAIN_TABLE, TABLE);
                writer.put_text(CHAIN_NAME, BASE_CHAIN);
                writer.nest(CHAIN_HOOK, |hook| {
                    hook.put_u32(HOOK_NUMBER, POSTROUTING);
                    hook.put_u32(HOOK_PRIORITY, PRIORITY);
                });
                writer.put_u32(CHAIN_POLICY, VERDICT_ACCEPT);
                writer.put_text(CHAIN_TYPE, "filter");
            });
            let mut rule = |chain, fill: &dyn Fn(&mut Writer<'_>)| {
                let head = create(NEW_RULE, RULE_SEQUENCE, NLM_F_APPEND);
                message(out, head, |writer| {
                    writer.put_text(RULE_TABLE, TABLE);
                    writer.put_text(RULE_CHAIN, chain);
                    writer.nest(RULE_EXPRESSIONS, fill);
                });
            };
            rule(BASE_CHAIN, &|rule| {
                match_unconfirmed(rule);
                verdict(rule, VERDICT_JUMP, Some(HOLD_CHAIN));
            });
            rule(HOLD_CHAIN, &|rule| {
                match_own(rule);
                verdict(rule, VERDICT_ACCEPT, None);
            });
            if interfaces.is_empty() {
                rule(HOLD_CHAIN, &|rule| queue(rule, number, form));
            }
            for interface in interfaces {
                rule(HOLD_CHAIN, &|rule| {
                    match_interface(rule, interface);
                    queue(rule, number, form);
                });
            }
        }
    })
}

fn expression(rule: &mut Writer<'_>, name: &str, fill: impl FnOnce(&mut Writer<'_>)) {
    rule.nest(ELEMENT, |element| {
        element.put_text(EXPRESSION_NAME, name);
        element.nest(EXPRESSION_DATA, fill);
    });
}

/// The connection is in no table yet. A packet without a connection does not match.
fn match_unconfirmed(rule: &mut Writer<'_>) {
    expression(rule, "ct", |data| {
        data.put_u32(1, REGISTER);
        data.put_u32(2, KEY_CT_STATUS);
    });
    expression(rule, "bitwise", |data| {
        data.put_u32(1, REGISTER);
        data.put_u32(2, REGISTER);
        data.put_u32(3, 4);
        data.nest(4, |mask| {
            mask.put(DATA_VALUE, &STATUS_CONFIRMED.to_ne_bytes())
        });
        data.nest(5, |xor| xor.put(DATA_VALUE, &[0; 4]));
    });
    compare(rule, &[0; 4]);
}

/// A program on this machine made the packet: only those have a socket with an owner. The agent's
/// own connection to the successor must not wait for itself.
fn match_own(rule: &mut Writer<'_>) {
    expression(rule, "meta", |data| {
        data.put_u32(1, REGISTER);
        data.put_u32(2, KEY_META_SKUID);
    });
}

fn match_interface(rule: &mut Writer<'_>, interface: &str) {
    expression(rule, "meta", |data| {
        data.put_u32(1, REGISTER);
        data.put_u32(2, KEY_META_OIFNAME);
    });
    let mut name = [0; INTERFACE_NAME_BYTES];
    for (to, from) in name.iter_mut().zip(interface.bytes()) {
        *to = from;
    }
    compare(rule, &name);
}

fn compare(rule: &mut Writer<'_>, value: &[u8]) {
    expression(rule, "cmp", |data| {
        data.put_u32(1, REGISTER);
        data.put_u32(2, EQUAL);
        data.nest(3, |nested| nested.put(DATA_VALUE, value));
    });
}

fn verdict(rule: &mut Writer<'_>, code: u32, chain: Option<&str>) {
    expression(rule, "immediate", |data| {
        data.put_u32(1, REGISTER_VERDICT);
        data.nest(2, |nested| {
            nested.nest(DATA_VERDICT, |verdict| {
                verdict.put_u32(1, code);
                if let Some(chain) = chain {
                    verdict.put_text(2, chain);
                }
            });
        });
    });
}

fn queue(rule: &mut Writer<'_>, number: u16, form: Form) {
    expression(rule, "counter", |_| {});
    match form {
        Form::Native => expression(rule, "queue", |data| {
            data.put(1, &number.to_be_bytes());
            data.put(2, &1_u16.to_be_bytes());
            data.put(3, &QUEUE_BYPASS.to_be_bytes());
        }),
        Form::Target => expression(rule, "target", |data| {
            data.put_text(1, "NFQUEUE");
            data.put_u32(2, 3);
            // struct xt_NFQ_info_v3, padded to eight bytes.
            let fields = [number, 1, QUEUE_BYPASS, 0].map(u16::to_ne_bytes);
            data.put(3, fields.as_flattened());
        }),
    }
}

/// The packets of a rule's counter; 0 if it has none.
fn counted(rule: &[u8]) -> u64 {
    let expressions = find(rule, RULE_EXPRESSIONS).unwrap_or_default();
    attributes(expressions)
        .filter(|(_, element)| find(element, EXPRESSION_NAME) == Some(b"counter\0"))
        .filter_map(|(_, element)| find(element, EXPRESSION_DATA))
        .filter_map(|data| find(data, COUNTER_PACKETS)?.try_into().ok())
        .map(u64::from_be_bytes)
        .sum()
}
