//! Each way in which Vault, or what the push says about it, can be wrong; and what is left waiting afterwards.

use wire::answer::TokenFault;

use crate::fake_vault::{FakeVault, Say, errors, good, unknown_token};
use crate::harness::{End, Init, Reply, names, post, promise, push_body};

/// Pushes once to an instance that must then still be waiting, and ends it.
async fn refused(vault: &FakeVault) -> (Reply, End) {
    let init = Init::listening(&[]).await;
    let reply = post(push_body(&vault.address(), "")).await;
    assert_eq!(post("{}").await.status, 400, "it does not wait any more");
    assert!(names(&init.path("")).is_empty());
    init.terminate();
    (reply, init.end().await)
}

fn fault(reply: &Reply) -> Option<TokenFault> {
    assert_eq!(reply.status, 422, "{reply:?}");
    TokenFault::parse(&reply.body)
}

promise!(
    /// Bad-input table: expired wrapping token.
    an_expired_token_is_refused_without_a_call_to_vault,
    async {
        let vault = FakeVault::good().await;
        let init = Init::listening(&[]).await;
        for body in [
            push_body(&vault.address(), "").replace("\"ttl\":60", "\"ttl\":0"),
            push_body(&vault.address(), "").replace("\"ttl\":60", "\"ttl\":-5"),
            push_body(&vault.address(), "").replace("\"ttl\":60,", ""),
        ] {
            assert_eq!(fault(&post(body).await), Some(TokenFault::Expired));
        }
        assert!(vault.seen().is_empty());
        assert_eq!(post(push_body(&vault.address(), "")).await.status, 200);
        assert_eq!(init.end().await.code, Some(0));
    }
);

promise!(
    /// Bad-input table: used wrapping token, which says loudly that somebody else may have unwrapped it.
    a_used_token_is_an_alarm,
    async {
        let vault = FakeVault::start(|_, _| unknown_token()).await;
        let (reply, end) = refused(&vault).await;
        assert_eq!(fault(&reply), Some(TokenFault::Used));
        let alarm = end.log.lines().find(|line| line.contains("SOMEBODY ELSE MAY HAVE UNWRAPPED IT"));
        assert!(alarm.is_some_and(|line| line.contains("level=error")), "{}", end.log);
    }
);

promise!(a_token_that_is_used_between_lookup_and_unwrapping_is_an_alarm_too, async {
    let vault = FakeVault::start(|path, _| match path {
        "sys/wrapping/unwrap" => unknown_token(),
        _ => good(path),
    })
    .await;
    let (reply, _) = refused(&vault).await;
    assert_eq!(fault(&reply), Some(TokenFault::Used));
});

promise!(
    /// Bad-input table: wrong creation path.
    a_token_of_another_path_is_not_unwrapped,
    async {
        for path in ["sys/wrapping/wrap", "auth/approle/role/app/custom-secret-id", "cubbyhole/auth/a/role/b/secret-id"] {
            let body = format!(r#"{{"data":{{"creation_path":"{path}"}}}}"#);
            let vault = FakeVault::start(move |_, _| Say::Json(200, body.clone())).await;
            let (reply, end) = refused(&vault).await;
            assert_eq!(fault(&reply), Some(TokenFault::Path));
            assert_eq!(vault.paths(), ["sys/wrapping/lookup"]);
            assert!(end.log.contains("SECURITY"), "{}", end.log);
        }
    }
);

promise!(a_token_without_a_secret_id_in_it_is_refused, async {
    let vault = FakeVault::start(|path, _| match path {
        "sys/wrapping/unwrap" => Say::Json(200, r#"{"data":{"x":"CANARY"}}"#.to_owned()),
        _ => good(path),
    })
    .await;
    assert_eq!(fault(&refused(&vault).await.0), Some(TokenFault::Path));
});

promise!(the_login_uses_the_mount_of_the_creation_path, async {
    let vault = FakeVault::start(|path, _| match path {
        "sys/wrapping/lookup" => {
            Say::Json(200, r#"{"data":{"creation_path":"ns/auth/team/a b/role/app/secret-id"}}"#.to_owned())
        }
        "auth/team/a%20b/login" => good("auth/approle/login"),
        _ => good(path),
    })
    .await;
    let init = Init::listening(&[]).await;
    assert_eq!(post(push_body(&vault.address(), r#","namespace":"ns""#)).await.status, 200);
    assert_eq!(init.end().await.code, Some(0));
    assert!(vault.seen().iter().all(|seen| seen.namespace == "ns"));
});

promise!(
    /// Bad-input table: role_id that Vault names as the culprit. No push can mend it.
    a_role_id_that_vault_does_not_know_ends_it,
    async {
        for words in ["invalid role ID", "invalid role_id"] {
            let vault = FakeVault::start(move |path, _| match path {
                "auth/approle/login" => errors(400, words),
                _ => good(path),
            })
            .await;
            let init = Init::listening(&[]).await;
            let reply = post(push_body(&vault.address(), "")).await;
            assert_eq!(reply.status, 412, "{reply:?}");
            let end = init.end().await;
            assert_eq!((end.code, end.files()), (Some(6), vec![]));
            assert!(end.last_line().contains("VAULT_ROLE_ID"), "{}", end.log);
            assert!(end.message.starts_with("role-id: "), "{}", end.message);
        }
    }
);

promise!(
    /// Bad-input table: role_id of another role. Vault's words do not say which of the two is wrong.
    an_ambiguous_refusal_leaves_it_waiting,
    async {
        for (status, words) in
            [(500, "invalid secret id"), (400, "invalid role or secret ID"), (403, "permission denied")]
        {
            let vault = FakeVault::start(move |path, _| match path {
                "auth/approle/login" => errors(status, words),
                _ => good(path),
            })
            .await;
            let (reply, _) = refused(&vault).await;
            assert_eq!(fault(&reply), Some(TokenFault::Refused));
            assert_eq!(vault.paths().len(), 3, "a refusal is not tried again");
        }
    }
);

promise!(vault_that_recovers_within_the_push_is_waited_for, async {
    let vault = FakeVault::start(|path, before| match (path, before) {
        ("sys/wrapping/lookup", 0) => errors(503, "Vault is sealed"),
        ("sys/wrapping/lookup", 1) => Say::HangUp,
        ("sys/wrapping/unwrap", 0) => Say::With(429, &[("retry-after", "1")], String::new()),
        ("auth/approle/login", 0..=2) => errors(503, "Vault is sealed"),
        _ => good(path),
    })
    .await;
    let init = Init::listening(&[]).await;
    assert_eq!(post(push_body(&vault.address(), "")).await.status, 200);
    assert_eq!(init.end().await.code, Some(0));
});

promise!(a_vault_that_stays_sealed_is_a_503_after_ten_seconds_at_most, async {
    let vault = FakeVault::start(|_, _| errors(503, "Vault is sealed")).await;
    let started = std::time::Instant::now();
    let (reply, end) = refused(&vault).await;
    assert!(started.elapsed().as_secs() < 15);
    assert_eq!(reply.status, 503);
    assert!(reply.body.contains("Vault is sealed") && end.log.contains("Vault is sealed"));
});

promise!(a_vault_that_hangs_is_a_503_after_ten_seconds_at_most, async {
    let vault = FakeVault::start(|_, _| Say::Hang).await;
    let started = std::time::Instant::now();
    let (reply, _) = refused(&vault).await;
    assert!(started.elapsed().as_secs() < 15);
    assert_eq!(reply.status, 503);
    assert_eq!(vault.paths().len(), 2, "a second try has its turn");
});

promise!(a_login_that_never_succeeds_is_a_503_after_twenty_seconds_at_most, async {
    let vault = FakeVault::start(|path, _| match path {
        "auth/approle/login" => errors(503, "Vault is sealed"),
        _ => good(path),
    })
    .await;
    let started = std::time::Instant::now();
    let (reply, _) = refused(&vault).await;
    assert!((15..25).contains(&started.elapsed().as_secs()));
    assert_eq!(reply.status, 503);
    assert_eq!(vault.paths().iter().filter(|path| *path == "sys/wrapping/unwrap").count(), 1);
});

promise!(nobody_there_is_a_503, async {
    let init = Init::listening(&[]).await;
    for address in ["http://127.0.0.1:1", "nonsense", "http://u:CANARY@v"] {
        let reply = post(push_body(address, "")).await;
        assert_eq!(reply.status, 503, "{address} {reply:?}");
    }
    init.terminate();
    init.end().await;
});

promise!(a_name_that_does_not_resolve_is_a_503, async {
    let init = Init::listening(&[]).await;
    let reply = post(push_body("https://vault.invalid:8200", "")).await;
    assert_eq!(reply.status, 503);
    assert!(reply.body.contains("vault.invalid"), "{reply:?}");
    init.terminate();
    init.end().await;
});

promise!(retry_after_is_passed_on, async {
    let vault = FakeVault::start(|_, _| Say::With(429, &[("retry-after", "60")], String::new())).await;
    let (reply, _) = refused(&vault).await;
    assert_eq!((reply.status, reply.headers["retry-after"].to_str().unwrap()), (503, "60"));
});

promise!(a_lost_answer_to_the_unwrapping_is_no_alarm, async {
    let vault = FakeVault::start(|path, before| match (path, before) {
        ("sys/wrapping/unwrap", 0) => Say::HangUp,
        ("sys/wrapping/unwrap", _) => unknown_token(),
        _ => good(path),
    })
    .await;
    let (reply, end) = refused(&vault).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(!end.log.contains("SECURITY"), "{}", end.log);
});

promise!(a_lost_answer_to_the_login_is_no_refusal, async {
    let vault = FakeVault::start(|path, before| match (path, before) {
        ("auth/approle/login", 0) => Say::HangUp,
        ("auth/approle/login", _) => errors(500, "invalid secret id"),
        _ => good(path),
    })
    .await;
    assert_eq!(refused(&vault).await.0.status, 503);
});

promise!(the_token_is_never_sent_to_another_host, async {
    let other = FakeVault::good().await;
    let location = format!("{}/v1/sys/wrapping/lookup", other.address());
    let vault = FakeVault::start(move |_, _| Say::To(307, location.clone())).await;
    let (reply, end) = refused(&vault).await;
    assert_eq!(reply.status, 503);
    assert!(end.log.contains("another host"), "{}", end.log);
    assert!(other.seen().is_empty());
});

promise!(a_redirect_on_the_same_host_is_followed_but_not_in_a_circle, async {
    let vault = FakeVault::start(|path, _| match path {
        "sys/wrapping/lookup" => Say::To(307, "/v1/sys/wrapping/lookup2".to_owned()),
        "sys/wrapping/lookup2" => good("sys/wrapping/lookup"),
        _ => good(path),
    })
    .await;
    let init = Init::listening(&[]).await;
    assert_eq!(post(push_body(&vault.address(), "")).await.status, 200);
    assert_eq!(init.end().await.code, Some(0));
    let circle = FakeVault::start(|_, _| Say::To(307, "/v1/sys/wrapping/lookup".to_owned())).await;
    assert_eq!(refused(&circle).await.0.status, 503);
    assert_eq!(circle.paths().len(), 3);
});

promise!(what_is_no_vault_is_a_503, async {
    for say in [|| Say::Json(200, "<html>".to_owned()), || Say::Json(404, "<html>".to_owned())] {
        let vault = FakeVault::start(move |_, _| say()).await;
        assert_eq!(refused(&vault).await.0.status, 503);
    }
    let long = FakeVault::start(|_, _| Say::Json(200, "x".repeat(8 << 20))).await;
    assert_eq!(refused(&long).await.0.status, 503);
});

promise!(a_vault_that_the_bundle_does_not_vouch_for_gets_no_token, async {
    let (vault, other) = (FakeVault::with_tls().await, FakeVault::with_tls().await);
    let init = Init::listening(&[]).await;
    let bundle = wire::base64_encode(other.ca.as_bytes());
    let wrong = push_body(&vault.address(), "").replace("null", &format!("\"{bundle}\""));
    // Another CA, the public roots, and no bundle at all.
    for body in [wrong, push_body(&vault.address(), ""), push_body(&vault.address(), "").replace("null", "\"AAAA\"")] {
        let reply = post(body).await;
        assert_eq!(reply.status, 503, "{reply:?}");
    }
    assert!(vault.seen().is_empty());
    init.terminate();
    init.end().await;
});

promise!(ssl_cert_file_stands_in_for_the_public_roots, async {
    let vault = FakeVault::with_tls().await;
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), &vault.ca).unwrap();
    let init = Init::listening(&[("SSL_CERT_FILE", roots.path().to_str().unwrap())]).await;
    let reply = post(push_body(&vault.address(), "")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(init.end().await.files(), ["vault-token"], "nobody pushed a bundle, so none is written");
});
