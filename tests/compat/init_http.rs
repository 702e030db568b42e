//! init-http.txt: what the init container answers to what is no push.

use anyhow::{Context as _, Result, bail, ensure};

use crate::case::Case;
use crate::go_controller::{Reply, exchange, push};
use crate::pod::Pod;
use crate::tls::BOTH;
use crate::vectors::{Section, sections};
use crate::world::World;

/// Our answer where it is not the recorded one, and the rule.
const OURS: &[(&str, &str, u16, &str)] = &[(
    "POST",
    "//",
    404,
    "reference-behaviour, section 2: 404 for another path. The 301 came from Go's router, and its client never asks for //",
)];

/// A case for each recorded call of curl; each shows afterwards that the init container still waits.
pub(crate) fn cases() -> Vec<Case> {
    sections("init-http.txt").into_iter().map(|section| Case::of(section, move |world| check(world, section))).collect()
}

async fn check(world: &World, section: Section) -> Result<()> {
    let curl = Curl::read(section.title)?;
    let pod = Pod::new(world).await?;
    let init = pod.listening(&[]).await?;
    let reply = exchange(pod.address(), BOTH, &curl.request(&pod)).await?;
    match OURS.iter().find(|(method, path, ..)| *method == curl.method && *path == curl.path) {
        Some((.., status, rule)) => ensure!(reply.status() == *status, "{rule}: {reply:?}"),
        None => same(&reply, section)?,
    }
    let good = world.wrap().await?.body(&world.vault, "null");
    let reply = push(pod.address(), BOTH, &good).await?;
    ensure!(reply.status() == 200, "it waits no more: {reply:?}\n{}", init.printed());
    pod.expect_done(&init.end().await?, &["vault-token"])
}

/// Status line, headers but the date, and body are the recorded ones.
fn same(reply: &Reply, section: Section) -> Result<()> {
    let (head, body) = section.text.split_once("\r\n\r\n").context("a recorded answer has no end of its head")?;
    let mut lines = head.lines();
    ensure!(Some(reply.status_line.as_str()) == lines.next(), "{reply:?}");
    for line in lines.filter(|line| !line.starts_with("Date: ")) {
        ensure!(reply.has(line), "no {line:?}: {reply:?}");
    }
    ensure!(reply.headers.iter().any(|line| line.to_ascii_lowercase().starts_with("date: ")), "no date: {reply:?}");
    // The recorder ended each body with a line break.
    ensure!(reply.body == body.trim_end_matches('\n'), "{reply:?}");
    Ok(())
}

/// A recorded call.
struct Curl {
    method: String,
    path: String,
    data: Option<String>,
}

impl Curl {
    fn read(line: &str) -> Result<Self> {
        let mut words = line.split(' ');
        ensure!(words.next() == Some("curl"), "{line:?} is no call of curl");
        let (mut method, mut data, mut url) = (None, None, None);
        while let Some(word) = words.next() {
            match word {
                "-X" => method = words.next(),
                "-d" => data = words.next(),
                "-I" | "--http1.1" => {}
                _ if word.starts_with("https://") => url = Some(word),
                _ => bail!("{word:?} is an option that this suite does not know"),
            }
        }
        let path = url.and_then(|url| url.split_once(":50000")).context("no URL")?.1;
        let method = method.context("no method")?.to_owned();
        Ok(Self { method, path: path.to_owned(), data: data.map(str::to_owned) })
    }

    fn request(&self, pod: &Pod) -> String {
        let Self { method, path, data } = self;
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n", pod.address());
        if let Some(data) = data {
            let length = data.len();
            let form = "application/x-www-form-urlencoded";
            request.push_str(&format!("Content-Length: {length}\r\nContent-Type: {form}\r\n\r\n{data}"));
        } else {
            request.push_str("\r\n");
        }
        request
    }
}
