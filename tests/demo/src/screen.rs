//! What is printed, and how: numbered steps with the time since the start on the left.
//!
//! Owns standard output. Colours and the terminal's width only where it is a terminal.
//!
//! Must never happen: a secret that was announced by [`Screen::hide`] on the screen; a panic because the reader of
//! our output has gone.

use std::cell::{Cell, RefCell};
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant, SystemTime};

/// Width where there is no terminal to ask, and the greatest that is used for text: longer lines read badly.
const WIDTH: usize = 100;
/// Below this the layout makes no sense: the terminal wraps.
const MIN_WIDTH: usize = 60;
/// Room for the time: `  12.3 s  `.
const MARGIN: usize = 10;
/// So much of a secret may be seen.
const SHOWN_CHARS: usize = 6;
/// As of a program that was ended by SIGPIPE.
const EXIT_NO_READER: i32 = 141;

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "1;31";
const GREEN: &str = "32";
const CYAN: &str = "36";

/// Prints the demonstration.
pub(crate) struct Screen {
    start: Instant,
    step_start: Cell<Instant>,
    steps: Cell<u8>,
    width: usize,
    colours: bool,
    hidden: RefCell<Vec<String>>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let stdout = std::io::stdout();
        let is_terminal = stdout.is_terminal();
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let columns = rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| usize::from(size.ws_col));
        Self {
            start: Instant::now(),
            step_start: Cell::new(Instant::now()),
            steps: Cell::new(0),
            width: if is_terminal && columns > 0 { columns.clamp(MIN_WIDTH, WIDTH) } else { WIDTH },
            colours: is_terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
            hidden: RefCell::default(),
        }
    }

    /// From now on only the first characters of this are printed, wherever it occurs.
    pub(crate) fn hide(&self, secret: &str) {
        if !secret.is_empty() {
            self.hidden.borrow_mut().push(secret.to_owned());
        }
    }

    /// The headline.
    pub(crate) fn title(&self, text: &str) {
        self.print(&self.paint(BOLD, text));
    }

    /// A paragraph over the whole width.
    pub(crate) fn text(&self, text: &str) {
        for line in wrap(text, self.width, 0) {
            self.print(&line);
        }
    }

    /// Begins the next step.
    pub(crate) fn step(&self, name: &str) {
        self.step_start.set(Instant::now());
        self.steps.set(self.steps.get() + 1);
        self.blank();
        let title = format!("{}. {name}", self.steps.get());
        self.print(&format!("{}{}", self.time(), self.paint(BOLD, &title)));
    }

    /// Something happened now.
    pub(crate) fn milestone(&self, text: &str) {
        let mut margin = self.time();
        for line in wrap(text, self.width - MARGIN, 0) {
            self.print(&format!("{margin}{line}"));
            margin = " ".repeat(MARGIN);
        }
    }

    /// The step is done; says how long it took.
    pub(crate) fn done(&self, text: &str) {
        let took = self.paint(DIM, &format!("({})", seconds(self.step_start.get().elapsed())));
        self.print(&format!("{}{} {took}", self.time(), self.paint(GREEN, text)));
    }

    /// It went wrong.
    pub(crate) fn error(&self, text: &str) {
        self.blank();
        let mut lines = text.lines();
        for line in wrap(lines.next().unwrap_or_default(), self.width, 0) {
            self.print(&self.paint(RED, &line));
        }
        lines.for_each(|line| self.print(line));
    }

    /// A paragraph of the step.
    pub(crate) fn note(&self, text: &str) {
        for line in wrap(text, self.width - MARGIN, 0) {
            self.print(&format!("{:MARGIN$}{line}", ""));
        }
    }

    /// A command as somebody would type it; a long one goes on in the next line.
    pub(crate) fn command(&self, text: &str) {
        // Room for the backslash.
        let lines = wrap_command(text, self.width - MARGIN - 4);
        for (index, line) in lines.iter().enumerate() {
            let prompt = if index == 0 { "$ " } else { "  " };
            let more = if index + 1 < lines.len() { " \\" } else { "" };
            self.print(&format!("{:MARGIN$}{}", "", self.paint(CYAN, &format!("{prompt}{line}{more}"))));
        }
    }

    /// A command of its own line, never broken: to be copied.
    pub(crate) fn plain_command(&self, text: &str) {
        self.print(&format!("  {}", self.paint(CYAN, text)));
    }

    /// What a program printed; a long line goes on in the next, below its last column.
    pub(crate) fn output(&self, text: &str) {
        for line in text.lines() {
            let hanging = hanging_indent(line);
            for line in wrap(line, self.width - MARGIN, hanging) {
                self.print(&format!("{:MARGIN$}{line}", ""));
            }
        }
    }

    /// What a program printed, below the steps, line by line as it is: for what fits into 70 columns or has a layout.
    pub(crate) fn verbatim(&self, text: &str) {
        for line in text.lines() {
            let line = format!("{:MARGIN$}{line}", "");
            self.print(line.trim_end());
        }
    }

    /// What a program printed, as it is: for logs.
    pub(crate) fn raw(&self, text: &str) {
        text.lines().for_each(|line| self.print(&format!("  {line}")));
    }

    pub(crate) fn blank(&self) {
        self.print("");
    }

    /// Since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn time(&self) -> String {
        self.paint(DIM, &format!("{:>MARGIN$}", format!("{}  ", seconds(self.start.elapsed()))))
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn print(&self, line: &str) {
        let mut line = line.to_owned();
        for secret in self.hidden.borrow().iter() {
            line = line.replace(secret, &shortened(secret));
        }
        if writeln!(std::io::stdout(), "{line}").is_err() {
            // Nobody reads: there is nothing to show to. Everything dies with this process.
            std::process::exit(EXIT_NO_READER);
        }
    }
}

/// The beginning of a secret.
pub(crate) fn shortened(secret: &str) -> String {
    secret.chars().take(SHOWN_CHARS).chain(['…']).collect()
}

/// `1.2 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// `12 ms`, or seconds where that reads better.
pub(crate) fn millis(duration: Duration) -> String {
    if duration < Duration::from_secs(2) { format!("{} ms", duration.as_millis()) } else { seconds(duration) }
}

/// `-12 ms` or `+340 ms`: a moment, counted from another one.
pub(crate) fn signed_millis(at: SystemTime, from: SystemTime) -> String {
    match at.duration_since(from) {
        Ok(later) => format!("{:>+5} ms", later.as_millis().cast_signed()),
        Err(earlier) => format!("{:>5} ms", format!("-{}", earlier.duration().as_millis())),
    }
}

/// Rows whose columns line up.
pub(crate) fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; COLUMNS]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// Where the last column of an aligned line begins; 0 where it has none.
fn hanging_indent(line: &str) -> usize {
    line.rfind("  ").map_or(0, |at| line[..at].chars().count() + 2)
}

/// Breaks before options where that is enough, else at any space.
fn wrap_command(text: &str, width: usize) -> Vec<String> {
    const HANGING: usize = 2;
    let mut lines = vec![String::new()];
    for part in text.split(" --") {
        let part = if lines == [""] { part.to_owned() } else { format!("--{part}") };
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if line.is_empty() {
            line.push_str(&part);
        } else if line.chars().count() + 1 + part.chars().count() <= width {
            line.push_str(&format!(" {part}"));
        } else {
            lines.push(format!("{:HANGING$}{part}", ""));
        }
    }
    lines.iter().flat_map(|line| wrap(line, width, HANGING)).collect()
}

/// Breaks at spaces; further lines begin with `hanging` spaces. What has no space stays whole.
fn wrap(text: &str, width: usize, hanging: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = text;
    let mut indent = String::new();
    loop {
        let room = width.saturating_sub(indent.len()).max(1);
        let fits = rest.chars().count() <= room;
        // Bytes of the longest beginning that fits, its last space, else the first space after it.
        let limit = rest.char_indices().nth(room + 1).map_or(rest.len(), |(at, _)| at);
        let indented = rest.len() - rest.trim_start().len();
        let space = rest[indented..limit].rfind(' ').map(|at| at + indented);
        let cut = space
            .filter(|at| *at > hanging || !indent.is_empty())
            .or_else(|| rest[limit..].find(' ').map(|at| at + limit));
        match cut {
            Some(cut) if !fits => {
                lines.push(format!("{indent}{}", rest[..cut].trim_end()));
                rest = rest[cut..].trim_start();
                indent = " ".repeat(hanging);
            }
            _ => {
                lines.push(format!("{indent}{rest}"));
                return lines;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_at_spaces() {
        assert_eq!(wrap("one two three", 7, 0), ["one two", "three"]);
        assert_eq!(wrap("one two three", 8, 2), ["one two", "  three"]);
        assert_eq!(wrap("one", 7, 0), ["one"]);
        assert_eq!(wrap("", 7, 0), [""]);
    }

    #[test]
    fn what_has_no_space_stays_whole() {
        assert_eq!(wrap("indivisible", 5, 2), ["indivisible"]);
        assert_eq!(wrap("indivisible words here", 5, 2), ["indivisible", "  words", "  here"]);
        assert_eq!(wrap("äöüäöü ßäöü", 6, 0), ["äöüäöü", "ßäöü"]);
    }

    #[test]
    fn commands_are_broken_before_options() {
        assert_eq!(wrap_command("run a --one=1 --two=2 3", 16), ["run a --one=1", "  --two=2 3"]);
        assert_eq!(wrap_command("run a b c d --one", 8), ["run a b", "  c d", "  --one"]);
        assert_eq!(wrap_command("run", 8), ["run"]);
    }

    #[test]
    fn further_lines_begin_below_the_last_column() {
        let line = "Normal  Done  It is done.";
        assert_eq!(hanging_indent(line), 14);
        assert_eq!(wrap(line, 21, 14), ["Normal  Done  It is", "              done."]);
        assert_eq!(hanging_indent("no columns"), 0);
    }

    #[test]
    fn moments_before_and_after_line_up() {
        let from = SystemTime::UNIX_EPOCH + Duration::from_secs(9);
        assert_eq!(signed_millis(from + Duration::from_millis(340), from), " +340 ms");
        assert_eq!(signed_millis(from - Duration::from_millis(12), from), "  -12 ms");
    }

    #[test]
    fn columns_line_up() {
        let rows = [["a".to_owned(), "x".to_owned()], ["long".to_owned(), String::new()]];
        assert_eq!(table(&rows), "a     x\nlong\n");
    }

    #[test]
    fn only_the_beginning_of_a_secret_is_shown() {
        assert_eq!(shortened("hvs.CAESIJ-the-rest"), "hvs.CA…");
    }
}
