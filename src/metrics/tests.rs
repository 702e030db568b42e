//! The page as a whole: what is on it from the start, and how large it may become.

use std::collections::BTreeSet;
use std::time::Instant;

use super::catalogue::{Kind, Label, Values};
use super::cluster::MOST_PEERS;
use super::roles::{MAX_ROLE_BYTES, SERIES_BYTES, SERIES_OF_A_ROLE, UNKNOWN_ROLE};
use super::*;
use crate::deliver::ports::{Incident, Meter, Neutralised};
use crate::domain::delivery::{Answer, VaultTrouble};
use crate::domain::ids::{RoleName, Timestamp};
use crate::domain::limits::Limit;

/// A clock that a test sets.
pub(super) struct SetClock(Mutex<Timestamp>);

impl SetClock {
    pub(super) fn set(&self, now: Timestamp) {
        *self.0.lock().unwrap() = now;
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

pub(super) fn metrics_at(now: Timestamp) -> (Metrics, Arc<SetClock>) {
    let clock = Arc::new(SetClock(Mutex::new(now)));
    (Metrics::new(clock.clone()).unwrap(), clock)
}

pub(super) fn metrics() -> Metrics {
    metrics_at(Timestamp(1_700_000_000_000)).0
}

pub(super) fn page(metrics: &Metrics) -> String {
    page_with(metrics, &Sampled::default())
}

fn page_with(metrics: &Metrics, sampled: &Sampled) -> String {
    String::from_utf8(metrics.page(sampled)).unwrap()
}

/// The value of a series, named without the prefix.
pub(super) fn value(metrics: &Metrics, series: &str) -> Option<f64> {
    read(&page(metrics), series)
}

fn read(page: &str, series: &str) -> Option<f64> {
    let start = format!("kubernetesvault_{series} ");
    page.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok())
}

fn role(name: &str) -> RoleName {
    RoleName::parse(name).unwrap()
}

fn answer(status: u16) -> Answer {
    Answer::Complete { status, text: "".into(), named: None, retry_after: None, token_used: false }
}

// Bad-input table: unknown role, no new metric label.
#[test]
fn a_role_is_a_label_only_once_vault_has_accepted_it() {
    let metrics = metrics();
    metrics.secret_id_requested(&role("made-up"), Some(&VaultTrouble::UnknownRole));
    assert!(!page(&metrics).contains("made-up"));
    assert_eq!(value(&metrics, r#"vault_secret_id_requests_total{approle="unknown"}"#), Some(1.0));
    metrics.secret_id_requested(&role("made-up"), None);
    assert_eq!(value(&metrics, r#"vault_secret_id_requests_total{approle="made-up"}"#), Some(1.0));
}

/// Everything that has a label has every value that it can have, and all counts have ten digits.
fn fill(metrics: &Metrics, name_of_role: impl Fn(usize) -> String) {
    const MANY: usize = 600;
    let refused = answer(400);
    for n in 0..MANY {
        let role = role(&name_of_role(n));
        metrics.secret_id_requested(&role, None);
        metrics.secret_id_requested(&role, Some(&VaultTrouble::Sealed));
        metrics.pushed(&role, &refused);
    }
    for event in ["joined", "left", "failed", "reaped"] {
        for n in 0..MOST_PEERS {
            metrics.gossip_changed(event, &format!("fd00:1234:5678:9abc:def0:1234:5678:{n:04x}"));
        }
        metrics.gossip_changed(event, "other");
    }
    for used in TlsUse::ALL {
        metrics.certificate_expires(used, Some(1_800_000_000));
    }
    metrics.token_granted(Some(86_400));
    metrics.delivered(Duration::from_millis(1));
    metrics.room(Some(Room { used: 1 << 40, free: 1 << 40 }));
}

fn sampled() -> Sampled {
    let raft = RaftSampled {
        cluster: "0123456789abcdef".into(),
        reachable: Some(5),
        most_behind: Some(9),
        ..RaftSampled::default()
    };
    Sampled { raft: Some(raft), ..Sampled::default() }
}

// Issue 5, speed: the page stays under 64 KiB.
#[test]
fn the_page_stays_under_64_kib_however_many_roles_and_peers_there_are() {
    for length in [1, 20, 63, 512] {
        let metrics = metrics();
        fill(&metrics, |n| format!("{n:03}-{}", "r".repeat(length))[..length.max(3)].to_owned());
        let page = page_with(&metrics, &sampled());
        // As if each count had ten digits more.
        let bytes = |of_role: bool| -> usize {
            let lines = page.lines().filter(|line| line.contains("{approle=") == of_role);
            lines.map(|line| line.len() + if line.starts_with('#') { 1 } else { "\n4294967296".len() }).sum()
        };
        let (roles, rest) = (bytes(true), bytes(false));
        assert!(rest <= (64 << 10) - MAX_ROLE_BYTES, "{rest} bytes beside the roles");
        // Those that are no labels are there once more, as `unknown`.
        let unknown = SERIES_OF_A_ROLE * (SERIES_BYTES + UNKNOWN_ROLE.len());
        assert!(roles <= MAX_ROLE_BYTES + unknown, "{length}: {roles} bytes of roles");
        assert!(roles + rest < 64 << 10, "{length}: {roles} and {rest} bytes");
        let labels = page.lines().filter(|line| line.starts_with("kubernetesvault_vault_secret_id_requests_total{"));
        assert!(labels.count() > 10, "{length}: hardly any role is a label");
    }
}

// Issue 5, speed: under 5 ms with a release build. A debug build is ten times slower, and this machine is shared: this
// finds a page that has become slow by its nature.
#[test]
fn a_full_page_is_made_in_a_moment() {
    let metrics = metrics();
    fill(&metrics, |n| format!("role-{n}"));
    let fastest = (0..20).map(|_| {
        let start = Instant::now();
        metrics.page(&sampled());
        start.elapsed()
    });
    assert!(fastest.min().unwrap() < Duration::from_millis(50));
}

#[test]
fn counters_follow_what_was_counted_elsewhere_and_never_fall() {
    let metrics = metrics();
    let watch =
        |restarts| Sampled { watch: WatchSampled { restarts, ..WatchSampled::default() }, ..Sampled::default() };
    for (counted, shown) in [(1, 1.0), (3, 3.0), (3, 3.0), (2, 3.0)] {
        assert_eq!(read(&page_with(&metrics, &watch(counted)), "watch_restarts_total"), Some(shown));
    }
    metrics.another_cluster_met();
    let refused = Sampled { refused: vec![("stranger", 2)], ..Sampled::default() };
    let page = page_with(&metrics, &refused);
    for (cause, times) in [("stranger", 2.0), ("another_cluster", 1.0), ("not_member", 0.0)] {
        assert_eq!(read(&page, &format!(r#"peers_refused_total{{cause="{cause}"}}"#)), Some(times));
    }
}

#[test]
fn a_replica_that_forms_leads_nobody_and_is_in_no_cluster() {
    let metrics = metrics();
    let raft = RaftSampled { leads: true, leader_known: true, voters: 3, ..sampled().raft.unwrap() };
    let page = page_with(&metrics, &Sampled { raft: Some(raft), ..Sampled::default() });
    assert_eq!(read(&page, "raft_leader"), Some(1.0));
    assert_eq!(read(&page, r#"raft_cluster_info{cluster_id="0123456789abcdef",epoch="0"}"#), Some(1.0));
    let page = self::page(&metrics);
    for gauge in ["raft_leader", "raft_leader_known"] {
        assert_eq!(read(&page, gauge), Some(0.0), "{gauge}");
    }
    assert!(!page.contains("raft_cluster_info{") && !page.contains("\nkubernetesvault_raft_voters_reachable "));
}

#[test]
fn a_token_that_is_gone_has_no_expiry() {
    let metrics = metrics();
    assert_eq!(value(&metrics, "vault_token_expiry_timestamp_seconds"), None);
    metrics.token_granted(Some(3_600));
    assert_eq!(value(&metrics, "vault_token_expiry_timestamp_seconds"), Some(1_700_003_600.0));
    assert_eq!(value(&metrics, "vault_token_ttl_seconds"), Some(3_600.0));
    metrics.token_granted(None);
    assert_eq!(value(&metrics, "vault_token_expiry_timestamp_seconds"), None);
}

#[test]
fn the_last_delivery_has_a_time_once_there_was_one() {
    let metrics = metrics();
    assert_eq!(value(&metrics, "last_delivery_timestamp_seconds"), None);
    metrics.delivered(Duration::from_millis(20));
    assert_eq!(value(&metrics, "last_delivery_timestamp_seconds"), Some(1_700_000_000.0));
}

/// Series by name with labels, the values left out.
fn series(page: &str) -> BTreeSet<String> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

// An alert on a series that appears with its first event misses that event; a value without a meaning is in no page of
// documentation.
#[test]
fn each_value_that_is_counted_is_described_and_there_from_the_start() {
    let metrics = metrics();
    let before = series(&page(&metrics));
    for incident in Incident::ALL {
        metrics.happened(incident, 1);
    }
    for how in [Neutralised::Destroyed, Neutralised::Unwrapped, Neutralised::LeftToExpire] {
        metrics.neutralised(how);
    }
    for limit in Limit::ALL {
        metrics.limited(limit);
    }
    let made_up = role("made-up");
    for status in [200, 409, 410, 421, 422, 503, 404] {
        metrics.pushed(&made_up, &answer(status));
    }
    metrics.pushed(&made_up, &Answer::Incomplete("reset".into()));
    for trouble in troubles() {
        metrics.secret_id_requested(&made_up, Some(&trouble));
    }
    let new: Vec<String> = series(&page(&metrics)).difference(&before).cloned().collect();
    assert!(new.iter().all(|name| name.ends_with(r#"{approle="unknown"}"#)), "{new:?}");
}

fn troubles() -> [VaultTrouble; 12] {
    [
        VaultTrouble::UnknownRole,
        VaultTrouble::Forbidden("".into()),
        VaultTrouble::Rejected { status: 400, cause: "".into() },
        VaultTrouble::WrongAnswer("".into()),
        VaultTrouble::Sealed,
        VaultTrouble::Standby,
        VaultTrouble::RateLimited { retry_after: None },
        VaultTrouble::Unavailable { status: 500, retry_after: None },
        VaultTrouble::Redirected("".into()),
        VaultTrouble::Unreachable("".into()),
        VaultTrouble::TimedOut,
        VaultTrouble::NotLoggedIn("".into()),
    ]
}

#[test]
fn what_is_on_the_page_is_described_and_what_is_described_is_on_a_full_page() {
    let metrics = metrics();
    fill(&metrics, |n| format!("role-{n}"));
    let page = page_with(&metrics, &sampled());
    let types: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let described: Vec<String> = metrics.described().iter().map(|one| format!("{} {}", one.name, one.kind)).collect();
    assert_eq!(types, described.iter().map(String::as_str).collect());
}

#[test]
fn descriptions_say_something_and_keep_their_shape() {
    for one in metrics().described() {
        assert!(one.help.ends_with('.') && !one.help.contains('\n'), "{}: {}", one.name, one.help);
        assert!(one.kind != Kind::Counter || one.name.ends_with("_total"), "{} is a counter", one.name);
        for Label { values, .. } in one.labels {
            match values {
                Values::Known(all) => {
                    assert!(all.iter().all(|(value, meaning)| !value.is_empty() && !meaning.is_empty()));
                }
                Values::Open(meaning) => assert!(!meaning.is_empty(), "{}", one.name),
            }
        }
    }
}
