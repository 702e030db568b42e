//! Keeps a token alive: renews it, replaces it, watches the file it comes from, and revokes what it has replaced.
//!
//! Owns the token's life. One task, one request at a time: that is what makes each login single-flight. It never
//! gives up; a token that is dead is taken out of use before anything else.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::{Client, REQUEST_TIMEOUT};
use super::login::{self, Held};
use super::options::Login;
use super::renew::{self, RETRY, Step, series_limit};
use super::session::{Session, lookup_self};
use super::token::Token;
use crate::domain::backoff::{self, Backoff};
use crate::domain::delivery::VaultTrouble;

/// How often a token file is looked at: mounted secrets change by a swapped link, which no file watch sees.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// The same while there is no token.
const LOOK_WHILE_LOST: Duration = Duration::from_secs(5);

/// While Vault does not serve and perhaps nobody asks: how often we ask, so that its return is noticed.
const PROBE: Backoff = Backoff { first: Duration::from_secs(10), most: Duration::from_secs(10) };

/// By then each request that began with the former token has ended.
const RETIRE_AFTER: Duration = REQUEST_TIMEOUT.saturating_add(Duration::from_secs(1));

/// At the end nobody waits longer for a revocation.
const FAREWELL: Duration = Duration::from_secs(1);

/// How much of a token's TTL replicas that logged in together are spread over when they log in anew.
const JITTER: f64 = 0.1;

/// Tries of one renewal, or of one login.
#[derive(Clone, Copy)]
struct Series {
    began: Instant,
    failures: u32,
}

/// See the module.
pub(super) struct Keeper<'a> {
    session: Arc<Session>,
    client: Arc<Client>,
    login: &'a Login,
    held: Option<Held>,
    next: (Instant, Step),
    series: Option<Series>,
    look_at: Instant,
    probe_at: Instant,
    retired: Vec<(Instant, Token)>,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(session: Arc<Session>, client: Arc<Client>, login: &'a Login, held: Held) -> Self {
        let now = Instant::now();
        let mut keeper = Self {
            session,
            client,
            login,
            held: None,
            next: (now, Step::Wait),
            series: None,
            look_at: now + LOOK_EVERY,
            probe_at: now + PROBE.first,
            retired: Vec::new(),
        };
        keeper.adopt(held);
        keeper
    }

    pub(super) async fn run(mut self, cancel: &CancellationToken) {
        let session = Arc::clone(&self.session);
        loop {
            let wake = self.wake_at();
            tokio::select! {
                () = cancel.cancelled() => break,
                () = session.lost.notified() => self.lost(),
                () = tokio::time::sleep_until(wake) => tokio::select! {
                    () = cancel.cancelled() => break,
                    () = self.work() => {}
                },
            }
        }
        self.farewell().await;
    }

    fn wake_at(&self) -> Instant {
        let mut wake = self.probe_at;
        if self.next.1 != Step::Wait {
            wake = wake.min(self.next.0);
        }
        if matches!(self.login, Login::File(_)) {
            wake = wake.min(self.look_at);
        }
        self.retired.iter().map(|(at, _)| *at).fold(wake, Instant::min)
    }

    /// Does what is due.
    async fn work(&mut self) {
        let now = Instant::now();
        // What verifies Vault may have changed.
        if let Some(client) = self.session.client() {
            self.client = client;
        }
        if self.next.0 <= now {
            match self.next.1 {
                Step::Renew => self.renew().await,
                Step::Replace => self.replace().await,
                Step::Wait => {}
            }
        }
        if self.look_at <= now {
            self.look_at = now + LOOK_EVERY;
            self.look().await;
        }
        if self.probe_at <= now {
            self.probe_at = now + PROBE.wait(1, rand::random());
            self.probe().await;
        }
        // Out of the list only once it is done: this future may be dropped at any point.
        while let Some(index) = self.retired.iter().position(|(at, _)| *at <= now) {
            login::revoke(&self.client, &self.retired[index].1).await;
            self.retired.swap_remove(index);
        }
    }

    /// From now on `held` is used; what was used before is retired.
    fn adopt(&mut self, held: Held) {
        self.session.adopt(&held.token, held.lease.ttl());
        if let Some(old) = self.held.replace(held)
            && self.login.makes_tokens()
        {
            self.retired.push((Instant::now() + RETIRE_AFTER, old.token));
        }
        self.series = None;
        self.plan();
    }

    fn plan(&mut self) {
        let Some(held) = &self.held else { return };
        self.next = held.lease.next(self.login.makes_tokens());
        if self.next.1 == Step::Replace {
            let spread = held.lease.ttl().mul_f64(JITTER * rand::random::<f64>());
            self.next.0 += spread;
        }
    }

    async fn renew(&mut self) {
        let Some(held) = &mut self.held else { return };
        let series = *self.series.get_or_insert_with(|| Series { began: Instant::now(), failures: 0 });
        let trouble = match login::renew(&self.client, &held.token).await {
            Ok((ttl, renewable)) => {
                held.lease.renewed(Instant::now(), ttl, renewable);
                if held.lease.is_capped() && !self.login.makes_tokens() && self.session.quiet.allows("capped") {
                    tracing::warn!(
                        ttl_seconds = ttl.as_secs(),
                        "{} nears its maximum TTL and cannot be renewed beyond it; give another one",
                        self.login.origin()
                    );
                }
                self.session.meter.renewal(false);
                self.session.extended(ttl);
                self.series = None;
                self.plan();
                return;
            }
            Err(trouble) => trouble,
        };
        self.session.served(Err(&trouble));
        let final_word = match &trouble {
            VaultTrouble::Forbidden(_) => {
                let token = held.token.clone();
                if self.session.is_dead(&self.client, &token).await {
                    self.session.meter.renewal(true);
                    return self.lost();
                }
                true
            }
            // "lease is not renewable", "batch tokens cannot be renewed".
            VaultTrouble::Rejected { .. } => true,
            _ => false,
        };
        self.renewal_failed(series, &trouble, final_word);
    }

    /// One try of a renewal has failed: another one, or the end of this series.
    fn renewal_failed(&mut self, mut series: Series, trouble: &VaultTrouble, final_word: bool) {
        let Some(held) = &mut self.held else { return };
        series.failures += 1;
        let now = Instant::now();
        let again = now + RETRY.wait(series.failures, rand::random());
        if !final_word && again < series.began + series_limit(held.lease.interval()) {
            self.series = Some(series);
            self.next = (again, Step::Renew);
            return;
        }
        self.session.meter.renewal(true);
        self.series = None;
        if self.session.quiet.allows("renewal failed") {
            tracing::warn!(cause = %trouble, left_seconds = held.lease.left(now).as_secs(), "our Vault token was not renewed");
        }
        if final_word && self.login.makes_tokens() {
            held.lease.cannot_be_renewed();
            self.next = (now, Step::Replace);
        } else {
            self.next = (now + renew::rest(held.lease.left(now)), Step::Renew);
        }
    }

    /// Gets another token. The present one, if there is one, stays in use until that has passed its checks.
    async fn replace(&mut self) {
        let mut series = self.series.unwrap_or(Series { began: Instant::now(), failures: 0 });
        let trouble = match login::obtain(&self.client, self.login).await {
            Ok(held) => return self.adopt(held),
            Err(stopped) => stopped.into_trouble(),
        };
        series.failures += 1;
        self.series = Some(series);
        if self.session.quiet.allows("login failed") {
            tracing::warn!(cause = %trouble, "no new Vault token; trying again");
        }
        let wait = match self.login {
            // Nobody but an operator can mend it.
            Login::Token { .. } => renew::rest(Duration::ZERO),
            Login::File(_) => LOOK_WHILE_LOST,
            Login::Kubernetes { .. } => RETRY.wait(series.failures, rand::random()),
        };
        self.next = (Instant::now() + trouble.retry_after().map_or(wait, |asked| asked.max(wait)), Step::Replace);
    }

    /// Vault does not know the token any more; the session has dropped it already.
    fn lost(&mut self) {
        // The word may be about a token that was replaced meanwhile.
        if self.held.as_ref().is_none_or(|held| self.session.uses(&held.token)) {
            return;
        }
        self.held = None;
        self.series = None;
        // Replicas whose tokens died together do not come back in one moment.
        self.next = (Instant::now() + backoff::VAULT.wait(1, rand::random()), Step::Replace);
    }

    /// Takes over what is in the token file now, if it is another token and passes.
    async fn look(&mut self) {
        let (Login::File(path), Some(held)) = (self.login, &self.held) else { return };
        let trouble = match login::read_token_file(path).await {
            Ok(token) if token.is(&held.token) => return,
            Ok(_) => match login::obtain(&self.client, self.login).await {
                Ok(held) => {
                    tracing::info!("the token in vault.tokenFile has changed and is used from now on");
                    return self.adopt(held);
                }
                Err(stopped) => stopped.into_trouble(),
            },
            Err(trouble) => trouble,
        };
        if self.session.quiet.allows("token file") {
            tracing::warn!(cause = %trouble, "the token in vault.tokenFile cannot be used; the one before it stays in use");
        }
    }

    /// Whether Vault is back.
    async fn probe(&mut self) {
        let Some(held) = self.held.as_ref().filter(|_| self.session.is_unavailable()) else { return };
        let token = held.token.clone();
        match lookup_self(&self.client, &token).await {
            Err(VaultTrouble::Forbidden(_)) => {
                if self.session.is_dead(&self.client, &token).await {
                    self.lost();
                }
            }
            outcome => self.session.served(outcome.as_ref().map(|_| ())),
        }
    }

    /// Takes the token out of use and revokes what was made for us.
    async fn farewell(mut self) {
        self.session.close();
        if let Some(held) = self.held.take()
            && self.login.makes_tokens()
        {
            self.retired.push((Instant::now(), held.token));
        }
        let all = self.retired.iter().map(|(_, token)| login::revoke(&self.client, token));
        // What is not done by then runs out by itself.
        let _ = tokio::time::timeout(FAREWELL, futures::future::join_all(all)).await;
    }
}

#[cfg(test)]
mod tests;
