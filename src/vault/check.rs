//! Which tokens we agree to work with: the reference's checks, each with a remedy.
//!
//! Pure.

use super::answer::{TokenInfo, TokenRole};

/// What is wrong with a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// The `root` policy.
    #[error("it is a root token; create one from a token role (vault token create -role=...)")]
    Root,
    /// Vault will not renew it.
    #[error("it is not renewable; create it from a token role with renewable=true")]
    NotRenewable,
    /// It never had a TTL.
    #[error("it has no creation TTL; create it from a token role with a period")]
    NoCreationTtl,
    /// It has none left.
    #[error("it has no TTL; create it from a token role with a period")]
    NoTtl,
    /// It was not made from a token role.
    #[error(
        "it was not created from a token role; use vault token create -role=..., or set \
         vault.skipTokenRoleNameValidation"
    )]
    NoTokenRole,
    /// Its role could not be looked at.
    #[error(
        "its token role {role:?} cannot be read ({cause}); allow read on auth/token/roles/{role}, or set \
         vault.skipTokenRoleNameValidation"
    )]
    RoleUnreadable {
        /// The role.
        role: String,
        /// Vault's own words.
        cause: String,
    },
    /// See the text.
    #[error("its token role {0:?} is not renewable; set renewable=true on the role and create a new token")]
    RoleNotRenewable(String),
    /// See the text.
    #[error(
        "its token role {0:?} has an explicit max TTL, after which no renewal helps; set explicit_max_ttl=0 on the \
         role and create a new token"
    )]
    RoleExplicitMaxTtl(String),
    /// See the text.
    #[error("its token role {0:?} has no period; set period=... on the role and create a new token")]
    RoleNotPeriodic(String),
}

/// How much is asked of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demands {
    /// A static token has to live for ever, by renewal.
    Static {
        /// Also that it comes from a token role.
        token_role: bool,
    },
    /// A token that is replaced in time.
    Replaced,
}

/// What lookup-self alone shows. Of a root token nothing else is said: it fails most of the rest too.
pub(super) fn token(info: &TokenInfo, demands: Demands) -> Vec<TokenFault> {
    let mut faults = Vec::new();
    if info.policies.iter().chain(&info.identity_policies).any(|policy| policy == "root") {
        return vec![TokenFault::Root];
    }
    if let Demands::Static { token_role } = demands {
        if !info.renewable {
            faults.push(TokenFault::NotRenewable);
        }
        if info.creation_ttl == 0 {
            faults.push(TokenFault::NoCreationTtl);
        }
        if token_role && info.role.is_empty() {
            faults.push(TokenFault::NoTokenRole);
        }
    }
    if info.ttl == 0 {
        faults.push(TokenFault::NoTtl);
    }
    faults
}

/// What its token role shows.
pub(super) fn role(name: &str, role: &TokenRole) -> Vec<TokenFault> {
    let mut faults = Vec::new();
    if !role.renewable {
        faults.push(TokenFault::RoleNotRenewable(name.to_owned()));
    }
    if role.explicit_max_ttl > 0 || role.token_explicit_max_ttl > 0 {
        faults.push(TokenFault::RoleExplicitMaxTtl(name.to_owned()));
    }
    if role.period == 0 && role.token_period == 0 {
        faults.push(TokenFault::RoleNotPeriodic(name.to_owned()));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_info() -> TokenInfo {
        TokenInfo {
            policies: vec!["default".into(), "kubernetes-vault".into()],
            renewable: true,
            creation_ttl: 3600,
            ttl: 1800,
            role: "kubernetes-vault".into(),
            ..TokenInfo::default()
        }
    }

    fn mk_role() -> TokenRole {
        TokenRole { renewable: true, period: 3600, ..TokenRole::default() }
    }

    const FULL: Demands = Demands::Static { token_role: true };
    const SKIP: Demands = Demands::Static { token_role: false };

    #[test]
    fn the_cases_of_the_vector_controller_vault() {
        use TokenFault as F;
        let root = TokenInfo { policies: vec!["root".into()], role: String::new(), ttl: 0, ..mk_info() };
        let no_role = TokenInfo { role: String::new(), ..mk_info() };
        assert_eq!(token(&mk_info(), FULL), []);
        assert_eq!(token(&root, FULL), [F::Root], "root token");
        assert_eq!(token(&root, Demands::Replaced), [F::Root]);
        assert_eq!(token(&no_role, FULL), [F::NoTokenRole], "token without a token role");
        assert_eq!(token(&no_role, SKIP), [], "same, skipTokenRoleNameValidation: true");
        let bad = TokenRole { explicit_max_ttl: 60, period: 0, ..mk_role() };
        let both = [F::RoleExplicitMaxTtl("r".into()), F::RoleNotPeriodic("r".into())];
        assert_eq!(role("r", &bad), both, "token role not periodic, explicit_max_ttl");
    }

    #[test]
    fn every_other_check() {
        use TokenFault as F;
        let with = |change: fn(&mut TokenInfo)| {
            let mut info = mk_info();
            change(&mut info);
            (token(&info, FULL), token(&info, Demands::Replaced))
        };
        assert_eq!(with(|i| i.renewable = false), (vec![F::NotRenewable], vec![]));
        assert_eq!(with(|i| i.creation_ttl = 0), (vec![F::NoCreationTtl], vec![]));
        assert_eq!(with(|i| i.ttl = 0), (vec![F::NoTtl], vec![F::NoTtl]));
        assert_eq!(with(|i| i.identity_policies = vec!["root".into()]), (vec![F::Root], vec![F::Root]));
        assert_eq!(role("r", &mk_role()), []);
        assert_eq!(role("r", &TokenRole { period: 0, token_period: 10, ..mk_role() }), []);
        assert_eq!(role("r", &TokenRole { renewable: false, ..mk_role() }), [F::RoleNotRenewable("r".into())]);
        let token_max = TokenRole { token_explicit_max_ttl: 1, ..mk_role() };
        assert_eq!(role("r", &token_max), [F::RoleExplicitMaxTtl("r".into())]);
    }
}
