//! The API server's words: requests out, pages and watch lines in.
//!
//! Owns paths, limits of size and time, and decoding. Knows nothing of what is done about a failure. Must never
//! hold a whole answer of a watch, and never let one pod that cannot be decoded hide the others.

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::core::v1::Pod as ApiPod;
use kube::Resource;
use kube::client::Body;
use kube::core::Request;
use kube::core::params::{ListParams, WatchParams};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use super::super::cut;
use super::super::slim_pod::SlimPod;
use super::trouble::Trouble;
use crate::causes::with_causes;
use crate::domain::pod::Pod;

/// From a request to its answer's head, connecting included. An API server under load answers a watch in seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// From a page's head to its end.
const PAGE_LIMIT: Duration = Duration::from_secs(60);
/// Pods a page. A page is in memory as a whole (10 kB a pod is usual), so it is smaller than client-go's 500.
const PAGE_PODS: u32 = 200;
/// A page larger than this is no page: every pod of it would be near the 1.5 MB that etcd takes.
const PAGE_BYTES: usize = 256 << 20;
/// A watch line larger than this is no pod.
const LINE_BYTES: usize = 16 << 20;
/// As much of an error's body as is read.
const ERROR_BYTES: usize = 64 << 10;
/// Space that the line buffer keeps between lines; more is given back, so that one huge pod costs nothing for long.
const KEPT_BYTES: usize = 64 << 10;
/// Longest `Retry-After` that is obeyed: a server that asks for more is asked again all the same.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// `metadata.annotations` of the bookmark that ends the initial list of a streaming list.
const INITIAL_END: &str = "k8s.io/initial-events-end";

/// The pods of one namespace or of all.
pub(super) struct Pods {
    client: kube::Client,
    request: Request,
}

/// One page of a list, or one line of a watch, as far as pods go.
#[derive(Debug)]
pub(super) enum Found {
    /// A pod.
    Pod(Pod),
    /// One that cannot be decoded.
    Undecodable(Undecodable),
}

/// A pod that cannot be decoded, as far as it can.
#[derive(Debug)]
pub(super) struct Undecodable {
    pub(super) uid: String,
    /// Namespace and name, for people.
    pub(super) pod: String,
    pub(super) why: String,
}

/// One page of a list.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) found: Vec<Found>,
    pub(super) more: Option<String>,
    pub(super) version: Option<String>,
}

/// One line of a watch.
#[derive(Debug)]
pub(super) enum Line {
    Seen { found: Found, version: Option<String> },
    Left { found: Found, version: Option<String> },
    Bookmark { version: Option<String>, initial_end: bool },
}

impl Pods {
    pub(super) fn new(client: kube::Client, namespace: Option<&str>) -> Self {
        Self { client, request: Request::new(ApiPod::url_path(&(), namespace)) }
    }

    /// One page: the first without `more`. `resourceVersion` stays unset, which makes it a consistent read.
    pub(super) async fn page(&self, selector: &str, more: Option<String>) -> Result<Page, Trouble> {
        let mut params = ListParams::default().fields(selector).limit(PAGE_PODS);
        params.continue_token = more;
        let request = self.request.list(&params).map_err(|error| Trouble::Broken(with_causes(&error)))?;
        let body = self.send(request).await?;
        let bytes = timeout(PAGE_LIMIT, Limited::new(body, PAGE_BYTES).collect())
            .await
            .map_err(|_| Trouble::Slow)?
            .map_err(|error| Trouble::Broken(with_causes(&*error)))?
            .to_bytes();
        decode_page(&bytes)
    }

    /// Opens a watch from `version`; without one, a streaming list: all pods, a bookmark, then the watch.
    pub(super) async fn watch(&self, selector: &str, version: Option<&str>, lasts: Duration) -> Result<Lines, Trouble> {
        let params = WatchParams {
            field_selector: Some(selector.into()),
            timeout: Some(u32::try_from(lasts.as_secs()).unwrap_or(u32::MAX)),
            send_initial_events: version.is_none(),
            bookmarks: true,
            ..WatchParams::default()
        };
        // An empty version asks a streaming list for the newest state instead of whatever is in a cache.
        let request = self.request.watch(&params, version.unwrap_or_default());
        let body = self.send(request.map_err(|error| Trouble::Broken(with_causes(&error)))?).await?;
        Ok(Lines { body, buffer: Vec::new(), taken: 0, scanned: 0 })
    }

    async fn send(&self, request: http::Request<Vec<u8>>) -> Result<Body, Trouble> {
        let answer = timeout(ANSWER_LIMIT, self.client.send(request.map(Body::from)))
            .await
            .map_err(|_| Trouble::Slow)?
            .map_err(|error| Trouble::Broken(with_causes(&error)))?;
        let (head, body) = answer.into_parts();
        if head.status.is_success() {
            return Ok(body);
        }
        let seconds = head.headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let said = timeout(ANSWER_LIMIT, Limited::new(body, ERROR_BYTES).collect()).await;
        let said = said.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let status: Status = serde_json::from_slice(&said).unwrap_or_default();
        Err(Trouble::answered(
            head.status.as_u16(),
            status.message.unwrap_or_else(|| head.status.to_string()),
            seconds.map(Duration::from_secs).map(|wait: Duration| wait.min(MOST_RETRY_AFTER)),
        ))
    }
}

/// The lines of an open watch.
pub(super) struct Lines {
    body: Body,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were given out.
    taken: usize,
    /// Bytes of `buffer` that hold no end of a line beyond `taken`.
    scanned: usize,
}

impl Lines {
    /// The next line. Cancel-safe: what was read stays.
    pub(super) async fn next(&mut self) -> Result<Line, Trouble> {
        loop {
            if let Some(end) = self.buffer[self.scanned..].iter().position(|&byte| byte == b'\n') {
                let end = self.scanned + end;
                let line = decode_line(&self.buffer[self.taken..end]);
                (self.taken, self.scanned) = (end + 1, end + 1);
                return line;
            }
            self.make_room();
            if self.buffer.len() > LINE_BYTES {
                return Err(Trouble::Garbled(format!("a line of more than {LINE_BYTES} bytes")));
            }
            match self.body.frame().await {
                // What is left of a line that was cut short is said again after the next start.
                None => return Err(Trouble::Ended),
                Some(Err(error)) => return Err(Trouble::Broken(with_causes(&error))),
                Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            }
        }
    }

    fn make_room(&mut self) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.scanned = self.buffer.len();
        if self.buffer.capacity() > KEPT_BYTES && self.buffer.len() < KEPT_BYTES {
            self.buffer.shrink_to(KEPT_BYTES);
        }
    }
}

#[derive(Deserialize)]
#[serde(tag = "type", content = "object", rename_all = "UPPERCASE")]
enum WireLine {
    Added(SlimPod),
    Modified(SlimPod),
    Deleted(SlimPod),
    Bookmark(Marked),
    Error(Status),
}

/// A line whose object may be anything.
#[derive(Deserialize)]
struct AnyLine {
    r#type: String,
    object: Value,
}

#[derive(Deserialize)]
struct WirePage<T> {
    #[serde(default)]
    metadata: PageMeta,
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    resource_version: Option<String>,
    r#continue: Option<String>,
}

#[derive(Deserialize)]
struct Marked {
    metadata: MarkedMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MarkedMeta {
    resource_version: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

/// An error, as `meta/v1 Status`.
#[derive(Default, Deserialize)]
struct Status {
    code: Option<u16>,
    message: Option<String>,
    reason: Option<String>,
}

/// As much of a pod as can be read of anything.
fn undecodable(object: &Value, why: String) -> Undecodable {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or("?");
    Undecodable { uid: text("uid").into(), pod: format!("{}/{}", text("namespace"), text("name")), why }
}

fn found(pod: SlimPod) -> Found {
    pod.into_pod().map_or_else(|error| Found::Undecodable(undecodable(&Value::Null, error.to_string())), Found::Pod)
}

fn decode_page(bytes: &[u8]) -> Result<Page, Trouble> {
    let page = |metadata: PageMeta, found| Page {
        found,
        more: metadata.r#continue.filter(|token| !token.is_empty()),
        version: metadata.resource_version.filter(|version| !version.is_empty()),
    };
    match serde_json::from_slice::<WirePage<SlimPod>>(bytes) {
        Ok(wire) => Ok(page(wire.metadata, wire.items.into_iter().flatten().map(found).collect())),
        // Some pod of it is at fault, or it is no page at all: the second reading tells, pod by pod.
        Err(_) => {
            let wire: WirePage<Value> = parse(bytes)?;
            let each = |value: Value| match SlimPod::deserialize(&value) {
                Ok(pod) => found(pod),
                Err(error) => Found::Undecodable(undecodable(&value, error.to_string())),
            };
            Ok(page(wire.metadata, wire.items.into_iter().flatten().map(each).collect()))
        }
    }
}

fn decode_line(line: &[u8]) -> Result<Line, Trouble> {
    let pod = |mut pod: SlimPod| {
        let version = pod.take_version();
        (found(pod), version)
    };
    match serde_json::from_slice(line) {
        Ok(WireLine::Added(slim) | WireLine::Modified(slim)) => {
            let (found, version) = pod(slim);
            Ok(Line::Seen { found, version })
        }
        Ok(WireLine::Deleted(slim)) => {
            let (found, version) = pod(slim);
            Ok(Line::Left { found, version })
        }
        Ok(WireLine::Bookmark(Marked { metadata })) => Ok(Line::Bookmark {
            version: metadata.resource_version,
            initial_end: metadata.annotations.is_some_and(|all| all.get(INITIAL_END).is_some_and(|is| is == "true")),
        }),
        Ok(WireLine::Error(status)) => {
            // Old servers send no code in some of them.
            let gone = matches!(status.reason.as_deref(), Some("Gone" | "Expired"));
            let code = status.code.unwrap_or(if gone { 410 } else { 500 });
            Err(Trouble::answered(code, status.message.unwrap_or_default(), None))
        }
        Err(error) => undecodable_line(line, &error),
    }
}

fn undecodable_line(line: &[u8], why: &serde_json::Error) -> Result<Line, Trouble> {
    let AnyLine { r#type, object } = parse(line)?;
    let version = object["metadata"]["resourceVersion"].as_str().map(Into::into);
    let found = Found::Undecodable(undecodable(&object, why.to_string()));
    match r#type.as_str() {
        "ADDED" | "MODIFIED" => Ok(Line::Seen { found, version }),
        "DELETED" => Ok(Line::Left { found, version }),
        "BOOKMARK" => Ok(Line::Bookmark { version, initial_end: false }),
        _ => Err(Trouble::Garbled(format!("a line of the kind {:?}: {why}", cut(&r#type, 32)))),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Trouble> {
    serde_json::from_slice(bytes).map_err(|error| Trouble::Garbled(error.to_string()))
}

#[cfg(test)]
mod tests;
