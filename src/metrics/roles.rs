//! Which AppRoles are labels.
//!
//! Must never let a pod's author make labels at will: a role is one only once Vault has issued for it, and what all of
//! them may add to the page is bounded.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::domain::ids::RoleName;

/// Label of a role for which Vault has not issued yet, or for which there is no room.
pub(super) const UNKNOWN_ROLE: &str = "unknown";

/// What roles may add to a page, in bytes. The page is to stay under 64 KiB whatever happens: prometheus is set to
/// refuse larger ones in places, and whoever stores them pays for each series. All else takes half of that at the most.
/// With names of 20 bytes this is room for 80 roles, in the worst case that each of them has failures, too.
pub(super) const MAX_ROLE_BYTES: usize = 32 << 10;

/// Series that a role may have: requests and pushes, and those that failed.
pub(super) const SERIES_OF_A_ROLE: usize = 4;

/// What one of these takes beside the role's name, a count of ten digits included.
pub(super) const SERIES_BYTES: usize = 82;

/// The roles that are labels.
#[derive(Default)]
pub(super) struct Roles {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    names: BTreeSet<RoleName>,
    bytes: usize,
}

impl Roles {
    /// The label of `role`. `issued`: Vault has issued for it just now.
    pub(super) fn label<'a>(&self, role: &'a RoleName, issued: bool) -> &'a str {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.names.contains(role) {
            return role.as_str();
        }
        let bytes = known.bytes + SERIES_OF_A_ROLE * (SERIES_BYTES + role.as_str().len());
        if !issued || bytes > MAX_ROLE_BYTES {
            return UNKNOWN_ROLE;
        }
        known.bytes = bytes;
        known.names.insert(role.clone());
        role.as_str()
    }
}
