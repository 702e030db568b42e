//! What is written, byte for byte, and how.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use crate::fake_vault::FakeVault;
use crate::harness::{CLIENT_TOKEN, Init, ROLE_ID, SECRET_ID, WRAPPING_TOKEN, post, promise, push_body};

promise!(by_default_a_token_is_written, async {
    let vault = FakeVault::good().await;
    let init = Init::listening(&[]).await;
    assert_eq!(post(push_body(&vault.address(), "")).await.status, 200);
    let end = init.end().await;
    assert_eq!(end.code, Some(0), "{}", end.log);
    assert_eq!(end.files(), ["vault-token"]);
    let address = vault.address();
    assert_eq!(
        end.file("vault-token"),
        format!(
            r#"{{"clientToken":"{CLIENT_TOKEN}","accessor":"accessor-2","leaseDuration":21600,"renewable":true,"vaultAddr":"{address}"}}"#
        )
    );
    assert_eq!(vault.paths(), ["sys/wrapping/lookup", "sys/wrapping/unwrap", "auth/approle/login"]);
    let seen = vault.seen();
    assert!(seen.iter().all(|seen| seen.method == "PUT" && seen.namespace.is_empty()));
    assert_eq!([&seen[0].token, &seen[1].token, &seen[2].token], [WRAPPING_TOKEN, WRAPPING_TOKEN, ""]);
    assert_eq!(seen[2].body, format!(r#"{{"role_id":"{ROLE_ID}","secret_id":"{SECRET_ID}"}}"#));
});

promise!(without_a_token_the_secret_id_is_written, async {
    let vault = FakeVault::good().await;
    let init = Init::listening(&[("RETRIEVE_TOKEN", "False")]).await;
    assert_eq!(post(push_body(&vault.address(), "")).await.status, 200);
    let end = init.end().await;
    assert_eq!((end.code, end.files()), (Some(0), vec!["vault-secret-id".to_owned()]));
    let address = vault.address();
    assert_eq!(
        end.file("vault-secret-id"),
        format!(r#"{{"roleId":"{ROLE_ID}","secretId":"{SECRET_ID}","accessor":"accessor-1","vaultAddr":"{address}"}}"#)
    );
    assert_eq!(vault.paths(), ["sys/wrapping/lookup", "sys/wrapping/unwrap"]);
});

promise!(with_both_switches_off_vault_is_never_called, async {
    let init = Init::listening(&[("RETRIEVE_TOKEN", "false"), ("UNWRAP_SECRET", "false")]).await;
    // Nobody is there.
    assert_eq!(post(push_body("http://127.0.0.1:1", "")).await.status, 200);
    let end = init.end().await;
    assert_eq!((end.code, end.files()), (Some(0), vec!["vault-wrapped-secret-id".to_owned()]));
    assert_eq!(
        end.file("vault-wrapped-secret-id"),
        format!(
            r#"{{"roleId":"{ROLE_ID}","wrappedSecretId":"{WRAPPING_TOKEN}","vaultAddr":"http://127.0.0.1:1","ttl":60}}"#
        )
    );
});

promise!(the_ca_bundle_is_written_byte_for_byte, async {
    let vault = FakeVault::with_tls().await;
    let init = Init::listening(&[]).await;
    let pem = format!("# a comment\r\n{}", vault.ca);
    let bundle = wire::base64_encode(pem.as_bytes());
    let body = push_body(&vault.address(), "").replace("null", &format!("\"{bundle}\""));
    let reply = post(body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let end = init.end().await;
    assert_eq!(end.files(), ["ca.crt", "vault-token"]);
    assert_eq!(end.file("ca.crt"), pem);
    for name in end.files() {
        let mode = end.directory.path().join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o444);
    }
});

promise!(old_files_and_links_are_replaced_and_links_not_followed, async {
    let dir = tempfile::tempdir().unwrap();
    let victim = tempfile::NamedTempFile::new().unwrap();
    symlink(victim.path(), dir.path().join("vault-token")).unwrap();
    std::fs::write(dir.path().join("ca.crt"), "old").unwrap();
    std::fs::set_permissions(dir.path().join("ca.crt"), std::fs::Permissions::from_mode(0o444)).unwrap();
    let vault = FakeVault::with_tls().await;
    let mut init = Init::start_in(dir, &[], &[]);
    init.until("Listening").await;
    let bundle = wire::base64_encode(vault.ca.as_bytes());
    let body = push_body(&vault.address(), "").replace("null", &format!("\"{bundle}\""));
    assert_eq!(post(body).await.status, 200);
    let end = init.end().await;
    assert_eq!(end.file("ca.crt"), vault.ca);
    assert!(!end.directory.path().join("vault-token").is_symlink());
    assert_eq!(std::fs::read_to_string(victim.path()).unwrap(), "");
});

promise!(
    /// A token that cannot be written is given back: nothing of a refused push stays in use.
    what_cannot_be_written_is_no_credential,
    async {
        let vault = FakeVault::good().await;
        let init = Init::listening(&[]).await;
        std::fs::create_dir_all(init.path("vault-token/in-the-way")).unwrap();
        let reply = post(push_body(&vault.address(), "")).await;
        assert_eq!(reply.status, 412, "{reply:?}");
        assert_eq!(vault.paths().last().unwrap(), "auth/token/revoke-self");
        assert_eq!(vault.seen().last().unwrap().token, CLIENT_TOKEN);
        let end = init.end().await;
        assert_eq!((end.code, end.files()), (Some(4), vec!["vault-token".to_owned()]));
        assert!(end.message.starts_with("directory: "), "{}", end.message);
    }
);

promise!(a_directory_that_goes_bad_while_it_waits_costs_no_secret_id, async {
    let vault = FakeVault::good().await;
    let init = Init::listening(&[]).await;
    std::fs::remove_dir(init.path("")).unwrap();
    assert_eq!(post(push_body(&vault.address(), "")).await.status, 412);
    assert!(vault.seen().is_empty());
    assert_eq!(init.end().await.code, Some(4));
});

promise!(our_own_variables_win_and_are_what_is_written, async {
    let vault = FakeVault::with_tls().await;
    let bundle = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(bundle.path(), &vault.ca).unwrap();
    let address = vault.address();
    let env = [
        ("VAULT_ADDR", address.as_str()),
        ("VAULT_CACERT", bundle.path().to_str().unwrap()),
        ("VAULT_NAMESPACE", "team"),
    ];
    let init = Init::listening(&env).await;
    let strangers = wire::base64_encode(b"a stranger's bundle");
    let body = push_body("http://evil:1", ",\"namespace\":\"evil\"").replace("null", &format!("\"{strangers}\""));
    assert_eq!(post(body).await.status, 200);
    let end = init.end().await;
    assert!(end.file("vault-token").contains(&format!(r#""vaultAddr":"{address}""#)));
    assert_eq!(end.file("ca.crt"), vault.ca);
    assert!(vault.seen().iter().all(|seen| seen.namespace == "team"));
    for name in ["VAULT_ADDR is set", "VAULT_CACERT is set", "VAULT_NAMESPACE is set"] {
        assert!(end.log.contains(name), "{}", end.log);
    }
});
