//! What we have promised to whom: not to initialise under another list than the one that we answered with.
//!
//! A promise ends when its receiver, asked after the promise was made, answers as uninitialised with another list or
//! as another incarnation, or is absent: its pod is gone, or neither listed nor running. What must never happen: a
//! delayed frame ends one, so nothing that a receiver sends by itself does; nor does the cluster that it was made for,
//! since then nobody would ask the receiver any more once a list does not name it.

use super::{Heard, Listed, PodState, PodUid, Round, Standing};
use crate::domain::ids::BootId;

/// Most promises that stand at once. Each is one peer and one list; a round ends those that are out of date.
const MAX_PROMISES: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Promise {
    to: Listed,
    boot: BootId,
    list: Vec<PodUid>,
    /// The round of ours in which it was made, or made again.
    round: u64,
}

/// The standing promises.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Promises {
    standing: Vec<Promise>,
    round: u64,
}

impl Promises {
    /// What is promised from now on cannot be ended by this round's answers, which may be older.
    pub(super) fn begin_round(&mut self) {
        self.round += 1;
    }

    /// Promises `list`; `false` where there is no room, and `list` may not be told.
    pub(super) fn make(&mut self, to: &Listed, boot: BootId, list: &[PodUid]) -> bool {
        let round = self.round;
        let same = |p: &&mut Promise| p.to.uid == to.uid && p.boot == boot && p.list == list;
        if let Some(promise) = self.standing.iter_mut().find(same) {
            promise.round = round;
            promise.to = to.clone();
            return true;
        }
        if self.standing.len() >= MAX_PROMISES {
            return false;
        }
        self.standing.push(Promise { to: to.clone(), boot, list: list.to_vec(), round });
        true
    }

    /// Who was promised anything.
    pub(super) fn receivers(&self) -> impl Iterator<Item = &Listed> {
        self.standing.iter().map(|promise| &promise.to)
    }

    /// Who was promised another list than `list`.
    pub(super) fn against(&self, list: &[PodUid]) -> impl Iterator<Item = &Listed> {
        self.standing.iter().filter(move |promise| promise.list != list).map(|promise| &promise.to)
    }

    /// Whether somebody outside of `list`, and not `asker`, was promised another list.
    pub(super) fn held(&self, list: &[PodUid], asker: &PodUid) -> bool {
        self.against(list).any(|to| to.uid != *asker && !list.contains(&to.uid))
    }

    /// Ends what this round has shown to be over.
    pub(super) fn end(&mut self, round: &Round) {
        let now = self.round;
        self.standing.retain(|promise| promise.round >= now || !is_over(promise, round));
    }
}

fn is_over(promise: &Promise, round: &Round) -> bool {
    let listed = || round.listed.iter().any(|listed| listed.uid == promise.to.uid);
    match round.heard.get(&promise.to.uid) {
        Some(Heard::Answer(answer)) => {
            let another = answer.boot != promise.boot || answer.list.as_ref() != Some(&promise.list);
            answer.standing == Standing::Uninitialised && another
        }
        Some(Heard::Silent(_, PodState::Gone)) => true,
        Some(Heard::Silent(_, PodState::Running)) => false,
        Some(Heard::Silent(_, PodState::NotRunning | PodState::Unknown)) => !listed(),
        None => false,
    }
}
