#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::fd::{AsFd, OwnedFd};

use crate::{CellName, Memory, MemoryError, TooLong};

fn copy(fd: &OwnedFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().unwrap()
}

/// Goal: the next process reads what the last one wrote. Method: two mappings of one memory.
#[test]
fn what_was_written_last_is_there_for_the_next() {
    let fd = Memory::create().unwrap();
    let first = Memory::adopt(copy(&fd)).unwrap();
    let names = [
        CellName::Setup,
        CellName::Keys,
        CellName::Slot(0),
        CellName::Slot(255),
    ];
    for (number, name) in names.into_iter().enumerate() {
        let mut cell = first.cell(name).unwrap();
        assert_eq!(cell.read(), None);
        for round in 0..5_usize {
            let value = vec![u8::try_from(number + round).unwrap(); 100 * number + round];
            cell.write(&value).unwrap();
            assert_eq!(cell.read(), Some(value));
        }
    }
    drop(first);
    let second = Memory::adopt(copy(&fd)).unwrap();
    for (number, name) in names.into_iter().enumerate() {
        let value = second.cell(name).unwrap().read().unwrap();
        assert_eq!(
            value,
            vec![u8::try_from(number + 4).unwrap(); 100 * number + 4]
        );
    }
    second.forget();
    let third = Memory::adopt(fd).unwrap();
    assert!(
        names
            .into_iter()
            .all(|name| third.cell(name).unwrap().read().is_none())
    );
}

#[test]
fn a_cell_has_one_writer_and_bounds() {
    let memory = Memory::adopt(Memory::create().unwrap()).unwrap();
    let mut cell = memory.cell(CellName::Slot(7)).unwrap();
    assert!(memory.cell(CellName::Slot(7)).is_none());
    cell.write(b"value").unwrap();
    let error = cell.write(&[0; 1 << 20]).unwrap_err();
    assert!(matches!(
        error,
        TooLong {
            length: 1_048_576,
            ..
        }
    ));
    assert_eq!(cell.read(), None, "rather nothing than an older value");
    drop(cell);
    assert!(memory.cell(CellName::Slot(7)).is_some());
}

/// Goal: whoever writes may die at any moment. Method: processes that write without end are killed;
/// what they left is one of the values that they wrote, whole.
#[test]
fn a_writer_may_be_killed_at_any_moment() {
    use std::process::{Command, Stdio};
    const CHILD: &str = "VNFPOOL_TEST_OF_A_WRITER";
    if let Ok(number) = std::env::var(CHILD) {
        let memory = Memory::inherit(number.parse().unwrap()).unwrap();
        let mut cell = memory.cell(CellName::Slot(1)).unwrap();
        for round in 0_u64.. {
            let byte = round.to_le_bytes()[0];
            cell.write(&vec![byte; 1_000 + usize::from(byte) * 20])
                .unwrap();
        }
    }
    for _ in 0..20 {
        let fd = Memory::create().unwrap();
        let reader = Memory::adopt(copy(&fd)).unwrap();
        let cell = reader.cell(CellName::Slot(1)).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::a_writer_may_be_killed_at_any_moment"])
            .env(CHILD, std::os::fd::AsRawFd::as_raw_fd(&fd).to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while cell.read().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let value = cell.read().unwrap();
        let byte = value[0];
        assert_eq!(value, vec![byte; 1_000 + usize::from(byte) * 20]);
    }
}

#[test]
fn another_descriptor_is_refused() {
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    assert!(matches!(
        Memory::adopt(file.into()),
        Err(MemoryError::Foreign)
    ));
}
