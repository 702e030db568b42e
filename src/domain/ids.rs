//! The names of things: newtypes, so that a pod's uid can never stand where a container's id is due.
//!
//! Owns the grammar of an AppRole name. Nothing here is secret.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// `metadata.uid` of a pod: never reused, unlike its name and its address.
    PodUid
}
text_id! {
    /// `containerID` of one start of a container, runtime prefix included.
    ContainerId
}
text_id! {
    /// One try to deliver one `secret_id`. Random, so that no two leaders can mean different tries by one id.
    AttemptId
}

/// Where a pod is found and how it is told from a later one of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.uid`.
    pub uid: PodUid,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The unit of delivery: one start of one init container of one pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceKey {
    /// The pod.
    pub pod: PodUid,
    /// The annotated init container's name.
    pub container: Arc<str>,
    /// Which start of it.
    pub container_id: ContainerId,
    /// 0, raised by one each time a delivery is reopened.
    pub generation: u32,
}

/// Longest AppRole name that is asked for. Vault's own limit is that of its storage; a longer one is a mistake or an attack.
pub const MAX_ROLE_NAME_BYTES: usize = 512;

/// The name of an AppRole, in AppRole's own grammar: letters, digits, space, hyphen, underscore, period.
///
/// Source: Vault's AppRole API, parameter `role_name`. `.` and `..` alone are refused although the grammar has
/// them: as a path segment they mean another path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RoleName(Arc<str>);

impl RoleName {
    /// Checks `text` against the grammar.
    ///
    /// # Errors
    /// What is wrong with it, in words fit for an Event on the pod.
    pub fn parse(text: &str) -> Result<Self, InvalidRoleName> {
        if text.is_empty() {
            return Err(InvalidRoleName::Empty);
        }
        if text.len() > MAX_ROLE_NAME_BYTES {
            return Err(InvalidRoleName::TooLong(text.len()));
        }
        if text == "." || text == ".." {
            return Err(InvalidRoleName::Dots);
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.');
        if let Some(bad) = text.chars().find(|&c| !allowed(c)) {
            return Err(InvalidRoleName::Character(bad));
        }
        Ok(Self(text.into()))
    }

    /// The name as its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no AppRole name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum InvalidRoleName {
    /// No character at all.
    #[error("it is empty")]
    Empty,
    /// More than [`MAX_ROLE_NAME_BYTES`].
    #[error("it has {0} bytes; at most {MAX_ROLE_NAME_BYTES} are accepted")]
    TooLong(usize),
    /// `.` or `..`.
    #[error("\".\" and \"..\" are path segments, not names")]
    Dots,
    /// A character outside the grammar.
    #[error("it has the character {0:?}; letters, digits, space, hyphen, underscore and period are accepted")]
    Character(char),
}

/// A Raft term. One leader at most per term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Term(pub u64);

/// One incarnation of a process: drawn at random at each start, so that a restarted leader is told from itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootId(pub u64);

/// A member of the cluster. Random, made with its storage, and gone with it: never reused, since Raft would take a
/// node that forgot its vote for the one that cast it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl From<u64> for NodeId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A cluster, from its initialisation on. Random: two clusters behind one service are told apart by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub u64);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// How often a cluster was formed anew out of what a lost quorum had left. Frames of an earlier epoch are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// A point in time: milliseconds since the Unix epoch, as the leader's clock has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// How long ago `earlier` was; zero where clocks ran backwards.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This moment plus `by`.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Bad-input table: role with `../`, `/`, `%2f`, newline, 10 kB, non-ASCII.
    #[test]
    fn a_role_name_outside_approles_grammar_is_refused() {
        for bad in ["", "..", ".", "../admin", "a/b", "a%2fb", "a\nb", "rôle", "a\0b", "a?b", "a#b"] {
            assert!(RoleName::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(RoleName::parse(&"a".repeat(10_000)), Err(InvalidRoleName::TooLong(10_000)));
    }

    #[test]
    fn a_role_name_inside_the_grammar_is_kept_as_written() {
        for good in ["sample-app", "Sample App", "a.b_c-9", "...", "a.."] {
            assert_eq!(RoleName::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_clock_that_runs_backwards_gives_zero_not_a_panic() {
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
        assert_eq!(Timestamp(9).since(Timestamp(5)), Duration::from_millis(4));
    }
}
