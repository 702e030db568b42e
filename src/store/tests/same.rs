//! Both engines are the same, as far as anybody can read.

use proptest::prelude::*;

use crate::store::engine::{Batch, Change, Engine, Family};
use crate::store::keys;
use crate::store::mem::MemEngine;
use crate::store::rocks::RocksEngine;

/// What is done to both.
#[derive(Clone, Debug)]
enum Step {
    Write(Batch),
    Sync,
    /// The process ends without a word, and the next one opens the storage.
    Reopen,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    // Few and short ones, so that they meet.
    prop::collection::vec(prop::sample::select(vec![0, 1, 255]), 0..3)
}

fn change() -> impl Strategy<Value = Change> {
    let family = || prop::sample::select(Family::ALL.to_vec());
    prop_oneof![
        4 => (family(), key(), prop::collection::vec(any::<u8>(), 0..4))
            .prop_map(|(family, key, value)| Change::Put(family, key, value)),
        1 => (family(), key()).prop_map(|(family, key)| Change::Delete(family, key)),
        // Also such that end before they start.
        1 => (family(), key(), key()).prop_map(|(family, start, end)| Change::DeleteRange(family, start..end)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(change(), 0..6).prop_map(|changes| Step::Write(Batch(changes))),
        1 => Just(Step::Sync),
        1 => Just(Step::Reopen),
    ]
}

/// All that can be read.
fn seen(engine: &impl Engine) -> Vec<String> {
    let ranges = [keys::all(), vec![1]..vec![255], vec![0, 255]..vec![1, 1], vec![255]..vec![1]];
    let mut seen = Vec::new();
    for family in Family::ALL {
        seen.push(format!("{:?}", engine.last(family).unwrap()));
        for range in &ranges {
            for limit in [0, 2, usize::MAX] {
                let records = engine.scan(family, range.clone(), limit).unwrap();
                for (key, value) in &records {
                    assert_eq!(engine.get(family, key).unwrap().as_ref(), Some(value));
                }
                seen.push(format!("{records:?}"));
            }
        }
        seen.push(format!("{:?}", engine.get(family, &[1, 255]).unwrap()));
    }
    seen
}

// Few cases: each reopening writes and syncs files.
proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_engines_show_the_same_after_any_steps(steps in prop::collection::vec(step(), 1..24)) {
        let folder = tempfile::tempdir().unwrap();
        let mut rocks = RocksEngine::open(folder.path()).unwrap();
        let mut memory = MemEngine::new();
        for step in steps {
            match step {
                Step::Write(batch) => {
                    memory.write(batch.clone()).unwrap();
                    rocks.write(batch).unwrap();
                }
                Step::Sync => {
                    memory.sync().unwrap();
                    rocks.sync().unwrap();
                }
                Step::Reopen => {
                    memory = memory.reopen();
                    drop(rocks);
                    rocks = RocksEngine::open(folder.path()).unwrap();
                }
            }
            prop_assert_eq!(seen(&memory), seen(&rocks));
        }
    }
}
