//! The API server's audit log: who asked for what.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// One request that the API server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asked: `system:serviceaccount:<namespace>:<name>`, or the name of a client certificate.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `patch`, ...
    pub verb: String,
    /// `pods`, `endpointslices`, ...; empty where the request is for none.
    pub resource: String,
    /// Path and query.
    pub uri: String,
}

#[derive(Deserialize)]
struct Line {
    user: User,
    verb: String,
    #[serde(rename = "objectRef", default)]
    object: Object,
    #[serde(rename = "requestURI")]
    uri: String,
    /// A watch is logged when it starts and when it ends: one of them counts.
    stage: String,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
struct Object {
    #[serde(default)]
    resource: String,
}

/// Reads the log; a last line that is still being written is left out.
pub(super) fn read(path: &Path) -> Result<Vec<Request>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete.lines().filter_map(|line| parse(line).transpose()).collect()
}

fn parse(line: &str) -> Result<Option<Request>> {
    let line: Line = serde_json::from_str(line).with_context(|| format!("not an audit event: {line}"))?;
    if line.verb == "watch" && line.stage != "ResponseStarted" {
        return Ok(None);
    }
    Ok(Some(Request { user: line.user.username, verb: line.verb, resource: line.object.resource, uri: line.uri }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_counts_once() {
        let line = |verb: &str, stage: &str| {
            format!(
                r#"{{"stage":"{stage}","requestURI":"/api/v1/pods","verb":"{verb}","user":{{"username":"u"}},"objectRef":{{"resource":"pods"}}}}"#
            )
        };
        assert_eq!(parse(&line("list", "ResponseComplete")).unwrap().unwrap().resource, "pods");
        assert!(parse(&line("watch", "ResponseStarted")).unwrap().is_some());
        assert!(parse(&line("watch", "ResponseComplete")).unwrap().is_none());
    }
}
