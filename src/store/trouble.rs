//! What RocksDB's messages mean, and what a person should do.
//!
//! RocksDB tells its errors as text. Owns the reading of that text; must never lose the text itself, which names the
//! file and, for damage, the place in it.

use std::fmt;

/// What went wrong, by what there is to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Another process, or another handle of this one, has the folder open.
    InUse,
    /// The folder cannot be written.
    ReadOnly,
    /// No space is left.
    Full,
    /// The data is not what was written.
    Damaged,
    /// A newer version wrote it.
    Newer,
    /// Anything else.
    Other,
}

/// One failure of RocksDB: what it says, and what to do. One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Its kind.
    pub kind: Kind,
    /// RocksDB's own words.
    said: String,
}

/// Words of RocksDB's messages, and of the system's within them. The first that matches decides: a message about a
/// newer format begins with "Corruption", as that about a lock begins with "IO error".
const WORDS: &[(&str, Kind)] = &[
    ("newer version", Kind::Newer),
    ("Column families not opened", Kind::Newer),
    ("Unknown Footer version", Kind::Newer),
    ("unknown checksum type", Kind::Newer),
    ("While lock file", Kind::InUse),
    ("lock hold by current process", Kind::InUse),
    ("No space left on device", Kind::Full),
    ("Disk quota exceeded", Kind::Full),
    ("Space limit reached", Kind::Full),
    ("Read-only file system", Kind::ReadOnly),
    ("Permission denied", Kind::ReadOnly),
    ("Operation not permitted", Kind::ReadOnly),
    ("Corruption", Kind::Damaged),
];

impl Trouble {
    /// Reads `message`. `context` is what RocksDB logged on the way to it, which names what the message leaves out.
    pub(super) fn read(message: &str, context: Option<&str>) -> Self {
        let kind = WORDS.iter().find(|(words, _)| message.contains(words)).map_or(Kind::Other, |(_, kind)| *kind);
        let mut said = message.to_owned();
        if let Some(context) = context.filter(|_| kind == Kind::Damaged) {
            said = format!("{said}; {context}");
        }
        Self { kind, said: said.split_whitespace().collect::<Vec<_>>().join(" ") }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = match self.kind {
            Kind::InUse => {
                "another process has it open: give each replica a folder of its own (raftDir), or wait for the other \
                 process to end"
            }
            Kind::ReadOnly => "it cannot be written: mount it read-write, and let the user of this process own it",
            Kind::Full => {
                "no space is left on its device: make room or enlarge it, then start again; nothing that was \
                           acknowledged is lost"
            }
            Kind::Damaged => {
                "its data is damaged: never repair it, since a member that forgot its vote is dangerous; \
                              while the other replicas are well, empty the folder, and this one joins anew"
            }
            Kind::Newer => {
                "a newer version wrote it: run that version, or empty the folder to join anew; its data was \
                            left as it is"
            }
            Kind::Other => "RocksDB failed",
        };
        write!(f, "{remedy} ({})", self.said)
    }
}

impl std::error::Error for Trouble {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_told_as_what_to_do_and_in_one_line() {
        for (message, kind) in [
            ("IO error: While lock file: /raft/LOCK: Resource temporarily unavailable", Kind::InUse),
            (
                "IO error: lock hold by current process, acquire time 1 acquiring thread 2: /raft/LOCK: No locks",
                Kind::InUse,
            ),
            ("IO error: No space left on device: While appending to file: /raft/000008.log: No space left", Kind::Full),
            ("IO error: While open a file for lock: /raft/LOCK: Read-only file system", Kind::ReadOnly),
            ("IO error: While mkdir if missing: /raft: Permission denied", Kind::ReadOnly),
            (
                "Corruption: block checksum mismatch: stored = 1, computed = 2  in /raft/000009.sst offset 0 size 99",
                Kind::Damaged,
            ),
            (
                "Corruption: Unknown Footer version. Maybe this file was created with newer version of RocksDB?",
                Kind::Newer,
            ),
            ("Invalid argument: Column families not opened: bindings", Kind::Newer),
            ("Busy: something\nelse", Kind::Other),
        ] {
            let trouble = Trouble::read(message, None);
            assert_eq!(trouble.kind, kind, "{message}");
            assert_eq!(trouble.to_string().lines().count(), 1, "{message}");
        }
    }

    #[test]
    fn the_place_of_damage_is_kept() {
        let trouble = Trouble::read("Corruption: checksum mismatch", Some("/raft/000004.log: dropping 99 bytes"));
        assert!(trouble.to_string().ends_with("(Corruption: checksum mismatch; /raft/000004.log: dropping 99 bytes)"));
    }
}
