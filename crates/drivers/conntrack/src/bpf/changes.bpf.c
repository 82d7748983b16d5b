// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// Copies each change of the connection tracking table into a ring buffer that user space maps.
//
// A socket filter of a ctnetlink socket: it is asked about every message that the kernel would
// queue there, keeps a copy and refuses the message. So nothing is queued, nobody is woken per
// message, and the reader needs no system call. The messages are those of the socket's network
// namespace, in the order in which a plain listener would get them.
//
// A reader that is about to sleep says so, and the next message is let into the queue: that wakes
// it, as the bell of an otherwise silent socket. The ring's own way of waking interrupts the
// processor each time, which costs several times as much.

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define REFUSE 0
// Whole: other listeners may share the message.
#define QUEUE 0xffffffff

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

struct shared {
	// Changes that found no room.
	__u64 lost;
	// 1 when the reader wants the bell.
	__u64 asleep;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct shared);
} shared_map SEC(".maps");

// To be asked after a record is submitted or a loss is counted: both are full barriers, as is the
// reader's between saying that it sleeps and its last look. So one of the two sees the other.
static __always_inline int ring_bell(volatile struct shared *shared)
{
	return shared->asleep && __sync_lock_test_and_set(&shared->asleep, 0) ? QUEUE : REFUSE;
}

static __always_inline int lose(volatile struct shared *shared)
{
	// With a result it is a barrier.
	if (__sync_fetch_and_add(&shared->lost, 1) == (__u64)-1)
		return REFUSE;
	return ring_bell(shared);
}

// The sizes of records have to be constants.
#define KEEP(room)                                                                                 \
	do {                                                                                       \
		struct {                                                                           \
			struct head head;                                                          \
			__u8 message[room];                                                        \
		} *record = bpf_ringbuf_reserve(&changes, sizeof(*record), 0);                     \
		if (!record)                                                                       \
			return lose(shared);                                                        \
		record->head.lost = shared->lost;                                                 \
		record->head.message_bytes = bytes;                                                \
		if (bpf_skb_load_bytes(skb, 0, record->message, bytes)) {                          \
			bpf_ringbuf_discard(record, BPF_RB_NO_WAKEUP);                                            \
			return lose(shared);                                                        \
		}                                                                                  \
		bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);                                                     \
		return ring_bell(shared);                                                          \
	} while (0)

SEC("socket")
int keep_change(struct __sk_buff *skb)
{
	__u32 first = 0;
	volatile struct shared *shared = bpf_map_lookup_elem(&shared_map, &first);
	__u64 bytes = skb->len;

	if (!shared)
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
	return lose(shared);
}

char changes_license[] SEC("license") = "Apache-2.0 OR MIT";
