//! What the parts of this folder share: the client, the token in use, and how Vault is.
//!
//! Owns the word on whether Vault may be used. The token is gone from here in the moment it is known to be dead, so
//! that nobody asks with it again. Logs only changes, at most once a minute for each cause.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, watch};
use tokio::time::Instant;

use super::answer::{Data, TokenInfo};
use super::call::{ApiPath, Call};
use super::client::Client;
use super::memory::Quiet;
use super::token::Token;
use crate::deliver::ports::VaultAddress;
use crate::domain::delivery::VaultTrouble;

/// How Vault is, as far as we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// We never were logged in yet, and why.
    Starting(Arc<str>),
    /// Logged in, and the last request was served.
    Usable,
    /// It was usable, and now is not, and why.
    Unavailable(Arc<str>),
}

/// What is measured here.
pub trait Meter: Send + Sync {
    /// A renewal of our token ended, its retries included.
    fn renewal(&self, failed: bool);
    /// The TTL that our token was just granted; `None` when there is no token any more.
    fn token_ttl(&self, seconds: Option<u64>);
    /// How Vault is now.
    fn vault_state(&self, state: &State);
    /// A certificate was issued to us, or could not be, retries included.
    fn certificate(&self, failed: bool);
    /// A CA that verifies Vault was read from Vault and is another one than before; nothing pins it.
    fn ca_changed(&self);
    /// Files or CAs that concern the connection to Vault have changed, and were taken over or not.
    fn reloaded(&self, failed: bool);
    /// What verifies Vault from now on, and the certificate that we show to it; PEM, `None` where there is none.
    fn trusts(&self, cas: Option<&str>, ours: Option<&str>);
}

/// For how long a token that was looked up counts as alive: a burst of refusals is one lookup, not hundreds.
const ALIVE_FOR: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Session {
    client: RwLock<Option<Arc<Client>>>,
    address: RwLock<Arc<VaultAddress>>,
    token: watch::Sender<Option<Token>>,
    state: watch::Sender<State>,
    pub(super) meter: Arc<dyn Meter>,
    /// The token in use was found dead.
    pub(super) lost: Notify,
    alive: Mutex<Option<(Token, Instant)>>,
    pub(super) quiet: Quiet,
    /// That Vault is not usable was logged, so its return is to be logged too.
    announced: AtomicBool,
}

impl Session {
    pub(super) fn new(address: VaultAddress, meter: Arc<dyn Meter>) -> Self {
        let state = State::Starting("not logged in yet".into());
        meter.vault_state(&state);
        Self {
            client: RwLock::default(),
            address: RwLock::new(Arc::new(address)),
            token: watch::Sender::new(None),
            state: watch::Sender::new(state),
            meter,
            lost: Notify::new(),
            alive: Mutex::new(None),
            quiet: Quiet::default(),
            announced: AtomicBool::new(true),
        }
    }

    /// From now on `client` is used, and init containers are given `ca_bundle`, which verifies it.
    pub(super) fn connect(&self, client: Arc<Client>, ca_bundle: Option<String>) {
        let mut address = self.address.write().unwrap_or_else(PoisonError::into_inner);
        *address = Arc::new(VaultAddress { ca_bundle, ..VaultAddress::clone(&address) });
        drop(address);
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = Some(client);
    }

    pub(super) fn address(&self) -> Arc<VaultAddress> {
        Arc::clone(&self.address.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn client(&self) -> Option<Arc<Client>> {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a request needs.
    pub(super) fn ready(&self) -> Result<(Arc<Client>, Token), VaultTrouble> {
        let token = self.token.borrow().clone();
        match (self.client(), token) {
            (Some(client), Some(token)) => Ok((client, token)),
            _ => Err(VaultTrouble::NotLoggedIn(match &*self.state.borrow() {
                State::Starting(cause) | State::Unavailable(cause) => cause.to_string(),
                State::Usable => "no token".to_owned(),
            })),
        }
    }

    /// Completes when there is a token that passed its checks.
    pub(super) async fn usable(&self) {
        // It fails only when the sender is gone, and the sender is `self`.
        let _ = self.token.subscribe().wait_for(Option::is_some).await;
    }

    pub(super) fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub(super) fn is_unavailable(&self) -> bool {
        matches!(&*self.state.borrow(), State::Unavailable(_))
    }

    /// Whether `token` is the one in use.
    pub(super) fn uses(&self, token: &Token) -> bool {
        self.token.borrow().as_ref().is_some_and(|current| current.is(token))
    }

    /// From now on `token` is used.
    pub(super) fn adopt(&self, token: &Token, ttl: Duration) {
        self.token.send_replace(Some(token.clone()));
        self.meter.token_ttl(Some(ttl.as_secs()));
        self.become_state(&State::Usable);
    }

    /// Its TTL was raised.
    pub(super) fn extended(&self, ttl: Duration) {
        self.meter.token_ttl(Some(ttl.as_secs()));
        self.served(Ok(()));
    }

    /// `token` must not be used any more.
    pub(super) fn drop_token(&self, token: &Token, cause: &str) {
        let dropped = self.token.send_if_modified(|current| {
            let ours = current.as_ref().is_some_and(|current| current.is(token));
            if ours {
                *current = None;
            }
            ours
        });
        if dropped {
            self.meter.token_ttl(None);
            self.become_state(&State::Unavailable(cause.into()));
            self.lost.notify_one();
        }
    }

    /// The end: from now on nothing is asked of Vault. That is no trouble, so nothing is logged.
    pub(super) fn close(&self) {
        self.token.send_replace(None);
        self.state.send_replace(State::Unavailable("the controller is stopping".into()));
        self.meter.token_ttl(None);
    }

    /// The start goes on, but has not succeeded.
    pub(super) fn waiting(&self, trouble: &VaultTrouble) {
        if self.quiet.allows(trouble.label()) {
            tracing::warn!(cause = %trouble, "Vault is not usable yet; trying again");
        }
        self.become_state(&State::Starting(trouble.to_string().into()));
    }

    /// What a request has shown of Vault as a whole.
    pub(super) fn served(&self, outcome: Result<(), &VaultTrouble>) {
        match outcome {
            Ok(()) if self.is_unavailable() && self.token.borrow().is_some() => self.become_state(&State::Usable),
            Err(trouble) if !trouble.concerns_role_alone() && self.token.borrow().is_some() => {
                self.become_state(&State::Unavailable(trouble.to_string().into()));
            }
            _ => {}
        }
    }

    fn become_state(&self, new: &State) {
        let changed = self.state.send_if_modified(|state| {
            let changed = *state != *new;
            if changed {
                state.clone_from(new);
            }
            changed
        });
        if !changed {
            return;
        }
        self.meter.vault_state(new);
        match new {
            State::Usable if self.announced.swap(false, Ordering::Relaxed) => tracing::info!("Vault is usable"),
            // By cause: one that goes on in other words is not another cause.
            State::Unavailable(cause) if self.quiet.allows(first_words(cause)) => {
                self.announced.store(true, Ordering::Relaxed);
                tracing::warn!(cause = %cause, "Vault is unavailable; requests wait");
            }
            _ => {}
        }
    }

    /// Whether `token` is dead, asked of Vault itself: a 403 alone may be about a role. One request at a time.
    pub(super) async fn is_dead(&self, client: &Client, token: &Token) -> bool {
        let mut alive = self.alive.lock().await;
        if alive.as_ref().is_some_and(|(known, at)| known.is(token) && at.elapsed() < ALIVE_FOR) {
            return false;
        }
        if !self.uses(token) {
            // Somebody else has found out before us, or it was replaced.
            return true;
        }
        match lookup_self(client, token).await {
            Err(VaultTrouble::Forbidden(_)) => {
                self.drop_token(token, "Vault does not know our token any more: it was revoked or has run out");
                true
            }
            Ok(_) => {
                *alive = Some((token.clone(), Instant::now()));
                false
            }
            // Unknown, and not worth a login: the next 403 asks again.
            Err(_) => false,
        }
    }
}

/// `auth/token/lookup-self`.
pub(super) async fn lookup_self(client: &Client, token: &Token) -> Result<TokenInfo, VaultTrouble> {
    let call = Call::get(ApiPath::default().then("auth/token/lookup-self")).with_token(token);
    Ok(client.send(&call).await?.read::<Data<TokenInfo>>()?.data)
}

fn first_words(cause: &str) -> &str {
    cause.split([':', '(', ';']).next().unwrap_or(cause)
}
