//! The watch against a scripted API server, under paused time.

use futures::StreamExt;
use serde_json::json;
use tokio::time::Instant;

use super::super::fake_api::{Answer, FakeApi, Then, bookmark, line, page, pod, status};
use super::*;

const A_DAY: Duration = Duration::from_secs(24 * 3600);

fn feed(api: &Arc<FakeApi>) -> Feed {
    Feed::new(api.client(), NamespaceFilter::Matching(Arc::new(|namespace: &str| namespace.starts_with("team"))))
}

fn say(event: &PodEvent) -> String {
    match event {
        PodEvent::Restarted => "restarted".into(),
        PodEvent::Seen(pod) => format!("seen {}", pod.reference.name),
        PodEvent::Left(pod) => format!("left {}", pod.reference.name),
        PodEvent::Synced => "synced".into(),
    }
}

/// What a feed says until it has said nothing for `quiet` (of paused time).
async fn hear(feed: &Feed, quiet: Duration) -> Vec<String> {
    let (mut events, mut heard) = (feed.events(), Vec::new());
    while let Ok(Some(event)) = timeout(quiet, events.next()).await {
        heard.push(say(&event));
    }
    heard
}

fn synced_at(version: &str) -> Answer {
    Answer::Lines(vec![bookmark(version, true)], Then::Close)
}

fn hang() -> Answer {
    Answer::Lines(Vec::new(), Then::Hang)
}

fn idle() -> Answer {
    Answer::Lines(Vec::new(), Then::CloseAfter(Duration::from_secs(290)))
}

#[tokio::test(start_paused = true)]
async fn a_streaming_list_is_consistent_then_watched_and_narrowed_to_pending_pods_of_the_watched_namespaces() {
    let lines = vec![
        line("ADDED", &pod("team-a", "one", "5")),
        line("ADDED", &pod("other", "stranger", "6")),
        bookmark("7", true),
        line("MODIFIED", &pod("team-a", "one", "8")),
        bookmark("9", false),
        line("DELETED", &pod("team-a", "one", "10")),
    ];
    let api = FakeApi::new([Answer::Lines(lines, Then::Hang)], hang());
    let feed = feed(&api);
    assert_eq!(hear(&feed, Duration::from_secs(1)).await, ["restarted", "seen one", "synced", "seen one", "left one"]);
    assert!(feed.health().fresh());
    let asked = api.asked();
    assert_eq!(asked[0].path, "/api/v1/pods");
    assert!(asked[0].query.contains("fieldSelector=status.phase%3DPending"), "{asked:?}");
    assert!(asked[0].query.contains("sendInitialEvents=true"), "{asked:?}");
    assert!(asked[0].query.ends_with("resourceVersion="), "an unset version is a consistent read: {asked:?}");
}

#[tokio::test(start_paused = true)]
async fn one_namespace_is_asked_for_alone() {
    let api = FakeApi::new([], hang());
    let feed = Feed::new(api.client(), NamespaceFilter::One("team-a".into()));
    hear(&feed, Duration::from_secs(1)).await;
    assert_eq!(api.asked()[0].path, "/api/v1/namespaces/team-a/pods");
}

// Speed table: api_lists_idle_10min = 0.
#[tokio::test(start_paused = true)]
async fn an_idle_day_lists_nothing_and_goes_on_from_the_newest_bookmark() {
    let marked = vec![bookmark("9", true), bookmark("12", false)];
    let api = FakeApi::new([Answer::Lines(marked, Then::CloseAfter(Duration::from_secs(290)))], idle());
    let feed = feed(&api);
    assert_eq!(hear(&feed, A_DAY).await, ["restarted", "synced"]);
    let asked = api.asked();
    assert!(asked.iter().all(|asked| !asked.is_list()));
    assert_eq!(asked.len(), 24 * 3600 / 290 + 1);
    assert!(asked[1..].iter().all(|asked| asked.query.ends_with("resourceVersion=12")), "{:?}", asked[1]);
    assert_eq!(feed.health().counts().errors, 0);
}

// Bad-input table, "watch: EOF storms": no busy loop.
#[tokio::test(start_paused = true)]
async fn a_server_that_ends_each_watch_at_once_is_asked_ever_more_seldom() {
    let api = FakeApi::new([synced_at("3")], Answer::Lines(Vec::new(), Then::Close));
    let feed = feed(&api);
    hear(&feed, Duration::from_secs(600)).await;
    let asked = api.asked();
    assert!((80..200).contains(&asked.len()), "{} requests in ten minutes", asked.len());
    assert!(asked.iter().all(|asked| !asked.is_list()), "the place is good: no list");
    assert!(feed.health().last_error().is_some());
}

// Bad-input table, "watch: EOF storms": what comes between two ends is served within about a second.
#[tokio::test(start_paused = true)]
async fn a_storm_of_ends_with_news_between_delays_them_by_a_second_at_most() {
    let news = Answer::Lines(vec![line("MODIFIED", &pod("team-a", "one", "8"))], Then::Break);
    let api = FakeApi::new([synced_at("3")], news);
    let feed = feed(&api);
    let mut events = feed.events();
    let begun = Instant::now();
    for _ in 0..100 {
        events.next().await;
    }
    let asked = api.asked();
    assert!(begun.elapsed() > Duration::from_secs(40), "no busy loop: {:?}", begun.elapsed());
    assert!(asked.windows(2).all(|pair| pair[1].at - pair[0].at <= Duration::from_secs(1)));
}

// Bad-input table, "watch: 410".
#[tokio::test(start_paused = true)]
async fn a_place_that_is_gone_means_one_new_list_and_pods_that_left_meanwhile_are_not_in_it() {
    let gone = line("ERROR", &status(410, "Expired", "too old resource version: 3 (9)"));
    let api = FakeApi::new(
        [
            Answer::Lines(vec![line("ADDED", &pod("team-a", "one", "2")), bookmark("3", true), gone], Then::Close),
            Answer::Lines(vec![line("ADDED", &pod("team-a", "two", "9")), bookmark("10", true)], Then::Hang),
        ],
        hang(),
    );
    let feed = feed(&api);
    let heard = hear(&feed, Duration::from_secs(60)).await;
    assert_eq!(heard, ["restarted", "seen one", "synced", "restarted", "seen two", "synced"]);
    assert_eq!(feed.health().counts().restarts, 2);
    assert!(feed.health().last_error().is_none(), "it has recovered");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_410_for_ever_is_not_listed_in_a_loop() {
    let api = FakeApi::new([], Answer::Json(410, status(410, "Expired", "too old")));
    hear(&feed(&api), Duration::from_secs(600)).await;
    assert!(api.asked().len() < 60, "{}", api.asked().len());
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_goes_on_from_where_it_was() {
    let first = vec![bookmark("3", true), line("ADDED", &pod("team-a", "one", "4"))];
    let second = vec![line("MODIFIED", &pod("team-a", "one", "5"))];
    let api = FakeApi::new([Answer::Lines(first, Then::Break), Answer::Lines(second, Then::Hang)], hang());
    let feed = feed(&api);
    assert_eq!(hear(&feed, Duration::from_secs(60)).await, ["restarted", "synced", "seen one", "seen one"]);
    let asked = api.asked();
    assert!(asked[1].query.ends_with("resourceVersion=4"), "{asked:?}");
}

// Bad-input table, "watch: one undecodable pod".
#[tokio::test(start_paused = true)]
async fn an_undecodable_pod_is_left_out_and_its_place_is_kept() {
    let bad =
        json!({"metadata": {"namespace": "team-a", "name": "bad", "uid": "u", "resourceVersion": "6"}, "spec": "?"});
    let lines = vec![
        line("ADDED", &bad),
        bookmark("5", true),
        line("MODIFIED", &bad),
        line("ADDED", &json!({"metadata": null})),
        line("ADDED", &json!("not even an object")),
        line("ADDED", &pod("team-a", "good", "7")),
        line("DELETED", &bad),
    ];
    let api = FakeApi::new([Answer::Lines(lines, Then::Close)], hang());
    let feed = feed(&api);
    assert_eq!(hear(&feed, Duration::from_secs(60)).await, ["restarted", "synced", "seen good"]);
    assert_eq!(feed.health().counts().undecodable, 5);
    assert!(api.asked()[1].query.ends_with("resourceVersion=6"));
}

#[tokio::test(start_paused = true)]
async fn without_streaming_lists_it_lists_in_pages_and_watches_from_there() {
    let bad = json!({"metadata": {"name": "bad"}, "spec": []});
    let api = FakeApi::new(
        [
            Answer::Json(422, status(422, "Invalid", "sendInitialEvents: Forbidden: the WatchList feature gate")),
            Answer::Json(200, page("", "more", &[pod("team-a", "one", "1"), bad])),
            Answer::Json(200, page("8", "", &[pod("team-a", "two", "2")])),
        ],
        Answer::Lines(vec![line("MODIFIED", &pod("team-a", "two", "9"))], Then::Hang),
    );
    let feed = feed(&api);
    let heard = hear(&feed, Duration::from_secs(60)).await;
    assert_eq!(heard, ["restarted", "seen one", "seen two", "synced", "seen two"]);
    let asked = api.asked();
    assert_eq!(asked.len(), 4);
    assert!(asked[2].query.contains("continue=more"));
    assert!(!asked[1].query.contains("resourceVersion="), "a consistent list: {asked:?}");
    assert!(asked[3].query.ends_with("resourceVersion=8") && !asked[3].query.contains("sendInitialEvents"));
    assert_eq!(feed.health().counts().undecodable, 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_a_streaming_list_for_a_watch_is_listed_after_a_bounded_wait() {
    let api = FakeApi::new(
        [
            Answer::Lines(vec![line("ADDED", &pod("team-a", "one", "1"))], Then::Hang),
            Answer::Json(200, page("8", "", &[pod("team-a", "one", "1")])),
        ],
        hang(),
    );
    let feed = feed(&api);
    let begun = Instant::now();
    let mut events = feed.events();
    while !matches!(events.next().await, Some(PodEvent::Synced)) {}
    assert!(begun.elapsed() <= Duration::from_secs(21), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_place_that_the_server_does_not_have_yet_is_given_up_in_the_end() {
    let ahead = || Answer::Json(504, status(504, "Timeout", "Too large resource version: 900, current: 3"));
    let script = [synced_at("900"), ahead(), ahead(), ahead(), ahead(), ahead(), synced_at("4")];
    let api = FakeApi::new(script, hang());
    let feed = feed(&api);
    assert_eq!(hear(&feed, Duration::from_secs(60)).await, ["restarted", "synced", "restarted", "synced"]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_what_is_missing_and_is_asked_again_every_few_seconds() {
    let api = FakeApi::new([], Answer::Json(403, status(403, "Forbidden", "pods is forbidden")));
    let feed = feed(&api);
    assert!(hear(&feed, Duration::from_secs(600)).await.is_empty());
    assert!(!feed.health().fresh());
    assert!(feed.health().last_error().unwrap().contains("pods is forbidden"));
    assert!((80..200).contains(&api.asked().len()), "{}", api.asked().len());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_accepts_and_never_answers_is_given_up_and_asked_again() {
    let api = FakeApi::new([Answer::Never], Answer::Lines(vec![bookmark("3", true)], Then::Hang));
    assert_eq!(hear(&feed(&api), Duration::from_secs(60)).await, ["restarted", "synced"]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_connection_is_given_up_a_little_after_its_end_was_due() {
    let api = FakeApi::new([Answer::Lines(vec![bookmark("3", true)], Then::Hang)], hang());
    let feed = feed(&api);
    hear(&feed, Duration::from_secs(302)).await;
    assert_eq!(api.asked().len(), 2, "{:?}", api.asked());
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_read_by_a_consistent_list_whatever_its_phase() {
    let mut running = pod("team-a", "one", "4");
    running["status"]["phase"] = json!("Running");
    let api = FakeApi::new([Answer::Json(200, page("9", "", &[running]))], Answer::Json(200, page("9", "", &[])));
    let feed = feed(&api);
    let read = feed.read("team-a", "one").await.unwrap().unwrap();
    assert_eq!(read.phase, crate::domain::pod::Phase::Running);
    assert_eq!(feed.read("team-a", "one").await.unwrap(), None);
    let asked = &api.asked()[0];
    assert_eq!(asked.path, "/api/v1/namespaces/team-a/pods");
    assert!(asked.query.contains("fieldSelector=metadata.name%3Done") && !asked.query.contains("resourceVersion"));
}

#[tokio::test(start_paused = true)]
async fn a_read_that_fails_or_hangs_is_an_error_and_never_an_absent_pod() {
    let api = FakeApi::new([Answer::Json(500, status(500, "InternalError", "etcd"))], Answer::Never);
    let feed = feed(&api);
    assert!(feed.read("team-a", "one").await.unwrap_err().to_string().contains("etcd"));
    assert!(feed.read("team-a", "one").await.unwrap_err().to_string().contains("10 s"));
    assert!(feed.read("team-a/../x", "one").await.is_err());
    assert_eq!(api.asked().len(), 2, "a namespace that is none is not asked for");
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_that_cost_the_place_the_list_is_due_at_once() {
    let down = || Answer::Json(503, status(503, "ServiceUnavailable", "starting"));
    let gone = Answer::Json(410, status(410, "Expired", "too old resource version"));
    let script = [vec![synced_at("3")], (0..9).map(|_| down()).collect(), vec![gone, synced_at("9")]].concat();
    let api = FakeApi::new(script, hang());
    hear(&feed(&api), Duration::from_secs(60)).await;
    let asked = api.asked();
    assert!(asked[11].query.contains("sendInitialEvents"), "{asked:?}");
    assert!(asked[11].at - asked[10].at <= Duration::from_millis(250));
}
