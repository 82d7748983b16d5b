// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// Tells the agent which connection a packet belongs to that netfilter puts in its queue.
//
// The queue's own message cannot say it on every kernel (that takes NETFILTER_NETLINK_GLUE_CT), and
// the packet alone shows the connection after translation only. So there are two programs:
//
//   hold_observe  in the hook of POSTROUTING, just before the rule that queues. It sees the packet
//                 with its connection, which is in no table yet, and notes it down.
//   hold_tell     filter of the queue's netlink socket. It sees the message with the packet's number
//                 in the queue, puts number and note together in the ring, and drops the message:
//                 nobody has to read it, and nobody is woken. Only if the agent is about to sleep
//                 the message goes on, to wake it.
//
// Only forwarded packets are queued, and those are handled with softirqs off from one hook to the
// next, so the note that `hold_tell` finds on its processor is the packet's. The kernel sends the
// message with the queue locked and counts in it, so records are in order of their numbers and none
// is left out, but for those that are counted as `untold`.

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PROTOCOL_TCP 6
#define PROTOCOL_SCTP 132
#define ACCEPT 1
#define STATUS_CONFIRMED (1 << 3)

// Low bits of `sk_buff._nfct`: how the packet relates to the connection.
#define RELATION_MASK 7UL
#define RELATED 1
#define NEW 2

// NFNL_SUBSYS_QUEUE and NFQNL_MSG_PACKET; NFQA_PACKET_HDR.
#define MESSAGE_PACKET 0x0300
#define ATTRIBUTE_PACKET 1

// The kernel's types, as far as they are read; where the fields lie is found out when the program
// is loaded.
#define KERNEL __attribute__((preserve_access_index))

struct sk_buff {
	unsigned long _nfct;
} KERNEL;

// The context of a netfilter program.
struct bpf_nf_ctx {
	const void *state;
	struct sk_buff *skb;
};

struct nf_conntrack_zone {
	__u16 id;
	__u8 dir;
} KERNEL;

// Copied as a whole. Its layout has not changed since there is connection tracking for IPv6.
struct nf_conntrack_tuple {
	__u32 source[4];
	__be16 source_port;
	__u16 family;
	__u32 destination[4];
	__be16 destination_port;
	__u8 protocol;
	__u8 direction;
};

struct nf_conntrack_tuple_hash {
	struct nf_conntrack_tuple tuple;
} KERNEL;

struct ip_ct_tcp_state {
	__u8 td_scale;
	__u8 flags;
} KERNEL;

struct ip_ct_tcp {
	struct ip_ct_tcp_state seen[2];
	__u8 state;
} KERNEL;

enum sctp_conntrack { SCTP_CONNTRACK_NONE };

struct ip_ct_sctp {
	enum sctp_conntrack state;
	__be32 vtag[2];
} KERNEL;

union nf_conntrack_proto {
	struct ip_ct_sctp sctp;
	struct ip_ct_tcp tcp;
} KERNEL;

struct nf_conn {
	__u32 timeout;
	struct nf_conntrack_zone zone;
	struct nf_conntrack_tuple_hash tuplehash[2];
	unsigned long status;
	__u32 mark;
	union nf_conntrack_proto proto;
} KERNEL;

// What is told of a packet; `src/record.rs` reads it.
struct record {
	__u32 id;
	__u32 status;
	// Of family 0 when there was no note.
	struct nf_conntrack_tuple original;
	struct nf_conntrack_tuple reply;
	__u32 mark;
	// In the kernel's ticks, and from now on, as long as the connection is in no table.
	__u32 timeout;
	__u16 zone;
	__u8 zone_direction;
	// Of TCP or SCTP, with the next three.
	__u8 state;
	__u8 scale[2];
	__u8 flags[2];
	__be32 tags[2];
};

// The note of each processor.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct record);
} notes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	// Set when it is loaded, by the length of the queue.
	__uint(max_entries, 4096);
} records SEC(".maps");

// Packets in the queue for whose record there was no room.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} untold SEC(".maps");

// Whether the agent is about to sleep. Waking it for each packet costs more than everything else
// here, so it is done once. The socket's wake-up is cheaper than the ring's, which takes an
// interrupt.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} armed SEC(".maps");

static __always_inline void note_protocol(struct record *note, struct nf_conn *connection)
{
	note->state = 0;
	__builtin_memset(note->scale, 0, sizeof(note->scale));
	__builtin_memset(note->flags, 0, sizeof(note->flags));
	__builtin_memset(note->tags, 0, sizeof(note->tags));
	switch (note->original.protocol) {
	case PROTOCOL_TCP:
		note->state = BPF_CORE_READ(connection, proto.tcp.state);
		note->scale[0] = BPF_CORE_READ(connection, proto.tcp.seen[0].td_scale);
		note->scale[1] = BPF_CORE_READ(connection, proto.tcp.seen[1].td_scale);
		note->flags[0] = BPF_CORE_READ(connection, proto.tcp.seen[0].flags);
		note->flags[1] = BPF_CORE_READ(connection, proto.tcp.seen[1].flags);
		break;
	case PROTOCOL_SCTP:
		note->state = BPF_CORE_READ(connection, proto.sctp.state);
		note->tags[0] = BPF_CORE_READ(connection, proto.sctp.vtag[0]);
		note->tags[1] = BPF_CORE_READ(connection, proto.sctp.vtag[1]);
		break;
	}
}

// Attached as a netfilter program, for which the loader has no section name.
SEC("classifier")
int hold_observe(struct bpf_nf_ctx *context)
{
	unsigned long tracked = context->skb->_nfct;
	unsigned long relation = tracked & RELATION_MASK;
	struct nf_conn *connection = (struct nf_conn *)(tracked & ~RELATION_MASK);
	unsigned long status;
	struct record *note;
	__u32 zero = 0;

	// Nearly every packet of an established connection ends here, without a call.
	if (!connection || (relation != NEW && relation != RELATED))
		return ACCEPT;
	status = BPF_CORE_READ(connection, status);
	if (status & STATUS_CONFIRMED)
		return ACCEPT;
	note = bpf_map_lookup_elem(&notes, &zero);
	if (!note)
		return ACCEPT;
	note->status = status;
	bpf_core_read(&note->original, sizeof(note->original), &connection->tuplehash[0].tuple);
	bpf_core_read(&note->reply, sizeof(note->reply), &connection->tuplehash[1].tuple);
	note->timeout = BPF_CORE_READ(connection, timeout);
	note->mark = 0;
	if (bpf_core_field_exists(connection->mark))
		note->mark = BPF_CORE_READ(connection, mark);
	note->zone = 0;
	note->zone_direction = 3;
	if (bpf_core_field_exists(connection->zone)) {
		note->zone = BPF_CORE_READ(connection, zone.id);
		note->zone_direction = BPF_CORE_READ(connection, zone.dir);
	}
	note_protocol(note, connection);
	return ACCEPT;
}

// A netlink message and its first attribute, as far as it matters here.
struct message {
	__u32 length;
	__u16 type;
	__u16 flags;
	__u32 sequence;
	__u32 port;
	__u32 subsystem;
	__u16 attribute_length;
	__u16 attribute_type;
	__be32 packet_id;
};

SEC("socket")
int hold_tell(struct __sk_buff *skb)
{
	struct message message;
	volatile __u32 *is_armed;
	struct record *note;
	__u64 *count;
	__u32 zero = 0;

	if (bpf_skb_load_bytes(skb, 0, &message, sizeof(message)))
		return 0;
	if (message.type != MESSAGE_PACKET || message.attribute_type != ATTRIBUTE_PACKET)
		return 0;
	note = bpf_map_lookup_elem(&notes, &zero);
	count = bpf_map_lookup_elem(&untold, &zero);
	is_armed = bpf_map_lookup_elem(&armed, &zero);
	if (!note || !count || !is_armed)
		return 0;
	note->id = bpf_ntohl(message.packet_id);
	if (bpf_ringbuf_output(&records, note, sizeof(*note), BPF_RB_NO_WAKEUP))
		++*count;
	// Used up.
	note->original.family = 0;
	// After the record, whose way into the ring is a full barrier: the agent arms first and looks into
	// the ring then, so one of the two sees the other.
	if (!*is_armed)
		return 0;
	*is_armed = 0;
	return skb->len;
}

// `bpf_probe_read_kernel` is for programs that say they are compatible with the GPL. This one is,
// by the MIT licence.
char hold_license[] SEC("license") = "Dual MIT/GPL";
