//! The section `vault`, apart from how to log in.
//!
//! Owns the address, which pods get as it is written, and the rules about `vault.tls`.

use std::path::{Path, PathBuf};

use rustls::pki_types::ServerName;
use url::Url;

use super::files::readable;
use super::lenient::{Context, Section, Setting};
use super::login::{self, Login};
use super::names::mount_path;
use super::rules::{check_pair, mount, mounts};
use super::ttl::{self, WrappingTtl};

/// How to reach Vault, and what to ask of it. No `Debug`: it may hold a token.
#[derive(Clone)]
pub struct Vault {
    /// `vault.addr` (required).
    pub addr: VaultAddr,
    /// Exactly one of `vault.token`, `vault.tokenFile` and `vault.kubernetesAuth`.
    pub login: Login,
    /// `vault.skipTokenRoleNameValidation`: take a `vault.token` that does not come from a token role. Default
    /// false.
    pub skip_token_role_name_validation: bool,
    /// `vault.namespace`: the Vault namespace of AppRole, PKI and the login, without slashes at its ends. Not set:
    /// the root namespace.
    pub namespace: Option<String>,
    /// `vault.approleMount`: where AppRole is mounted, without `auth/` and without slashes at its ends. Default
    /// `approle`.
    pub approle_mount: String,
    /// `vault.wrappingTTL`: how long a wrapped secret_id can be unwrapped. Seconds or a duration; goes to Vault as
    /// written. Default `60s`.
    pub wrapping_ttl: WrappingTtl,
    /// `vault.tls`.
    pub tls: VaultTls,
}

/// `vault.addr`: an `http` or `https` URL. No `Debug`: it may hold a password.
#[derive(Clone)]
pub struct VaultAddr {
    text: String,
    url: Url,
}

impl VaultAddr {
    /// Reads an address; `None` where it is none.
    pub fn parse(text: &str) -> Option<Self> {
        // The parser would drop white space silently, and pods would get an address that theirs may refuse.
        let is_clean = !text.chars().any(|c| c.is_whitespace() || c.is_control());
        // The parser would also take `http:host`, `http:///host` and `http://host\path`, which Go reads otherwise.
        let is_plain = text.split_once("://").is_some_and(|(scheme, rest)| {
            (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"))
                && !rest.starts_with('/')
                && !rest.contains('\\')
        });
        let url = Url::parse(text).ok()?;
        let is_whole = url.has_host() && url.query().is_none() && url.fragment().is_none();
        (is_clean && is_plain && is_whole).then(|| Self { text: text.to_owned(), url })
    }

    /// The address byte for byte as in the file (environment variables expanded): what pods get.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The address parsed, for our own requests.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Whether Vault is spoken to over TLS.
    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }
}

/// `vault.tls`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VaultTls {
    /// Which CAs verify Vault.
    pub roots: VaultRoots,
    /// `vault.tls.serverName`: the name that Vault's certificate must have. Default: the host of `vault.addr`.
    pub server_name: Option<String>,
    /// The certificate that we show to Vault.
    pub client: Option<ClientCertificate>,
}

/// Which CAs verify Vault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VaultRoots {
    /// The public ones: nothing is configured.
    Public,
    /// `vault.tls.vaultCABackends`: the CAs of these PKI mounts, read from `<addr>/v1/<mount>/ca/pem`.
    PkiMounts {
        /// The mounts.
        mounts: Vec<String>,
        /// `vault.tls.caFingerprint`: SHA-256 of the certificates that may be read there; empty: whatever is read
        /// first is trusted.
        fingerprints: Vec<[u8; 32]>,
    },
    /// `vault.tls.caCert`: a PEM bundle, absolute path.
    File(PathBuf),
}

/// A client certificate and its key, PEM files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientCertificate {
    /// `vault.tls.clientCert`.
    pub cert: PathBuf,
    /// `vault.tls.clientKey`.
    pub key: PathBuf,
}

pub(super) fn read(section: &Section<'_>, cx: &mut Context<'_>) -> Option<Vault> {
    let addr = read_addr(section, cx);
    let login = login::read(section, cx);
    let skip_token_role_name_validation = section.flag("skipTokenRoleNameValidation", cx);
    let namespace = match section.text("namespace", cx) {
        Some(setting) => read_namespace(&setting, cx).map(Some),
        None => Some(None),
    };
    let approle_mount = match section.text("approleMount", cx) {
        Some(setting) => read_approle_mount(&setting, cx),
        None => Some("approle".to_owned()),
    };
    let wrapping_ttl = match section.text("wrappingTTL", cx) {
        Some(setting) => {
            let ttl = WrappingTtl::parse(&setting.value);
            if ttl.is_none() {
                cx.problem(&setting.spot, ttl::ACCEPTED);
            }
            ttl
        }
        None => Some(WrappingTtl::default()),
    };
    let tls = read_tls(&section.section("tls", cx), cx);
    if let (Some(addr), Some(tls)) = (&addr, &tls) {
        let tls_is_set = tls.roots != VaultRoots::Public || tls.server_name.is_some() || tls.client.is_some();
        if tls_is_set && !addr.is_https() {
            cx.warn(&section.spot("tls"), "has no effect: vault.addr is an http:// address");
        }
    }
    Some(Vault {
        addr: addr?,
        login: login?,
        skip_token_role_name_validation,
        namespace: namespace?,
        approle_mount: approle_mount?,
        wrapping_ttl: wrapping_ttl?,
        tls: tls?,
    })
}

fn read_addr(section: &Section<'_>, cx: &mut Context<'_>) -> Option<VaultAddr> {
    let Some(Setting { value: text, spot }) = section.text("addr", cx) else {
        cx.problem(&section.spot("addr"), "is required: the URL of Vault, such as https://vault.example:8200");
        return None;
    };
    let addr = VaultAddr::parse(&text);
    if addr.is_none() {
        cx.problem(
            &spot,
            "must be an http:// or https:// URL with a host, such as https://vault.example:8200: no spaces, no ? or #",
        );
    }
    addr
}

fn read_namespace(setting: &Setting<String>, cx: &mut Context<'_>) -> Option<String> {
    let path = mount_path(&setting.value);
    if path.is_none() {
        cx.problem(&setting.spot, "must be the path of a Vault namespace, such as team or org/team");
    }
    path
}

fn read_approle_mount(setting: &Setting<String>, cx: &mut Context<'_>) -> Option<String> {
    let path = mount(setting, cx)?;
    if path.starts_with("auth/") {
        cx.warn(&setting.spot, "starts with auth/: the mount is named without it, so this means auth/auth/...");
    }
    Some(path)
}

fn read_tls(section: &Section<'_>, cx: &mut Context<'_>) -> Option<VaultTls> {
    let roots = read_roots(section, cx);
    let server_name = match section.text("serverName", cx) {
        None => Some(None),
        Some(setting) if ServerName::try_from(setting.value.as_str()).is_ok() => Some(Some(setting.value)),
        Some(setting) => {
            cx.problem(&setting.spot, "must be a DNS name or an IP address");
            None
        }
    };
    let cert = section.text("clientCert", cx);
    let key = section.text("clientKey", cx);
    check_pair(section, [("clientCert", &cert), ("clientKey", &key)], cx);
    let cert = cert.and_then(|setting| readable(setting, cx));
    let key = key.and_then(|setting| readable(setting, cx));
    let client = cert.zip(key).map(|(cert, key)| ClientCertificate { cert, key });
    Some(VaultTls { roots: roots?, server_name: server_name?, client })
}

fn read_roots(section: &Section<'_>, cx: &mut Context<'_>) -> Option<VaultRoots> {
    let backends = section.list("vaultCABackends", cx);
    let file = section.text("caCert", cx);
    let pins = section.list("caFingerprint", cx);
    if let (Some(backends), Some(_)) = (&backends, &file) {
        cx.problem(
            &backends.spot,
            "and vault.tls.caCert contradict each other: verify Vault by the CAs of its PKI mounts or by a file, not \
             both",
        );
    }
    if let (Some(pins), None) = (&pins, &backends) {
        // Whoever sets it believes that something is pinned.
        cx.problem(&pins.spot, "needs vault.tls.vaultCABackends: it pins the CA that is read from there");
    }
    let fingerprints = pins.map(|pins| read_fingerprints(&pins.value, cx)).unwrap_or_default();
    match (backends, file) {
        (Some(backends), _) => Some(VaultRoots::PkiMounts { mounts: mounts(&backends.value, cx), fingerprints }),
        (None, Some(file)) => {
            if !Path::new(&file.value).is_absolute() {
                cx.problem(&file.spot, "must be the absolute path of a PEM file");
                return None;
            }
            readable(file, cx).map(VaultRoots::File)
        }
        (None, None) => Some(VaultRoots::Public),
    }
}

fn read_fingerprints(settings: &[Setting<String>], cx: &mut Context<'_>) -> Vec<[u8; 32]> {
    let mut fingerprints = Vec::with_capacity(settings.len());
    for setting in settings {
        match parse_fingerprint(&setting.value) {
            Some(fingerprint) => fingerprints.push(fingerprint),
            None => cx.problem(
                &setting.spot,
                "must be the SHA-256 of a certificate: 64 hexadecimal digits, with or without colons, as printed by \
                 \"openssl x509 -noout -fingerprint -sha256\"",
            ),
        }
    }
    fingerprints
}

fn parse_fingerprint(text: &str) -> Option<[u8; 32]> {
    // openssl prints `sha256 Fingerprint=AB:CD:...`, others `SHA256:abcd...`.
    let tail = text.rsplit('=').next()?.trim();
    let digits = tail.get(..7).filter(|head| head.eq_ignore_ascii_case("sha256:")).map_or(tail, |_| &tail[7..]);
    let digits: Vec<u8> = digits
        .chars()
        .filter(|&c| c != ':')
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}
