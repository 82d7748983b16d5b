// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// Copies each change of the connection tracking table into a ring buffer that user space maps.
//
// A socket filter of a ctnetlink socket: it is asked about every message that the kernel would
// queue there, keeps a copy and refuses the message. So nothing is queued, nobody is woken per
// message, and the reader needs no system call. The messages are those of the socket's network
// namespace, in the order in which a plain listener would get them.

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define REFUSE 0

// Room for a message in each size of record: IPv4 without and with TCP state, IPv6, and one with
// everything that the kernel can say. Laid out as in `ring/mod.rs`.
#define ROOM_SMALL 160
#define ROOM_MEDIUM 256
#define ROOM_LARGE 1024

struct head {
	// Changes that found no room, of all that were before this one.
	__u32 lost;
	__u32 message_bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} changes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} losses SEC(".maps");

static __always_inline volatile __u64 *losses_count(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&losses, &first);
}

// A record without a message tells of the loss if the reader has emptied the ring meanwhile and
// would sleep. If there is no room for that either, the reader does not sleep: it was woken for
// what fills the ring, and looks at the count when it has read that.
static __always_inline int lose(volatile __u64 *count)
{
	struct head *notice;

	__sync_fetch_and_add(count, 1);
	notice = bpf_ringbuf_reserve(&changes, sizeof(*notice), 0);
	if (notice) {
		notice->lost = *count;
		notice->message_bytes = 0;
		bpf_ringbuf_submit(notice, 0);
	}
	return REFUSE;
}

// The sizes of records have to be constants.
#define KEEP(room)                                                                                 \
	do {                                                                                       \
		struct {                                                                           \
			struct head head;                                                          \
			__u8 message[room];                                                        \
		} *record = bpf_ringbuf_reserve(&changes, sizeof(*record), 0);                     \
		if (!record)                                                                       \
			return lose(count);                                                        \
		record->head.lost = *count;                                                        \
		record->head.message_bytes = bytes;                                                \
		if (bpf_skb_load_bytes(skb, 0, record->message, bytes)) {                          \
			bpf_ringbuf_discard(record, 0);                                            \
			return lose(count);                                                        \
		}                                                                                  \
		bpf_ringbuf_submit(record, 0);                                                     \
		return REFUSE;                                                                     \
	} while (0)

SEC("socket")
int keep_change(struct __sk_buff *skb)
{
	volatile __u64 *count = losses_count();
	__u64 bytes = skb->len;

	if (!count)
		return REFUSE;
	// Otherwise the compiler may check a copy of it, which the verifier does not follow.
	asm volatile("" : "+r"(bytes));
	if (bytes == 0)
		return REFUSE;
	if (bytes <= ROOM_SMALL)
		KEEP(ROOM_SMALL);
	if (bytes <= ROOM_MEDIUM)
		KEEP(ROOM_MEDIUM);
	if (bytes <= ROOM_LARGE)
		KEEP(ROOM_LARGE);
	return lose(count);
}

char changes_license[] SEC("license") = "Apache-2.0 OR MIT";
