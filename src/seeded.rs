//! Bugs that are put in on purpose, so that the fault suite can show that it finds each of them.
//!
//! Only with the feature `seeded-bugs`, which no build for use has: without it [`on`] is false, and the compiler takes
//! the bugs out. Owns which bug is on. Must never be on by itself.

/// Each breaks one promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// Entries are acknowledged before they are synced.
    NoSyncInCaller = 1,
    /// RocksDB is asked to sync, and only writes.
    NoSyncInRocks,
    /// The ledger takes a command of an earlier term.
    NoTermFence,
    /// Vault is asked without a claim.
    NoClaim,
    /// A proposal is called done before it is committed.
    DoneBeforeCommit,
    /// A storage that was lost is replaced under the same node id.
    NodeIdReused,
    /// A node answers for the one that was at its address before.
    NoTargetCheck,
    /// A restarted leader leads on without an election.
    LeaderRestored,
    /// 409 is read as 200.
    BusyIsDelivered,
    /// A push without an answer is called refused, and its `secret_id` destroyed.
    UnknownIsRefused,
    /// A node that belongs to no cluster grants votes.
    VoteWhileUninitialised,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::NoSyncInCaller,
        Self::NoSyncInRocks,
        Self::NoTermFence,
        Self::NoClaim,
        Self::DoneBeforeCommit,
        Self::NodeIdReused,
        Self::NoTargetCheck,
        Self::LeaderRestored,
        Self::BusyIsDelivered,
        Self::UnknownIsRefused,
        Self::VoteWhileUninitialised,
    ];
}

/// Whether `bug` is on: in this thread (a simulated world), or in the whole process.
#[cfg(feature = "seeded-bugs")]
pub fn on(bug: Bug) -> bool {
    switch::on(bug)
}

/// No bug is ever on.
#[cfg(not(feature = "seeded-bugs"))]
#[inline]
pub const fn on(_bug: Bug) -> bool {
    false
}

#[cfg(feature = "seeded-bugs")]
pub use switch::{here, in_process};

#[cfg(feature = "seeded-bugs")]
mod switch {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Bug;

    static PROCESS: AtomicU8 = AtomicU8::new(0);

    thread_local! {
        static THREAD: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    pub(super) fn on(bug: Bug) -> bool {
        THREAD.get() == Some(bug) || PROCESS.load(Ordering::Relaxed) == bug as u8
    }

    /// Switches one on in this thread, or all off.
    pub fn here(bug: Option<Bug>) {
        THREAD.set(bug);
    }

    /// Switches one on in all threads, or all off.
    pub fn in_process(bug: Option<Bug>) {
        PROCESS.store(bug.map_or(0, |bug| bug as u8), Ordering::Relaxed);
    }
}
