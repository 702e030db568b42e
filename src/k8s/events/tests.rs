//! The announcer against a scripted API server, under paused time.

use serde_json::Value;

use super::super::fake_api::{Answer, Asked, FakeApi, status};
use super::*;
use crate::domain::ids::{AttemptId, PodUid, Timestamp};

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        Timestamp(1_785_578_400_000)
    }
}

fn mk_pod(namespace: &str, name: &str) -> PodRef {
    PodRef { namespace: namespace.into(), name: name.into(), uid: PodUid::from(name) }
}

fn sealed() -> Announcement {
    Announcement::VaultUnavailable("sealed".into())
}

fn delivered() -> Announcement {
    Announcement::Delivered { attempt: AttemptId::from("x1"), after: Duration::from_millis(7) }
}

fn accepts() -> Answer {
    Answer::Json(201, Value::Object(serde_json::Map::new()))
}

fn start(api: &Arc<FakeApi>) -> (EventAnnouncer, CancellationToken) {
    let (announcer, writer) = EventAnnouncer::new(api.client(), "kubernetes-vault-0", Arc::new(Noon));
    let stop = CancellationToken::new();
    tokio::spawn(writer.run(stop.clone()));
    (announcer, stop)
}

async fn after(api: &Arc<FakeApi>, time: Duration) -> Vec<Asked> {
    sleep(time).await;
    api.asked()
}

#[tokio::test(start_paused = true)]
async fn an_announcement_becomes_an_event_on_its_pod() {
    let api = FakeApi::new([], accepts());
    let (announcer, _stop) = start(&api);
    announcer.announce(&mk_pod("team-a", "web-0"), sealed());
    let asked = after(&api, Duration::from_secs(1)).await;
    assert_eq!((asked.len(), &*asked[0].method), (1, "POST"));
    assert_eq!(asked[0].path, "/apis/events.k8s.io/v1/namespaces/team-a/events");
    let event = &asked[0].body;
    assert_eq!(event["regarding"]["uid"], "web-0");
    assert_eq!(event["regarding"]["kind"], "Pod");
    assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("VaultUnavailable")));
    assert_eq!(event["reportingController"], "kubernetes-vault");
    assert_eq!(event["reportingInstance"], "kubernetes-vault-0");
    assert_eq!(event["eventTime"], "2026-08-01T10:00:00.000000Z");
    assert_eq!(announcer.counters().written(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_note_is_cut_to_what_the_api_server_takes() {
    let api = FakeApi::new([], accepts());
    let (announcer, _stop) = start(&api);
    announcer.announce(&mk_pod("team-a", "web-0"), Announcement::RoleRefused("ä".repeat(2_000)));
    let asked = after(&api, Duration::from_secs(1)).await;
    let note = asked[0].body["note"].as_str().unwrap();
    assert!((NOTE_BYTES - 3..=NOTE_BYTES).contains(&note.len()), "{}", note.len());
}

#[tokio::test(start_paused = true)]
async fn a_repeated_cause_counts_one_event_up() {
    let api = FakeApi::new([], accepts());
    let (announcer, _stop) = start(&api);
    for _ in 0..60 {
        announcer.announce(&mk_pod("team-a", "web-0"), sealed());
        sleep(Duration::from_secs(5)).await;
    }
    let asked = after(&api, Duration::from_secs(600)).await;
    let kinds: Vec<_> = asked.iter().map(|asked| asked.method.as_str()).collect();
    assert_eq!(kinds, ["POST", "PATCH", "PATCH", "PATCH"], "{asked:?}");
    assert_eq!(asked.last().unwrap().body["series"]["count"], 60, "the last held back ones are not lost");
    let name = asked[0].body["metadata"]["name"].as_str().unwrap();
    assert!(asked[1..].iter().all(|asked| asked.path.ends_with(name)));
}

// Item 3: missing RBAC for Events is one warning, not a failure.
#[tokio::test(start_paused = true)]
async fn a_forbidden_namespace_is_tried_every_ten_minutes_and_the_others_go_on() {
    let api = FakeApi::new([Answer::Json(403, status(403, "Forbidden", "cannot create resource"))], accepts());
    let (announcer, _stop) = start(&api);
    announcer.announce(&mk_pod("team-a", "p"), sealed());
    sleep(Duration::from_secs(1)).await;
    for n in 0..100 {
        announcer.announce(&mk_pod("team-a", &n.to_string()), sealed());
    }
    announcer.announce(&mk_pod("team-b", "q"), sealed());
    assert_eq!(after(&api, Duration::from_secs(1)).await.len(), 2);
    assert_eq!(announcer.counters().dropped(), 100);
    sleep(FORBIDDEN_FOR).await;
    announcer.announce(&mk_pod("team-a", "p"), sealed());
    assert_eq!(after(&api, Duration::from_secs(1)).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_being_deleted_is_not_a_missing_permission() {
    let ending = status(403, "Forbidden", "forbidden: namespace team-a because it is being terminated");
    let api = FakeApi::new([Answer::Json(403, ending)], accepts());
    let (announcer, _stop) = start(&api);
    announcer.announce(&mk_pod("team-a", "p"), sealed());
    announcer.announce(&mk_pod("team-a", "q"), sealed());
    assert_eq!(after(&api, Duration::from_secs(1)).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_is_tried_once_more_and_then_the_next_announcement_begins_anew() {
    let busy = || Answer::Json(500, status(500, "InternalError", "etcd"));
    let api = FakeApi::new([busy(), Answer::Never], accepts());
    let (announcer, _stop) = start(&api);
    announcer.announce(&mk_pod("team-a", "p"), sealed());
    sleep(Duration::from_secs(30)).await;
    assert_eq!(announcer.counters().failed(), 1);
    announcer.announce(&mk_pod("team-a", "p"), sealed());
    let asked = after(&api, Duration::from_secs(1)).await;
    assert_eq!((asked.len(), &*asked[2].method), (3, "POST"));
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_answer_was_lost_is_not_written_twice() {
    let lost = Answer::Json(500, status(500, "InternalError", "etcd timed out"));
    let exists = Answer::Json(409, status(409, "AlreadyExists", "it exists"));
    let api = FakeApi::new([lost, exists], accepts());
    let (announcer, _stop) = start(&api);
    announcer.announce(&mk_pod("team-a", "web-0"), sealed());
    assert_eq!(after(&api, Duration::from_secs(65)).await.len(), 2);
    assert_eq!((announcer.counters().written(), announcer.counters().failed()), (1, 0));
    announcer.announce(&mk_pod("team-a", "web-0"), sealed());
    let asked = after(&api, Duration::from_secs(1)).await;
    assert_eq!((asked.len(), &*asked[2].method), (3, "PATCH"));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_server_has_forgotten_is_created_anew() {
    let script = [accepts(), Answer::Json(404, status(404, "NotFound", "not found"))];
    let api = FakeApi::new(script, accepts());
    let (announcer, _stop) = start(&api);
    for _ in 0..3 {
        announcer.announce(&mk_pod("team-a", "p"), sealed());
        sleep(Duration::from_secs(61)).await;
    }
    let kinds: Vec<_> = api.asked().iter().map(|asked| asked.method.clone()).collect();
    assert_eq!(kinds, ["POST", "PATCH", "POST"]);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_hangs_costs_announcements_and_never_time_and_warnings_have_precedence() {
    let api = FakeApi::new([], Answer::Never);
    let (announcer, _stop) = start(&api);
    let begun = Instant::now();
    for n in 0..2 * QUEUE {
        announcer.announce(&mk_pod("team-a", &n.to_string()), delivered());
    }
    assert_eq!(announcer.queue.capacity(), KEPT_FOR_WARNINGS);
    announcer.announce(&mk_pod("team-a", "bad"), sealed());
    assert_eq!(announcer.queue.capacity(), KEPT_FOR_WARNINGS - 1);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(announcer.counters().dropped() > 0);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_what_is_queued_is_written_within_a_moment() {
    let api = FakeApi::new([], accepts());
    let (announcer, writer) = EventAnnouncer::new(api.client(), "i", Arc::new(Noon));
    for n in 0..150 {
        announcer.announce(&mk_pod("team-a", &n.to_string()), delivered());
    }
    let (stop, begun) = (CancellationToken::new(), Instant::now());
    stop.cancel();
    writer.run(stop).await;
    assert_eq!(api.asked().len(), 150);
    assert!(begun.elapsed() <= FAREWELL);
}

#[tokio::test(start_paused = true)]
async fn the_end_cuts_the_wait_for_the_rate_short() {
    let api = FakeApi::new([], accepts());
    let (announcer, stop) = start(&api);
    for n in 0..1_000 {
        announcer.announce(&mk_pod("team-a", &n.to_string()), delivered());
    }
    let before = after(&api, Duration::from_secs(1)).await.len();
    assert!((60..100).contains(&before), "{before} in the first second");
    stop.cancel();
    assert_eq!(after(&api, Duration::from_millis(1)).await.len(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_hangs_does_not_hold_up_the_end() {
    let api = FakeApi::new([], Answer::Never);
    let (announcer, writer) = EventAnnouncer::new(api.client(), "i", Arc::new(Noon));
    let stop = CancellationToken::new();
    let writer = tokio::spawn(writer.run(stop.clone()));
    announcer.announce(&mk_pod("team-a", "p"), sealed());
    sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    stop.cancel();
    writer.await.unwrap();
    assert_eq!(begun.elapsed(), FAREWELL);
}
