//! What Vault's answers to `check` mean.
//!
//! Pure. Owns the list of what the controller's policy has to grant, and what happens without.

use std::collections::BTreeMap;

use super::delivery::VaultTrouble;
use super::findings::{Finding, Group, Level};
use super::ids::RoleName;

/// What Vault says of a path: the capabilities that our token has on it.
pub type Capabilities = BTreeMap<String, Vec<String>>;

/// What `sys/health` answers, by its status code alone: its body may come from something in between.
pub fn health(status: u16) -> Finding {
    let error = |text| Finding::new(Group::Vault, Level::Error, text);
    match status {
        200 => Finding::ok(Group::Vault, "it is unsealed and active"),
        429 | 473 => {
            Finding::ok(Group::Vault, "it is a standby that passes requests on, as long as the next lines are well")
        }
        472 => {
            error("it is a disaster recovery secondary, which serves nobody; point vault.addr at the primary cluster")
        }
        501 => error("it is not initialised; initialise it (vault operator init) and unseal it"),
        503 => error("it is sealed; unseal it (vault operator unseal)"),
        other => Finding::new(
            Group::Vault,
            Level::Warning,
            &format!(
                "sys/health answers {other}, which Vault does not; is something else at vault.addr, or before it?"
            ),
        ),
    }
}

/// The same, asked over plain HTTP: a port that wants TLS answers 400 to that, and Vault never does.
pub fn health_in_clear(status: u16) -> Finding {
    if status == 400 {
        let text = "vault.addr says http://, and the port there seems to want TLS; say https:// in vault.addr";
        return Finding::new(Group::Vault, Level::Error, text);
    }
    health(status)
}

/// Trouble with Vault as a whole: a connection, a certificate, a redirect.
pub fn trouble(trouble: &VaultTrouble) -> Finding {
    let mut finding = Finding::new(Group::Vault, Level::Error, &trouble.to_string());
    // What a library says may have a semicolon of its own; the remedy is ours, and comes last.
    if let VaultTrouble::Unreachable(words) = trouble
        && let Some((cause, remedy)) = words.rsplit_once("; ")
    {
        finding.cause = format!("Vault cannot be reached: {cause}");
        finding.remedy = Some(remedy.to_owned());
    }
    if finding.remedy.is_none() {
        finding.remedy = remedy(trouble).map(str::to_owned);
    }
    finding
}

fn remedy(trouble: &VaultTrouble) -> Option<&'static str> {
    let VaultTrouble::Unreachable(words) = trouble else {
        return match trouble {
            VaultTrouble::TimedOut => Some("is Vault overloaded, or does a firewall swallow its answers?"),
            VaultTrouble::RateLimited { .. } => Some("raise the quota, or ask again later"),
            VaultTrouble::Redirected(_) => Some("point vault.addr at that host"),
            VaultTrouble::Unavailable { .. } => Some("look at Vault's own log"),
            _ => None,
        };
    };
    let words = words.to_ascii_lowercase();
    let says = |part: &str| words.contains(part);
    if says("certificate expired") || says("expired") {
        return Some("renew Vault's certificate, or set this machine's clock");
    }
    if says("not valid yet") || says("notvalidyet") {
        return Some("set this machine's clock, or wait until the certificate is valid");
    }
    if says("dns") || says("lookup") {
        return Some("correct the host in vault.addr, or the name service");
    }
    if says("refused") {
        return Some("does Vault listen at vault.addr, host and port?");
    }
    if says("invalid peer certificate") {
        return Some("look at the certificate that is served at vault.addr");
    }
    if says("handshake eof") {
        return Some(
            "is it http:// where vault.addr says https://, or does something in between close the connection?",
        );
    }
    if says("corrupt") || says("invalid message") || says("wrong version") {
        return Some("is it http:// where vault.addr says https://?");
    }
    Some("is vault.addr right, and does a firewall or a NetworkPolicy stand in between?")
}

/// Something that our policy has to grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// What it is about.
    pub group: Group,
    /// The path, as policies name it.
    pub path: String,
    /// The capability.
    pub capability: &'static str,
    /// Without it: an error, or a warning.
    pub level: Level,
    /// What may be done with it.
    pub granted: String,
    /// What happens without it.
    pub without: String,
}

/// Judges a demand by what Vault says of its path.
pub fn demand(demand: &Demand, said: &Capabilities) -> Finding {
    let has = |wanted: &str| said.get(&demand.path).is_some_and(|all| all.iter().any(|one| one == wanted));
    if has(demand.capability) || has("root") {
        return Finding::ok(demand.group, demand.granted.clone());
    }
    Finding {
        group: demand.group,
        level: demand.level,
        cause: format!("the policy does not grant \"{}\" on {}: {}", demand.capability, demand.path, demand.without),
        remedy: Some(format!("add path \"{}\" {{ capabilities = [\"{}\"] }} to it", demand.path, demand.capability)),
    }
}

/// Whether an AppRole is there, as far as our rights tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Existence {
    /// It is.
    There,
    /// It is not.
    Missing,
    /// Our rights do not suffice to look without asking for a `secret_id`.
    Untold,
    /// Vault did not answer.
    Trouble(VaultTrouble),
}

/// What waiting pods ask for, and whether they can get it.
pub fn role(role: &RoleName, asked_by: &str, may_ask: bool, existence: &Existence, path: &str) -> Finding {
    let wanted = format!("AppRole {role:?} ({asked_by})", role = role.as_str());
    let error = |cause: String, remedy: String| Finding {
        group: Group::AppRoles,
        level: Level::Error,
        cause: format!("{wanted} {cause}"),
        remedy: Some(remedy),
    };
    match existence {
        Existence::Missing => {
            error("does not exist".to_owned(), "create it, or correct the annotation of the pods".to_owned())
        }
        _ if !may_ask => error(
            format!("may not be asked for: the policy does not grant \"update\" on {path}"),
            format!("add path \"{path}\" {{ capabilities = [\"update\"] }} to it"),
        ),
        Existence::There => Finding::ok(Group::AppRoles, format!("{wanted} exists and may be asked for")),
        Existence::Untold => Finding::ok(
            Group::AppRoles,
            format!("{wanted} may be asked for; whether it exists cannot be told without asking for a secret_id"),
        ),
        Existence::Trouble(trouble) => Finding {
            group: Group::AppRoles,
            level: Level::Warning,
            cause: format!("whether {wanted} exists was not told: {trouble}"),
            remedy: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_states_of_a_vault_are_told_apart() {
        let levels: Vec<(u16, Level)> =
            [200, 429, 473, 472, 501, 503, 302].map(|code| (code, health(code).level)).into();
        use Level as L;
        assert_eq!(
            levels,
            [
                (200, L::Ok),
                (429, L::Ok),
                (473, L::Ok),
                (472, L::Error),
                (501, L::Error),
                (503, L::Error),
                (302, L::Warning)
            ]
        );
        for (code, word) in [(501, "initialise"), (503, "unseal"), (472, "primary")] {
            let finding = health(code);
            assert!(finding.remedy.is_some_and(|remedy| remedy.contains(word)), "{code}");
        }
    }

    #[test]
    fn a_port_that_wants_tls_is_no_odd_vault() {
        let finding = health_in_clear(400);
        assert!(finding.level == Level::Error && finding.cause.contains("want TLS"), "{finding:?}");
        assert!(finding.remedy.is_some_and(|remedy| remedy.contains("https://")));
        for status in [200, 429, 503] {
            assert_eq!(health_in_clear(status), health(status));
        }
    }

    #[test]
    fn each_trouble_has_a_remedy() {
        for (words, says) in [
            ("invalid peer certificate: certificate expired: verification time 1 (UNIX)", "renew"),
            ("invalid peer certificate: certificate not valid yet", "clock"),
            ("tcp connect error: Connection refused (os error 111)", "listen"),
            ("dns error: failed to lookup address information", "name service"),
            ("received corrupt message of type InvalidContentType", "http://"),
            ("client error (Connect): tls handshake eof", "http://"),
            ("no connection within 2 s", "firewall"),
            ("invalid peer certificate: UnknownIssuer; name the CA by vault.tls.caCert", "vault.tls.caCert"),
            ("certificate not valid for name \"a\"; it is for \"b\"; name it by vault.tls.serverName", "name it by"),
        ] {
            let finding = trouble(&VaultTrouble::Unreachable(words.to_owned()));
            let remedy = finding.remedy.clone().unwrap_or_default();
            assert!(remedy.contains(says) && !remedy.contains("; "), "{words}: {finding:?}");
            assert_eq!(finding.level, Level::Error);
        }
        for other in [VaultTrouble::Sealed, VaultTrouble::Standby, VaultTrouble::TimedOut] {
            assert!(trouble(&other).remedy.is_some(), "{other}");
        }
    }

    fn said(path: &str, capabilities: &[&str]) -> Capabilities {
        [(path.to_owned(), capabilities.iter().map(|one| (*one).to_owned()).collect())].into()
    }

    #[test]
    fn a_capability_that_is_missing_is_named_with_the_rule_that_grants_it() {
        let wanted = Demand {
            group: Group::Vault,
            path: "auth/token/renew-self".to_owned(),
            capability: "update",
            level: Level::Error,
            granted: "the token may renew itself".to_owned(),
            without: "it runs out".to_owned(),
        };
        assert_eq!(demand(&wanted, &said("auth/token/renew-self", &["update"])).level, Level::Ok);
        assert_eq!(demand(&wanted, &said("auth/token/renew-self", &["root"])).level, Level::Ok);
        for other in [said("auth/token/renew-self", &["read", "deny"]), said("other", &["update"]), Capabilities::new()]
        {
            let finding = demand(&wanted, &other);
            assert_eq!(finding.level, Level::Error);
            assert!(finding.cause.contains("it runs out"), "{finding:?}");
            assert!(finding.remedy.unwrap().contains("path \"auth/token/renew-self\" { capabilities = [\"update\"] }"));
        }
    }

    #[test]
    fn a_role_that_is_missing_is_told_from_one_that_is_forbidden() {
        let web = RoleName::parse("web").unwrap();
        let of =
            |may_ask, existence| role(&web, "team-a/web-0", may_ask, &existence, "auth/approle/role/web/secret-id");
        assert!(of(true, Existence::Missing).cause.contains("does not exist"));
        assert!(of(false, Existence::Missing).cause.contains("does not exist"), "a policy alone makes no role");
        assert!(of(false, Existence::There).cause.contains("may not be asked for"));
        assert!(of(false, Existence::Untold).cause.contains("may not be asked for"));
        assert_eq!(of(true, Existence::There).level, Level::Ok);
        let untold = of(true, Existence::Untold);
        assert!(untold.level == Level::Ok && untold.cause.contains("cannot be told"), "{untold:?}");
        assert_eq!(of(true, Existence::Trouble(VaultTrouble::TimedOut)).level, Level::Warning);
    }
}
