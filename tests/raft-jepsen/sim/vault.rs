//! Vault, as far as `secret_id`s go: made in a wrapping, unwrapped once, used to log in, destroyed.

use kubernetes_vault::domain::ids::AttemptId;

use super::rng::Rng;
use crate::history::{Millis, SecretLeft};

/// The wrapping TTL, in seconds: the reference's default is 60.
pub(crate) const TTL_SECONDS: u32 = 60;

/// What Vault does to a call that destroys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destroying {
    /// What it should.
    Works,
    /// 403.
    Forbidden,
    /// 500.
    Broken,
}

/// One `secret_id`.
#[derive(Clone, Debug)]
struct Secret {
    attempt: AttemptId,
    made: Millis,
    unwrapped: bool,
    destroyed: bool,
}

/// See the module.
pub(crate) struct Vault {
    rng: Rng,
    secrets: Vec<Secret>,
    pub(crate) sealed: bool,
    /// Percent of the answers that are lost after a `secret_id` was made.
    pub(crate) loses_answers: u64,
    /// Logins answer 503.
    pub(crate) no_logins: bool,
    pub(crate) destroying: Destroying,
    /// The longest that it takes for anything.
    pub(crate) slow: Millis,
}

/// What a wrapping token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Good,
    Used,
    Expired,
}

impl Vault {
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            rng,
            secrets: Vec::new(),
            sealed: false,
            loses_answers: 0,
            no_logins: false,
            destroying: Destroying::Works,
            slow: 10,
        }
    }

    /// How long a request takes.
    pub(crate) fn takes(&mut self) -> Millis {
        self.rng.between(1, self.slow)
    }

    pub(crate) fn loses_this_answer(&mut self) -> bool {
        self.rng.chance(self.loses_answers)
    }

    /// Makes a `secret_id`, and returns its number: the token's and the accessors' names follow from it.
    pub(crate) fn make(&mut self, attempt: AttemptId, now: Millis) -> usize {
        self.secrets.push(Secret { attempt, made: now, unwrapped: false, destroyed: false });
        self.secrets.len() - 1
    }

    fn expired(secret: &Secret, now: Millis) -> bool {
        now >= secret.made + Millis::from(TTL_SECONDS) * 1_000
    }

    pub(crate) fn look_up(&self, number: usize, now: Millis) -> Token {
        let secret = &self.secrets[number];
        match secret {
            _ if Self::expired(secret, now) => Token::Expired,
            secret if secret.unwrapped => Token::Used,
            _ => Token::Good,
        }
    }

    /// Uses the wrapping token up.
    pub(crate) fn unwrap(&mut self, number: usize, now: Millis) -> Token {
        let token = self.look_up(number, now);
        self.secrets[number].unwrapped |= token == Token::Good;
        token
    }

    /// Whether a login with it works.
    pub(crate) fn logs_in(&self, number: usize) -> bool {
        !self.secrets[number].destroyed
    }

    pub(crate) fn destroy(&mut self, number: usize) {
        self.secrets[number].destroyed = true;
    }

    /// What there is.
    pub(crate) fn left(&self, now: Millis) -> Vec<SecretLeft> {
        let left = self.secrets.iter().filter(|secret| !secret.destroyed);
        left.map(|secret| SecretLeft {
            attempt: secret.attempt.clone(),
            obtainable: !secret.unwrapped && !Self::expired(secret, now),
        })
        .collect()
    }
}

/// The accessor of a `secret_id`.
pub(crate) fn accessor(number: usize) -> String {
    format!("accessor-{number}")
}

/// Which `secret_id` an accessor or a wrapping token is of.
pub(crate) fn number_in(name: &str) -> Option<usize> {
    name.rsplit_once('-')?.1.parse().ok()
}
