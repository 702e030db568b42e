use super::*;

#[test]
fn every_fatal_text_says_what_to_do() {
    let faults = vec![TokenFault::RoleExplicitMaxTtl("r".into()), TokenFault::RoleNotPeriodic("r".into())];
    let text = Fatal::Token { origin: "vault.token", faults }.to_string();
    assert_eq!(
        text,
        "vault.token must not be used: its token role \"r\" has an explicit max TTL, after which no renewal helps; \
         set explicit_max_ttl=0 on the role and create a new token; its token role \"r\" has no period; set \
         period=... on the role and create a new token"
    );
}

#[test]
fn only_vaults_own_word_ends_the_start() {
    assert!(is_verdict(&VaultTrouble::Forbidden(String::new())));
    assert!(is_verdict(&VaultTrouble::Rejected { status: 400, cause: String::new() }));
    for passing in [
        VaultTrouble::Sealed,
        VaultTrouble::Standby,
        VaultTrouble::TimedOut,
        VaultTrouble::RateLimited { retry_after: None },
        VaultTrouble::Unavailable { status: 500, retry_after: None },
        VaultTrouble::Unreachable(String::new()),
        VaultTrouble::Redirected(String::new()),
        VaultTrouble::WrongAnswer(String::new()),
    ] {
        assert!(!is_verdict(&passing), "{passing:?}");
    }
}
