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
//
// Every call of a helper counts for something at millions of packets a second. So what a packet
// belongs to is looked up in `places`, an array, for which the kernel makes no call, and the hash maps
// are asked only where it cannot tell. Forwarding an IPv4 packet takes one call a program: the
// clock.

#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define SLOTS_MAX 256
#define KEYS_MAX 1024
#define PLACE_BITS 12

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

// An entry is empty (0), a tag and the slot of the only key that belongs here, or SHARED: several
// keys do, ask the hash maps. Userspace writes an entry before it adds the key to its hash map.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << PLACE_BITS);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} places SEC(".maps");

#define SHARED (~0ULL)
#define SLOT_BITS 16
// A tag is the kind of a key and 41 bits that are all of it, but for IPv6 addresses.
#define TAG(kind, payload) ((__u64)(kind) << 41 | (payload))
#define TAG_MAC 1
#define TAG_DEVICE 2
#define TAG_IPV4 3
#define TAG_IPV6 4
// Odd, and its bits are well mixed: 2^64 over the golden ratio.
#define MIX 0x9e3779b97f4a7c15ULL

#define NO_SLOT (-1)

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

static __always_inline __u64 entry_of(__u64 tag)
{
	__u32 place = tag * MIX >> (64 - PLACE_BITS);
	__u64 *entry = bpf_map_lookup_elem(&places, &place);

	return entry ? *(volatile __u64 *)entry : SHARED;
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

// A MAC in two words, as they lie in a frame.
struct mac_words {
	__u16 high;
	__u32 low;
};

// The slot of a MAC on this LAN. A frame with a VLAN tag belongs to another LAN. Virtual MACs are
// those of RFC 9568 section 7.3: 00:00:5e:00:01:{vrid} and 00:00:5e:00:02:{vrid}.
static __always_inline int slot_of_mac(struct __sk_buff *skb, struct mac_words mac)
{
	__u32 low = bpf_ntohl(mac.low);
	__u32 family = (low >> 8) - 0x5e0001;
	struct mac_key key = { .ifindex = skb->ifindex };
	__u64 tag, entry;
	__u32 *slot;

	if (mac.high || family > 1 || skb->vlan_present)
		return NO_SLOT;
	tag = TAG(TAG_MAC, (__u64)skb->ifindex << 9 | family << 8 | (low & 0xff));
	entry = entry_of(tag);
	if (entry >> SLOT_BITS == tag)
		return entry & 0xff;
	if (entry != SHARED)
		return NO_SLOT;
	key.mac.bytes[2] = 0x5e;
	key.mac.bytes[4] = low >> 8;
	key.mac.bytes[5] = low;
	slot = bpf_map_lookup_elem(&macs, &key);
	return slot ? *slot & 0xff : NO_SLOT;
}

// The slot of the device that a forwarded packet came in by.
static __always_inline int slot_of_device(__u32 device)
{
	__u64 tag = TAG(TAG_DEVICE, device);
	__u64 entry = entry_of(tag);
	__u32 *slot;

	if (entry >> SLOT_BITS == tag)
		return entry & 0xff;
	if (entry != SHARED)
		return NO_SLOT;
	slot = bpf_map_lookup_elem(&devices, &device);
	return slot ? *slot & 0xff : NO_SLOT;
}

static __always_inline int slot_of_ipv4(__be32 ipv4)
{
	__u64 tag = TAG(TAG_IPV4, ipv4);
	__u64 entry = entry_of(tag);
	struct claim *claim;

	if (entry >> SLOT_BITS == tag)
		return entry & 0xff;
	if (entry != SHARED)
		return NO_SLOT;
	claim = claim_of_ipv4(ipv4);
	return claim ? claim->slot & 0xff : NO_SLOT;
}

// `places` knows only a hash of these: it says which addresses are nobody's.
static __always_inline struct claim *claim_of_ipv6(const struct address *address)
{
	__u64 high = (__u64)address->words[1] << 32 | address->words[0];
	__u64 low = (__u64)address->words[3] << 32 | address->words[2];
	__u64 tag = TAG(TAG_IPV6, (high * MIX ^ low) * MIX >> 23);
	__u64 entry = entry_of(tag);

	if (entry >> SLOT_BITS != tag && entry != SHARED)
		return 0;
	return claim_of(address);
}

// The head of a frame, as far as every packet needs it.
struct head {
	struct mac_words destination;
	struct mac_words source;
	__be16 type;
};

// Reads where the packet lies, which takes no call; a packet whose head is elsewhere is loaded.
// Returns 0 if there is none. All words are aligned where the kernel aligns the IP header.
static __always_inline int read_head(struct __sk_buff *skb, struct head *head)
{
	void *data = (void *)(long)skb->data;
	__u8 loaded[sizeof(struct ethernet)] __attribute__((aligned(8)));

	if (data + sizeof(struct ethernet) <= (void *)(long)skb->data_end) {
		head->destination.high = *(__u16 *)data;
		head->destination.low = *(__u32 *)(data + 2);
		head->source.high = *(__u16 *)(data + 6);
		head->source.low = *(__u32 *)(data + 8);
		head->type = *(__be16 *)(data + 12);
		return 1;
	}
	if (bpf_skb_load_bytes(skb, 0, loaded, sizeof(loaded)))
		return 0;
	__builtin_memcpy(&head->destination.high, loaded, 2);
	__builtin_memcpy(&head->destination.low, loaded + 2, 4);
	__builtin_memcpy(&head->source.high, loaded + 6, 2);
	__builtin_memcpy(&head->source.low, loaded + 8, 4);
	__builtin_memcpy(&head->type, loaded + 12, 2);
	return 1;
}

// Reads the source or destination of an IPv4 packet; returns 0 if there is none.
static __always_inline int read_ipv4(struct __sk_buff *skb, __u32 field, __be32 *address)
{
	void *data = (void *)(long)skb->data;
	const __u32 offset = sizeof(struct ethernet) + field;

	if (data + sizeof(struct ethernet) + sizeof(struct ipv4) <= (void *)(long)skb->data_end) {
		*address = *(__be32 *)(data + offset);
		return 1;
	}
	return !bpf_skb_load_bytes(skb, offset, address, sizeof(*address));
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
	claim = claim_of_ipv6(&ip.destination);
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
	struct head head;
	__be32 destination;
	int slot, owner;

	if (!read_head(skb, &head))
		return NEXT;
	slot = slot_of_mac(skb, head.destination);
	if (slot != NO_SLOT && !admits(slot, INGRESS))
		return DROP;

	switch (bpf_ntohs(head.type)) {
	case ETHERTYPE_ARP:
		return ingress_arp(skb) ? NEXT : DROP;
	case ETHERTYPE_IPV6:
		return ingress_ipv6(skb) ? NEXT : DROP;
	case ETHERTYPE_IPV4:
		if (!read_ipv4(skb, __builtin_offsetof(struct ipv4, destination), &destination))
			return NEXT;
		owner = slot_of_ipv4(destination);
		// A slot that is open needs no second look at the clock.
		return owner == NO_SLOT || owner == slot || admits(owner, INGRESS) ? NEXT : DROP;
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
	claim = claim_of_ipv6(&ip.source);
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
	struct head head;
	struct ethernet ethernet;
	__be32 source;
	int slot, sender, owner;

	slot = slot_of_device(skb->ingress_ifindex);
	if (slot != NO_SLOT && !admits(slot, EGRESS))
		return DROP;
	if (!read_head(skb, &head))
		return NEXT;
	sender = slot_of_mac(skb, head.source);
	if (sender != NO_SLOT && sender != slot && !admits(sender, EGRESS))
		return DROP;

	switch (bpf_ntohs(head.type)) {
	case ETHERTYPE_ARP:
	case ETHERTYPE_IPV6:
		if (bpf_skb_load_bytes(skb, 0, &ethernet, sizeof(ethernet)))
			return NEXT;
		if (head.type == bpf_htons(ETHERTYPE_ARP))
			return egress_arp(skb, &ethernet) ? NEXT : DROP;
		return egress_ipv6(skb, &ethernet) ? NEXT : DROP;
	case ETHERTYPE_IPV4:
		if (!read_ipv4(skb, __builtin_offsetof(struct ipv4, source), &source))
			return NEXT;
		owner = slot_of_ipv4(source);
		// A slot that is open needs no second look at the clock.
		return owner == NO_SLOT || owner == slot || owner == sender ||
				       admits(owner, EGRESS)
			       ? NEXT
			       : DROP;
	default:
		return NEXT;
	}
}

// No helper used here is restricted to GPL programs.
char gate_license[] SEC("license") = "Apache-2.0 OR MIT";
