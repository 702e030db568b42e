//! An explanation as text: the conclusion, what it rests on, what to do.

use super::super::{Explanation, Outlook};
use crate::print::{Paint, Tone, chars, short_time, wrap};

/// Room for the longest name of a fact.
const NAME_COLUMN: usize = 14;

pub(super) fn explanation(of: &Explanation, paint: Paint) -> String {
    let tone = match of.outlook {
        Outlook::Served => Tone::Good,
        Outlook::OnItsWay | Outlook::Unknown => Tone::Odd,
        Outlook::Stuck => Tone::Bad,
    };
    // The first line is the conclusion, however long: a program may cut it off there.
    let mut text = paint.paint(tone, &of.conclusion) + "\n\n";
    let mut last = "";
    for fact in &of.facts {
        let name = if fact.name == last { "" } else { fact.name.as_str() };
        last = &fact.name;
        text += &wrap(&column(name), &fact.text);
    }
    if !of.events.is_empty() || of.events_incomplete.is_some() {
        text += "\nEvents by us\n";
    }
    for event in &of.events {
        let times = if event.count > 1 { format!(" ({} times)", event.count) } else { String::new() };
        let ago = event.ago_ms.map_or_else(String::new, |ago| format!(", {} ago", short_time(ago)));
        text += &wrap("- ", &format!("{}{times}{ago}: {}", event.reason, event.note));
    }
    if let Some(why) = &of.events_incomplete {
        text += &wrap("  ", why);
    }
    if !of.advice.is_empty() {
        text += "\nWhat to do\n";
    }
    for advice in &of.advice {
        text += &wrap("- ", advice);
    }
    text
}

fn column(name: &str) -> String {
    format!("{name}{} ", " ".repeat(NAME_COLUMN.saturating_sub(chars(name))))
}

#[cfg(test)]
mod tests {
    use super::super::super::{Event, Fact};
    use super::*;

    fn stuck() -> Explanation {
        let fact = |name: &str, text: &str| Fact { name: name.to_owned(), text: text.to_owned() };
        Explanation {
            pod: "team-a/web".to_owned(),
            kind: "vaultUnavailable".to_owned(),
            outlook: Outlook::Stuck,
            conclusion: "team-a/web waits, because Vault issues nothing now: Vault is sealed.".to_owned(),
            facts: vec![
                fact("pod", "uid 1f2e, Pending, node node-1, address 10.0.0.7"),
                fact("ledger", "install containerd://a: open; attempt 0a claimed in term 7"),
                fact("ledger", "install containerd://b: settled 20 s ago; attempt 0b refused in term 7"),
            ],
            events: vec![Event {
                reason: "VaultUnavailable".to_owned(),
                note: "Vault cannot issue a secret_id now: Vault is sealed; unseal it.".to_owned(),
                count: 3,
                ago_ms: Some(1_500),
            }],
            events_incomplete: None,
            advice: vec!["Unseal it.".to_owned()],
        }
    }

    #[test]
    fn the_first_line_is_the_conclusion_and_facts_and_advice_follow() {
        let golden = "\
team-a/web waits, because Vault issues nothing now: Vault is sealed.

pod            uid 1f2e, Pending, node node-1, address 10.0.0.7
ledger         install containerd://a: open; attempt 0a claimed in term 7
               install containerd://b: settled 20 s ago; attempt 0b refused in
               term 7

Events by us
- VaultUnavailable (3 times), 1.5s ago: Vault cannot issue a secret_id now:
  Vault is sealed; unseal it.

What to do
- Unseal it.
";
        assert_eq!(explanation(&stuck(), Paint::PLAIN), golden);
    }

    #[test]
    fn only_the_conclusion_is_coloured() {
        let text = explanation(&stuck(), Paint::choose(true, None));
        assert!(text.starts_with("\u{1b}[31mteam-a/web waits"), "{text}");
        assert_eq!(text.matches('\u{1b}').count(), 2);
    }
}
