//! How a replica is: plain data, and what of it is trouble.
//!
//! Owns the fields of `status --output json`: fields may be added, none is renamed. Ids are text, since numbers of 64
//! bits do not survive most readers of JSON.

use serde::{Deserialize, Serialize};

/// One replica, as it sees itself and its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Of this program.
    pub version: String,
    /// This node's id.
    pub node: String,
    /// This replica's pod, where it knows it.
    pub pod: Option<String>,
    /// The cluster, once it is in one.
    pub cluster: Option<String>,
    /// How often the cluster was formed anew.
    pub epoch: u64,
    /// What it is in the cluster.
    pub role: Role,
    /// Raft's term.
    pub term: u64,
    /// The leader's node id, where one is known.
    pub leader: Option<String>,
    /// How far its log is.
    pub log: Log,
    /// Everybody in the configuration.
    pub members: Vec<Member>,
    /// What the ledger holds.
    pub ledger: Ledger,
    /// Where it keeps it.
    pub storage: Storage,
    /// Why it is in no cluster yet; nothing once it is.
    pub forming: Option<Vec<String>>,
    /// How peers know each other, in words: "a key derived from vault.token".
    pub identity: String,
    /// How long ago a peer behind our service was met that is in another cluster, in milliseconds; nothing if there was
    /// none lately.
    #[serde(default)]
    pub another_cluster_met_ms: Option<u64>,
}

/// What a replica is in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// It delivers.
    Leader,
    /// It votes, and stands by.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It has no vote.
    Learner,
    /// It is in no cluster yet.
    Forming,
}

/// How far a log is, by the index of entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// Known to be committed.
    pub committed: Option<u64>,
    /// In the ledger.
    pub applied: Option<u64>,
    /// The last one that is stored here.
    pub last: Option<u64>,
    /// The last one that the snapshot holds.
    pub snapshot: Option<u64>,
}

/// One of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Its id.
    pub node: String,
    /// Where its peers dial it.
    pub address: String,
    /// Its pod, where it is known.
    pub pod: Option<String>,
    /// Whether it votes.
    pub kind: MemberKind,
    /// How far it is. Only the leader knows.
    pub progress: Option<Progress>,
    /// Whether it can be reached, where that is known here.
    pub reachable: Option<bool>,
}

/// Whether a member votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MemberKind {
    /// It does.
    Voter,
    /// It does not, yet.
    Learner,
}

/// How far a member is, as the leader knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Entries that it lacks.
    pub lag: u64,
    /// How long ago it has acknowledged something, in milliseconds; nothing if it never has, or is the leader.
    pub acknowledged_ms: Option<u64>,
}

/// What the ledger holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// All of it.
    pub entries: u64,
    /// Deliveries that are not settled.
    pub open: u64,
    /// Settled ones that are still remembered.
    pub tombstones: u64,
}

/// Where a replica keeps its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// `raftDir`.
    pub directory: String,
    /// Its size, where it could be told.
    pub bytes: Option<u64>,
    /// Whether it goes with the pod.
    pub bound_to_pod: bool,
}

impl Status {
    /// What has to be looked after; empty if nothing has. A member that is down is none of it while the rest is a
    /// quorum.
    pub fn trouble(&self) -> Vec<String> {
        let mut trouble = self.trouble_within();
        if self.another_cluster_met_ms.is_some() {
            trouble.push(
                "two clusters are behind this service: a peer belongs to another one; both deliver, and they never \
                 merge: decide which one stays, and empty raftDir of the rest"
                    .to_owned(),
            );
        }
        trouble
    }

    /// What keeps this replica from doing its part.
    fn trouble_within(&self) -> Vec<String> {
        if self.role == Role::Forming || self.forming.is_some() {
            let reasons = self.forming.clone().unwrap_or_default();
            return std::iter::once("this replica is in no cluster yet".to_owned()).chain(reasons).collect();
        }
        let voters: Vec<&Member> = self.members.iter().filter(|member| member.kind == MemberKind::Voter).collect();
        let reached = voters.iter().filter(|voter| voter.reachable != Some(false)).count();
        if self.role == Role::Leader && reached * 2 <= voters.len() {
            return vec![format!("only {reached} of {} voters can be reached: that is no quorum", voters.len())];
        }
        if self.role == Role::Leader && self.leader.is_none() {
            return vec!["a majority of the voters has stopped to answer: that is no quorum".to_owned()];
        }
        if self.leader.is_none() {
            return vec!["no leader is known: nothing is delivered until one is elected".to_owned()];
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;

    #[test]
    fn a_leader_that_reaches_a_quorum_is_well_and_others_need_a_leader() {
        let mut status = fixtures::status();
        assert_eq!(status.trouble(), [""; 0]);
        status.members[1].reachable = Some(false);
        assert_eq!(status.trouble(), ["only 1 of 3 voters can be reached: that is no quorum"]);
        status.leader = None;
        assert!(status.trouble()[0].contains("no quorum"), "a leader without a lease says why it has none");
        status.members[1].reachable = Some(true);
        assert!(status.trouble()[0].contains("no quorum"), "also while nobody counts as lost yet");
        status.members[1].reachable = Some(false);
        status.leader = fixtures::status().leader;
        status.role = Role::Follower;
        assert_eq!(status.trouble(), [""; 0], "a follower's view of others says nothing of the quorum");
        status.leader = None;
        assert!(status.trouble()[0].starts_with("no leader is known"));
    }

    #[test]
    fn two_clusters_behind_one_service_are_trouble_even_where_each_is_well() {
        let mut status = fixtures::status();
        status.another_cluster_met_ms = Some(4_000);
        let trouble = status.trouble();
        assert!(
            trouble.len() == 1 && trouble[0].contains("two clusters") && trouble[0].contains("raftDir"),
            "{trouble:?}"
        );
        status.leader = None;
        assert_eq!(status.trouble().len(), 2, "it hides no other trouble");
    }

    #[test]
    fn what_an_earlier_version_answers_is_understood() {
        let mut json = serde_json::to_value(fixtures::status()).unwrap();
        json.as_object_mut().unwrap().remove("anotherClusterMetMs").unwrap();
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), fixtures::status());
    }

    #[test]
    fn one_that_forms_says_why() {
        let mut status = fixtures::status();
        status.role = Role::Forming;
        status.forming = Some(vec!["10.88.0.11 does not answer".to_owned()]);
        assert_eq!(status.trouble(), ["this replica is in no cluster yet", "10.88.0.11 does not answer"]);
    }

    #[test]
    fn what_is_unknown_is_null_in_json_and_ids_are_text() {
        let json = serde_json::to_value(fixtures::status()).unwrap();
        assert_eq!(json["node"], "a1b2c3d4e5f60718");
        assert_eq!(json["role"], "leader");
        assert_eq!(json["storage"]["boundToPod"], true);
        assert_eq!(json["members"][1]["progress"]["acknowledgedMs"], 12);
        assert!(json["forming"].is_null());
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), fixtures::status());
    }
}
