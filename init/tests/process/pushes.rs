//! One push at a time, one in all, and only the one that is meant for this pod.

use hyper::Method;
use tokio::io::AsyncWriteExt as _;

use crate::fake_vault::{FakeVault, Say, good};
use crate::harness::{CLIENT_TOKEN, Init, WRAPPING_TOKEN, connect, post, promise, push_body, request, send};

const UID: &str = "0b1c9ee3-7b3c-4c5e-9d0f-1b2a3c4d5e6f";

/// A good Vault that lets go of its first lookup only when told to.
async fn slow_vault() -> FakeVault {
    FakeVault::start(|path, before| match (path, before) {
        ("sys/wrapping/lookup", 0) => Say::Later,
        _ => good(path),
    })
    .await
}

promise!(the_answer_and_the_termination_message_name_the_attempt, async {
    let vault = FakeVault::good().await;
    let init = Init::listening(&[]).await;
    let reply = post(push_body(&vault.address(), r#","attempt":"attempt-7/a""#)).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "attempt=attempt-7/a"));
    assert_eq!(wire::parse_attempt(&reply.body), Some("attempt-7/a"));
    let end = init.end().await;
    assert_eq!((end.code, end.message.as_str()), (Some(0), "attempt=attempt-7/a"));
});

promise!(a_push_without_an_attempt_is_answered_as_the_reference_does, async {
    let vault = FakeVault::good().await;
    let init = Init::listening(&[]).await;
    let reply = post(push_body(&vault.address(), "")).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    let end = init.end().await;
    assert_eq!((end.code, end.message.as_str()), (Some(0), ""));
});

promise!(keys_match_without_regard_to_case_and_unknown_ones_are_ignored, async {
    let vault = FakeVault::good().await;
    let init = Init::listening(&[]).await;
    let now = jiff::Timestamp::now();
    let address = vault.address();
    let body = format!(
        r#"{{"TOKEN":"{WRAPPING_TOKEN}","CreationTime":"{now}","TTL":60,"vaultaddr":"{address}","vaultCAs":null,"new":{{"a":[1]}}}}"#
    );
    assert_eq!(post(body).await.status, 200);
    assert!(init.end().await.file("vault-token").contains(CLIENT_TOKEN));
});

promise!(while_one_push_is_in_work_another_gets_409_and_the_first_is_done, async {
    let vault = slow_vault().await;
    let init = Init::listening(&[]).await;
    let first = tokio::spawn(post(push_body(&vault.address(), r#","attempt":"first""#)));
    vault.asked("sys/wrapping/lookup").await;
    let second = post(push_body(&vault.address(), r#","attempt":"second""#)).await;
    assert_eq!(second.status, 409);
    assert_eq!(post("{}").await.status, 400, "others are served meanwhile");
    vault.go_on();
    let first = first.await.unwrap();
    assert_eq!((first.status, first.body.as_str()), (200, "attempt=first"));
    let end = init.end().await;
    assert_eq!((end.code, end.message.as_str()), (Some(0), "attempt=first"));
    assert_eq!(vault.paths().len(), 3, "nothing of the second one was used");
});

promise!(after_it_is_done_another_gets_410_with_the_accepted_attempt, async {
    let vault = FakeVault::good().await;
    let mut init = Init::listening(&[]).await;
    // Its sender does not read the answer and does not hang up: that, and no more, is what keeps the process.
    let body = push_body(&vault.address(), r#","attempt":"first""#);
    let mut first = connect("127.0.0.1:50000", rustls::DEFAULT_VERSIONS).await;
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    first.write_all(head.as_bytes()).await.unwrap();
    init.until("Successfully").await;
    let second = post(push_body(&vault.address(), r#","attempt":"second""#)).await;
    assert_eq!((second.status, second.body.as_str()), (410, "attempt=first"));
    // Both limits on delivering the answer are far below the harness's patience.
    assert_eq!(init.end().await.code, Some(0));
    drop(first);
});

promise!(a_sender_that_hangs_up_changes_nothing, async {
    let vault = slow_vault().await;
    let init = Init::listening(&[]).await;
    let body = push_body(&vault.address(), r#","attempt":"first""#);
    let mut sender = connect("127.0.0.1:50000", rustls::DEFAULT_VERSIONS).await;
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    sender.write_all(head.as_bytes()).await.unwrap();
    vault.asked("sys/wrapping/lookup").await;
    drop(sender);
    assert_eq!(post("{}").await.status, 400);
    vault.go_on();
    let end = init.end().await;
    assert_eq!((end.code, end.message.as_str()), (Some(0), "attempt=first"));
    assert_eq!(end.files(), ["vault-token"]);
});

promise!(the_timeout_lets_a_push_in_work_finish, async {
    let vault = slow_vault().await;
    let init = Init::listening(&[("TIMEOUT", "1s")]).await;
    let push = tokio::spawn(post(push_body(&vault.address(), "")));
    vault.asked("sys/wrapping/lookup").await;
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    vault.go_on();
    assert_eq!(push.await.unwrap().status, 200);
    assert_eq!(init.end().await.code, Some(0));
});

promise!(and_when_that_push_fails_the_timeout_holds, async {
    let vault = FakeVault::start(|path, _| match path {
        "sys/wrapping/lookup" => Say::Later,
        _ => crate::fake_vault::errors(403, "no"),
    })
    .await;
    let init = Init::listening(&[("TIMEOUT", "1s")]).await;
    let push = tokio::spawn(post(push_body(&vault.address(), "")));
    vault.asked("sys/wrapping/lookup").await;
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    vault.go_on();
    assert_eq!(push.await.unwrap().status, 422);
    let end = init.end().await;
    assert_eq!(end.code, Some(3), "{}", end.log);
});

promise!(a_push_for_another_pod_is_misdirected_and_ours_is_done, async {
    let vault = FakeVault::good().await;
    let env = [("POD_NAME", "web-1"), ("POD_NAMESPACE", "shop"), ("POD_UID", UID)];
    let init = Init::listening(&env).await;
    let other = UID.replace("0b1c", "ffff");
    for more in [
        r#","podName":"web-2","podNamespace":"shop""#.to_owned(),
        r#","podName":"web-1","podNamespace":"bank""#.to_owned(),
        format!(r#","podName":"web-1","podNamespace":"shop","podUID":"{other}""#),
    ] {
        let reply = post(push_body(&vault.address(), &more)).await;
        assert_eq!(reply.status, 421, "{reply:?}");
    }
    assert!(vault.seen().is_empty());
    let ours = format!(r#","podName":"web-1","podNamespace":"shop","podUID":"{UID}""#);
    assert_eq!(post(push_body(&vault.address(), &ours)).await.status, 200);
    assert_eq!(init.end().await.code, Some(0));
});

promise!(a_pod_is_known_by_its_mounts_where_the_spec_does_not_say, async {
    // What the kubelet does: a directory of the pod's own, mounted into the container.
    let root = tempfile::tempdir().unwrap();
    let volume = root.path().join(format!("pods/{UID}/volumes/credentials"));
    std::fs::create_dir_all(&volume).unwrap();
    let point = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount").arg("--bind").arg(&volume).arg(point.path()).status();
    assert!(mounted.unwrap().success());
    let vault = FakeVault::good().await;
    let init = Init::listening(&[("CREDENTIALS_PATH", point.path().to_str().unwrap())]).await;
    let other = format!(r#","podUID":"{}""#, UID.replace("0b1c", "ffff"));
    assert_eq!(post(push_body(&vault.address(), &other)).await.status, 421);
    let ours = format!(r#","podName":"any","podUID":"{UID}""#);
    assert_eq!(post(push_body(&vault.address(), &ours)).await.status, 200);
    assert_eq!(init.end().await.code, Some(0));
    assert!(volume.join("vault-token").exists());
});

promise!(a_pod_that_cannot_know_takes_a_push_for_its_own, async {
    let vault = FakeVault::good().await;
    let init = Init::listening(&[]).await;
    let more = format!(r#","podName":"any","podNamespace":"any","podUID":"{UID}""#);
    assert_eq!(post(push_body(&vault.address(), &more)).await.status, 200);
    assert_eq!(init.end().await.code, Some(0));
});

promise!(one_connection_takes_one_request, async {
    let init = Init::listening(&[]).await;
    let stream = connect("127.0.0.1:50000", rustls::DEFAULT_VERSIONS).await;
    let reply = send(stream, Method::POST, "/", &[], "{}").await;
    assert_eq!(reply.headers["connection"], "close");
    let reply = request(Method::POST, "/", &[("content-type", "text/plain")], "{}").await;
    assert_eq!(reply.status, 400, "the type is not looked at, as in the reference");
    init.terminate();
    assert_eq!(init.end().await.code, Some(143));
});
