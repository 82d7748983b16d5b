//! Numbers of `linux/netlink.h`, `linux/netfilter/nfnetlink.h` and
//! `linux/netfilter/nfnetlink_conntrack.h`.

pub(crate) const NETLINK_HEADER_BYTES: usize = 16;
/// `struct nfgenmsg`: family, version, resource id.
pub(crate) const GENERIC_HEADER_BYTES: usize = 4;

pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;

pub(crate) const NLM_F_REQUEST: u16 = 0x01;
pub(crate) const NLM_F_ACK: u16 = 0x04;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
/// A dump saw the table change under it.
pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;

const SUBSYSTEM_CTNETLINK: u16 = 1 << 8;
pub(crate) const CT_NEW: u16 = SUBSYSTEM_CTNETLINK;
pub(crate) const CT_GET: u16 = SUBSYSTEM_CTNETLINK | 1;
pub(crate) const CT_DELETE: u16 = SUBSYSTEM_CTNETLINK | 2;

/// Multicast groups NEW (1), UPDATE (2) and DESTROY (3) as a bit mask.
pub(crate) const CONNTRACK_GROUPS: u32 = 0b111;

const SUBSYSTEM_CTNETLINK_EXP: u16 = 2 << 8;
pub(crate) const EXP_NEW: u16 = SUBSYSTEM_CTNETLINK_EXP;
pub(crate) const EXP_GET: u16 = SUBSYSTEM_CTNETLINK_EXP | 1;
pub(crate) const EXP_DELETE: u16 = SUBSYSTEM_CTNETLINK_EXP | 2;

/// Multicast groups EXP_NEW (4) and EXP_DESTROY (6) as a bit mask. The kernel never sends to
/// EXP_UPDATE (5).
pub(crate) const EXPECTATION_GROUPS: u32 = 0b10_1000;

pub(crate) const AF_UNSPEC: u8 = 0;
pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_INET6: u8 = 10;

pub(crate) const CTA_TUPLE_ORIG: u16 = 1;
pub(crate) const CTA_TUPLE_REPLY: u16 = 2;
pub(crate) const CTA_STATUS: u16 = 3;
pub(crate) const CTA_PROTOINFO: u16 = 4;
pub(crate) const CTA_HELP: u16 = 5;
pub(crate) const CTA_NAT_SRC: u16 = 6;
pub(crate) const CTA_TIMEOUT: u16 = 7;
pub(crate) const CTA_MARK: u16 = 8;
pub(crate) const CTA_NAT_DST: u16 = 13;
pub(crate) const CTA_TUPLE_MASTER: u16 = 14;
pub(crate) const CTA_SEQ_ADJ_ORIG: u16 = 15;
pub(crate) const CTA_SEQ_ADJ_REPLY: u16 = 16;
pub(crate) const CTA_ZONE: u16 = 18;
pub(crate) const CTA_LABELS: u16 = 22;

pub(crate) const CTA_TUPLE_IP: u16 = 1;
pub(crate) const CTA_TUPLE_PROTO: u16 = 2;
pub(crate) const CTA_TUPLE_ZONE: u16 = 3;

pub(crate) const CTA_IP_V4_SRC: u16 = 1;
pub(crate) const CTA_IP_V4_DST: u16 = 2;
pub(crate) const CTA_IP_V6_SRC: u16 = 3;
pub(crate) const CTA_IP_V6_DST: u16 = 4;

pub(crate) const CTA_PROTO_NUM: u16 = 1;
pub(crate) const CTA_PROTO_SRC_PORT: u16 = 2;
pub(crate) const CTA_PROTO_DST_PORT: u16 = 3;
pub(crate) const CTA_PROTO_ICMP_ID: u16 = 4;
pub(crate) const CTA_PROTO_ICMP_TYPE: u16 = 5;
pub(crate) const CTA_PROTO_ICMP_CODE: u16 = 6;
pub(crate) const CTA_PROTO_ICMPV6_ID: u16 = 7;
pub(crate) const CTA_PROTO_ICMPV6_TYPE: u16 = 8;
pub(crate) const CTA_PROTO_ICMPV6_CODE: u16 = 9;

pub(crate) const CTA_PROTOINFO_TCP: u16 = 1;
pub(crate) const CTA_PROTOINFO_SCTP: u16 = 3;
/// State, the first attribute of TCP as of SCTP protocol information.
pub(crate) const CTA_PROTOINFO_STATE: u16 = 1;
pub(crate) const CTA_PROTOINFO_TCP_WSCALE_ORIGINAL: u16 = 2;
pub(crate) const CTA_PROTOINFO_TCP_WSCALE_REPLY: u16 = 3;
pub(crate) const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
pub(crate) const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;
pub(crate) const CTA_PROTOINFO_SCTP_VTAG_ORIGINAL: u16 = 2;
pub(crate) const CTA_PROTOINFO_SCTP_VTAG_REPLY: u16 = 3;

pub(crate) const CTA_SEQADJ_CORRECTION_POS: u16 = 1;
pub(crate) const CTA_SEQADJ_OFFSET_BEFORE: u16 = 2;
pub(crate) const CTA_SEQADJ_OFFSET_AFTER: u16 = 3;

pub(crate) const CTA_NAT_V4_MINIP: u16 = 1;
pub(crate) const CTA_NAT_V4_MAXIP: u16 = 2;
pub(crate) const CTA_NAT_PROTO: u16 = 3;
pub(crate) const CTA_NAT_V6_MINIP: u16 = 4;
pub(crate) const CTA_NAT_V6_MAXIP: u16 = 5;
pub(crate) const CTA_PROTONAT_PORT_MIN: u16 = 1;
pub(crate) const CTA_PROTONAT_PORT_MAX: u16 = 2;

pub(crate) const CTA_HELP_NAME: u16 = 1;

pub(crate) const CTA_EXPECT_MASTER: u16 = 1;
pub(crate) const CTA_EXPECT_TUPLE: u16 = 2;
pub(crate) const CTA_EXPECT_MASK: u16 = 3;
pub(crate) const CTA_EXPECT_TIMEOUT: u16 = 4;
pub(crate) const CTA_EXPECT_HELP_NAME: u16 = 6;
pub(crate) const CTA_EXPECT_ZONE: u16 = 7;
pub(crate) const CTA_EXPECT_FLAGS: u16 = 8;
pub(crate) const CTA_EXPECT_CLASS: u16 = 9;
pub(crate) const CTA_EXPECT_NAT: u16 = 10;
pub(crate) const CTA_EXPECT_FN: u16 = 11;

pub(crate) const CTA_EXPECT_NAT_DIR: u16 = 1;
pub(crate) const CTA_EXPECT_NAT_TUPLE: u16 = 2;
