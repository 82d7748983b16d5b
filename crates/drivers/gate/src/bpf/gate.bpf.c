// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// The gate: drops every packet to or from a virtual address once the lease of its slot is over.
//
// Attached to ingress and egress of each LAN's parent interface. On ingress it runs before
// macvlan takes the frame, on egress it runs after macvlan has handed the frame down, so it sees
// everything that the slot's devices receive or send, and the forwarded packets as well: those
// leave through a parent with the parent's own MAC, but still carry the index of the macvlan that
// they came in by (`ingress_ifindex`).
//
// Rule: a packet may belong to several slots (by its MAC, its addresses, its way in); every one
// of them has to be open. Anything that belongs to no slot is none of our business.

#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define SLOTS_MAX 256
#define KEYS_MAX 1024

// The same values in tcx and in a classic tc filter with direct action.
#define NEXT (-1)
#define DROP 2

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_IPV6 0x86dd
#define PROTOCOL_ICMPV6 58
#define NEIGHBOR_SOLICITATION 135
#define NEIGHBOR_ADVERTISEMENT 136

struct mac {
	__u8 bytes[6];
};

// A virtual MAC on one LAN: a virtual router id is unique per LAN only.
struct mac_key {
	__u32 ifindex;
	struct mac mac;
	__u16 zero;
};

// IPv4 addresses are written as ::ffff:a.b.c.d.
struct address {
	__u32 words[4];
};

// Whose a virtual address is, and the only MAC that may announce it.
struct claim {
	__u32 slot;
	struct mac mac;
	__u16 zero;
};

// A changed layout needs a new map name: pinned maps are taken over by their name.
struct counters {
	__u64 ingress_dropped;
	__u64 egress_dropped;
	__u64 ingress_foreign;
	__u64 egress_foreign;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLOTS_MAX);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} deadlines SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLOTS_MAX);
	__type(key, __u32);
	__type(value, struct counters);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KEYS_MAX);
	__type(key, struct mac_key);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} macs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KEYS_MAX);
	__type(key, struct address);
	__type(value, struct claim);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KEYS_MAX);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} devices SEC(".maps");

struct ethernet {
	struct mac destination;
	struct mac source;
	__be16 type;
} __attribute__((packed));

struct arp {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	struct mac sender_mac;
	__be32 sender;
	struct mac target_mac;
	__be32 target;
} __attribute__((packed));

struct ipv4 {
	__u8 unused[12];
	__be32 source;
	__be32 destination;
};

struct ipv6 {
	__u8 unused[6];
	__u8 next_header;
	__u8 hop_limit;
	struct address source;
	struct address destination;
};

struct neighbor {
	__u8 type;
	__u8 code;
	__u8 unused[6];
	struct address target;
	// The first option, if there is one.
	__u8 option;
	__u8 option_length;
	struct mac link_address;
};

enum direction { INGRESS, EGRESS };

static __always_inline int same_mac(const struct mac *a, const struct mac *b)
{
	return a->bytes[5] == b->bytes[5] && a->bytes[4] == b->bytes[4] &&
	       a->bytes[3] == b->bytes[3] && a->bytes[2] == b->bytes[2] &&
	       a->bytes[1] == b->bytes[1] && a->bytes[0] == b->bytes[0];
}

static __always_inline struct claim *claim_of(const struct address *address)
{
	return bpf_map_lookup_elem(&addresses, address);
}

static __always_inline struct claim *claim_of_ipv4(__be32 ipv4)
{
	struct address address = { { 0, 0, bpf_htonl(0xffff), ipv4 } };

	return claim_of(&address);
}

static __always_inline int is_open(__u32 slot)
{
	__u64 *deadline = bpf_map_lookup_elem(&deadlines, &slot);

	return deadline && bpf_ktime_get_boot_ns() < *(volatile __u64 *)deadline;
}

// Returns whether the packet may pass as far as `slot` is concerned, and counts it if not.
static __always_inline int admits(__u32 slot, enum direction direction)
{
	struct counters *count;

	if (is_open(slot))
		return 1;
	count = bpf_map_lookup_elem(&counters, &slot);
	if (count) {
		if (direction == INGRESS)
			count->ingress_dropped++;
		else
			count->egress_dropped++;
	}
	return 0;
}

static __always_inline void count_foreign(__u32 slot, enum direction direction)
{
	struct counters *count = bpf_map_lookup_elem(&counters, &slot);

	if (!count)
		return;
	if (direction == INGRESS)
		count->ingress_foreign++;
	else
		count->egress_foreign++;
}

// The slot of a MAC on this LAN. A frame with a VLAN tag belongs to another LAN.
static __always_inline __u32 *slot_of_mac(struct __sk_buff *skb, const struct mac *mac)
{
	struct mac_key key = { .ifindex = skb->ifindex, .mac = *mac };

	return skb->vlan_present ? 0 : bpf_map_lookup_elem(&macs, &key);
}

static __always_inline int is_neighbor_message(const struct neighbor *message)
{
	return message->code == 0 && (message->type == NEIGHBOR_SOLICITATION ||
				      message->type == NEIGHBOR_ADVERTISEMENT);
}

// Loads as much of a neighbor message as there is; returns 0 if it is too short to be one.
static __always_inline int load_neighbor(struct __sk_buff *skb, struct neighbor *message)
{
	const __u32 offset = sizeof(struct ethernet) + sizeof(struct ipv6);

	if (!bpf_skb_load_bytes(skb, offset, message, sizeof(*message)))
		return 1;
	__builtin_memset(message, 0, sizeof(*message));
	return !bpf_skb_load_bytes(skb, offset, message,
				   __builtin_offsetof(struct neighbor, option));
}

static __always_inline int is_unspecified(const struct address *address)
{
	return !(address->words[0] | address->words[1] | address->words[2] | address->words[3]);
}

static __always_inline int ingress_arp(struct __sk_buff *skb)
{
	struct arp arp;
	struct claim *claim;

	if (bpf_skb_load_bytes(skb, sizeof(struct ethernet), &arp, sizeof(arp)))
		return 1;
	claim = claim_of_ipv4(arp.sender);
	if (claim) {
		if (!admits(claim->slot, INGRESS))
			return 0;
		// The slot is ours and somebody else says that the address is his.
		count_foreign(claim->slot, INGRESS);
	}
	claim = claim_of_ipv4(arp.target);
	return !claim || admits(claim->slot, INGRESS);
}

static __always_inline int ingress_ipv6(struct __sk_buff *skb)
{
	struct ipv6 ip;
	struct neighbor message;
	struct claim *claim;

	if (bpf_skb_load_bytes(skb, sizeof(struct ethernet), &ip, sizeof(ip)))
		return 1;
	claim = claim_of(&ip.destination);
	if (claim && !admits(claim->slot, INGRESS))
		return 0;
	if (ip.next_header != PROTOCOL_ICMPV6 || !load_neighbor(skb, &message) ||
	    !is_neighbor_message(&message))
		return 1;
	claim = claim_of(&message.target);
	if (!claim)
		return 1;
	if (!admits(claim->slot, INGRESS))
		return 0;
	if (message.type == NEIGHBOR_ADVERTISEMENT)
		count_foreign(claim->slot, INGRESS);
	return 1;
}

SEC("classifier")
int gate_ingress(struct __sk_buff *skb)
{
	struct ethernet ethernet;
	struct ipv4 ipv4;
	struct claim *claim;
	__u32 *slot;

	if (bpf_skb_load_bytes(skb, 0, &ethernet, sizeof(ethernet)))
		return NEXT;
	slot = slot_of_mac(skb, &ethernet.destination);
	if (slot && !admits(*slot, INGRESS))
		return DROP;

	switch (bpf_ntohs(ethernet.type)) {
	case ETHERTYPE_ARP:
		return ingress_arp(skb) ? NEXT : DROP;
	case ETHERTYPE_IPV6:
		return ingress_ipv6(skb) ? NEXT : DROP;
	case ETHERTYPE_IPV4:
		if (bpf_skb_load_bytes(skb, sizeof(ethernet), &ipv4, sizeof(ipv4)))
			return NEXT;
		claim = claim_of_ipv4(ipv4.destination);
		return !claim || admits(claim->slot, INGRESS) ? NEXT : DROP;
	default:
		return NEXT;
	}
}

// Only the virtual MAC may say where a virtual address is; `said` is what the message says.
static __always_inline int may_announce(const struct claim *claim, const struct ethernet *ethernet,
					const struct mac *said)
{
	if (same_mac(&ethernet->source, &claim->mac) && same_mac(said, &claim->mac))
		return admits(claim->slot, EGRESS);
	count_foreign(claim->slot, EGRESS);
	return 0;
}

static __always_inline int egress_arp(struct __sk_buff *skb, const struct ethernet *ethernet)
{
	struct arp arp;
	struct claim *claim;

	if (bpf_skb_load_bytes(skb, sizeof(*ethernet), &arp, sizeof(arp)))
		return 1;
	claim = claim_of_ipv4(arp.sender);
	return !claim || may_announce(claim, ethernet, &arp.sender_mac);
}

static __always_inline int egress_ipv6(struct __sk_buff *skb, const struct ethernet *ethernet)
{
	struct ipv6 ip;
	struct neighbor message;
	struct claim *claim;

	if (bpf_skb_load_bytes(skb, sizeof(*ethernet), &ip, sizeof(ip)))
		return 1;
	claim = claim_of(&ip.source);
	if (claim && !admits(claim->slot, EGRESS))
		return 0;
	if (ip.next_header != PROTOCOL_ICMPV6 || !load_neighbor(skb, &message) ||
	    !is_neighbor_message(&message))
		return 1;
	// An advertisement speaks for its target, a solicitation for its source, or for its
	// target when it looks for duplicates.
	if (message.type == NEIGHBOR_ADVERTISEMENT || is_unspecified(&ip.source))
		claim = claim_of(&message.target);
	if (!claim)
		return 1;
	return may_announce(claim, ethernet,
			    message.option_length == 1 ? &message.link_address
						       : &ethernet->source);
}

SEC("classifier")
int gate_egress(struct __sk_buff *skb)
{
	struct ethernet ethernet;
	struct ipv4 ipv4;
	struct claim *claim;
	__u32 device = skb->ingress_ifindex;
	__u32 *slot;

	slot = bpf_map_lookup_elem(&devices, &device);
	if (slot && !admits(*slot, EGRESS))
		return DROP;
	if (bpf_skb_load_bytes(skb, 0, &ethernet, sizeof(ethernet)))
		return NEXT;
	slot = slot_of_mac(skb, &ethernet.source);
	if (slot && !admits(*slot, EGRESS))
		return DROP;

	switch (bpf_ntohs(ethernet.type)) {
	case ETHERTYPE_ARP:
		return egress_arp(skb, &ethernet) ? NEXT : DROP;
	case ETHERTYPE_IPV6:
		return egress_ipv6(skb, &ethernet) ? NEXT : DROP;
	case ETHERTYPE_IPV4:
		if (bpf_skb_load_bytes(skb, sizeof(ethernet), &ipv4, sizeof(ipv4)))
			return NEXT;
		claim = claim_of_ipv4(ipv4.source);
		return !claim || admits(claim->slot, EGRESS) ? NEXT : DROP;
	default:
		return NEXT;
	}
}

// No helper used here is restricted to GPL programs.
char gate_license[] SEC("license") = "Apache-2.0 OR MIT";
