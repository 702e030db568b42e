//! What a pod's author is told, by an Event on the pod.
//!
//! Owns reasons and wording. Never holds a secret: an attempt's id and a cause are all that is said.

use std::time::Duration;

use super::ids::AttemptId;
use super::limits::Limit;
use super::pod::Refusal;

/// Something that a user would otherwise search logs for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Announcement {
    /// The init container took its `secret_id`.
    Delivered {
        /// The attempt.
        attempt: AttemptId,
        /// Since the init container was started.
        after: Duration,
    },
    /// An earlier attempt had reached the init container.
    DeliveredEarlier,
    /// The pod will not be served as it stands.
    PodRefused(Refusal),
    /// Vault does not know the role, or our policy does not cover it.
    RoleRefused(String),
    /// Vault cannot serve anybody now.
    VaultUnavailable(String),
    /// The init container cannot be reached.
    Unreachable(String),
    /// The init container's answer was final.
    PushRefused(String),
    /// This attempt came to nothing; another follows.
    Retrying(String),
    /// The wrapping token was used up before the init container got to it: somebody else may have the `secret_id`.
    TokenUsedByAnother(AttemptId),
    /// The init container said yes and still runs: it is served again.
    Reopened,
    /// It shares its node's address.
    HostNetwork,
    /// Two live pods show one address: waiting until one of them goes.
    AddressShared(String),
    /// The ledger does not take further claims.
    LedgerFull,
    /// A limit has kept it waiting for some seconds.
    Limited(Limit),
}

impl Announcement {
    /// `reason` of the Event: for machines, in `UpperCamelCase`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Delivered { .. } => "SecretIdDelivered",
            Self::DeliveredEarlier => "SecretIdDeliveredEarlier",
            Self::PodRefused(_) => "SecretIdNotDelivered",
            Self::RoleRefused(_) => "AppRoleRefused",
            Self::VaultUnavailable(_) => "VaultUnavailable",
            Self::Unreachable(_) => "InitContainerUnreachable",
            Self::PushRefused(_) => "PushRefused",
            Self::Retrying(_) => "SecretIdRetrying",
            Self::TokenUsedByAnother(_) => "WrappingTokenUsedByAnother",
            Self::Reopened => "SecretIdDeliveredAgain",
            Self::HostNetwork => "HostNetworkPod",
            Self::AddressShared(_) => "PodAddressShared",
            Self::LedgerFull => "LedgerFull",
            Self::Limited(_) => "SecretIdDelayed",
        }
    }

    /// Whether somebody has to look at it (Event type `Warning`).
    pub fn is_warning(&self) -> bool {
        !matches!(self, Self::Delivered { .. } | Self::DeliveredEarlier)
    }

    /// `note` of the Event: what happened, and what to do.
    pub fn note(&self) -> String {
        match self {
            Self::Delivered { attempt, after } => {
                format!("The init container took its secret_id after {} ms (attempt {attempt}).", after.as_millis())
            }
            Self::DeliveredEarlier => "The init container says that it has taken a secret_id before; no other is sent.".into(),
            Self::PodRefused(refusal) => format!("No secret_id is delivered: {refusal}."),
            Self::RoleRefused(cause) => format!("Vault issues no secret_id for this pod's AppRole: {cause}. Asking again slowly."),
            Self::VaultUnavailable(cause) => format!("Vault cannot issue a secret_id now: {cause}. The pod waits; asking again."),
            Self::Unreachable(cause) => format!(
                "The init container does not answer on port 50000: {cause}. Does a NetworkPolicy or a mesh block it, or is it no kubernetes-vault init container? Dialling again."
            ),
            Self::PushRefused(cause) => format!("The init container refused the push for good: {}. It is not pushed to again.", open(cause)),
            Self::Retrying(cause) => format!("The push came to nothing: {}. Trying again with a fresh secret_id.", open(cause)),
            Self::TokenUsedByAnother(attempt) => format!(
                "SECURITY: the wrapping token of attempt {attempt} was used before the init container could use it. Somebody else may have unwrapped the secret_id: look at Vault's audit log."
            ),
            Self::Reopened => "The init container answered that it is done, but still runs. Delivering once more.".into(),
            Self::HostNetwork => {
                "This pod uses its node's network: any process of the node can listen on port 50000 and get its secret_id, and two such pods of one node clash.".into()
            }
            Self::AddressShared(address) => format!("Another live pod shows the address {address} too. Nothing is sent until one of them goes."),
            Self::LedgerFull => "The ledger of deliveries is full. Nothing is delivered until earlier deliveries are settled.".into(),
            Self::Limited(limit) => format!("This pod waits for its turn: {}. It is served by itself.", limit.reason()),
        }
    }
}

/// A cause that is a sentence of its own, ready to become a part of another.
fn open(cause: &str) -> &str {
    cause.trim_end().trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_in_a_note_ends_once() {
        for what in [Announcement::PushRefused, Announcement::Retrying] {
            let note = what("it answered 412: Vault does not know VAULT_ROLE_ID.".into()).note();
            assert!(note.contains("VAULT_ROLE_ID. ") && !note.contains(".."), "{note}");
        }
    }
}
