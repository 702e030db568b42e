//! Gates: when Vault cannot serve, or refuses a role, one request in a while finds out whether it can again;
//! everybody else waits. So ten thousand waiting pods are no storm.
//!
//! Owns the state of back-off, no timer and no task.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::announcement::Announcement;
use crate::domain::backoff::{Backoff, ROLE, VAULT};
use crate::domain::delivery::VaultTrouble;
use crate::domain::ids::RoleName;

/// Most roles whose refusal is remembered. Only roles that Vault refuses are; a pod author can make up any number
/// of them, and beyond this many the one that may be asked for soonest is forgotten.
const MAX_REFUSED_ROLES: usize = 1_024;

/// How long a probe may take before another is sent: longer than any request to Vault may.
const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// What a gate says to somebody who wants through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Go. Say how it went.
    Go,
    /// Ask again at that time, and tell the pod's author why.
    Wait(Instant, Announcement),
}

/// One gate. Open until a failure.
#[derive(Clone, Debug)]
struct Gate {
    schedule: Backoff,
    failures: u32,
    closed_until: Instant,
    /// Somebody was let through to find out.
    probing: bool,
    /// Why it is closed; `None` while it never was.
    why: Option<Announcement>,
}

impl Gate {
    fn new(schedule: Backoff, now: Instant) -> Self {
        Self { schedule, failures: 0, closed_until: now, probing: false, why: None }
    }

    fn admit(&mut self, now: Instant) -> Admission {
        let Some(why) = &self.why else { return Admission::Go };
        if now < self.closed_until {
            return Admission::Wait(self.closed_until, why.clone());
        }
        // Whoever comes first probes; the others wait for what it finds.
        self.closed_until = now + PROBE_LIMIT;
        self.probing = true;
        Admission::Go
    }

    fn fail(&mut self, why: Announcement, now: Instant, at_least: Option<Duration>, random: f64) -> Instant {
        self.why = Some(why);
        // Requests that were under way when the first one failed say nothing new: one failure a step.
        if self.failures == 0 || self.probing || now >= self.closed_until {
            self.failures += 1;
            self.probing = false;
            let wait = self.schedule.wait(self.failures, random).max(at_least.unwrap_or_default());
            self.closed_until = now + wait;
        }
        self.closed_until
    }
}

/// The gate of Vault as a whole, and one for each role that it refuses.
#[derive(Debug)]
pub(super) struct Gates {
    vault: Gate,
    roles: HashMap<RoleName, Gate>,
}

impl Gates {
    pub(super) fn new(now: Instant) -> Self {
        Self { vault: Gate::new(VAULT, now), roles: HashMap::new() }
    }

    /// May `role` be asked for at `now`?
    pub(super) fn admit(&mut self, role: &RoleName, now: Instant) -> Admission {
        if let Some(gate) = self.roles.get_mut(role)
            && let wait @ Admission::Wait(..) = gate.admit(now)
        {
            return wait;
        }
        self.vault.admit(now)
    }

    /// What keeps `role` waiting, and until when it is asked for again.
    pub(super) fn closed(&self, role: &RoleName) -> Option<(Announcement, Instant)> {
        let gates = self.roles.get(role).into_iter().chain([&self.vault]);
        gates.filter_map(|gate| Some((gate.why.clone()?, gate.closed_until))).next()
    }

    /// Vault issued for `role`. True: it could not before, and those who wait for it may be woken.
    pub(super) fn succeeded(&mut self, role: &RoleName, now: Instant) -> bool {
        let role_was_refused = self.roles.remove(role).is_some();
        let vault_was_closed = self.vault.failures > 0;
        self.vault = Gate::new(VAULT, now);
        role_was_refused || vault_was_closed
    }

    /// Vault cannot serve anybody. When to ask again.
    pub(super) fn vault_failed(&mut self, trouble: &VaultTrouble, now: Instant, random: f64) -> Instant {
        let why = Announcement::VaultUnavailable(trouble.to_string());
        self.vault.fail(why, now, trouble.retry_after(), random)
    }

    /// Vault refused `role`; it serves others. When to ask again, and whether others may have waited for that.
    pub(super) fn role_refused(
        &mut self,
        role: &RoleName,
        trouble: &VaultTrouble,
        now: Instant,
        random: f64,
    ) -> (Instant, bool) {
        let vault_was_closed = self.vault.failures > 0;
        self.vault = Gate::new(VAULT, now);
        if self.roles.len() >= MAX_REFUSED_ROLES && !self.roles.contains_key(role) {
            let soonest = self.roles.iter().min_by_key(|(_, gate)| gate.closed_until).map(|(role, _)| role.clone());
            soonest.map(|role| self.roles.remove(&role));
        }
        let gate = self.roles.entry(role.clone()).or_insert_with(|| Gate::new(ROLE, now));
        let why = Announcement::RoleRefused(trouble.to_string());
        (gate.fail(why, now, None, random), vault_was_closed)
    }

    /// The probe of `role` came to nothing that says how Vault is (the init container could not be reached):
    /// the next one may probe.
    pub(super) fn undecided(&mut self, role: &RoleName, now: Instant) {
        let release = |gate: &mut Gate| {
            if std::mem::take(&mut gate.probing) {
                gate.closed_until = now;
            }
        };
        release(&mut self.vault);
        if let Some(gate) = self.roles.get_mut(role) {
            release(gate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str) -> RoleName {
        RoleName::parse(name).unwrap()
    }

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn while_vault_is_down_one_probes_and_all_others_wait() {
        let start = Instant::now();
        let mut gates = Gates::new(start);
        for _ in 0..64 {
            assert_eq!(gates.admit(&role("a"), start), Admission::Go);
        }
        for _ in 0..64 {
            gates.vault_failed(&VaultTrouble::Sealed, start, 0.0);
        }
        assert!(matches!(gates.admit(&role("a"), start), Admission::Wait(..)));
        assert_eq!(gates.admit(&role("a"), at(start, 1000)), Admission::Go);
        assert!(matches!(gates.admit(&role("b"), at(start, 1001)), Admission::Wait(..)));
        gates.vault_failed(&VaultTrouble::Sealed, at(start, 1002), 0.0);
        assert!(matches!(gates.admit(&role("b"), at(start, 1010)), Admission::Wait(..)));
        assert_eq!(gates.admit(&role("b"), at(start, 2000)), Admission::Go);
        assert!(gates.succeeded(&role("b"), at(start, 2001)));
        assert_eq!(gates.admit(&role("a"), at(start, 2001)), Admission::Go);
    }

    // Bad-input table: unknown role, no retry storm.
    #[test]
    fn a_refused_role_holds_up_no_other() {
        let start = Instant::now();
        let mut gates = Gates::new(start);
        let (until, _) = gates.role_refused(&role("missing"), &VaultTrouble::UnknownRole, start, 0.0);
        let why = Announcement::RoleRefused(VaultTrouble::UnknownRole.to_string());
        assert_eq!(gates.admit(&role("missing"), start), Admission::Wait(until, why));
        assert_eq!(gates.admit(&role("good"), start), Admission::Go);
        assert!(until >= start + ROLE.first / 2);
    }

    #[test]
    fn vaults_retry_after_is_honoured() {
        let start = Instant::now();
        let mut gates = Gates::new(start);
        let limited = VaultTrouble::RateLimited { retry_after: Some(Duration::from_secs(7)) };
        let until = gates.vault_failed(&limited, start, 0.0);
        assert_eq!(until, start + Duration::from_secs(7));
    }

    #[test]
    fn a_probe_that_found_out_nothing_lets_the_next_one_through() {
        let start = Instant::now();
        let mut gates = Gates::new(start);
        gates.vault_failed(&VaultTrouble::Sealed, start, 0.0);
        let later = at(start, 60_000);
        assert_eq!(gates.admit(&role("a"), later), Admission::Go);
        assert!(matches!(gates.admit(&role("b"), later), Admission::Wait(..)));
        gates.undecided(&role("a"), later);
        assert_eq!(gates.admit(&role("b"), later), Admission::Go);
    }

    #[test]
    fn made_up_roles_cannot_fill_the_memory() {
        let start = Instant::now();
        let mut gates = Gates::new(start);
        for n in 0..5_000 {
            gates.role_refused(&role(&format!("r{n}")), &VaultTrouble::UnknownRole, start, 0.5);
        }
        assert_eq!(gates.roles.len(), MAX_REFUSED_ROLES);
    }
}
