//! A queue that is fair between lanes: each lane that waits has its turn once a round, however long its line is.
//!
//! Pure. Within a lane, first come, first out. Owns no limit: its owner puts each key in once.

use std::collections::BTreeMap;

/// Where a key stands in its line; needed to take it out again.
pub type Place = u64;

/// Keys in lanes. Each operation costs the logarithm of what waits.
#[derive(Clone, Debug)]
pub struct Fair<L, K> {
    lanes: BTreeMap<L, Lane<K>>,
    /// Whose turn comes when.
    turns: BTreeMap<u64, L>,
    /// Counts turns and places.
    count: u64,
    len: usize,
}

#[derive(Clone, Debug)]
struct Lane<K> {
    turn: u64,
    line: BTreeMap<Place, K>,
}

impl<L, K> Default for Fair<L, K> {
    fn default() -> Self {
        Self { lanes: BTreeMap::new(), turns: BTreeMap::new(), count: 0, len: 0 }
    }
}

impl<L: Ord + Clone, K> Fair<L, K> {
    /// Puts `key` at the end of the line of `lane`. A lane in which nobody waited has its turn after all that wait.
    pub fn push(&mut self, lane: &L, key: K) -> Place {
        self.count += 1;
        let place = self.count;
        match self.lanes.get_mut(lane) {
            Some(waiting) => {
                waiting.line.insert(place, key);
            }
            None => {
                self.turns.insert(place, lane.clone());
                self.lanes.insert(lane.clone(), Lane { turn: place, line: BTreeMap::from([(place, key)]) });
            }
        }
        self.len += 1;
        place
    }

    /// Takes out whose turn it is.
    pub fn pop(&mut self) -> Option<K> {
        let (_, lane) = self.turns.pop_first()?;
        let waiting = self.lanes.get_mut(&lane)?;
        let (_, key) = waiting.line.pop_first()?;
        self.len -= 1;
        if waiting.line.is_empty() {
            self.lanes.remove(&lane);
        } else {
            self.count += 1;
            waiting.turn = self.count;
            self.turns.insert(self.count, lane);
        }
        Some(key)
    }

    /// Takes out the key at `place` of `lane`, if it is still there. The others keep their places and turns.
    pub fn remove(&mut self, lane: &L, place: Place) -> Option<K> {
        let waiting = self.lanes.get_mut(lane)?;
        let key = waiting.line.remove(&place)?;
        self.len -= 1;
        if waiting.line.is_empty() {
            self.turns.remove(&waiting.turn);
            self.lanes.remove(lane);
        }
        Some(key)
    }

    /// How many keys wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_lane_of_ten_thousand_does_not_hold_up_one() {
        let mut fair = Fair::default();
        for n in 0..10_000 {
            fair.push(&"many", n);
        }
        for n in 0..10 {
            assert_eq!(fair.pop(), Some(n));
        }
        fair.push(&"few", 77_777);
        assert!((0..2).any(|_| fair.pop() == Some(77_777)), "it had to wait for more than one round");
    }

    #[test]
    fn lanes_take_turns() {
        let mut fair = Fair::default();
        for (lane, key) in [("a", 1), ("a", 2), ("a", 3), ("b", 11), ("b", 12), ("c", 21)] {
            fair.push(&lane, key);
        }
        let out: Vec<i32> = std::iter::from_fn(|| fair.pop()).collect();
        assert_eq!(out, [1, 11, 21, 2, 12, 3]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(u8),
        Pop,
        /// One of those that are still in, by its rank.
        Remove(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![3 => (0u8..5).prop_map(Step::Push), 2 => Just(Step::Pop), 1 => (0usize..50).prop_map(Step::Remove)]
    }

    proptest! {
        // Against the plainest model: a line for each lane. Nothing is lost, nothing comes twice, a lane keeps its order,
        // and a lane that waits is passed over by each other lane once at most before it has its turn.
        #[test]
        fn nobody_starves_nothing_is_lost_and_a_lane_keeps_its_order(
            steps in proptest::collection::vec(step(), 1..400),
        ) {
            let mut fair = Fair::default();
            let mut model: BTreeMap<u8, VecDeque<(u32, Place)>> = BTreeMap::new();
            // Who was served since each lane that waits began to wait for its turn.
            let mut passed: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
            let mut key = 0u32;
            for step in steps {
                match step {
                    Step::Push(lane) => {
                        key += 1;
                        let place = fair.push(&lane, (lane, key));
                        passed.entry(lane).or_default();
                        model.entry(lane).or_default().push_back((key, place));
                    }
                    Step::Pop => {
                        let Some((lane, key)) = fair.pop() else {
                            prop_assert!(model.is_empty());
                            continue;
                        };
                        let line = model.get_mut(&lane).unwrap();
                        prop_assert_eq!(line.pop_front().map(|(key, _)| key), Some(key), "out of order");
                        passed.remove(&lane);
                        for (waits, before) in &mut passed {
                            prop_assert!(before.insert(lane), "{} was passed over by {} twice", waits, lane);
                        }
                        if line.is_empty() {
                            model.remove(&lane);
                        } else {
                            passed.insert(lane, BTreeSet::new());
                        }
                    }
                    Step::Remove(rank) => {
                        let all: Vec<(u8, (u32, Place))> =
                            model.iter().flat_map(|(lane, line)| line.iter().map(|at| (*lane, *at))).collect();
                        let Some((lane, (key, place))) = all.get(rank).copied() else { continue };
                        prop_assert_eq!(fair.remove(&lane, place), Some((lane, key)));
                        prop_assert_eq!(fair.remove(&lane, place), None);
                        let line = model.get_mut(&lane).unwrap();
                        line.retain(|(other, _)| *other != key);
                        if line.is_empty() {
                            model.remove(&lane);
                            passed.remove(&lane);
                        }
                    }
                }
                prop_assert_eq!(fair.len(), model.values().map(VecDeque::len).sum::<usize>());
                prop_assert_eq!(fair.is_empty(), model.is_empty());
            }
        }
    }
}
