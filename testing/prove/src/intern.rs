//! Values that are kept once and known by a number.

use std::hash::{BuildHasher, Hash};

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

/// Numbers for values, in the order in which they were first seen.
#[derive(Debug)]
pub struct Interner<T> {
    values: Vec<T>,
    numbers: HashTable<u32>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            numbers: HashTable::new(),
        }
    }
}

impl<T: Eq + Hash> Interner<T> {
    /// The number of `value`, and whether it is new.
    pub fn add(&mut self, value: T) -> (u32, bool) {
        let hash = FxBuildHasher.hash_one(&value);
        let values = &self.values;
        if let Some(number) = self.numbers.find(hash, |n| values[*n as usize] == value) {
            return (*number, false);
        }
        let number = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        assert!(number != u32::MAX, "more values than numbers");
        self.values.push(value);
        let values = &self.values;
        self.numbers.insert_unique(hash, number, |n| {
            FxBuildHasher.hash_one(&values[*n as usize])
        });
        (number, true)
    }

    /// The number of `value`.
    pub fn number(&mut self, value: T) -> u32 {
        self.add(value).0
    }

    /// The value with this number.
    #[must_use]
    pub fn value(&self, number: u32) -> &T {
        &self.values[number as usize]
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}
