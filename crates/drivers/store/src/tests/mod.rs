mod basics;
mod crash;
mod faults;
mod mounts;

use crate::{Batch, Change, Expect};

fn put(key: &str, value: &[u8]) -> Batch {
    Batch::of(vec![Change::put(key, Expect::Any, value.to_vec())])
}
