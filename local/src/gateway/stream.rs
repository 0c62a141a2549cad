//! An answer in transfer mode STREAM: its prelude, and then every piece as it comes.
//!
//! Nothing is held back or put together: the head goes out when the prelude is complete, and what a function writes leaves
//! in the pieces in which it came. What can't go on is cut, so that a client can tell it from an end.
//!
//! Rules: <https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode-lambda.html>. Not here: the
//! 2 MB/s to which the real one throttles a stream after its first 10 MB.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, stream};
use http::Response;
use tokio::time::{Instant, timeout_at};

use super::access_log::{AccessLogEntry, StreamEnd, StreamLog};
use super::invoke::PayloadStream;
use super::response;
use super::serve::Service;

/// Why there is no answer to begin with.
#[derive(Debug)]
pub(super) enum Unopened {
    Failed,
    /// What was written is not a prelude and its delimiter; with what is wrong, for the log.
    Malformed(String),
}

/// What follows a prelude.
pub(super) struct Streamed {
    /// What came with the prelude.
    first: Bytes,
    payload: PayloadStream,
    /// When the integration's time is over.
    until: Instant,
    /// How long nothing may come.
    idle: Duration,
}

/// A stream that ended before its time. The server drops the connection for it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the stream was cut")]
pub(super) struct Cut;

/// Reads the prelude of a payload.
pub(super) async fn open(
    mut payload: PayloadStream,
    trace_id: &str,
    until: Instant,
    idle: Duration,
) -> Result<Response<Streamed>, Unopened> {
    let mut read = BytesMut::new();
    let end = loop {
        if let Some(end) = response::prelude_end(&read) {
            break end;
        }
        if read.len() >= response::PRELUDE_LIMIT {
            let limit = response::PRELUDE_LIMIT;
            return Err(Unopened::Malformed(format!("no delimiter in the first {limit} bytes")));
        }
        match payload.next().await {
            Some(Ok(piece)) => read.extend_from_slice(&piece),
            Some(Err(_)) => return Err(Unopened::Failed),
            None => return Err(Unopened::Malformed("it ended without a delimiter".to_owned())),
        }
    };
    let prelude = read.split_to(end);
    let first = read.split_off(response::DELIMITER.len()).freeze();
    let head = response::prelude(&prelude, trace_id).map_err(Unopened::Malformed)?;
    Ok(head.map(|()| Streamed {
        first,
        payload,
        until,
        idle,
    }))
}

impl Streamed {
    /// The client's body; its end, whatever it is, is recorded before the client can see it.
    pub(super) fn into_body(self, record: Record) -> impl Stream<Item = Result<Bytes, Cut>> + Send {
        stream::unfold(Some((self, record)), |state| async {
            let (mut streamed, mut record) = state?;
            match streamed.next().await {
                Ok(Some(piece)) => {
                    record.passed(&piece);
                    Some((Ok(piece), Some((streamed, record))))
                }
                Ok(None) => {
                    record.end(StreamEnd::Complete);
                    None
                }
                Err(end) => {
                    // Pending for once: the server then writes what it has, which it would lose with the connection.
                    tokio::task::yield_now().await;
                    record.end(end);
                    Some((Err(Cut), None))
                }
            }
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, StreamEnd> {
        if !self.first.is_empty() {
            return Ok(Some(std::mem::take(&mut self.first)));
        }
        let idle = Instant::now() + self.idle;
        let next = timeout_at(self.until.min(idle), async {
            // An empty piece is no byte on the wire: the connection stays idle.
            loop {
                match self.payload.next().await {
                    Some(Ok(piece)) if piece.is_empty() => {}
                    other => return other,
                }
            }
        });
        match next.await {
            Ok(Some(Ok(piece))) => Ok(Some(piece)),
            Ok(None) => Ok(None),
            Ok(Some(Err(failed))) => {
                let error = String::from_utf8_lossy(&failed.document).into_owned();
                tracing::warn!(error, "the function failed in the middle of a stream");
                Err(StreamEnd::FunctionFailed)
            }
            Err(_elapsed) if self.until <= idle => Err(StreamEnd::IntegrationTimeout),
            Err(_elapsed) => Err(StreamEnd::Idle),
        }
    }
}

/// What is written to the access log when a stream has ended. If it is dropped before, the client has left.
pub(super) struct Record {
    service: Arc<Service>,
    started: std::time::Instant,
    entry: Option<AccessLogEntry>,
    log: StreamLog,
}

impl Record {
    /// For an entry that has everything but its end.
    pub(super) fn new(service: Arc<Service>, started: std::time::Instant, entry: AccessLogEntry) -> Self {
        Self {
            service,
            started,
            entry: Some(entry),
            log: StreamLog {
                first_byte: None,
                bytes: 0,
                end: StreamEnd::Abandoned,
            },
        }
    }

    fn passed(&mut self, piece: &Bytes) {
        self.log.first_byte.get_or_insert(self.started.elapsed());
        self.log.bytes += u64::try_from(piece.len()).unwrap_or(u64::MAX);
    }

    fn end(&mut self, end: StreamEnd) {
        self.log.end = end;
        if let Some(entry) = self.entry.take() {
            self.service.log.push(AccessLogEntry {
                latency: self.started.elapsed(),
                stream: Some(self.log.clone()),
                ..entry
            });
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.end(StreamEnd::Abandoned);
    }
}
