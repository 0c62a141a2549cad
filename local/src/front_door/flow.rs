//! A streamed answer on its way out: counted, recorded, and met by faults.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, stream};

use super::Dropped;
use crate::event_stream;
use crate::fault::{StreamEffect, StreamFault};
use crate::record::{StreamEnd, StreamRecord};

/// The events of one answer. Whoever drops it before its end has left.
pub(super) struct Flow {
    events: BoxStream<'static, Bytes>,
    fault: Option<StreamFault>,
    record: StreamRecord,
    sent: usize,
    /// Whether what was sent has had its chance to leave, before the connection is cut.
    flushed: bool,
    over: bool,
}

impl Flow {
    pub(super) fn new(events: BoxStream<'static, Bytes>, fault: Option<StreamFault>, record: StreamRecord) -> Self {
        Self {
            events,
            fault,
            record,
            sent: 0,
            flushed: false,
            over: false,
        }
    }

    /// Nothing comes any more, and whoever made the events learns of it at once.
    fn end(&mut self, end: StreamEnd) {
        self.over = true;
        self.events = stream::empty().boxed();
        self.record.ended(end);
    }
}

impl Stream for Flow {
    type Item = Result<Bytes, Dropped>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        if let Some(fault) = &this.fault
            && this.sent >= fault.after
        {
            return match &fault.effect {
                // hyper forgets what it has not written when a body fails, and writes when a body is not ready.
                StreamEffect::Cut if !this.flushed => {
                    this.flushed = true;
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
                StreamEffect::Cut => {
                    this.end(StreamEnd::Faulted);
                    Poll::Ready(Some(Err(Dropped)))
                }
                // Nobody wakes this task but the connection, when the client leaves.
                StreamEffect::Stall => Poll::Pending,
                StreamEffect::Exception { kind, message } => {
                    let event = event_stream::exception(kind, message);
                    this.record.sent();
                    this.end(StreamEnd::Faulted);
                    Poll::Ready(Some(Ok(event)))
                }
            };
        }
        match ready!(this.events.poll_next_unpin(context)) {
            Some(event) => {
                this.sent += 1;
                this.record.sent();
                Poll::Ready(Some(Ok(event)))
            }
            None => {
                this.end(StreamEnd::Complete);
                Poll::Ready(None)
            }
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        if !self.over {
            self.end(StreamEnd::Abandoned);
        }
    }
}
