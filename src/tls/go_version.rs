//! Whether a peer is still the Go version.
//!
//! Purpose: a cluster that is moved from the Go version one replica after the other does not form, and the reason
//! shall have a name. That version gossips in clear with HashiCorp's memberlist, which answers a ping over TCP.
//!
//! Owns the ping and what counts as an answer to it. Tells the peer nothing about us, and believes nothing but the
//! form of what it says: the result is for a message, never for a decision about membership.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For connecting, asking and being answered: memberlist answers at once.
const LIMIT: Duration = Duration::from_secs(1);

/// Message type `ping`, then MessagePack: `{"SeqNo": 1, "Node": ""}`. No node's name: whoever is there shall answer.
const PING: &[u8] = b"\x00\x82\xa5SeqNo\x01\xa4Node\xa0";

/// Message type `ackResp`, as it comes where compression is off.
const ACK: u8 = 2;

/// Message type `compress`, around the answer. Compression is on unless it was turned off.
const COMPRESSED: u8 = 9;

/// An answer has some 40 bytes; more is not read.
const ANSWER_BYTES_MAX: u64 = 256;

/// Whether the Go version's gossip answers at `gossip`. `false` also where nobody does.
pub async fn speaks_go_version(gossip: SocketAddr) -> bool {
    matches!(timeout(LIMIT, ask(gossip)).await, Ok(Ok(answer)) if is_ack(&answer))
}

async fn ask(gossip: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(gossip).await?;
    stream.write_all(PING).await?;
    let mut answer = Vec::new();
    let mut stream = stream.take(ANSWER_BYTES_MAX);
    // It closes the connection after its answer; a peer that does not has our attention for no longer than the limit.
    while !is_ack(&answer) && stream.read_buf(&mut answer).await? > 0 {}
    Ok(answer)
}

/// The type, then a map of two with the field that such a message has: more than one byte that anybody may send.
fn is_ack(answer: &[u8]) -> bool {
    let holds = |field: &[u8]| answer.windows(field.len()).any(|window| window == field);
    match answer {
        [ACK, 0x82, ..] => holds(b"\xa5SeqNo\x01"),
        [COMPRESSED, 0x82, ..] => holds(b"\xa4Algo\x00"),
        _ => false,
    }
}
