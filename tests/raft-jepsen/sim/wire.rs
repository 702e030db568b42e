//! Raft's `Network`, on the simulated one.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use kubernetes_vault::domain::peers::Silence;
use kubernetes_vault::raft::rpc::network::{Acceptor, Connection, Incoming, Network};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::world::Shared;

/// The network of the controller at `ip`.
pub(crate) struct Wire {
    pub(crate) ip: IpAddr,
    pub(crate) world: Shared,
}

/// One end of a connection.
struct End {
    world: Shared,
    id: u64,
    side: usize,
}

struct Listening {
    ip: IpAddr,
    world: Shared,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.world.lock().net.unlisten(self.ip);
    }
}

#[async_trait]
impl Acceptor for Listening {
    async fn accept(&mut self) -> io::Result<Incoming> {
        let (from, id) = poll_fn(|context| match self.world.lock().net.accept(self.ip, context.waker()) {
            Some(accepted) => Poll::Ready(accepted),
            None => Poll::Pending,
        })
        .await;
        let connection: Connection = Box::new(End { world: self.world.clone(), id, side: 1 });
        Ok(Incoming { from, handshake: Box::pin(async move { Ok(connection) }) })
    }
}

#[async_trait]
impl Network for Wire {
    async fn bind(&self, _address: SocketAddr) -> io::Result<Box<dyn Acceptor>> {
        self.world.lock().net.listen(self.ip);
        Ok(Box::new(Listening { ip: self.ip, world: self.world.clone() }))
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Connection> {
        let id = self.world.lock().net.dial(self.ip, address.ip());
        // Dropped when the dial is given up: the other end hears of it.
        let end = End { world: self.world.clone(), id, side: 0 };
        poll_fn(|context| match end.world.lock().net.dialled(id, context.waker()) {
            Some(dialled) => Poll::Ready(dialled),
            None => Poll::Pending,
        })
        .await?;
        Ok(Box::new(end))
    }

    async fn diagnose(&self, _address: SocketAddr, error: &io::Error) -> Silence {
        if error.kind() == io::ErrorKind::ConnectionRefused { Silence::Refused } else { Silence::TimedOut }
    }

    fn explain(&self, error: &io::Error) -> String {
        error.to_string()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.world.lock().net.hang_up(self.id, self.side);
    }
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let arrived = self.world.lock().net.receive(self.id, self.side, into.remaining(), context.waker());
        match arrived {
            Some(bytes) => {
                into.put_slice(&bytes);
                Poll::Ready(Ok(()))
            }
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, _context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.world.lock().net.send(self.id, self.side, bytes).map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
