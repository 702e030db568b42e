//! What the writer promises: order, readable before durable, one sync for many, nothing after a failure, a clean end.

use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::join_all;
use tokio::sync::oneshot;

use super::engines::Gated;
use super::{indexes, put};
use crate::causes::with_causes;
use crate::store::engine::Family;
use crate::store::mem::MemEngine;
use crate::store::rocks::RocksEngine;
use crate::store::{Store, StoreError, keys};

/// The store in each of its modes, with its engine.
fn both() -> [(Store, MemEngine); 2] {
    let (threads, inline) = (MemEngine::new(), MemEngine::new());
    [(Store::start(threads.clone()).unwrap(), threads), (Store::inline(inline.clone()), inline)]
}

#[tokio::test]
async fn a_write_is_readable_and_a_commit_survives_a_power_cut() {
    for (store, engine) in both() {
        store.write(put(1)).await.unwrap();
        assert_eq!(store.get(Family::Log, &keys::log(1)).unwrap(), Some(b"record 1".to_vec()));
        assert_eq!((engine.syncs(), engine.unsynced()), (0, 1));
        store.commit(put(2)).await.unwrap();
        store.write(put(3)).await.unwrap();
        assert_eq!(store.last(Family::Log).unwrap().map(|record| record.0), Some(keys::log(3)));
        engine.crash();
        assert_eq!(indexes(&engine.reopen()), [1, 2]);
    }
}

#[tokio::test(start_paused = true)]
async fn appends_are_durable_in_the_order_of_their_calls() {
    for (store, engine) in both() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        for index in 0..300 {
            let (heard, seen) = (Arc::clone(&heard), engine.clone());
            let on_durable = move |outcome: Result<(), StoreError>| {
                outcome.unwrap();
                heard.lock().unwrap().push((index, seen.syncs()));
            };
            store.append(put(index), on_durable).await.unwrap();
        }
        store.close().await;
        let heard = heard.lock().unwrap();
        assert_eq!(heard.iter().map(|(index, _)| *index).collect::<Vec<_>>(), (0..300).collect::<Vec<_>>());
        assert!(heard.iter().all(|(_, syncs)| *syncs > 0), "a callback came before any sync");
        assert_eq!(indexes(&engine), (0..300).collect::<Vec<_>>());
        assert_eq!(engine.unsynced(), 0);
    }
}

#[tokio::test]
async fn a_slow_sync_holds_up_no_write_and_all_that_wait_share_the_next_one() {
    let engine = Gated::default();
    let store = Store::start(engine.clone()).unwrap();
    let commit = |index| {
        let store = store.clone();
        tokio::spawn(async move { store.commit(put(index)).await })
    };
    let first = commit(0);
    let waiting = engine.clone();
    tokio::task::spawn_blocking(move || waiting.wait_for_a_sync()).await.unwrap();
    let rest: Vec<_> = (1..=40).map(commit).collect();
    while engine.memory.writes() < 41 {
        tokio::task::yield_now().await;
    }
    // Answered only once the writer is done with all before it.
    store.write(put(41)).await.unwrap();
    assert_eq!(indexes(&engine).len(), 42, "all can be read while the first sync is under way");
    assert!(!first.is_finished() && rest.iter().all(|commit| !commit.is_finished()));
    engine.open();
    for outcome in join_all(rest.into_iter().chain([first])).await {
        outcome.unwrap().unwrap();
    }
    assert_eq!((engine.memory.syncs(), store.syncs()), (2, 2));
}

#[tokio::test]
async fn inline_everything_is_done_in_the_first_poll() {
    let engine = MemEngine::new();
    let store = Store::inline(engine.clone());
    assert!(store.commit(put(1)).now_or_never().unwrap().is_ok());
    let (answer, mut durable) = oneshot::channel();
    assert!(store.append(put(2), |outcome| answer.send(outcome).unwrap()).now_or_never().unwrap().is_ok());
    assert!(durable.try_recv().unwrap().is_ok());
    assert_eq!(engine.syncs(), 2);
    store.close().now_or_never().unwrap();
    assert!(matches!(store.last(Family::Log), Err(StoreError::Closed)));
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_taken_any_more() {
    for (store, engine) in both() {
        store.commit(put(1)).await.unwrap();
        assert!(store.failed().now_or_never().is_none());
        engine.fail_next_sync();
        let first = store.commit(put(2)).await.unwrap_err();
        assert_eq!(
            with_causes(&first),
            "the storage has failed, and takes nothing more: a sync failed: a failure was injected"
        );
        let writes = engine.writes();
        let (answer, heard) = oneshot::channel();
        let on_durable = |outcome| answer.send(outcome).unwrap();
        for later in [
            store.write(put(3)).await.unwrap_err(),
            store.commit(put(3)).await.unwrap_err(),
            store.append(put(3), on_durable).await.unwrap_err(),
            heard.await.unwrap().unwrap_err(),
            store.last(Family::Log).unwrap_err(),
            store.failed().await,
        ] {
            assert_eq!(with_causes(&later), with_causes(&first));
        }
        assert_eq!((engine.writes(), engine.syncs()), (writes, 1));
        engine.crash();
        assert_eq!(indexes(&engine.reopen()), [1]);
    }
}

#[tokio::test]
async fn after_a_failed_write_nothing_of_the_same_group_is_called_durable() {
    for (store, engine) in both() {
        engine.fail_next_write();
        let (answer, heard) = oneshot::channel();
        store.append(put(1), |outcome| answer.send(outcome).unwrap()).await.unwrap_err();
        assert!(matches!(heard.await.unwrap(), Err(StoreError::Poisoned(_))));
        assert!(matches!(store.commit(put(2)).await, Err(StoreError::Poisoned(_))));
        assert!(matches!(store.failed().await, StoreError::Poisoned(_)));
        assert_eq!((engine.writes(), engine.syncs()), (0, 0));
    }
}

#[tokio::test]
async fn a_panic_on_the_stores_thread_is_a_failure() {
    let store = Store::start(MemEngine::new()).unwrap();
    store.append(put(1), |_| panic!("a callback that a test broke")).await.unwrap();
    assert!(matches!(store.failed().await, StoreError::Poisoned(_)));
    assert!(matches!(store.commit(put(2)).await, Err(StoreError::Poisoned(_))));
    store.close().await;
}

#[tokio::test]
async fn a_caller_that_stops_waiting_stops_nothing() {
    let engine = Gated::default();
    let store = Store::start(engine.clone()).unwrap();
    let abandoned = tokio::spawn({
        let store = store.clone();
        async move { store.commit(put(1)).await }
    });
    let waiting = engine.clone();
    tokio::task::spawn_blocking(move || waiting.wait_for_a_sync()).await.unwrap();
    abandoned.abort();
    engine.open();
    store.commit(put(2)).await.unwrap();
    assert_eq!(indexes(&engine), [1, 2]);
}

#[tokio::test]
async fn closing_finishes_what_was_asked_for_and_frees_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::start(RocksEngine::open(folder.path()).unwrap()).unwrap();
    let heard = Arc::new(Mutex::new(0));
    for index in 0..50 {
        let heard = Arc::clone(&heard);
        store.append(put(index), move |outcome| *heard.lock().unwrap() += u32::from(outcome.is_ok())).await.unwrap();
    }
    let other = store.clone();
    tokio::join!(store.close(), other.close());
    assert_eq!(*heard.lock().unwrap(), 50);
    assert!(matches!(other.commit(put(50)).await, Err(StoreError::Closed)));
    assert!(matches!(other.get(Family::Log, b""), Err(StoreError::Closed)));
    assert_eq!(indexes(&RocksEngine::open(folder.path()).unwrap()).len(), 50);
}

#[tokio::test]
async fn dropping_the_last_handle_frees_the_folder_too() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::start(RocksEngine::open(folder.path()).unwrap()).unwrap();
    store.write(put(1)).await.unwrap();
    drop(store);
    assert_eq!(indexes(&RocksEngine::open(folder.path()).unwrap()), [1]);
}

#[tokio::test]
async fn a_callback_may_hold_the_last_handle() {
    let engine = Gated::default();
    let store = Store::start(engine.clone()).unwrap();
    let (answer, heard) = oneshot::channel();
    let last = store.clone();
    store
        .append(put(1), move |outcome| {
            drop(last);
            answer.send(outcome).unwrap();
        })
        .await
        .unwrap();
    drop(store);
    engine.open();
    heard.await.unwrap().unwrap();
}

#[tokio::test]
async fn each_lone_commit_is_one_sync_of_rocksdbs_log_and_a_write_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, syncs) = RocksEngine::open_counted(folder.path()).unwrap();
    let store = Store::start(engine).unwrap();
    let before = syncs.count();
    for index in 0..10 {
        store.write(put(index)).await.unwrap();
    }
    assert_eq!(syncs.count() - before, 0);
    for index in 10..30 {
        store.commit(put(index)).await.unwrap();
    }
    assert_eq!((syncs.count() - before, store.syncs()), (20, 20));
    let group = join_all((30..60).map(|index| store.commit(put(index)))).await;
    assert!(group.iter().all(Result::is_ok));
    let shared = syncs.count() - before - 20;
    assert!((1..=30).contains(&shared), "{shared} syncs for 30 commits at once");
}
