//! Log lines as logrus writes them, on standard error: `time="..." level=debug msg="..."`.
//!
//! Owns: the level, and the limit on lines that a stranger can cause.
//!
//! Must never: be handed a token, a secret_id or a body. Whatever else came from outside is escaped and cut here.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;

use crate::clock;

/// The longest message. What strangers send may end up in one, and a log line is no place for a megabyte.
const MESSAGE_CHARS_MAX: usize = 1500;

/// How many lines about refused connections and requests are written in one [`STRANGER_WINDOW_SECS`].
const STRANGER_LINES_MAX: u32 = 20;
const STRANGER_WINDOW_SECS: i64 = 10;

static DEBUG: AtomicBool = AtomicBool::new(true);

/// Start of the window, and the lines in it.
static STRANGERS: Mutex<(i64, u32)> = Mutex::new((0, 0));

/// Whether debug lines are written.
pub(crate) fn set_debug(on: bool) {
    DEBUG.store(on, Ordering::Relaxed);
}

/// What goes on.
pub(crate) fn debug(message: &str) {
    if DEBUG.load(Ordering::Relaxed) {
        write("debug", message);
    }
}

/// What somebody must look at, while the process goes on.
pub(crate) fn error(message: &str) {
    write("error", message);
}

/// The last line of a process that fails.
pub(crate) fn fatal(message: &str) {
    write("fatal", message);
}

/// What anybody on the pod network can cause at will: a debug line, limited in number.
pub(crate) fn stranger(message: &str) {
    let now = clock::now().as_second();
    let lines = {
        let mut window = STRANGERS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if now - window.0 >= STRANGER_WINDOW_SECS {
            *window = (now, 0);
        }
        window.1 = window.1.saturating_add(1);
        window.1
    };
    match lines {
        ..=STRANGER_LINES_MAX => debug(message),
        n if n == STRANGER_LINES_MAX + 1 => {
            debug("Too many refused connections and requests; not logging more for now.");
        }
        _ => {}
    }
}

fn write(level: &str, message: &str) {
    let line = line(clock::now(), level, message);
    // A closed standard error must not stop the work.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn line(now: Timestamp, level: &str, message: &str) -> String {
    let seconds = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let mut line = format!("time=\"{seconds}\" level={level} msg=\"");
    for (count, c) in message.chars().enumerate() {
        if count == MESSAGE_CHARS_MAX {
            line.push_str("...");
            break;
        }
        match c {
            '"' | '\\' => line.extend(['\\', c]),
            '\n' => line.push_str("\\n"),
            ' '..='~' => line.push(c),
            // All else could forge lines or hide text on a terminal. Writing to a String cannot fail.
            _ => _ = write!(line, "\\u{{{:x}}}", u32::from(c)),
        }
    }
    line.push_str("\"\n");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_of_visible_ascii_whatever_it_says() {
        let now = "2026-11-23T13:54:15.123Z".parse().unwrap();
        assert_eq!(
            line(now, "fatal", "a \"b\" \\ \n\r\u{1b}[2J\u{202e}é"),
            "time=\"2026-11-23T13:54:15Z\" level=fatal msg=\"a \\\"b\\\" \\\\ \\n\\u{d}\\u{1b}[2J\\u{202e}\\u{e9}\"\n"
        );
        assert!(line(now, "debug", &"x".repeat(1 << 20)).len() < 2000);
    }
}
