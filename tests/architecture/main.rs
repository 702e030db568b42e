//! Reads `src/` and `init/src/` and fails on what the cut of the system forbids: a library outside of its folder, a
//! module that sees another which it must not see, a file that has grown too long.

mod paths;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use paths::{paths, tokens};

/// Libraries and the folders that may use each: a new version of one is then the work of few. Manifests are made of the
/// types of Kubernetes, and talk to nobody.
const FENCES: &[(&str, &[&str])] = &[
    ("kube", &["k8s"]),
    ("k8s_openapi", &["k8s", "manifests"]),
    ("vaultrs", &["vault"]),
    ("rustify", &["vault"]),
    ("reqwest", &["vault"]),
    ("openraft", &["raft"]),
    ("openraft_rt", &["raft"]),
    ("foca", &["raft"]),
    ("rocksdb", &["store"]),
];

/// What implements the ports of `deliver`, or serves the world in another way. Only `app` puts them together.
const ADAPTERS: &[&str] = &["k8s", "vault", "push", "raft", "store", "tls", "admin", "control", "metrics"];

/// Who stands on whom all the same: Raft's log lies in the store, and nobody else knows that there is one.
const FOUNDATIONS: &[(&str, &str)] = &[("raft", "store")];

/// What an adapter may see of ours, beside itself.
const SEEN_BY_ADAPTERS: &[&str] =
    &["domain", "deliver", "clock", "causes", "crypto", "files", "pem", "places", "print"];

/// What `deliver` may see of ours.
const SEEN_BY_DELIVER: &[&str] = &["deliver", "domain", "clock"];

/// What builds adapters. `main` may only start it.
const COMPOSITION_ROOT: &str = "app";

/// Decisions are made in pure code, so that they can be tested by the thousand: no runtime, no input, no output.
const IMPURE: &[&str] = &[
    "tokio",
    "tokio_util",
    "tokio_rustls",
    "futures",
    "async_trait",
    "hyper",
    "hyper_util",
    "axum",
    "reqwest",
    "tracing",
    "rand",
    "rustls",
];

/// The same, of the standard library. (`std::net` holds addresses too, which are plain data.)
const IMPURE_STD: &[&str] = &["fs", "io", "env", "process", "thread"];

/// Longest file.
const MAX_LINES: usize = 500;

/// Where a rule is broken.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Breach {
    file: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.rule)
    }
}

#[test]
fn no_rule_of_the_architecture_is_broken() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut breaches = Vec::new();
    let mut files = 0;
    for folder in ["src", "init/src"] {
        for (name, text) in sources(root, folder).unwrap() {
            files += 1;
            breaches.extend(check(&name, &text));
        }
    }
    assert!(files > 20, "only {files} files were found: is this the root of the workspace?");
    let list: Vec<String> = breaches.iter().map(Breach::to_string).collect();
    assert!(list.is_empty(), "the architecture is broken in {} places:\n{}", list.len(), list.join("\n"));
}

/// All Rust files below `folder`, by their names from `root`.
fn sources(root: &Path, folder: &str) -> io::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = format!("{folder}/{}", entry.file_name().display());
        if entry.file_type()?.is_dir() {
            found.extend(sources(root, &name)?);
        } else if name.ends_with(".rs") {
            found.push((name, fs::read_to_string(entry.path())?));
        }
    }
    Ok(found)
}

/// Every rule, on one file.
fn check(file: &str, text: &str) -> BTreeSet<Breach> {
    let mut breaches = BTreeSet::new();
    let mut breach = |line: usize, rule: String| {
        breaches.insert(Breach { file: file.to_owned(), line, rule });
    };
    let lines = text.lines().count();
    if lines > MAX_LINES {
        breach(lines, format!("a file has at most {MAX_LINES} lines; cut it by responsibility"));
    }
    // The init container is a package of its own: the compiler keeps it apart.
    let Some(within) = file.strip_prefix("src/") else { return breaches };
    let module = module_path(within);
    let here = module.first().map_or("", String::as_str);
    for token in tokens(text) {
        if here == "domain" && matches!(token.text.as_str(), "async" | "await") {
            breach(token.line, "src/domain is pure: nothing waits there".to_owned());
        }
    }
    for path in paths(text, &module) {
        if let Some(rule) = broken_by(here, &path.segments) {
            breach(path.line, rule);
        }
    }
    breaches
}

/// The rule that a path breaks in the top-level module `here`.
fn broken_by(here: &str, path: &[String]) -> Option<String> {
    let first = path.first()?.as_str();
    let fence = FENCES.iter().find(|(library, folders)| first == *library && !folders.contains(&here));
    if let Some((_, folders)) = fence {
        return Some(format!("{first} is used in src/{} only", folders.join(" and src/")));
    }
    let second = path.get(1).map_or("", String::as_str);
    if here == "domain" && (IMPURE.contains(&first) || (first == "std" && IMPURE_STD.contains(&second))) {
        return Some(format!("src/domain is pure: it uses no {first}::{second}"));
    }
    if !matches!(first, "crate" | "kubernetes_vault") || second.is_empty() || second == here {
        return None;
    }
    if FOUNDATIONS.contains(&(here, second)) {
        return None;
    }
    // Constants that are false in every build for use: see src/seeded.rs.
    if second == "seeded" {
        return None;
    }
    let deliver_beyond_ports = second == "deliver" && path.get(2).is_some_and(|third| third != "ports");
    match here {
        "domain" => Some(format!("src/domain imports no other module of ours: not {second}")),
        "deliver" if !SEEN_BY_DELIVER.contains(&second) => {
            Some(format!("src/deliver sees the world through its ports: not {second}"))
        }
        _ if ADAPTERS.contains(&here) && ADAPTERS.contains(&second) => {
            Some(format!("adapters do not see each other: not {second} in {here}"))
        }
        _ if ADAPTERS.contains(&here) && !SEEN_BY_ADAPTERS.contains(&second) => {
            Some(format!("an adapter sees {} and nothing else of ours: not {second}", SEEN_BY_ADAPTERS.join(", ")))
        }
        _ if ADAPTERS.contains(&here) && deliver_beyond_ports => {
            Some("an adapter sees the ports of deliver, not its inside".to_owned())
        }
        _ if here != COMPOSITION_ROOT && ADAPTERS.contains(&second) => {
            Some(format!("only src/{COMPOSITION_ROOT} builds adapters: not {second}"))
        }
        _ => None,
    }
}

/// `k8s/watch/session.rs` is `[k8s, watch, session]`; `lib.rs` and `main.rs` are the root.
fn module_path(within: &str) -> Vec<String> {
    let mut parts: Vec<String> = within.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// The rules that `text` breaks as `file`, with their lines.
#[cfg(test)]
fn broken(file: &str, text: &str) -> Vec<(usize, String)> {
    check(file, text).into_iter().map(|breach| (breach.line, breach.rule)).collect()
}

#[test]
fn each_library_is_fenced_in() {
    for (library, folders) in FENCES {
        let text = format!("//! Module.\nuse {library}::Thing;\n");
        for folder in *folders {
            assert_eq!(broken(&format!("src/{folder}/x.rs"), &text), []);
        }
        for elsewhere in ["src/app/mod.rs", "src/main.rs", "src/deliver/worker.rs", "src/tls/files.rs"] {
            let rule = format!("{library} is used in src/{} only", folders.join(" and src/"));
            assert_eq!(broken(elsewhere, &text), [(2, rule)], "{elsewhere}");
        }
    }
}

#[test]
fn manifests_are_made_of_types_and_talk_to_nobody() {
    assert_eq!(broken("src/manifests/x.rs", "use k8s_openapi::api::core::v1::Pod;"), []);
    assert_eq!(broken("src/manifests/x.rs", "use kube::Client;").len(), 1);
}

#[test]
fn the_domain_is_pure() {
    for text in [
        "use tokio::time::sleep;",
        "use std::{fmt, fs::File};",
        "fn f() { let x = std::env::var(\"A\"); }",
        "async fn f() {}",
        "fn f() { g().await }",
        "use crate::clock::Clock;",
        "use crate::deliver::ports::PodFeed;",
        "use super::super::clock;",
        "use wire::Push; use tracing::info;",
    ] {
        assert_eq!(broken("src/domain/pod.rs", text).len(), 1, "{text}");
    }
    let fine = "use std::net::IpAddr;\nuse super::ids::{PodUid, Term};\nuse crate::domain::pod;\n// use tokio::fs;\n";
    assert_eq!(broken("src/domain/ledger.rs", fine), []);
}

#[test]
fn adapters_see_neither_each_other_nor_the_inside_of_deliver() {
    for (file, text, rule) in [
        ("src/k8s/events.rs", "use crate::vault::Client;", "adapters do not see each other: not vault in k8s"),
        ("src/push/mod.rs", "use super::metrics::Metrics;", "adapters do not see each other: not metrics in push"),
        ("src/store/mod.rs", "use crate::raft::Cluster;", "adapters do not see each other: not raft in store"),
        (
            "src/vault/wrap.rs",
            "use crate::config::Config;",
            "an adapter sees domain, deliver, clock, causes, crypto, files, pem, places, print and nothing else",
        ),
        ("src/admin/mod.rs", "use crate::deliver::Service;", "an adapter sees the ports of deliver, not its inside"),
        (
            "src/metrics/mod.rs",
            "fn f() { crate::app::run() }",
            "an adapter sees domain, deliver, clock, causes, crypto, files, pem, places, print and nothing else",
        ),
    ] {
        let found = broken(file, text);
        assert!(found.len() == 1 && found[0].1.starts_with(rule), "{file} {text}: {found:?}");
    }
    let fine = "use crate::deliver::ports::{Meter, PodFeed};\nuse crate::domain::pod::Pod;\nuse crate::clock::Clock;";
    assert_eq!(broken("src/k8s/watch.rs", fine), []);
}

#[test]
fn deliver_sees_domain_clock_and_wire_only() {
    for text in ["use crate::k8s::watch::Feed;", "use crate::config;", "use crate::{clock::Clock, raft::Cluster};"] {
        assert_eq!(broken("src/deliver/service.rs", text).len(), 1, "{text}");
    }
    let fine = "use crate::{clock::Clock, domain::{ids::Term, pod}};\nuse super::queue::Queue;\nuse wire::Push;";
    assert_eq!(broken("src/deliver/service.rs", fine), []);
}

#[test]
fn only_the_composition_root_builds_adapters() {
    let text = "use crate::vault::Service;\nuse crate::k8s::watch::Feed;";
    assert_eq!(broken("src/app/mod.rs", text), []);
    assert_eq!(broken("src/cli.rs", text).len(), 2);
    assert_eq!(broken("src/main.rs", "use kubernetes_vault::push::Client;").len(), 1);
    assert_eq!(broken("src/main.rs", "use kubernetes_vault::{app, cli, config, telemetry};"), []);
    assert_eq!(broken("src/lib.rs", "pub mod vault;\npub mod k8s;"), []);
}

#[test]
fn a_file_may_not_grow_without_end() {
    for file in ["src/domain/pod.rs", "init/src/work.rs"] {
        assert_eq!(broken(file, &"\n".repeat(MAX_LINES)), []);
        assert_eq!(broken(file, &"\n".repeat(MAX_LINES + 1)).len(), 1);
    }
}

#[test]
fn paths_are_found_wherever_they_stand_and_nowhere_else() {
    let found = |text: &str| broken("src/deliver/x.rs", text);
    for text in [
        "use {std::fmt, kube::Api};",
        "pub(crate) use kube as k;",
        "extern crate kube;",
        "fn f(x: Vec<kube::Client>) {}",
        "use ::kube::Api;",
        "mod tests { use super::super::super::k8s; }",
        "impl From<kube::Error> for E {}",
        "const A: char = '\"'; use kube::Api; const B: &str = \"\\\"\";",
        "fn f<'a>(x: &'a str, y: char) { let q = 'x'; kube::f() }",
    ] {
        assert_eq!(found(text).len(), 1, "{text}");
    }
    for text in [
        "// use kube::Api;",
        "/* use kube::Api; /* kube::x */ kube::y */",
        "const A: &str = \"use kube::Api;\";",
        "const A: &str = r#\"\" kube::Api \"#;",
        "fn f() { x.kube(); my::kube::y() }",
        "mod tests { use super::*; mod deep { use super::super::super::k8s; } }",
    ] {
        assert_eq!(found(text), [], "{text}");
    }
    assert_eq!(found("\"a\nb\"\n/* \n */ use kube::Api;")[0].0, 4);
}
