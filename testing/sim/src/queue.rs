//! What happens next: events in the order of their times, and of their scheduling where these are
//! equal. Events lie in places that are used again, so that a running history allocates nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The events to come.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    places: Vec<Option<E>>,
    free: Vec<usize>,
    scheduled: u64,
}

/// Place and order share a number: as many places as this are in use at most.
const PLACES_MAX: u64 = 1 << 20;

impl<E> Queue<E> {
    /// Nothing to come.
    #[must_use]
    pub fn new() -> Self {
        Self {
            heap: BinaryHeap::with_capacity(1 << 10),
            places: Vec::with_capacity(1 << 10),
            free: Vec::with_capacity(1 << 10),
            scheduled: 0,
        }
    }

    /// Adds an event.
    #[inline]
    pub fn schedule(&mut self, at: u64, event: E) {
        let place = if let Some(place) = self.free.pop() {
            self.places[place] = Some(event);
            place
        } else {
            self.places.push(Some(event));
            self.places.len() - 1
        };
        let place = u64::try_from(place).unwrap_or(PLACES_MAX);
        assert!(place < PLACES_MAX, "too many events at once");
        self.scheduled += 1;
        self.heap
            .push(Reverse((at, self.scheduled * PLACES_MAX + place)));
    }

    /// Takes the next event that is due by `until`.
    #[inline]
    pub fn next_until(&mut self, until: u64) -> Option<(u64, E)> {
        let Reverse((at, number)) = *self.heap.peek()?;
        if at > until {
            return None;
        }
        self.heap.pop();
        let place = usize::try_from(number % PLACES_MAX).unwrap_or(0);
        self.free.push(place);
        self.places[place].take().map(|event| (at, event))
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_and_places_are_used_again() {
        let mut queue = Queue::new();
        for round in 0..100 {
            queue.schedule(round * 10 + 5, "third");
            queue.schedule(round * 10 + 1, "first");
            queue.schedule(round * 10 + 1, "second");
            let mut taken = Vec::new();
            while let Some((_, event)) = queue.next_until(round * 10 + 5) {
                taken.push(event);
            }
            assert_eq!(taken, ["first", "second", "third"]);
        }
        assert_eq!(queue.places.len(), 3);
    }
}
