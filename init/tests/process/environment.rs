//! The environment variables, and every way to end before a push was there.

use crate::harness::{Init, promise};

/// Ends with this code, and with one line that says `text`.
async fn complains(env: &[(&str, &str)], code: i32, text: &str) {
    let end = Init::start(env).end().await;
    assert_eq!(end.code, Some(code), "{}", end.log);
    assert_eq!(end.log.lines().count(), 1, "{}", end.log);
    assert!(end.log.contains("level=fatal") && end.log.contains(text), "{}", end.log);
    assert!(!end.message.is_empty() && !end.message.starts_with("attempt="), "{}", end.message);
    assert!(end.files().is_empty());
}

promise!(version_prints_version_commit_and_date, async {
    let end = Init::start_in(tempfile::tempdir().unwrap(), &[("VAULT_ROLE_ID", "")], &["version"]).end().await;
    assert_eq!((end.code, end.log.as_str()), (Some(0), ""));
    let line = end.out.strip_prefix("Kubernetes-Vault init container ").unwrap();
    assert!(line.contains(" (") && line.contains(") built on ") && line.ends_with('\n'), "{line}");
});

promise!(
    /// Bad-input table: missing VAULT_ROLE_ID.
    a_missing_role_id_is_named,
    async {
        complains(&[("VAULT_ROLE_ID", "")], 2, "The VAULT_ROLE_ID environment variable must be set.").await;
    }
);

promise!(a_bad_log_level_is_named_before_all_else, async {
    for level in ["info", "DEBUG"] {
        let env = [("VAULT_ROLE_ID", ""), ("LOG_LEVEL", level)];
        complains(&env, 2, r#"Invalid LOG_LEVEL. Valid values are \"debug\" and \"error\"."#).await;
    }
});

promise!(
    /// Bad-input table: bad TIMEOUT.
    a_bad_timeout_is_named_with_gos_words,
    async {
        for (timeout, text) in [
            ("5", r#"Invalid timeout (5): time: missing unit in duration \"5\""#),
            ("abc", r#"Invalid timeout (abc): time: invalid duration \"abc\""#),
            ("5d", r#"Invalid timeout (5d): time: unknown unit \"d\" in duration \"5d\""#),
        ] {
            complains(&[("TIMEOUT", timeout)], 2, text).await;
        }
    }
);

promise!(
    /// Bad-input table: RETRIEVE_TOKEN=true with UNWRAP_SECRET=false.
    a_token_without_unwrapping_is_refused,
    async {
        let text = "UNWRAP_SECRET cannot be false if RETRIEVE_TOKEN is true";
        complains(&[("UNWRAP_SECRET", "False")], 2, text).await;
    }
);

promise!(what_cannot_be_used_of_our_own_variables_is_named, async {
    complains(&[("VAULT_ADDR", "vault:8200")], 2, "VAULT_ADDR").await;
    complains(&[("VAULT_CACERT", "/nonexistent")], 2, "VAULT_CACERT").await;
    complains(&[("HTTPS_PROXY", "socks5://u:CANARY@proxy")], 2, "HTTPS_PROXY").await;
});

promise!(a_timeout_of_nothing_is_up_at_once, async {
    for (timeout, shown) in [("0", "0s"), ("-1s", "-1s")] {
        let end = Init::start(&[("TIMEOUT", timeout)]).end().await;
        assert_eq!(end.code, Some(3));
        let text = format!("because we timed out after {shown} before receiving the secret_id");
        assert!(end.last_line().contains(&text), "{}", end.log);
    }
});

promise!(the_last_line_after_a_timeout_says_what_to_look_at, async {
    let env = [("TIMEOUT", "1.1s"), ("LOG_LEVEL", "error"), ("RETRIEVE_TOKEN", "FALSE"), ("UNWRAP_SECRET", "0")];
    let started = std::time::Instant::now();
    // LOG_LEVEL=error silences all other lines.
    complains(&env, 3, "timed out after 1.1s").await;
    assert!(started.elapsed() >= std::time::Duration::from_millis(1100));
    let message = std::fs::read_to_string("/dev/termination-log").unwrap();
    assert!(message.starts_with("timeout: "), "{message}");
});

promise!(unknown_arguments_are_ignored, async {
    let end = Init::start_in(tempfile::tempdir().unwrap(), &[("TIMEOUT", "0")], &["serve", "--x"]).end().await;
    assert_eq!(end.code, Some(3));
});

promise!(
    /// Bad-input table: port taken. The reference waits in silence until its timeout.
    a_taken_port_ends_it_at_once,
    async {
        for address in ["[::]:50000", "0.0.0.0:50000"] {
            let _taken = std::net::TcpListener::bind(address).unwrap();
            complains(&[], 5, "Cannot listen on port 50000").await;
        }
    }
);

promise!(
    /// Bad-input table: unwritable CREDENTIALS_PATH or one whose last component is a symlink.
    an_unwritable_directory_ends_it_before_it_waits,
    async {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        for (path, text) in [
            ("/nonexistent", "No such file or directory"),
            ("/proc/self", "CREDENTIALS_PATH (/proc/self)"),
            (link.to_str().unwrap(), "it is a symbolic link"),
            (&format!("{}/", link.display()), "it is a symbolic link"),
        ] {
            complains(&[("CREDENTIALS_PATH", path)], 4, text).await;
        }
    }
);

promise!(sigterm_ends_it_at_once, async {
    let init = Init::listening(&[]).await;
    init.terminate();
    let end = init.end().await;
    assert_eq!(end.code, Some(143));
    assert!(end.files().is_empty());
});
