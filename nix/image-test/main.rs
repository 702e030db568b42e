//! Runs the programs of the images as the strictest cluster would: as a user id that nobody chose, without capabilities,
//! in a root that holds the image's files, `/etc/hosts` and `/etc/resolv.conf`, and cannot be written to.
//!
//! Owns: the servers on loopback that the controller is to find by its names. image-test.nix makes the roots and the
//! namespaces around it. Plain Rust without a crate, so that a compiler is all that it takes.
#![forbid(unsafe_code)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// Any but the image's own and but root.
const USER: &str = "12345";
const VAULT_PORT: u16 = 8200;
/// Where the name of the root's `/etc/hosts` leads.
const BY_HOSTS: (&str, Ipv4Addr) = ("vault.hosts.test", Ipv4Addr::new(127, 0, 0, 2));
/// Where our name server leads.
const BY_DNS: (&str, Ipv4Addr) = ("vault.dns.test", Ipv4Addr::new(127, 0, 0, 3));
/// Nothing but loopback is asked, but the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

type Checked = Result<(), String>;

fn main() -> Checked {
    let roots = std::env::args().nth(1).ok_or("usage: image-test FOLDER_OF_ROOTS")?;
    let root = |image: &str| format!("{roots}/{image}");
    says(&root("controller"), &["/bin/kubernetes-vault", "version"], "Kubernetes-Vault controller ")?;
    says(&root("init"), &["/kubernetes-vault-init", "version"], "Kubernetes-Vault init container ")?;
    says(&root("sample-app"), &["/sample-app"], "sample-app: ")?;
    finds_by_name(&root("controller"))
}

/// The program starts, and it is the right one.
fn says(root: &str, command: &[&str], words: &str) -> Checked {
    let said = run(root, command)?;
    if said.contains(words) { Ok(()) } else { Err(format!("{command:?} printed {said:?}, and not {words:?}")) }
}

/// A static glibc resolves names by itself: by `/etc/hosts` and by DNS, without a library beside it.
fn finds_by_name(root: &str) -> Checked {
    thread::spawn(answer_dns_queries);
    for (name, address) in [BY_HOSTS, BY_DNS] {
        let asked = listen(SocketAddrV4::new(address, VAULT_PORT))?;
        let said = run(root, &["/bin/kubernetes-vault", "check", "--config", &format!("/{name}.yml")])?;
        let wanted = format!("{name}:{VAULT_PORT}");
        let host = asked.recv_timeout(PATIENCE).map_err(|_| format!("nobody asked {name} ({address}): {said}"))?;
        if host != wanted {
            return Err(format!("{address} was asked for {host:?}, and not for {wanted:?}"));
        }
    }
    Ok(())
}

/// Runs it in `root` as `USER`; its exec without ambient capabilities gives up those of the namespace.
fn run(root: &str, command: &[&str]) -> Result<String, String> {
    let output = Command::new("unshare")
        .args(["--user", &format!("--map-user={USER}"), &format!("--map-group={USER}"), &format!("--root={root}"), "--"])
        .args(command)
        .env_clear()
        .env("KUBECONFIG", "/kubeconfig.yml")
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .output()
        .map_err(|error| format!("cannot start unshare (util-linux): {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// A server that is no Vault. Tells the Host of the first request to it.
fn listen(address: SocketAddrV4) -> Result<Receiver<String>, String> {
    let listener = TcpListener::bind(address).map_err(|error| format!("cannot listen at {address}: {error}"))?;
    let (tell, asked) = channel();
    thread::spawn(move || serve(&listener, &tell));
    Ok(asked)
}

fn serve(listener: &TcpListener, tell: &Sender<String>) {
    for stream in listener.incoming().flatten() {
        let mut lines = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        let host = lines.find_map(|line| line.to_lowercase().strip_prefix("host: ").map(str::to_owned));
        // What the other side makes of the answer is no concern of this test.
        let _ = (&stream).write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        if tell.send(host.unwrap_or_default()).is_err() {
            return;
        }
    }
}

/// A name server that knows one address.
fn answer_dns_queries() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).expect("port 53 is ours in this namespace");
    let mut query = [0; 512];
    while let Ok((length, asker)) = socket.recv_from(&mut query) {
        if let Some(answer) = answer(&query[..length]) {
            // Who asked may be gone.
            let _ = socket.send_to(&answer, asker);
        }
    }
}

/// The answer to a query of one question (RFC 1035): an address for `BY_DNS`, and for others that there is no such name.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let mut labels = Vec::new();
    let mut at = HEADER;
    while *query.get(at)? != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(std::str::from_utf8(query.get(at + 1..end)?).ok()?);
        at = end;
    }
    let question = query.get(HEADER..at + 5)?;
    let is_ours = labels.join(".").eq_ignore_ascii_case(BY_DNS.0);
    let wants_ipv4 = question[question.len() - 4..] == [0, 1, 0, 1];
    let mut out = query[..2].to_vec();
    out.extend([0x81, if is_ours { 0x80 } else { 0x83 }, 0, 1, 0, u8::from(is_ours && wants_ipv4), 0, 0, 0, 0]);
    out.extend(question);
    if is_ours && wants_ipv4 {
        // The name of the question; an IPv4 address of the Internet; for a minute; four bytes.
        out.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        out.extend(BY_DNS.1.octets());
    }
    Some(out)
}
