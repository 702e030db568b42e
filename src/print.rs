//! Text for a terminal of 80 columns, and colour where somebody looks.
//!
//! Owns the form in which commands print: width, tables, colours. Must never colour what goes into a file or a pipe,
//! nor anything where `NO_COLOR` is set (<https://no-color.org>).

use std::ffi::OsStr;
use std::io::{self, IsTerminal};

use serde::Serialize;

/// A terminal's width.
pub const WIDTH: usize = 80;

/// No column is cut to less: that many characters tell a handful of random ids apart.
const NARROWEST: usize = 8;

/// The form of what a command prints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// For people.
    Text(Paint),
    /// For programs.
    Json,
}

/// Whether colours are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Paint(bool);

/// What a colour says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tone {
    /// All is well.
    Good,
    /// It works, but somebody should look.
    Odd,
    /// It does not work.
    Bad,
}

impl Paint {
    /// No colours.
    pub const PLAIN: Self = Self(false);

    /// What suits `stream`, with the environment of this process.
    pub fn of(stream: &impl IsTerminal) -> Self {
        Self::choose(stream.is_terminal(), std::env::var_os("NO_COLOR").as_deref())
    }

    /// Colours on a terminal, unless `NO_COLOR` is set to anything but nothing.
    pub fn choose(is_terminal: bool, no_color: Option<&OsStr>) -> Self {
        Self(is_terminal && no_color.is_none_or(OsStr::is_empty))
    }

    /// Whether there are any.
    pub fn is_coloured(self) -> bool {
        self.0
    }

    /// `text` in the colour of `tone`, where there are colours.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Odd => "33",
            Tone::Bad => "31",
        };
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// [`wrap`], with `lead` in the colour of `tone`.
    pub fn wrap(self, tone: Tone, lead: &str, text: &str) -> String {
        let plain = wrap(lead, text);
        match plain.strip_prefix(lead) {
            Some(rest) => self.paint(tone, lead) + rest,
            None => plain,
        }
    }
}

/// Writes `text` to standard output.
pub fn out(text: &str) {
    // Whoever reads it may have seen enough (`| head`): no reason to fail.
    let _ = io::Write::write_all(&mut io::stdout(), text.as_bytes());
}

/// `value` as JSON for people's eyes, with its last line's end.
pub fn pretty(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value);
    text.unwrap_or_else(|error| serde_json::json!({"error": error.to_string()}).to_string()) + "\n"
}

/// `text` after `lead`, in lines of a terminal's width, the further ones below the first one's text.
pub fn wrap(lead: &str, text: &str) -> String {
    let mut lines = String::new();
    let mut line = lead.to_owned();
    let mut fresh = true;
    for word in text.split_whitespace() {
        if !fresh && chars(&line) + 1 + chars(word) > WIDTH {
            lines += line.trim_end();
            lines.push('\n');
            line = " ".repeat(chars(lead));
            fresh = true;
        }
        if !fresh {
            line.push(' ');
        }
        line += word;
        fresh = false;
    }
    lines + line.trim_end() + "\n"
}

/// Columns as wide as what is in them, two spaces apart. A head that begins with `>` is that of numbers. What is cut to
/// fit is the last column, at its start: names of pods and addresses differ at their end.
pub fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let right: Vec<bool> = heads.iter().map(|head| head.starts_with('>')).collect();
    let heads = heads.iter().map(|head| head.trim_start_matches('>').to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(heads).chain(rows).collect();
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| chars(cell)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..right.len()).map(width).collect();
    let last = right.len().saturating_sub(1);
    let before: usize = widths.iter().take(last).map(|width| width + 2).sum();
    let rest = WIDTH.saturating_sub(before).max(NARROWEST);
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            if column == last {
                line += &tail(cell, rest);
                continue;
            }
            let pad = " ".repeat(widths[column].saturating_sub(chars(cell)));
            line += &if right[column] { format!("{pad}{cell}  ") } else { format!("{cell}{pad}  ") };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// The end of `text`, in `width` characters.
pub fn tail(text: &str, width: usize) -> String {
    let surplus = chars(text).saturating_sub(width);
    if surplus == 0 {
        return text.to_owned();
    }
    std::iter::once('…').chain(text.chars().skip(surplus + 1)).collect()
}

/// How many characters `text` has.
pub fn chars(text: &str) -> usize {
    text.chars().count()
}

/// How long ago something was, or how long it will take, in two or three characters and a unit.
pub fn short_time(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis}ms"),
        1_000..60_000 => format!("{}.{}s", millis / 1_000, millis % 1_000 / 100),
        60_000..3_600_000 => format!("{}m", millis / 60_000),
        _ => format!("{}h", millis / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_and_for_nobody_who_has_said_no() {
        assert!(Paint::choose(true, None).is_coloured());
        assert!(Paint::choose(true, Some(OsStr::new(""))).is_coloured(), "an empty variable counts as unset");
        assert!(!Paint::choose(true, Some(OsStr::new("1"))).is_coloured());
        assert!(!Paint::choose(true, Some(OsStr::new("0"))).is_coloured(), "whatever its value");
        assert!(!Paint::choose(false, None).is_coloured(), "a pipe or a file");
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let coloured = Paint::choose(true, None);
        for tone in [Tone::Good, Tone::Odd, Tone::Bad] {
            assert_eq!(Paint::PLAIN.paint(tone, "ok"), "ok");
            let painted = coloured.paint(tone, "ok");
            assert!(painted.starts_with("\u{1b}[3") && painted.ends_with("ok\u{1b}[0m"), "{painted:?}");
        }
        let text = "one two three four five six seven eight nine ten ".repeat(4);
        let (plain, painted) = (Paint::PLAIN.wrap(Tone::Bad, "! ", &text), coloured.wrap(Tone::Bad, "! ", &text));
        assert_eq!(painted.replace("\u{1b}[31m", "").replace("\u{1b}[0m", ""), plain);
        assert!(plain.lines().all(|line| chars(line) <= WIDTH) && plain.lines().count() > 2);
    }

    #[test]
    fn a_time_is_short() {
        let times = [0, 999, 1_000, 59_999, 60_000, 7_200_000].map(short_time);
        assert_eq!(times, ["0ms", "999ms", "1.0s", "59.9s", "1m", "2h"]);
    }
}
