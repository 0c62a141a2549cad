//! A process's connection to the Runtime API, on which every write is on its way at once.
//!
//! The Rust runtime leaves Nagle's algorithm on: a small write waits there until the one before it is acknowledged, and an
//! acknowledgement that is put off costs 40 ms, between a prelude and its delimiter to begin with. So this side
//! acknowledges at once. Linux forgets that it was told to (tcp(7), `TCP_QUICKACK`), hence after every read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// See the module.
pub(super) struct Connection(TcpStream);

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        // Without this a response waits for the acknowledgement of its head.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection to the Runtime API has no TCP_NODELAY");
        }
        let connection = Self(stream);
        connection.acknowledge_at_once();
        connection
    }

    #[cfg(target_os = "linux")]
    fn acknowledge_at_once(&self) {
        if let Err(error) = self.0.set_quickack(true) {
            tracing::debug!(%error, "a connection to the Runtime API has no TCP_QUICKACK");
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn acknowledge_at_once(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_read(context, buffer))?;
        self.acknowledge_at_once();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
