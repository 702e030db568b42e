//! The one HTTP client that speaks to Vault.
//!
//! Owns the connections. It never follows a redirect to another host, never reads more than [`MAX_BODY`], never
//! waits longer than [`REQUEST_TIMEOUT`], and never retries: what may be asked twice is known to its callers alone.

use std::error::Error as StdError;
use std::time::Duration;

use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::redirect::Policy;
use url::Url;
use zeroize::Zeroizing;

use super::answer::Answer;
use super::call::{ApiPath, Call};
use super::error::{Fatal, classify};
use super::proxies::Proxies;
use crate::causes::with_causes;
use crate::domain::delivery::VaultTrouble;

/// For a connection, TLS included: Vault is near. A pod that waits is better served by a second try than by a long one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// For a whole request. A healthy Vault answers in milliseconds, one with slow storage in a second or two; what
/// takes longer is more likely lost, and its wrapping token would have aged already.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// No answer of ours is larger than a few KiB; a PEM bundle of many CAs may be.
const MAX_BODY: usize = 1024 * 1024;

/// Idle connections that are kept: as many as a burst has requests under way, so that it makes no new ones.
const MAX_IDLE_CONNECTIONS: usize = 64;

/// Shorter than the five minutes after which Vault closes an idle connection by default.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

const X_VAULT_TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const X_VAULT_REQUEST: HeaderName = HeaderName::from_static("x-vault-request");
const X_VAULT_NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
const X_VAULT_WRAP_TTL: HeaderName = HeaderName::from_static("x-vault-wrap-ttl");

/// See the module.
pub(super) struct Client {
    http: reqwest::Client,
    /// `vault.addr` up to and including `/v1/`.
    base: Url,
}

enum Got {
    Answer(Answer),
    Redirect(u16, Url),
}

impl Client {
    pub(super) fn new(
        address: &Url,
        namespace: Option<&str>,
        tls: Option<rustls::ClientConfig>,
        proxies: &Proxies,
    ) -> Result<Self, Fatal> {
        let mut headers = HeaderMap::new();
        // Vault Agent and Vault Proxy can be told to refuse requests without it.
        headers.insert(X_VAULT_REQUEST, HeaderValue::from_static("true"));
        if let Some(namespace) = namespace {
            let value = HeaderValue::from_str(namespace).map_err(|_| Fatal::Header { key: "vault.namespace" })?;
            headers.insert(X_VAULT_NAMESPACE, value);
        }
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            // Proxies are chosen here and nowhere else.
            .no_proxy();
        if let Some(proxy) = proxies.for_url(address)? {
            builder = builder.proxy(proxy);
        }
        // Over http none is used, but reqwest makes one of its own choice if it is given none.
        let tls = match tls {
            Some(tls) => tls,
            None => super::tls::client_config(&super::tls::Trust::Public, &super::options::Tls::default())?,
        };
        let http = builder.tls_backend_preconfigured(tls).build();
        let http = http.map_err(|cause| Fatal::Client(with_causes(&cause.without_url())))?;
        Ok(Self { http, base: base(address)? })
    }

    /// Sends `call`; a success is what Vault answered with 2xx.
    pub(super) async fn send(&self, call: &Call) -> Result<Answer, VaultTrouble> {
        let answer = self.exchange(call).await?;
        if answer.is_success() { Ok(answer) } else { Err(classify(&answer)) }
    }

    /// Sends `call`; any complete answer but a redirect is one.
    pub(super) async fn exchange(&self, call: &Call) -> Result<Answer, VaultTrouble> {
        let url = self.base.join(call.path.encoded());
        let url = url.map_err(|_| VaultTrouble::Unreachable("the request's path is no path".to_owned()))?;
        let (status, to) = match self.once(call, url.clone()).await? {
            Got::Answer(answer) => return Ok(answer),
            Got::Redirect(status, to) => (status, to),
        };
        // Only 307 and 308 leave a POST a POST.
        let followable = matches!(status, 307 | 308) || call.method == Method::GET;
        if followable && same_origin(&url, &to) {
            return match self.once(call, to).await? {
                Got::Answer(answer) => Ok(answer),
                Got::Redirect(_, to) => Err(VaultTrouble::Redirected(format!("{}, for the second time", host(&to)))),
            };
        }
        Err(self.name_redirect(status, &url, &to).await)
    }

    async fn once(&self, call: &Call, url: Url) -> Result<Got, VaultTrouble> {
        let mut request = self.http.request(call.method.clone(), url.clone());
        if let Some(token) = &call.token {
            request = request.header(X_VAULT_TOKEN, token.header());
        }
        if let Some(ttl) = &call.wrap_ttl {
            request = request.header(X_VAULT_WRAP_TTL, ttl.clone());
        }
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json")).body(body.clone());
        }
        let response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        if let Some(location) = response.headers().get(LOCATION).filter(|_| matches!(status, 301..=303 | 307 | 308)) {
            let to = location.to_str().ok().and_then(|location| url.join(location).ok());
            let to = to.ok_or_else(|| VaultTrouble::Redirected("it is not said to which".to_owned()))?;
            return Ok(Got::Redirect(status, to));
        }
        let retry_after = retry_after(response.headers());
        let body = read(response).await?;
        Ok(Got::Answer(Answer { status, retry_after, body, asked_with: call.token.clone() }))
    }

    /// A standby that does not forward redirects to the active node; `sys/health`, which needs no token, tells.
    async fn name_redirect(&self, status: u16, from: &Url, to: &Url) -> VaultTrouble {
        if status == 307 && from.path() == to.path() {
            let health = self.base.join(ApiPath::default().then("sys/health").encoded());
            let health = match health {
                Ok(url) => self.once(&Call::get(ApiPath::default()), url).await,
                Err(_) => return VaultTrouble::Redirected(host(to)),
            };
            if let Ok(Got::Answer(answer)) = health
                && (matches!(answer.status, 472 | 473) || answer.says_standby())
            {
                return VaultTrouble::Standby;
            }
        }
        VaultTrouble::Redirected(host(to))
    }
}

/// `address` with `/v1/`: it may have a path of its own, where Vault is behind something.
fn base(address: &Url) -> Result<Url, Fatal> {
    let mut base = address.clone();
    base.set_query(None);
    base.set_fragment(None);
    base.path_segments_mut()
        .map_err(|()| Fatal::Address("it cannot have a path".to_owned()))?
        .pop_if_empty()
        .extend(["v1", ""]);
    Ok(base)
}

fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host() == b.host() && a.port_or_known_default() == b.port_or_known_default()
}

fn host(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// `Retry-After` in seconds; its form with a date is not sent by Vault, nor by what usually stands before it.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

async fn read(mut response: reqwest::Response) -> Result<Zeroizing<Vec<u8>>, VaultTrouble> {
    let expected = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    // Growing would leave copies behind that nobody wipes.
    let mut body = Zeroizing::new(Vec::with_capacity(expected.clamp(TYPICAL_BODY, MAX_BODY)));
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(VaultTrouble::WrongAnswer(format!("it is longer than {MAX_BODY} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// More than any answer with a secret in it has.
const TYPICAL_BODY: usize = 4 * 1024;

/// A request without a complete answer, in words that help.
fn failed(error: reqwest::Error) -> VaultTrouble {
    let error = error.without_url();
    if error.is_timeout() && !error.is_connect() {
        return VaultTrouble::TimedOut;
    }
    if error.is_timeout() {
        return VaultTrouble::Unreachable(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()));
    }
    let causes = match error.source() {
        // The outermost words only say that there was a request.
        Some(cause) => with_causes(cause),
        None => error.to_string(),
    };
    // A CA of the right name with another key is a bad signature.
    let remedy = if causes.contains("UnknownIssuer") || causes.contains("BadSignature") {
        "; name the CA that issued Vault's certificate by vault.tls.caCert or vault.tls.vaultCABackends"
    } else if causes.contains("not valid for name") {
        "; if the certificate is the right one name what it is issued for by vault.tls.serverName"
    } else if causes.contains("alert: CertificateRequired") {
        "; Vault wants a certificate of the controller: name one by vault.tls.clientCert and vault.tls.clientKey"
    } else if ["UnknownCA", "BadCertificate"].iter().any(|alert| causes.contains(&format!("alert: {alert}"))) {
        "; Vault does not believe the certificate of the controller: that of vault.tls.clientCert has to be of a CA in \
         tls_client_ca_file of Vault's listener"
    } else {
        ""
    };
    VaultTrouble::Unreachable(format!("{causes}{remedy}"))
}

#[cfg(test)]
mod tests;
